"""A segment with the index of what lies in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stepstore.log.live_index import LiveIndex
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.segment_header import SegmentHeader

SegmentIndex = LiveIndex | SealedIndex


@dataclass(slots=True, eq=False)
class IndexedSegment:
    """A segment as readers know it.

    `end_offset`, `end_lsn`, `chain`: where its records end; those of the newest segment move. `sealed`: whether it has
    a footer. `index_path`: the file its index is read from, "" while the index is in memory.
    """

    path: str
    header: SegmentHeader
    header_crc: int
    index: SegmentIndex
    end_offset: int
    end_lsn: int
    chain: int
    sealed: bool = False
    index_path: str = ""

    @property
    def named_end(self) -> tuple[int, int, int]:
        """(offset, LSN, chain) where the segment ends, as its successor's header names it: of a rewritten file, those
        of the file it stands for."""
        header = self.header
        if header.generation:
            return header.orig_end_offset, header.orig_end_lsn, header.orig_chain
        return self.end_offset, self.end_lsn, self.chain


Rebuild = Callable[[IndexedSegment], LiveIndex]
"""Scan a sealed segment again because its index is unsound. Raises `StepwellError`."""
