"""Make the index of a segment from its frames, where no footer and no sidecar tells it."""

from __future__ import annotations

import gc

from stepstore.errors import CorruptLog
from stepstore.log.files import FileSystem
from stepstore.log.frame import DirectoryEntry, FrameHeader
from stepstore.log.indexed_batch import SameRecords, batch_from_words
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
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
        batch = batch_from_words(segment, words)
        kept = live.find(stream)
        assert kept is not None
        mine = [batch_from_words(segment, live.batch_words(kept, n, n + 1)) for n in range(kept.batches)]
        shared = [other for other in mine if batch.overlaps(other)]
        covered = kept.first_seq <= batch.first_seq and batch.last_seq <= kept.last_seq
        if covered and all(same_records(batch, other) for other in shared):
            duplicates += batch.records
        else:
            live.mark_forked(stream, batch.first_lsn)
    return duplicates
