"""The task that follows a journal and keeps a catalog up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import trio

from stepstore.catalog.catalog import Catalog
from stepstore.catalog.log_reading import LogFollower, LogReading, Pace
from stepstore.catalog.store import Change, is_damage
from stepstore.errors import Closed, CorruptLog, InvalidInput, InvalidState, Unavailable
from stepstore.giving_way import give_way, giving_way
from stepstore.journal import Gap, Journal, Record
from stepstore.restarting import error_text

BATCH_RECORDS, BATCH_BYTES = 98_304, 64 * 1024 * 1024
"""One transaction takes about so much at most."""
READ_RECORDS = 32_768
"""So many are read at once. Where the event loop is busy, each time that a thread is asked for costs some of its
rounds, and each time that the thread asks for the interpreter's lock up to five milliseconds."""
LOADED_TOGETHER, LOADED_AT_ONCE, LOADED_BYTES = 49_152, 4_096, 2 * 1024 * 1024
"""What stands for BATCH_RECORDS, READ_RECORDS and TOGETHER_BYTES while a catalog takes up a log that was there before:
nobody waits for the interpreter's lock then, and three catalogs at once took 800 MiB with pieces as large as those."""
INLINE_RECORDS = 512
"""The same without threads: it holds up the event loop for about a millisecond."""
TOGETHER_BYTES = 16 * 1024 * 1024
"""So much is handed to the fold at once, for the same reason."""
RESTED_RECORDS, SLICE_RECORDS = 16_384, 1_024
"""The same between two rests; fewer, where folding them takes so long that LONGEST_REST_SECONDS would not make up."""
SHARE_OF_WHAT_IS_BEHIND = 2
"""More than that between two rests once it is no longer at ease: such a part of what it is behind."""
GIVING_WAY_ITEMS = 1_024
"""So many batches, each of which may be one step, are taken up by a fold before it gives way."""
PLACE_RECORDS = 10_000
"""So many records at most are behind the place that is stored where they change nothing."""
LINGER_SECONDS = 0.2
"""So much time passes between two transactions while nobody waits, so that many small commits cost one."""
RESTS, LONGEST_REST_SECONDS = 39, 2.0
"""While nobody waits, it rests so many times as long as it folded for a transaction, and not longer than that: a burst
of writes goes first, since what folds takes the time of those who write (they share one interpreter lock, with three
such catalogs in an opened memory). The rest is over when nothing was written for LINGER_SECONDS."""
AT_EASE_BEHIND, MOST_BEHIND = 150_000, 300_000
"""So far behind the log it rests as it should: a burst of a second or two goes first. Then it rests the shorter the
further it is behind, and at last not at all: whoever reads next has to wait for all of them. A load that lasts finds
the place between where it folds as fast as others write, in many small pieces."""
LOAD_RECORDS = 200_000
"""A catalog that lacks its last indexes and so many records gets the records first."""
_CLOSED = "the memory is closed; open it again to look something up in its catalog"


class Fold(Protocol):
    """Makes changes of a catalog of records in log order. One is made for each run of the projector, and forgotten when
    that fails. Pure; called in a worker thread."""

    def take(self, items: Sequence[Record | Gap]) -> None:
        """Take up some records."""

    def changes(self) -> list[Change]:
        """What to change for the records taken since this was called last."""
        ...


@runtime_checkable
class BatchFold(Fold, Protocol):
    """A fold that would rather have what its `LogReading` tells: that is cheaper."""

    def take_batches(self, items: Sequence[Any]) -> None:
        """Take up some of what was told."""


@runtime_checkable
class ReadingFold(Fold, Protocol):
    """A fold that has to read from the journal what lies before the records it is given."""

    async def prepare(self, items: Sequence[Any]) -> None:
        """Called with some records of the next transaction, in the event loop, before they are taken: it should not
        hold that up for long. Raises: as reading does; the projector fails with it, and is run again."""


