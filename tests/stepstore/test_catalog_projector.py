"""When the projector of a catalog works, and when it gives way to those who write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock

from stepstore.catalog import Catalog, CatalogSchema, Projector, Table, projector
from stepstore.catalog.store import Change
from stepstore.journal import Batch, Gap, Record
from stepstore.journal.in_memory import InMemoryJournal

T = TypeVar("T")
STREAM = b"s" * 16
SECONDS = 0.05
"""What it takes to fold for a transaction of the slow catalog."""


class SlowCatalog(Catalog):
    """What is folded for a transaction takes a while."""

    seconds = SECONDS
    transactions = 0

    async def blocking(self, call: Callable[..., T], *args: Any) -> T:
        if getattr(call, "__name__", "") == "changes":
            self.transactions += 1
            await trio.sleep(self.seconds)
        return await super().blocking(call, *args)


class Counting:
    """A fold that changes nothing."""

    def take(self, items: Sequence[Record | Gap]) -> None:
        """Nothing."""

    def changes(self) -> list[Change]:
        return []


async def written(journal: InMemoryJournal, records: int) -> int:
    submission = journal.submit([Batch(STREAM, journal.last_seq(STREAM) + 1, (b"record",) * records, 0)])
    await submission.wait()
    return journal.durable_lsn


async def following(
    nursery: trio.Nursery, *, seconds: float = SECONDS
) -> tuple[InMemoryJournal, Projector, SlowCatalog]:
    journal = InMemoryJournal()
    schema = CatalogSchema(version=1, tables=(Table(name="t", columns={"id": "INTEGER PRIMARY KEY"}),))
    nursery.start_soon(journal.run)
    catalog = SlowCatalog(None, schema, in_threads=False)
    catalog.seconds = seconds
    follower = Projector(journal, catalog, Counting)
    nursery.start_soon(follower.run)
    await follower.wait_for(await written(journal, 1))
    return journal, follower, catalog


async def position_after(seconds: float, follower: Projector) -> int:
    await trio.sleep(seconds)
    return follower.position


async def keep_writing(journal: InMemoryJournal) -> None:
    while True:
        await written(journal, 10)
        await trio.sleep(0.1)


async def test_while_somebody_writes_and_nobody_waits_it_rests_many_times_as_long_as_it_worked(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        journal, follower, catalog = await following(nursery)
        nursery.start_soon(keep_writing, journal)
        rest = projector.RESTS * SECONDS
        assert await position_after(rest - 0.01, follower) == 1
        assert await position_after(2 * SECONDS + 0.02, follower) >= 91  # all of it in one transaction
        assert catalog.transactions == 2
        nursery.cancel_scope.cancel()


async def test_when_the_writing_pauses_the_rest_is_over(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        journal, follower, _catalog = await following(nursery)
        last = await written(journal, 10)
        pause = 2 * projector.LINGER_SECONDS + SECONDS + 0.01
        assert pause < projector.RESTS * SECONDS
        assert await position_after(pause, follower) == last
        nursery.cancel_scope.cancel()


async def test_it_does_not_rest_while_somebody_waits(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        journal, follower, catalog = await following(nursery)
        last = 0
        for _ in range(8):
            last = await written(journal, 250)
        await trio.sleep(0.01)
        with trio.fail_after(8 * SECONDS):  # that is eight transactions, and the time of one rest is longer
            await follower.wait_for(last)
        assert catalog.transactions > 3
        nursery.cancel_scope.cancel()


async def test_far_behind_the_log_it_does_not_rest(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "MOST_BEHIND", 2_000)
    monkeypatch.setattr(projector, "AT_EASE_BEHIND", 1_000)
    async with trio.open_nursery() as nursery:
        journal, follower, _catalog = await following(nursery)
        last = 0
        for _ in range(20):
            last = await written(journal, 250)
        pause = 3 * projector.LINGER_SECONDS  # it was resting when the first of them came
        worked = await position_after(pause + 8 * SECONDS, follower)
        assert last - 2_000 - projector.INLINE_RECORDS <= worked < last
        assert await position_after(10 * projector.RESTS * SECONDS, follower) == last
        nursery.cancel_scope.cancel()


async def test_a_burst_does_not_shorten_its_rest(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "MOST_BEHIND", 2_000)
    monkeypatch.setattr(projector, "AT_EASE_BEHIND", 1_000)
    async with trio.open_nursery() as nursery:
        journal, follower, _catalog = await following(nursery)
        for _ in range(3):
            await written(journal, 200)
        nursery.start_soon(keep_writing, journal)
        rest = projector.RESTS * SECONDS
        assert await position_after(rest - 0.01, follower) == 1
        assert await position_after(2 * SECONDS, follower) > 500
        nursery.cancel_scope.cancel()


async def test_under_a_load_that_lasts_it_rests_the_shorter_the_further_it_is_behind(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "MOST_BEHIND", 2_000)
    monkeypatch.setattr(projector, "AT_EASE_BEHIND", 1_000)
    async with trio.open_nursery() as nursery:
        journal, follower, catalog = await following(nursery)
        most = 0
        for _ in range(1_200):  # two minutes; it could fold five times as much
            await written(journal, 200)
            await trio.sleep(0.1)
            most = max(most, journal.durable_lsn - follower.position)
        assert 500 < most < 2_000 + projector.INLINE_RECORDS
        assert catalog.transactions * SECONDS < 120 / 2  # it rests all the same
        nursery.cancel_scope.cancel()


async def test_a_transaction_that_took_long_is_not_followed_by_a_long_rest(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        journal, follower, _catalog = await following(nursery, seconds=10)
        nursery.start_soon(keep_writing, journal)
        assert await position_after(projector.LONGEST_REST_SECONDS - 0.1, follower) == 1
        assert await position_after(10 + 0.2, follower) > 100
        nursery.cancel_scope.cancel()


def test_what_takes_long_to_fold_is_folded_in_smaller_pieces_and_what_takes_little_in_larger_ones_again() -> None:
    most_seconds = projector.LONGEST_REST_SECONDS / projector.RESTS
    records = projector.RESTED_RECORDS
    while (adapted := projector._adapted(records, records * 1e-5)) < records:
        records = adapted
    assert records * 1e-5 <= most_seconds  # so that resting makes up for it
    for _ in range(20):
        records = projector._adapted(records, records * 1e-7)
    assert records == projector.RESTED_RECORDS
    assert projector._adapted(projector.SLICE_RECORDS, 10.0) == projector.SLICE_RECORDS
