"""Find the frames of a segment that may be damaged anywhere: as an opening would, or else across what is broken."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from stepstore.errors import CorruptLog, StepwellError
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.footer import TRAILER_BYTES, parse_trailer
from stepstore.log.frame import FLAG_TOMBSTONE, KIND_DATA, KIND_FLAGS, DirectoryEntry, FrameHeader
from stepstore.log.live_index import STREAM_DELETED
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.resync import Break, End, FoundFrame, walk
from stepstore.log.salvage_source import KnownEnd, Source
from stepstore.log.scan import SegmentScan, Window, scan_segment
from stepstore.log.tail_verdict import judge_newest

OnProgress = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def find_frames(source: Source, deleted: set[bytes], progress: OnProgress) -> None:
    """Find every frame, and add the streams to `deleted` whose tombstone lies here. Raises: `RecoveryFailed`."""
    file = source.open()
    told = 0

    def reached(offset: int) -> None:
        nonlocal told
        progress(offset - told)
        told = offset

    try:
        window = Window(file, source.path)
        if not _follow(source, window, deleted, reached):
            source.frames = array("Q")
            _walk(source, window, deleted, reached)
            _deleted_by_index(source, deleted)
        _check_rewritten(source)
        if file.unreadable:
            source.notes.append(
                f"{source.path}: the medium gave an error for {sum(file.unreadable.values()):,} bytes, the first at "
                f"offset {min(file.unreadable)}; they count as damaged"
            )
    finally:
        file.close()
    reached(source.size)


def _check_rewritten(source: Source) -> None:
    """The header of a rewritten file says up to which LSN it stands for the log."""
    header = source.header
    if header is not None and header.generation and source.last_lsn < header.orig_end_lsn:
        source.note_break(
            Break(source.size, source.size, source.last_lsn + 1, header.orig_end_lsn), "the end of the segment"
        )
        source.last_lsn = header.orig_end_lsn


def _follow(source: Source, window: Window, deleted: set[bytes], reached: OnProgress) -> bool:
    """Read the segment as an opening would; False if it is not sound to its end."""
    if source.header is None or source.header_crc is None:
        return False

    def on_frame(_head: FrameHeader, at: int, entries: list[DirectoryEntry]) -> None:
        source.frames.append(at)
        _note_deleted(entries, deleted)
        reached(at)

    until = None if source.end is None or source.sealed else source.end.end_offset
    scan = scan_segment(window, source.header, source.header_crc, until=until, on_frame=on_frame)
    source.last_lsn = scan.end_lsn
    if source.end is not None:
        if (scan.end_offset, scan.end_lsn, scan.chain) != source.end:
            return False
        if until is None and (not scan.closed or scan.after + TRAILER_BYTES != source.size):
            source.note_break(Break(scan.after, source.size, scan.end_lsn + 1, scan.end_lsn), "what ends the segment")
        return True
    try:
        row = judge_newest(scan, source.header, source.path, "strict")
    except CorruptLog:
        return False
    if row:
        torn = "a write that a crash tore, never acknowledged"
        source.notes.append(f"{source.path}: behind offset {scan.after} {torn}")
    elif scan.index_bytes and scan.tail.last_nonzero is not None and not _ends_well(window, scan):
        end = scan.tail.last_nonzero + 1
        source.note_break(Break(scan.after, end, scan.end_lsn + 1, scan.end_lsn), "what ends the segment")
    return True


def _ends_well(window: Window, scan: SegmentScan) -> bool:
    """Whether a close frame and a trailer follow the footer; what a crash kept from being cut off may too."""
    return scan.closed and parse_trailer(bytes(window.at(scan.after, TRAILER_BYTES))) is not None


def _walk(source: Source, window: Window, deleted: set[bytes], reached: OnProgress) -> None:
    if source.tag is None:
        if window.last_nonzero(sh.HEADER_BYTES, window.size) is not None:
            source.note_break(Break(sh.HEADER_BYTES, source.size, source.first_lsn, None), "everything in the segment")
        return
    for found in walk(
        window,
        source.tag,
        first_lsn=source.first_lsn,
        chain=source.header_crc,
        align=0 if source.header is None else source.header.align,
        last_lsn=None if source.end is None else source.end.end_lsn,
    ):
        if isinstance(found, FoundFrame):
            source.last_lsn = found.head.last_lsn
            if found.head.kind == KIND_DATA:
                source.frames.append(found.at)
                directory = window.at(found.at + fr.HEADER_BYTES, fr.BODY_OVERHEAD + found.head.dir_len)
                _note_deleted(directory_of(found, directory) or [], deleted)
                reached(found.at)
        elif isinstance(found, Break):
            source.note_break(found, "a part of the segment")
        else:
            _walked_to(source, found, window)


def _walked_to(source: Source, end: End, window: Window) -> None:
    known = source.end
    if known is not None:
        _compare_end(source, known, end)
        return
    last = window.last_nonzero(end.offset, window.size)
    if last is not None:
        lsn = end.next_lsn
        if end.sealed:
            source.note_break(Break(end.offset, last + 1, lsn, lsn - 1), "what ends the segment")
        else:
            source.note_break(
                Break(end.offset, last + 1, lsn, None), "the last thing written, which a crash may have torn,"
            )


def _compare_end(source: Source, known: KnownEnd, end: End) -> None:
    source.last_lsn = known.end_lsn
    lsn = end.next_lsn
    if (end.end_offset, end.chain) == (known.end_offset, known.chain) or lsn > known.end_lsn:
        if source.sealed and not end.closed:
            source.note_break(Break(end.offset, source.size, lsn, lsn - 1), "what ends the segment")
        elif end.offset < known.end_offset:
            source.note_break(Break(end.offset, known.end_offset, lsn, lsn - 1), "a mark")
    else:
        behind = max(known.end_offset, min(end.offset, source.size))
        source.note_break(Break(end.end_offset, behind, lsn, known.end_lsn), "the end of the segment")


def _deleted_by_index(source: Source, deleted: set[bytes]) -> None:
    index = source.index()
    if index is None:
        return
    try:
        deleted.update([entry.stream for entry in index.streams() if entry.flags & STREAM_DELETED])
    except (UnsoundIndex, OSError, StepwellError):
        return


def directory_of(found: FoundFrame, body: memoryview) -> list[DirectoryEntry] | None:
    """The directory of a frame, from its body or the beginning of it; None unless it is what was written."""
    if len(body) < fr.BODY_OVERHEAD // 2 + found.head.dir_len or not fr.directory_is_sound(found.head, body):
        return None
    return fr.parse_directory(found.head, body, found.at)


def _note_deleted(entries: list[DirectoryEntry], deleted: set[bytes]) -> None:
    for entry in entries:
        if entry[6] & KIND_FLAGS == FLAG_TOMBSTONE:
            deleted.add(entry[0])
