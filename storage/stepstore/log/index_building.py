"""Make the index of a segment from its frames, where no footer and no sidecar tells it."""

from __future__ import annotations

import gc

from stepstore.errors import CorruptLog
from stepstore.log.files import FileSystem
from stepstore.log.frame import DirectoryEntry, FrameHeader
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.run import SameRecords, run_of
from stepstore.log.scan import SegmentScan, Window, open_for_reading, scan_segment
from stepstore.log.segment_header import SegmentHeader


def scan_and_index(
    files: FileSystem, path: str, header: SegmentHeader, header_crc: int, until: int | None
) -> tuple[SegmentScan, LiveIndex]:
    """Scan a segment, up to `until` or to its end, and index its frames. Raises: `RecoveryFailed`."""
    index = LiveIndex()

    def on_frame(head: FrameHeader, at: int, entries: list[DirectoryEntry]) -> None:
        index.add_frame(at, head.first_lsn, entries)

    file = open_for_reading(files, path)
    collecting = gc.isenabled()
    gc.disable()  # the scan makes no cycles, and the collector would look at every object of the host for nothing
    try:
        return scan_segment(Window(file, path), header, header_crc, until=until, on_frame=on_frame), index
    finally:
        file.close()
        if collecting:
            gc.enable()


def rebuild_index(files: FileSystem, segment: IndexedSegment) -> LiveIndex:
    """The index of a sealed segment from its frames, because the one in its footer is unsound.

    Raises: `CorruptLog` if the frames are damaged as well, `RecoveryFailed`.
    """
    scan, index = scan_and_index(files, segment.path, segment.header, segment.header_crc, segment.end_offset)
    if scan.end_offset != segment.end_offset:
        raise CorruptLog(
            f"{segment.path!r} is damaged at offset {scan.end_offset}, and so is its index; records {scan.end_lsn + 1} "
            f"to {segment.end_lsn} cannot be read. Nothing was changed; `stepwell salvage` saves the rest.",
            file=segment.path,
            offset=scan.end_offset,
            first_lsn=scan.end_lsn + 1,
            last_lsn=segment.end_lsn,
            row=8,
        )
    return index


def settle_doubts(segment: IndexedSegment, same_records: SameRecords) -> int:
    """Rows 10 and 11 within one segment: compare what was stored twice. Gives how many records were stored equally.

    Raises: `Damaged`, `RecoveryFailed`.
    """
    live = segment.index
    if not isinstance(live, LiveIndex):
        return 0
    duplicates = 0
    for stream, words in live.doubts:
        run = run_of(segment, words)
        kept = live.find(stream)
        assert kept is not None
        mine = [run_of(segment, live.run_words(kept, n, n + 1)) for n in range(kept.runs)]
        shared = [other for other in mine if run.overlaps(other)]
        covered = kept.first_seq <= run.first_seq and run.last_seq <= kept.last_seq
        if covered and all(same_records(run, other) for other in shared):
            duplicates += run.records
        else:
            live.mark_forked(stream, run.first_lsn)
    return duplicates
