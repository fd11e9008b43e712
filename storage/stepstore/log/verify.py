"""Check every byte of a log without touching it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

from stepstore.errors import CorruptLog, RecoveryFailed, StepwellError
from stepstore.log.directory import must_exist
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.frame import BODY_OVERHEAD, CLOSE_ALIGNMENT, HEADER_BYTES, DirectoryEntry, FrameHeader
from stepstore.log.names import LOCK
from stepstore.log.recovery import judge_newest, list_segments, open_for_reading, read_segment_header
from stepstore.log.scan import SegmentScan, Window, scan_segment
from stepstore.log.segment_header import SegmentHeader


@dataclass(kw_only=True)
class VerifyReport:
    """What a log holds, and what is wrong with it.

    `problems`: one sentence for each thing that is damaged. `notes`: what a crash left and the next opening cleans up;
    nothing acknowledged is in it. `live_tail`: what was not judged because a process has the log open and may be
    writing there, None otherwise.
    """

    segments: int = 0
    frames: int = 0
    records: int = 0
    streams: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    live_tail: str | None = None


def verify_log(
    path: str, progress: Callable[[int, int], None] | None = None, *, files: FileSystem | None = None
) -> VerifyReport:
    """Read every segment of the log at `path`, check every CRC, chain and cut. Blocks; writes nothing.

    `progress(done, total)` is called with bytes after each segment.
    Raises: `NotFound`, `InvalidInput`, `RecoveryFailed`; damage is reported, not raised.
    """
    files = files or OsFileSystem()
    report = VerifyReport()
    try:
        identity = must_exist(files, path)
        names = list_segments(files, path)
        headers = [read_segment_header(files, path, name, identity) for name in names]
        sizes = [found.size if (found := files.stat(posixpath.join(path, str(name)))) else 0 for name in names]
    except CorruptLog as error:
        report.problems.append(str(error))
        return report
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=path) from error
    streams: set[bytes] = set()

    def on_frame(head: FrameHeader, _at: int, entries: list[DirectoryEntry]) -> None:
        report.frames += 1
        report.records += head.record_count
        streams.update(entry[0] for entry in entries)

    for number, (name, (header, header_crc)) in enumerate(zip(names, headers, strict=True)):
        full = posixpath.join(path, str(name))
        successor = headers[number + 1][0] if number + 1 < len(headers) else None
        file = open_for_reading(files, full)
        try:
            until = None if successor is None else successor.prev_end_offset
            scan = scan_segment(Window(file, full), header, header_crc, until=until, on_frame=on_frame)
        finally:
            file.close()
        report.segments += 1
        report.bytes += scan.end_offset
        streams_end = f"{full}: sound up to offset {scan.end_offset} (LSN {scan.end_lsn})"
        if successor is not None:
            named = (successor.prev_end_offset, successor.prev_end_lsn, successor.prev_chain)
            if (scan.end_offset, scan.end_lsn, scan.chain) != named:
                report.problems.append(f"{streams_end}, but the next segment proves it durable up to {named[0]}")
            elif scan.tail.last_nonzero is not None:
                report.notes.append(f"{streams_end}; left over behind it: a write that was never acknowledged")
        elif scan.tail.last_nonzero is not None:
            if _is_locked(files, path):
                report.live_tail = f"{streams_end}; the log is open, so what follows may be a write in progress"
            else:
                _judge(scan, header, full, streams_end, report)
        if progress is not None:
            progress(sum(sizes[: number + 1]), sum(sizes))
    report.streams = len(streams)
    return report


def _judge(scan: SegmentScan, header: SegmentHeader, path: str, sound: str, report: VerifyReport) -> None:
    try:
        judge_newest(scan, header, path, "strict")
        if header.preallocated and scan.tail.size == _end_if_closed(scan):
            # Only a close cuts a preallocated file to this very size, and only once the close frame is durable.
            report.problems.append(f"{sound}; the close frame behind it is damaged, or the zeros before that")
            return
        report.notes.append(f"{sound}; behind it a write that a crash tore, never acknowledged")
    except CorruptLog as error:
        report.problems.append(str(error))


def _end_if_closed(scan: SegmentScan) -> int:
    return -(-scan.end_offset // CLOSE_ALIGNMENT) * CLOSE_ALIGNMENT + HEADER_BYTES + BODY_OVERHEAD


def _is_locked(files: FileSystem, path: str) -> bool:
    """Whether a process has the log open for writing. On Linux the kernel's table tells, and the lock is not touched:
    taking it for a moment could refuse a process that opens the log just then."""
    found = files.stat(posixpath.join(path, LOCK))
    if found is None:
        return False
    if isinstance(files, OsFileSystem):
        device, inode = found.identity
        mine = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
        try:
            with open("/proc/locks", encoding="ascii") as table:
                return any("FLOCK" in line and mine in line.split() for line in table)
        except OSError:
            pass  # no such table here: ask the lock itself
    try:
        file = files.open(posixpath.join(path, LOCK), write=False)
    except OSError:
        return False
    try:
        return not file.lock()
    except (OSError, StepwellError):
        return False
    finally:
        file.close()
