"""How much of each segment is dead: what compaction would leave out.

Dead are the records of deleted streams, but not their tombstones, and snapshots with a newer one of the same stream.

Nothing is decoded for this: the indexes know. A segment is *taken up* once, when it has ended, oldest first. Those with
neither a tombstone nor a snapshot in them, which their index's head tells, cost nothing; else each tombstone in it is
looked for in every older segment, in memory (4 bytes of a stream's id, bisected, about half a microsecond), and where
that finds any, its tables of streams and batches are read through, which are at most a few MiB, in a few large reads.
The ids of deleted streams are kept in memory.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from stepstore.log.index import LogIndex
from stepstore.log.indexed_batch import IndexedBatch
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import STREAM_DELETED

_LOW = 0xFFFFFFFF
_AMOUNTS, _WORDS = 3, 5
"""Which of the five words of a batch holds records << 32 | bytes."""


class Amount(NamedTuple):
    """So many batches, with so many payload bytes."""

    batches: int = 0
    size: int = 0

    def plus(self, other: Amount) -> Amount:
        """The sum."""
        return Amount(self.batches + other.batches, self.size + other.size)


class DeadRecords:
    """What is dead, by segment. `deleted`: the streams whose tombstone was seen so far.

    `take_up` and `take_up_for` block; the other calls do not. All belong to the task that replaces segments, which
    waits for those it makes in a worker thread.
    """

    def __init__(self, index: LogIndex):
        self._index = index
        self.deleted: dict[bytes, None] = {}
        self._dead: dict[IndexedSegment, Amount] = {}
        self._rewritten: set[IndexedSegment] = set()

    def __getitem__(self, segment: IndexedSegment) -> Amount:
        return self._dead[segment]

    def next_unseen(self, ended: Iterable[IndexedSegment]) -> IndexedSegment | None:
        """The oldest of these segments that was not taken up yet."""
        return next((segment for segment in ended if segment not in self._dead), None)

    def replaced(self, old: Sequence[IndexedSegment], new: IndexedSegment) -> None:
        """A rewritten segment is in the place of these; it is to be taken up."""
        for segment in old:
            self._dead.pop(segment, None)
            self._rewritten.discard(segment)
        self._rewritten.add(new)

    def take_up_for(self, seconds: float, ended: Sequence[IndexedSegment]) -> None:
        """Take up at least one of these segments, if there is one unseen, and more until so long has passed. Blocks.

        Raises: `RecoveryFailed`, and then may be called again.
        """
        until = time.perf_counter() + seconds
        while (unseen := self.next_unseen(ended)) is not None:
            self.take_up(unseen)
            if time.perf_counter() >= until:
                break

    def take_up(self, segment: IndexedSegment) -> None:
        """Find what is dead in a segment, and what it makes dead in older ones. Blocks.

        Raises: `RecoveryFailed`, and then may be called again.
        """
        seen = [other for other in self._index.segments if other in self._dead]
        older = [other for other in seen if other.header.seq < segment.header.seq]
        later = [other for other in seen if other.header.seq > segment.header.seq]
        new = [stream for stream in self._index.deleted_in(segment) if stream not in self.deleted]
        deleted = [*self.deleted, *new] if later else new
        superseded = segment.index.superseded_bytes
        dead = Amount(int(superseded > 0), superseded)
        dead = dead.plus(self._deleted(segment, deleted))
        made_dead = [(other, self._deleted(other, new)) for other in older] if new else []
        for stream, snapshot in self._index.snapshots_in(segment) if segment.index.snapshot_count else ():
            if any(self._snapshot(other, stream) is not None for other in later):
                dead = dead.plus(Amount(1, snapshot.size))
            elif segment not in self._rewritten:
                before = next((found for other in reversed(older) if (found := self._snapshot(other, stream))), None)
                if before is not None:
                    made_dead.append((before.segment, Amount(1, before.size)))
        self.deleted.update(dict.fromkeys(new))
        self._dead[segment] = dead
        for other, amount in made_dead:
            self._dead[other] = self._dead[other].plus(amount)

    def _deleted(self, segment: IndexedSegment, streams: Collection[bytes]) -> Amount:
        """What a segment has of deleted streams, their tombstones left out."""
        held = {stream for stream in streams if segment.index.might_hold(stream)}
        batches = size = 0
        for entry, words in self._index.batches_of_many(segment, held) if held else ():
            batches += entry.batches
            size += sum(words[_AMOUNTS::_WORDS]) & _LOW  # a file, so their sum too, is shorter than 4 GiB
            if entry.flags & STREAM_DELETED and entry.batches:
                batches -= 1
                size -= words[_AMOUNTS - _WORDS] & _LOW
        for stream, snapshot in self._index.snapshots_in(segment) if held and segment.index.snapshot_count else ():
            if stream in held:
                batches += 1
                size += snapshot.size
        return Amount(batches, size)

    def _snapshot(self, segment: IndexedSegment, stream: bytes) -> IndexedBatch | None:
        """The snapshot that makes an older one dead, or is made dead. A segment that has a snapshot of a stream and
        nothing else of it is passed over: that costs space until the segment is rewritten, and saves reading."""
        return self._index.snapshot_in(segment, stream) if segment.index.might_hold(stream) else None
