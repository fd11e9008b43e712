"""Which streams are open at the end of a segment: opened there or before, and not closed."""

from __future__ import annotations

from collections.abc import Sequence

from stepstore.log.indexed_segment import IndexedSegment, Rebuild
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.sealed_index import SealedIndex


def open_streams_after(segments: Sequence[IndexedSegment], rebuild: Rebuild) -> dict[bytes, None]:
    """The streams open at the end of these first segments of a log, in the order in which they were opened: the newest
    index on the medium knows those at its segment's end, and `rebuild` gives one that does not."""
    found: dict[bytes, None] = {}
    start = 0
    for number in reversed(range(len(segments))):
        index = segments[number].index
        if isinstance(index, SealedIndex):
            try:
                found, start = index.open_streams(), number + 1
            except UnsoundIndex:
                continue
            break
    for segment in segments[start:]:
        index = segment.index
        if isinstance(index, SealedIndex):
            index = segment.index = rebuild(segment)
        index.apply_open(found)
    return found
