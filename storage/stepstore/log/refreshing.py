"""Keep a read-only opening up with the process that writes: take up the frames and segments that have appeared.

Nothing is judged. A frame that is not sound is "not yet", and looked at again the next time.
"""

from __future__ import annotations

import errno
import posixpath
from contextlib import suppress
from typing import TYPE_CHECKING

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log.files import FileSystem
from stepstore.log.frame import DirectoryEntry, FrameHeader
from stepstore.log.index import LogIndex
from stepstore.log.listing import again_if_replaced
from stepstore.log.live_index import LiveIndex
from stepstore.log.names import parse_segment_name
from stepstore.log.recovered import Recovered
from stepstore.log.recovery import recover
from stepstore.log.scan import Window, open_for_reading, scan_segment

if TYPE_CHECKING:
    from stepstore.log.opening import OpenLog


def refresh(log: OpenLog) -> None:
    """Take up what has become readable since the log was opened for reading, or refreshed. Blocks.

    Raises: `RecoveryFailed`.
    """
    newest = log.index.segments[-1] if log.index.segments else None
    if newest is not None and isinstance(newest.index, LiveIndex) and _names(log.files, log.path) == _known(log.index):
        _go_on(log)
        return
    if newest is not None and newest.sealed and _names(log.files, log.path) == _known(log.index):
        return
    _look_again_if_whole(log)


def _look_again_if_whole(log: OpenLog) -> None:
    with suppress(CorruptLog):  # seen half way through a change; the next time it is whole
        look_again(log)


def look_again(log: OpenLog) -> bool:
    """List the files anew, because one of them is gone or another one there. Blocks. False if they are the same.

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    before = log.paths
    log.reading.close()  # it opens again what is asked for; a sidecar may have been replaced under its name

    def look() -> Recovered:
        return recover(log.files, log.path, log.identity, live=True, reading=log.reading)

    found = again_if_replaced(log.files, log.path, look)
    log.index.take_over(found.index)
    log.manifest, log.end_lsn = found.manifest, found.end_lsn
    return log.paths != before


def _go_on(log: OpenLog) -> None:
    """Follow the chain of frames of the newest segment from where it ended the last time."""
    newest = log.index.segments[-1]

    def on_frame(head: FrameHeader, at: int, entries: list[DirectoryEntry]) -> None:
        log.index.add_frame(at, at + head.frame_len, head.first_lsn, head.last_lsn, head.header_crc, entries)

    try:
        file = open_for_reading(log.files, newest.path)
    except RecoveryFailed as error:
        if error.errno != errno.ENOENT:
            raise
        _look_again_if_whole(log)  # it was compacted since the names were listed
        return
    try:
        scan = scan_segment(
            Window(file, newest.path),
            newest.header,
            newest.header_crc,
            start=(newest.end_offset, newest.end_lsn + 1, newest.chain),
            examine=False,
            on_frame=on_frame,
        )
    finally:
        file.close()
    log.index.add_mark(scan.end_offset, scan.chain)
    log.end_lsn = scan.end_lsn


def _names(files: FileSystem, path: str) -> list[str]:
    try:
        return [name for name in files.list_names(path) if parse_segment_name(name) is not None]
    except OSError as error:
        raise RecoveryFailed.from_os_error("list", error, file=path) from error


def _known(index: LogIndex) -> list[str]:
    return [posixpath.basename(segment.path) for segment in index.segments]
