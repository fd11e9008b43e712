"""What recovery found of a log: the segments, where they end, and what has to be repaired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stepstore.log.index import LogIndex
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.manifest import Manifest
from stepstore.log.open_files import OpenFiles


class SegmentState(NamedTuple):
    """What recovery found of one segment that `repair` has to know.

    `leftover_end` is None unless non-zero bytes lie behind the end of the records that are to be quarantined and cut;
    it is the offset behind the last of them. `unproven` lists (offset, length) of frames whose durability nothing later
    proves. `cut_to`: the size the file must be cut to, None if it may stay as it is.
    """

    segment: IndexedSegment
    leftover_end: int | None
    unproven: list[tuple[int, int]]
    cut_to: int | None


@dataclass(frozen=True)
class Recovered:
    """A log as it stands: its segments, the index of everything in it, and whether the newest tail was torn.

    `duplicates`: records that were stored twice, equally (row 10). `reading`: the files the index is read through.
    `leftovers`: names of files that are to be removed: what a compaction has left behind, a stale sidecar.
    """

    segments: list[SegmentState]
    index: LogIndex
    reading: OpenFiles
    torn: bool
    notes: list[str]
    duplicates: int = 0
    manifest: Manifest | None = None
    leftovers: tuple[str, ...] = ()

    @property
    def newest(self) -> IndexedSegment | None:
        """The newest segment."""
        return self.segments[-1].segment if self.segments else None

    @property
    def end_lsn(self) -> int:
        """The last LSN of the log, 0 if it is empty."""
        return self.segments[-1].segment.end_lsn if self.segments else 0
