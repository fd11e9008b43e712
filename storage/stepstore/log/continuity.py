"""Segments continue each other, and end where their successor, the manifest and the index beside them say (rows 2 and 7
of the decision table in `recovery`)."""

from __future__ import annotations

from stepstore.errors import CorruptLog
from stepstore.log.footer import Trailer
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.scan import SegmentScan
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.tail_verdict import corrupt_at


def check_continues(header: SegmentHeader, before: IndexedSegment, path: str) -> None:
    """A segment begins where the one before it ends (row 7). Raises: `CorruptLog`."""
    end_lsn = before.named_end[1]
    if header.first_lsn != end_lsn + 1 or header.prev_seq != before.header.seq_last:
        raise CorruptLog(
            f"{path!r} begins with LSN {header.first_lsn} and continues segment {header.prev_seq}, but the segment "
            f"before it is {before.header.seq_last} and ends with LSN {end_lsn} (row 7).",
            file=path,
            first_lsn=end_lsn + 1,
            last_lsn=header.first_lsn - 1,
            row=7,
        )


def check_listed(segment: IndexedSegment, end_lsn: int | None) -> None:
    """The manifest was written when everything in its range was durable, and nothing is added there any more."""
    found = segment.named_end[1]
    if end_lsn is not None and found != end_lsn:
        raise CorruptLog(
            f"{segment.path!r} ends with LSN {found}, and the MANIFEST says that it ends with LSN {end_lsn} (row 2). "
            "Nothing was changed.",
            file=segment.path,
            offset=segment.end_offset,
            first_lsn=min(found, end_lsn) + 1,
            last_lsn=max(found, end_lsn),
            row=2,
        )


def check_cut(segment: IndexedSegment, successor: SegmentHeader, scan: SegmentScan) -> None:
    """The successor's header proves every byte before `prev_end_offset` durable (row 2)."""
    if segment.named_end != named_cut(successor):
        raise corrupt_at(
            2,
            segment.path,
            scan,
            f"the next segment proves it durable up to offset {successor.prev_end_offset} "
            f"(LSN {successor.prev_end_lsn})",
        )


def check_whole(segment: IndexedSegment, scan: SegmentScan) -> None:
    """A rewritten file that was scanned holds all that it is to hold (row 2). Raises: `CorruptLog`."""
    if scan.end_lsn != segment.header.orig_end_lsn:
        raise corrupt_at(2, segment.path, scan, "it is a rewritten file, and those are durable before they have a name")


def named_cut(successor: SegmentHeader) -> tuple[int, int, int]:
    """Offset, LSN and chain at which the segment before this one ends."""
    return successor.prev_end_offset, successor.prev_end_lsn, successor.prev_chain


def not_whole(segment: IndexedSegment) -> CorruptLog:
    """A rewritten file lacks records that it is to hold."""
    return CorruptLog(
        f"{segment.path!r} is to hold records up to LSN {segment.header.orig_end_lsn} and ends with LSN "
        f"{segment.end_lsn} (row 2). Nothing was changed.",
        file=segment.path,
        offset=segment.end_offset,
        first_lsn=segment.end_lsn + 1,
        last_lsn=segment.header.orig_end_lsn,
        row=2,
    )


def contradiction(segment: IndexedSegment, successor: SegmentHeader) -> CorruptLog:
    """The trailer of a segment and the header of the next one name different ends."""
    offset, lsn, _chain = segment.named_end
    return CorruptLog(
        f"{segment.path!r} says that it ends at offset {offset} with LSN {lsn}, and the next segment that it ends at "
        f"{successor.prev_end_offset} with LSN {successor.prev_end_lsn} (row 2). Nothing was changed.",
        file=segment.path,
        offset=min(offset, successor.prev_end_offset),
        first_lsn=min(lsn, successor.prev_end_lsn) + 1,
        last_lsn=max(lsn, successor.prev_end_lsn),
        row=2,
    )


def shorter_than_its_sidecar(path: str, size: int, trailer: Trailer) -> CorruptLog:
    """A file ends before what the index beside it proves durable."""
    return CorruptLog(
        f"{path!r} ends at offset {size}, and the index beside it proves that it was durable up to "
        f"{trailer.end_offset} (row 2). Nothing was changed; `stepwell verify` says what is concerned.",
        file=path,
        offset=size,
        last_lsn=trailer.end_lsn,
        row=2,
    )
