"""Carry out what recovery decided, in an order that a crash at any point leaves repeatable.

Quarantine what is cut, durable → write again every frame whose durability nothing proves → the next segment, durable,
whose header names the cut → only then cut the file. Nothing is deleted before a copy of it is durable, and nothing is
served before it is on the medium.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import posixpath
from collections.abc import Sequence

from stepstore.errors import RecoveryFailed
from stepstore.log import names
from stepstore.log.files import File, FileSystem, write_all
from stepstore.log.recovered import Recovered, SegmentState
from stepstore.log.segment import Segment, SegmentSequence


class Repair:
    """The repair of one recovered log, which may be carried out again after it has failed.

    The segment that names the cut is begun once: another one, begun by the next attempt, would follow the first, of
    which the log would know nothing.
    """

    def __init__(self, files: FileSystem, directory: str, recovered: Recovered, sequence: SegmentSequence):
        self._files, self._directory, self._recovered, self._sequence = files, directory, recovered, sequence
        self._successor: Segment | None = None

    def carry_out(self) -> tuple[Segment | None, list[str]]:
        """Make what was recovered durable and the files clean. Gives the next segment if a cut had to be named, and the
        names of what went to quarantine.

        Raises: `RecoveryFailed`, `Fenced`; repeating it, or the opening, is safe.
        """
        files, directory, recovered = self._files, self._directory, self._recovered
        doing = "clean up"
        try:
            for name in files.list_names(directory):
                if name.endswith(".tmp") or name == names.RESTORING or name in recovered.leftovers:  # row 17
                    files.unlink(posixpath.join(directory, name))
            if recovered.leftovers:
                files.sync_directory(directory)
            doing = "quarantine the cut tail in"
            quarantined = [
                _quarantine(files, directory, state) for state in recovered.segments if state.leftover_end is not None
            ]
            doing = "make durable what was recovered in"
            _make_durable(files, directory, recovered)
            doing = "begin a segment in"
            if recovered.torn and self._successor is None:
                self._successor = self._sequence.begin()
            doing = "cut"
            for state in recovered.segments:
                if state.cut_to is not None:
                    _truncate(files, state.segment.path, state.cut_to)
        except OSError as error:
            raise RecoveryFailed.from_os_error(doing, error, file=directory) from error
        segment, self._successor = self._successor, None
        return segment, quarantined

    def release(self) -> None:
        """Close the segment that was begun, if nobody got it."""
        if self._successor is not None:
            self._successor.release()
            self._successor = None


def make_durable(files: FileSystem, directory: str, recovered: Recovered) -> None:
    """Make what was recovered durable, and change nothing else: for a log that can be read but not yet repaired.

    Raises: `RecoveryFailed`; then nothing of it may be shown.
    """
    try:
        _make_durable(files, directory, recovered)
    except OSError as error:
        raise RecoveryFailed.from_os_error("make durable what was recovered in", error, file=directory) from error


def _make_durable(files: FileSystem, directory: str, recovered: Recovered) -> None:
    for state in recovered.segments:
        if state.unproven:
            _write_again(files, state)
    if recovered.segments and recovered.segments[-1].unproven:
        files.sync_directory(directory)


def _quarantine(files: FileSystem, directory: str, state: SegmentState) -> str:
    """Copy the bytes behind the end of a segment to `quarantine/`, durable; an earlier copy of them will do."""
    assert state.leftover_end is not None
    folder = posixpath.join(directory, names.QUARANTINE)
    if files.stat(folder) is None:
        files.make_directory(folder)
        files.sync_directory(directory)
    path, end = state.segment.path, state.segment.end_offset
    suffix = f"-{posixpath.basename(path)}-{end}"
    source = files.open(path, write=False)
    try:
        size = state.leftover_end - end
        content = source.read(end, size)
        if len(content) != size:  # what is not copied here would be cut off without a copy
            raise OSError(errno.EIO, f"reading {size} bytes at offset {end} gave {len(content)}")
    finally:
        source.close()
    for name in files.list_names(folder):
        if name.endswith(suffix) and _holds(files, posixpath.join(folder, name), content):
            return name
    name = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S.%fZ}{suffix}"
    file = files.open(posixpath.join(folder, name), create=True)
    try:
        write_all(file, 0, content)
        file.datasync()
    except OSError:
        with contextlib.suppress(
            OSError
        ):  # on a full disk this is tried again and again; a part of a copy is of no use
            files.unlink(posixpath.join(folder, name))
        raise
    finally:
        file.close()
    files.sync_directory(folder)
    return name


def _holds(files: FileSystem, path: str, content: bytes) -> bool:
    """Whether a quarantined file holds `content`; if so, it is made durable."""
    file = files.open(path)
    try:
        if file.size() != len(content) or file.read(0, len(content)) != content:
            return False
        put_on_medium(file, [(0, content)])
    finally:
        file.close()
    files.sync_directory(posixpath.dirname(path))
    return True


def _write_again(files: FileSystem, state: SegmentState) -> None:
    """Write the unproven frames at their own places."""
    file = files.open(state.segment.path)
    try:
        put_on_medium(file, [(offset, _read_whole(file, offset, length)) for offset, length in state.unproven])
    finally:
        file.close()


def put_on_medium(file: File, pieces: Sequence[tuple[int, bytes]]) -> None:
    """Write (offset, bytes) that are perhaps only in the page cache so that they are on the medium, and look.

    An fsync alone would not do: the pages of a failed fsync are clean in the page cache, so a new process reads them,
    syncs without an error, and they never were on the medium. Writing into such a page is not enough either: ext4
    takes its block for one that was written, and leaves the extent marked as never written (seen with Linux 6.18). So
    the pages are dropped first, which only clean ones are, and once more before the bytes are read back.
    Raises: `OSError`.
    """
    file.datasync()
    _drop_pages(file)
    for offset, data in pieces:
        write_all(file, offset, data)
    file.datasync()
    _drop_pages(file)
    for offset, data in pieces:
        if _read_whole(file, offset, len(data)) != data:
            raise OSError(errno.EIO, f"{len(data)} bytes written at offset {offset} are not on the medium")


def _drop_pages(file: File) -> None:
    # The whole file: a part of a large folio is not dropped.
    drop = getattr(file, "will_not_need", None)
    if drop is not None:
        drop(0, 0)


def _read_whole(file: File, offset: int, length: int) -> bytes:
    data = file.read(offset, length)
    if len(data) != length:
        raise OSError(errno.EIO, f"reading {length} bytes at offset {offset} gave {len(data)}")
    return data


def _truncate(files: FileSystem, path: str, size: int) -> None:
    file = files.open(path)
    try:
        file.truncate(size)
        file.datasync()
    finally:
        file.close()