class Projector:
    """Follows `journal` and folds it into `catalog`. One task runs `run`, again after a failure."""

    def __init__(
        self,
        journal: Journal,
        catalog: Catalog,
        make_fold: Callable[[], Fold],
        reading: LogReading | None = None,
        *,
        believe_the_log: bool = False,
    ):
        self._journal, self._catalog, self._make_fold = journal, catalog, make_fold
        self._reading = LogReading(journal) if reading is None else reading
        self._believe_the_log = believe_the_log
        self.position = 0
        """Up to this LSN everything is in the catalog."""
        self.looked_at = 0
        """Up to this LSN everything was given to the fold; what of it is not in the catalog yet will come."""
        self.transactions = 0
        self.drops = 0
        """So many times it was begun anew. What was read meanwhile may be of a catalog that is not whole."""
        self.is_ready = False
        """Whether the catalog can be read: not while it is loaded, without the indexes that readers need."""
        self._load_until = 0
        self._ended = False
        self._parked: Exception | None = None
        self._waiters = 0
        self._moved = trio.lowlevel.ParkingLot()
        self._hurry = trio.lowlevel.ParkingLot()
        self._pace = Pace()
        self._rested_records = RESTED_RECORDS
        self._stored = 0
        self._is_damaged = False

    async def run(self) -> None:
        """Follow until the journal ends. Raises whatever goes wrong; nothing is lost or counted twice then.

        A catalog that turns out to be damaged is dropped by the next run.
        """
        await self._fold_up_to(None)
        self.end()

    async def catch_up(self) -> None:
        """Take up what is durable now: for one that nobody runs, and one task at a time. A checkpoint; cancelled or
        failed, the next call goes on where it was. Raises: as `run`; `Closed`."""
        upto = self._journal.durable_lsn
        if self.is_ready and self.position >= upto:
            await trio.lowlevel.checkpoint()
            return
        await self._fold_up_to(upto)
        if self.position < upto:
            raise Closed(_CLOSED)

    async def _fold_up_to(self, lsn: int | None) -> None:
        try:
            await self._begin(self._journal.durable_lsn if lsn is None else lsn)
            await self._follow(lsn)
        except sqlite3.DatabaseError as error:
            self._is_damaged = is_damage(error)
            raise

    async def _begin(self, upto: int) -> None:
        catalog = self._catalog
        if self._is_damaged:
            await self._drop()
            self._is_damaged = False
        await catalog.write(catalog.store.open)
        try:
            self.position = self.check_cursor()
        except (InvalidInput, InvalidState):
            self.position = await self._anew()
        self._stored = self.position
        self.is_ready = not await catalog.write(catalog.store.missing_indexes)
        self._load_until = upto if upto - self.position >= LOAD_RECORDS else 0
        if not self.is_ready and not self._load_until:
            await self._make_readable()
        self._moved.unpark_all()

    async def _make_readable(self) -> None:
        """Make the indexes that are missing, each in a transaction of its own: so much is cheap to lose."""
        catalog = self._catalog
        for statement in (await catalog.write(catalog.store.missing_indexes)).values():
            await catalog.write(catalog.store.make_index, statement)
        self.is_ready = True

    def check_cursor(self) -> int:
        """How far the catalog is folded. It must be open.

        Raises: `InvalidInput`, `InvalidState` (it is of another log, or of a lost branch: it must be folded anew),
        `CorruptLog` (it has seen durable records that have vanished), unless the log is to be believed.
        """
        cursor = self._catalog.store.cursor
        try:
            return self._journal.check_cursor(cursor) if cursor else 0
        except CorruptLog as error:
            if self._believe_the_log:
                raise InvalidState(str(error)) from error
            raise

    async def _anew(self) -> int:
        await self._drop()
        await self._catalog.write(self._catalog.store.open)
        return 0

    async def _drop(self) -> None:
        self._is_gone()
        await self._catalog.drop()

    @trio.lowlevel.enable_ki_protection
    def _is_gone(self) -> None:
        self.position, self.is_ready = 0, False
        self.drops += 1

    async def _follow(self, lsn: int | None) -> None:
        """Follow up to a durable LSN, or until the journal ends. What was folded is stored while more is folded: SQLite
        does not need the interpreter meanwhile."""
        folded, to_store = trio.open_memory_channel[_Folded](0)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._store, to_store)
                async with folded:
                    await self._fold(lsn, folded)
        except BaseExceptionGroup as group:
            raise _first_of(group) from None

    async def _fold(self, lsn: int | None, folded: trio.MemorySendChannel[_Folded]) -> None:
        journal, fold = self._journal, self._make_fold()
        with self._reading.follow(self.position) as follower:
            while lsn is None or follower.position < lsn:
                if not await follower.wait_for_more():
                    return
                if lsn is None:
                    await self._rest(follower.position)
                began = trio.current_time()
                behind = journal.durable_lsn - follower.position
                gives_way = lsn is None and not self._waiters and behind < MOST_BEHIND
                most = LOADED_TOGETHER if follower.position < self._load_until else BATCH_RECORDS
                if gives_way:
                    most = self._rested_records
                    if behind > AT_EASE_BEHIND:
                        most = max(most, behind // SHARE_OF_WHAT_IS_BEHIND)
                with giving_way(self._reading.hurry) if gives_way else nullcontext():
                    changes = await self._take(fold, follower, most if self._catalog.in_threads else INLINE_RECORDS)
                self._worked(trio.current_time() - began, gives_way)
                await folded.send(_Folded(changes, follower.position, journal.cursor(follower.position)))

    async def _take(self, fold: Fold, follower: LogFollower, most: int) -> list[Change]:
        """Have the fold take up what is durable, about so many records at most; what changes by that."""
        upto, size = follower.position + most, 0
        told: list[Any] = []
        is_loading = follower.position < self._load_until
        at_once, together = (LOADED_AT_ONCE, LOADED_BYTES) if is_loading else (READ_RECORDS, TOGETHER_BYTES)
        enough = together

        def changes() -> list[Change]:
            _take(fold, told)
            return fold.changes()

        while size < BATCH_BYTES and follower.position < min(upto, self._journal.durable_lsn):
            if size >= enough:
                await self._catalog.blocking(_take, fold, told)
                told, enough = [], size + together
            found = await follower.next_slice(min(most, at_once))
            if found is None:
                break
            if isinstance(fold, ReadingFold):
                await fold.prepare(found.told)
            told += found.told
            size += found.size
            self.looked_at = follower.position
        return await self._catalog.blocking(changes)

    @trio.lowlevel.enable_ki_protection
    def _worked(self, seconds: float, gave_way: bool) -> None:
        ended, rest = trio.current_time(), min(max(LINGER_SECONDS, RESTS * seconds), LONGEST_REST_SECONDS)
        self._pace.worked(ended, rest)
        if gave_way:
            self._reading.pace.worked(ended, rest)
            self._rested_records = _adapted(self._rested_records, seconds)

    async def _store(self, to_store: trio.MemoryReceiveChannel[_Folded]) -> None:
        store = self._catalog.store
        async for changes, position, cursor in to_store:
            # Where nothing changes, the place alone is worth a transaction now and then: what is folded twice from an
            # old one changes nothing again.
            if changes or position - self._stored >= PLACE_RECORDS:
                await self._catalog.write(store.apply, changes, cursor)
                self.transactions += 1
                self._stored = position
            if not self.is_ready and position >= self._load_until:
                await self._make_readable()
            self._moved_to(position)

    @trio.lowlevel.enable_ki_protection
    def _moved_to(self, position: int) -> None:
        self.position = position
        self._moved.unpark_all()

    async def _rest(self, position: int) -> None:
        """Until the rest is over, somebody waits, or nobody writes any more."""
        durable = -1
        while not self._waiters and durable != self._journal.durable_lsn:
            durable = self._journal.durable_lsn
            share = max(0.0, min(1.0, (MOST_BEHIND - durable + position) / (MOST_BEHIND - AT_EASE_BEHIND)))
            until = max(self._pace.until(share), self._reading.pace.until(share))
            if trio.current_time() >= until:
                return
            with trio.move_on_at(min(until, trio.current_time() + LINGER_SECONDS)):
                await self._hurry.park()

    # ---- for those who read the catalog ------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def park(self, error: Exception) -> None:
        """`run` will not be run any more, because of this: whoever waits is told."""
        self._parked = error
        self._moved.unpark_all()

    @trio.lowlevel.enable_ki_protection
    def end(self) -> None:
        """Nothing comes any more: whoever waits is told."""
        self._ended = True
        self._moved.unpark_all()

    def check_usable(self) -> None:
        """Raises: `Unavailable` if the catalog is no longer kept up to date."""
        if self._parked is not None:
            raise Unavailable(
                f"the catalog is not kept up to date any more ({error_text(self._parked)}), so nothing can be looked "
                "up in it. Logging and reading episodes by id go on; open the memory again to try anew."
            ) from self._parked

    def unreadable(self, error: Exception) -> Unavailable:
        """The error for a catalog that SQLite cannot read or write."""
        return Unavailable(f"the catalog cannot be used ({error}); `stepwell rebuild` makes it anew")

    async def wait_for(self, lsn: int, *, readable: bool = True) -> None:
        """Return once everything up to a durable LSN is in the catalog, and it can be read unless that is not asked
        for. A checkpoint, cancellable.

        Raises: `Unavailable` (the projector is parked), `Closed` (it ended before that).
        """
        self._waiters += 1
        self._reading.hurry.waiters += 1
        self._hurry.unpark_all()
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self.check_usable()
                if (self.is_ready or not readable) and self.position >= lsn:
                    return
                if self._ended:
                    raise Closed(_CLOSED)
                await self._moved.park()
        finally:
            self._waiters -= 1
            self._reading.hurry.waiters -= 1


class _Folded(NamedTuple):
    """What some records change, and the place behind them."""

    changes: list[Change]
    position: int
    cursor: str


def _adapted(records: int, seconds: float) -> int:
    """How many records to take between the next two rests, when so many took so long."""
    rest = seconds * RESTS
    if rest > LONGEST_REST_SECONDS:
        return max(SLICE_RECORDS, records // 2)
    return min(RESTED_RECORDS, records * 2) if rest < LONGEST_REST_SECONDS / 4 else records


def _take(fold: Fold, told: list[Any]) -> None:
    if isinstance(fold, BatchFold):
        for start in range(0, len(told), GIVING_WAY_ITEMS):
            give_way()
            fold.take_batches(told[start : start + GIVING_WAY_ITEMS])
        return
    for item in told:
        fold.take([item] if isinstance(item, Gap) else item.records())


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the two tasks, and not what it did to the other one; the group if they were cancelled."""
    found: BaseException | None = group.split(trio.Cancelled)[1]
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return group if found is None else found
