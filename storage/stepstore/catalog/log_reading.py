"""One reading of a journal for all who keep a catalog of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import trio

from stepstore.giving_way import Hurry
from stepstore.journal import Gap, Journal, RecordBatch, Stored, StoredBatch, between, last_lsn_of
from stepstore.journal.following import FollowedSlices

KEPT_BYTES = 32 * 1024 * 1024
"""So much of what one has read is kept for the others; whoever is further behind reads it again."""

Tell = Callable[[Sequence[Stored]], list[Any]]
"""Makes what is read into what folds take. Pure; called in the thread that reads, once for all of them."""


def cut(items: Sequence[Stored]) -> list[Any]:
    """The same with every batch cut into records: a `Tell` for folds that look at each."""
    return [item.cut() if isinstance(item, StoredBatch) else item for item in items]


class Slice(NamedTuple):
    """What lies behind one LSN and up to another."""

    after: int
    upto: int
    stored: Sequence[Stored]
    told: list[Any]
    size: int
    """Bytes, about."""


class Pace:
    """Until when those who fold rest. They do so together, so that one finds what another has read."""

    def __init__(self) -> None:
        self._ended, self._rest = -math.inf, 0.0

    @trio.lowlevel.enable_ki_protection
    def worked(self, ended: float, rest: float) -> None:
        """Somebody worked until then, and is to rest for so long. The longest rest of a round counts."""
        until = max(self.until(), ended + rest)
        self._ended, self._rest = ended, until - ended

    def until(self, share: float = 1.0) -> float:
        """When the rest is over, if only a share of it is taken."""
        return self._ended + self._rest * share


class LogReading:
    """Reads a journal for several who follow it: what one reads is kept until all have it, as far as there is room.

    They need not stand at one place. One that is behind, or begins anew, reads for itself until it has caught up.
    """

    def __init__(self, journal: Journal, tell: Tell = cut, *, kept_bytes: int = KEPT_BYTES):
        self._journal, self._tell = journal, tell
        self._most_bytes, self._kept_bytes = kept_bytes, 0
        self._kept: deque[Slice] = deque()
        self._followers: list[LogFollower] = []
        self._reading = trio.Lock()
        self.pace = Pace()
        self.hurry = Hurry()

    def follow(self, after: int) -> LogFollower:
        """One who follows behind an LSN, within a `with` block and in one task."""
        return LogFollower(self, after)

    def _found(self, position: int) -> Slice | None:
        """What is kept behind a position."""
        for it in self._kept:
            if it.after == position:
                return it
            if it.after < position < it.upto:
                return self._told(position, it.upto, _behind(it.stored, position))
        return None

    def _told(self, after: int, upto: int, stored: Sequence[Stored]) -> Slice:
        return Slice(after, upto, stored, self._tell(stored), _size(stored))

    @trio.lowlevel.enable_ki_protection
    def _keep(self, read: Slice) -> None:
        # What lies behind what is kept is not: somebody catches up there, and goes faster than those who would need it.
        if not self._kept or read.upto > self._kept[-1].upto:
            self._kept.append(read)
            self._kept_bytes += read.size
            self._let_go()

    @trio.lowlevel.enable_ki_protection
    def _let_go(self) -> None:
        """Let go of what nobody needs any more, and of what is too much."""
        least = min((it.position for it in self._followers), default=None)
        kept = self._kept
        while kept and (least is None or kept[0].upto <= least or self._kept_bytes > self._most_bytes):
            self._kept_bytes -= kept.popleft().size


class LogFollower:
    """One of those for whom a `LogReading` reads."""

    def __init__(self, reading: LogReading, after: int):
        self.position = after
        """Everything up to this LSN was given, or is not for followers."""
        self._reading = reading
        self._slices = reading._journal.follow(after)

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> LogFollower:
        self._reading._followers.append(self)
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(self, *_error: object) -> None:
        self._reading._followers.remove(self)
        self._reading._let_go()

    async def wait_for_more(self) -> bool:
        """Return True once something durable lies behind the position, False when nothing will. A checkpoint."""
        return await self._there().wait_for_more()

    async def next_slice(self, records: int) -> Slice | None:
        """The next records, about so many if they must be read, waiting for them if need be; None at the end. A
        checkpoint; cancelled or failed, the next call gives the same ones.

        Raises: as reading the journal does.
        """
        reading = self._reading
        # In an event loop that is busy each checkpoint takes as long as counting thousands of steps: one is enough.
        if reading._journal.durable_lsn <= self.position and not await self.wait_for_more():
            return None
        found = reading._found(self.position)
        if found is not None:
            await trio.lowlevel.checkpoint()
        else:
            # Whoever wants the same waits for it, instead of reading it once more.
            try:
                reading._reading.acquire_nowait()
            except trio.WouldBlock:
                await reading._reading.acquire()
            try:
                found = reading._found(self.position) or await self._read(records)
            finally:
                reading._reading.release()
        if found is not None:
            self._moved_to(found.upto)
        return found

    async def _read(self, records: int) -> Slice | None:
        reading, slices, after = self._reading, self._there(), self.position
        read = await slices.next_digest(records, lambda stored: reading._told(after, after, stored))
        if read is None:
            return None
        read = read._replace(upto=slices.position)
        reading._keep(read)
        return read

    def _there(self) -> FollowedSlices:
        """The journal's own follower. It stands elsewhere where others have read meanwhile."""
        if self._slices.position != self.position:
            self._slices = self._reading._journal.follow(self.position)
        return self._slices

    @trio.lowlevel.enable_ki_protection
    def _moved_to(self, position: int) -> None:
        self.position = position
        self._reading._let_go()


def _behind(stored: Sequence[Stored], position: int) -> list[Stored]:
    """What of some items lies behind a position."""
    found: list[Stored] = []
    for item in stored:
        if (last_lsn := last_lsn_of(item)) <= position:
            continue
        if isinstance(item, Gap):
            found.append(Gap(max(item.first_lsn, position + 1), last_lsn))
        else:
            found.append(between(item, position, last_lsn))
    return found


def _size(stored: Sequence[Stored]) -> int:
    """The bytes of what was read. Batches that lie in one piece of it keep all of that, and cost no look at each."""
    pieces = {id(it.content): len(it.content) for it in stored if type(it) is StoredBatch}
    return sum(pieces.values()) + sum([sum(map(len, it.payloads)) for it in stored if type(it) is RecordBatch])
