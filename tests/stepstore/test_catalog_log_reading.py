"""One reading of a journal for several who follow it: each gets all of it in order, and little is read twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stepstore.catalog import Catalog, CatalogSchema, LogReading, Projector, Table, projector
from stepstore.catalog.log_reading import LogFollower, Slice, _behind
from stepstore.catalog.store import Change
from stepstore.errors import RecoveryFailed
from stepstore.journal import (
    Batch,
    Gap,
    InMemoryJournal,
    Journal,
    Record,
    RecordBatch,
    SegmentLogJournal,
    Stored,
    StoredBatch,
)
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.support import HookedFileSystem

A, B = b"a" * 16, b"b" * 16
SCHEMA = CatalogSchema(version=1, tables=(Table(name="t", columns={"id": "INTEGER PRIMARY KEY"}),))


class Reading(LogReading):
    """Counts how often something was read; what it tells are the records one by one."""

    def __init__(self, journal: Journal, **options: Any):
        super().__init__(journal, self._as_records, **options)
        self.reads = 0

    def _keep(self, read: Slice) -> None:
        self.reads += 1
        super()._keep(read)

    def _as_records(self, items: Sequence[Stored]) -> list[Record | Gap]:
        found: list[Record | Gap] = []
        for item in items:
            if isinstance(item, Gap):
                found.append(item)
            else:
                found += (item.cut() if isinstance(item, StoredBatch) else item).records()
        return found


async def write(journal: Journal, *sizes: int, stream: bytes = A) -> None:
    """Submit batches of so many records, each by itself, so that each is a frame."""
    for size in sizes:
        seq = journal.last_seq(stream) + 1
        await journal.submit([Batch(stream, seq, [b"%d" % n for n in range(seq, seq + size)], 0)]).wait()


async def lsns(follower: LogFollower, records: int = 1) -> list[int]:
    """The records of the next slice."""
    found = await follower.next_slice(records)
    assert found is not None
    return [item.lsn for item in found.told if isinstance(item, Record)]


def log_on(files: MemoryFileSystem | HookedFileSystem) -> SegmentLogJournal:
    return SegmentLogJournal.open("/log", LogOptions(), files)


async def with_journal(journal: Journal, test: Callable[[], Any]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await test()
        journal.finish()
    journal.release()


async def test_what_one_has_read_the_others_are_given_and_then_nothing_is_kept() -> None:
    journal = log_on(MemoryFileSystem())

    async def test() -> None:
        await write(journal, 3, 2, 4)
        reading = Reading(journal)
        with reading.follow(0) as one, reading.follow(0) as other:
            slices = [await lsns(one) for _ in range(3)]
            assert slices == [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
            assert reading.reads == 3
            assert [await lsns(other) for _ in range(3)] == slices
            assert reading.reads == 3
            assert not reading._kept
            assert reading._kept_bytes == 0

    await with_journal(journal, test)


async def test_they_take_turns_in_reading() -> None:
    journal = log_on(MemoryFileSystem())

    async def test() -> None:
        await write(journal, *[2] * 6)
        reading = Reading(journal)
        with reading.follow(0) as one, reading.follow(0) as other:
            for first, second in [(one, other), (other, one)] * 3:
                found = await lsns(first)
                assert found == [first.position - 1, first.position]
                assert await lsns(second) == found
            assert one.position == other.position == 12
            assert reading.reads == 6

    await with_journal(journal, test)


async def test_who_wants_what_another_is_reading_waits_for_it() -> None:
    journal = log_on(MemoryFileSystem())

    async def test() -> None:
        await write(journal, 3)
        reading = Reading(journal)
        found: list[list[int]] = []

        async def follow(follower: LogFollower) -> None:
            found.append(await lsns(follower))

        with reading.follow(0) as one, reading.follow(0) as other:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow, one)
                nursery.start_soon(follow, other)
        assert found == [[1, 2, 3]] * 2
        assert reading.reads == 1

    await with_journal(journal, test)


async def test_one_that_is_behind_reads_for_itself_and_joins_in_the_midst_of_a_slice() -> None:
    journal = log_on(MemoryFileSystem())

    async def test() -> None:
        await write(journal, 3, 3)
        reading = Reading(journal)
        with reading.follow(3) as ahead, reading.follow(1) as behind, reading.follow(4) as within:
            assert await lsns(ahead) == [4, 5, 6]
            assert reading.reads == 1
            assert await lsns(within) == [5, 6]  # cut off what is kept
            assert reading.reads == 1
            assert await lsns(behind) == [2, 3]  # nobody has read it
            assert reading.reads == 2
            assert [item.upto for item in reading._kept] == [6]  # and nobody needs it
            assert await lsns(behind) == [4, 5, 6]
            assert reading.reads == 2

    await with_journal(journal, test)


def test_what_lies_behind_a_place_is_a_part_of_each_kind_of_item() -> None:
    stored = StoredBatch(A, 1, 4, (1, 2, 3), b"-abbccc-", 1)
    batch = RecordBatch(A, 4, 7, [b"d", b"e"])
    items: list[Stored] = [Gap(1, 3), stored, batch, Gap(9, 9)]
    assert _behind(items, 0) == items
    assert _behind(items, 2) == [Gap(3, 3), *items[1:]]
    assert _behind(items, 4) == [RecordBatch(A, 2, 5, [b"bb", b"ccc"]), *items[2:]]
    assert _behind(items, 7) == [RecordBatch(A, 5, 8, [b"e"]), Gap(9, 9)]
    assert _behind(items, 9) == []


async def test_what_is_kept_is_bounded_and_whoever_comes_later_reads_it_again() -> None:
    journal = log_on(MemoryFileSystem())

    async def test() -> None:
        await write(journal, *[10] * 20)
        reading = Reading(journal, kept_bytes=50)
        with reading.follow(0) as ahead, reading.follow(0) as behind:
            for _ in range(20):
                await lsns(ahead)
                assert reading._kept_bytes <= 50
            seen = [lsn for _ in range(20) for lsn in await lsns(behind)]
            assert seen == list(range(1, 201))
            assert reading.reads > 20

    await with_journal(journal, test)


async def test_one_that_has_left_holds_nothing() -> None:
    journal = log_on(MemoryFileSystem())

    async def test() -> None:
        await write(journal, 3, 3)
        reading = Reading(journal)
        with reading.follow(0) as one:
            with reading.follow(0):
                await lsns(one)
                assert len(reading._kept) == 1
            assert not reading._kept
            await lsns(one)
            assert not reading._kept

    await with_journal(journal, test)


async def test_a_read_that_fails_or_is_cancelled_hinders_nobody_and_gives_the_same_the_next_time() -> None:
    failing = False

    def hook(call: str, path: str) -> None:
        if failing and call == "read" and path.endswith(".seg"):
            raise OSError(5, "injected", path)

    journal = log_on(HookedFileSystem(MemoryFileSystem(), hook))

    async def test() -> None:
        nonlocal failing
        await write(journal, 3)
        reading = Reading(journal)
        with reading.follow(0) as one, reading.follow(0) as other:
            failing = True
            with pytest.raises(RecoveryFailed):
                await one.next_slice(1)
            failing = False
            with trio.CancelScope() as scope:
                scope.cancel()
                await one.next_slice(1)
            assert scope.cancelled_caught
            assert await lsns(other) == [1, 2, 3]
            assert await lsns(one) == [1, 2, 3]

    await with_journal(journal, test)


async def test_at_the_end_of_a_journal_there_is_no_more() -> None:
    journal = log_on(MemoryFileSystem())
    reading = Reading(journal)
    more: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        with reading.follow(0) as follower:

            async def wait() -> None:
                more.append(await follower.wait_for_more())

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not more
            await write(journal, 1)
            assert await lsns(follower) == [1]
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            journal.finish()
            await wait_all_tasks_blocked()
            assert await follower.next_slice(1) is None
    assert more == [True, False]
    journal.release()


@pytest.mark.parametrize("seed", range(8))
async def test_each_gets_every_record_once_and_in_order_whoever_reads_it(seed: int) -> None:
    dice = random.Random(seed)
    journal: Journal = log_on(MemoryFileSystem()) if seed % 2 else InMemoryJournal()

    async def test() -> None:
        reading = Reading(journal, kept_bytes=dice.choice([0, 40, 400, 10**6, 10**6]))
        seen: dict[int, list[int]] = {}

        async def follow(number: int, records: int) -> None:
            while len(seen[number]) < records:
                # It leaves now and then, as one that has failed, and comes again where it was.
                with reading.follow(seen[number][-1] if seen[number] else start[number]) as follower:
                    for _ in range(dice.randrange(1, 20)):
                        for _ in range(dice.randrange(4)):  # so that each is ahead now and then
                            await trio.lowlevel.checkpoint()
                        if follower.position < last:
                            seen[number] += await lsns(follower, dice.choice([1, 1, 1, 5]))

        await write(journal, *(dice.randrange(1, 9) for _ in range(40)))
        last = journal.durable_lsn
        start = [dice.choice([0, 0, 0, dice.randrange(last)]) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for number in range(4):
                seen[number] = []
                nursery.start_soon(follow, number, last - start[number])
        assert seen == {number: list(range(start[number] + 1, last + 1)) for number in range(4)}

    await with_journal(journal, test)


class Nothing:
    """A fold that changes nothing."""

    def take(self, items: Sequence[Record | Gap]) -> None:
        """Nothing."""

    def changes(self) -> list[Change]:
        return []


class Batches(Nothing):
    """The same, of what was told."""

    def take_batches(self, items: Sequence[Any]) -> None:
        """Nothing."""


async def test_projectors_that_share_a_reading_rest_together_and_read_everything_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "INLINE_RECORDS", 100_000)
    journal = log_on(MemoryFileSystem())
    slow = iter([0.05, 0.01, 0.03] * 100)

    class SlowCatalog(Catalog):
        async def blocking(self, call: Callable[..., Any], *args: Any) -> Any:
            await trio.sleep(next(slow))
            return await super().blocking(call, *args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        reading = Reading(journal)
        projectors = [
            Projector(journal, SlowCatalog(None, SCHEMA, in_threads=False), Batches, reading) for _ in range(3)
        ]
        for it in projectors:
            nursery.start_soon(it.run)
        stood: set[int] = set()
        for _ in range(300):
            await write(journal, 1)
            await trio.sleep(0.1)
            positions = {it.position for it in projectors}
            stood |= positions
            assert len(positions) <= 2  # some have folded what the others are folding
        assert len(stood) > 10
        assert reading.reads <= len(stood) + 1  # and not three times as often; one round is under way
        upto = max(stood)
        with trio.fail_after(10):
            for it in projectors:
                await it.wait_for(upto)
        nursery.cancel_scope.cancel()
    journal.release()
