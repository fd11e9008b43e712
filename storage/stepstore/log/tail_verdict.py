"""What the end of the newest segment is: clean, torn, suspected rot or damage (rows 1 to 6 and 9 of the decision table
in `recovery`)."""

from __future__ import annotations

from typing import Literal

from stepstore.errors import CorruptLog
from stepstore.log.footer import TRAILER_BYTES
from stepstore.log.frame import MARK_ALIGNMENT, MAX_FRAME_BYTES, WRAPPER_BYTES, header_position
from stepstore.log.scan import SegmentScan
from stepstore.log.segment_header import SegmentHeader

TailPolicy = Literal["strict", "cut"]


def judge_newest(
    scan: SegmentScan, header: SegmentHeader, path: str, policy: TailPolicy, listed_end_lsn: int | None = None
) -> int:
    """The row by which the tail is to be cut (4, and 5 with tail="cut"), or 0 for a clean end (row 1).

    `listed_end_lsn`: where the manifest says that the segment ends, if it lists it.
    Raises: `CorruptLog` with the row by which it is refused.
    """
    tail, offset, expected = scan.tail, scan.after, scan.end_lsn + 1
    if tail.later_durable >= expected:
        raise corrupt_at(2, path, scan, f"a later frame proves that LSN {tail.later_durable} was durable")
    if listed_end_lsn is not None and listed_end_lsn >= expected:
        raise corrupt_at(2, path, scan, f"the MANIFEST proves that LSN {listed_end_lsn} was durable")
    if tail.last_nonzero is None:
        return 0
    if scan.index_bytes and tail.last_nonzero < _end_of_seal(scan):
        return 0  # a close frame or a trailer that is not sound; the footer before it proves that no record is missing
    if scan.closed or scan.index_bytes:
        raise corrupt_at(3, path, scan, "the segment was sealed before it, and nothing is written behind that")
    if tail.place == "stray":
        raise corrupt_at(9, path, scan, "a sound frame header stands there that does not continue the chain")
    if tail.last_nonzero - header_position(offset, header.align) > MAX_FRAME_BYTES or tail.later_lsn >= expected:
        raise corrupt_at(6, path, scan, "something is written farther behind it than one commit group reaches")
    if tail.place == "end" or tail.body_cut:
        return 4
    if header.preallocated and (tail.place == "zero" or (tail.place == "sound" and tail.extra_zero_pieces > 0)):
        return 4
    if policy == "cut":
        return 5
    raise corrupt_at(
        5,
        path,
        scan,
        "it looks like damage to the last commit group rather than a write that a crash tore, so acknowledged steps "
        'may be in it. Restore the file from a backup, or open with MemoryConfig(tail="cut") to give the group up',
    )


def _end_of_seal(scan: SegmentScan) -> int:
    """Behind the close frame and the trailer that belong behind a footer."""
    if scan.closed:
        return scan.after + TRAILER_BYTES
    return -(-scan.after // MARK_ALIGNMENT) * MARK_ALIGNMENT + WRAPPER_BYTES + TRAILER_BYTES


def corrupt_at(row: int, path: str, scan: SegmentScan, why: str) -> CorruptLog:
    """Damage where the chain of frames ends."""
    head = scan.tail.header
    return CorruptLog(
        f"{path!r} is damaged at offset {scan.after}, where LSN {scan.end_lsn + 1} is due: {why} (row {row}). "
        "Nothing was changed; `stepwell verify` says what is concerned, and what to do.",
        file=path,
        offset=scan.after,
        first_lsn=scan.end_lsn + 1,
        last_lsn=None if head is None else head.last_lsn,
        row=row,
    )


def note_of_a_cut(row: int, scan: SegmentScan, path: str) -> str:
    """A sentence for whoever opened the log."""
    size = (scan.tail.last_nonzero or scan.end_offset) + 1 - scan.end_offset
    cut = f"{path}: {size:,} bytes from offset {scan.end_offset} on went to quarantine and are cut"
    if row == 4:
        return f"{cut}: the last write before the crash was torn, and nothing in it was ever acknowledged"
    return f'{cut}, given up with tail="cut": they look like damage, so acknowledged steps may have been among them'
