"""Which segments are worth being rewritten, and which neighbours become one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepstore.log.compaction_output import MAX_FILE_BYTES
from stepstore.log.dead_records import Amount
from stepstore.log.index import INDEX_BYTES
from stepstore.log.indexed_segment import IndexedSegment, SegmentIndex

DEAD_SHARE = 0.5
"""A segment is rewritten when so much of its payload is dead."""
NEIGHBOURS, NEIGHBOURS_ON_REQUEST = 4, 2
"""So many small segments beside one another are made one."""
SMALL_BYTES = 8 * 1024 * 1024


def is_dead_enough(index: SegmentIndex, dead: Amount) -> bool:
    """Whether a segment is worth being rewritten for what is dead in it."""
    return dead.size >= max(DEAD_SHARE * index.payload_bytes, 1)


class Weight(NamedTuple):
    """A segment, and what `choose` goes by. `is_dead_enough`: worth being rewritten for itself."""

    segment: IndexedSegment
    alive_bytes: int
    index_bytes: int
    is_dead_enough: bool


def choose(weights: Sequence[Weight | None], segment_bytes: int, *, neighbours: int) -> list[IndexedSegment]:
    """The first segments, neighbours all, that are to become one: such that are dead enough, and small ones beside
    them; or at least so many small `neighbours`. Empty if there is nothing to do. None stands for a segment that has to
    stay as it is."""
    small = min(SMALL_BYTES, segment_bytes // 8)
    room = min(segment_bytes, MAX_FILE_BYTES)
    group: list[Weight] = []
    for weight in weights:
        joins = weight if weight and (weight.is_dead_enough or weight.alive_bytes < small) else None
        if joins and (not group or _fits([*group, joins], room)):
            group.append(joins)
            continue
        if _is_worth_it(group, neighbours):
            break
        group = [joins] if joins else []
    return [weight.segment for weight in group] if _is_worth_it(group, neighbours) else []


def _fits(group: list[Weight], room: int) -> bool:
    return sum(w.alive_bytes for w in group) <= room and sum(w.index_bytes for w in group) <= INDEX_BYTES


def _is_worth_it(group: list[Weight], neighbours: int) -> bool:
    return len(group) >= neighbours or any(weight.is_dead_enough for weight in group)
