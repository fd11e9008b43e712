"""Threads that compute beside an event loop let it have the interpreter's lock, as long as nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stepstore import giving_way as module
from stepstore.catalog import Catalog, CatalogSchema, Projector, Table, projector
from stepstore.catalog.store import Change
from stepstore.giving_way import PAUSE_SECONDS, RUN_SECONDS, Hurry, give_way, giving_way
from stepstore.journal import Batch, Gap, Record
from stepstore.journal.in_memory import InMemoryJournal

STREAM = b"s" * 16


class Clock:
    """What the module takes for `time`: moves when told, or by `step` with each look; keeps what was slept."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 0.0
        self.slept: list[float] = []

    def perf_counter(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


async def in_a_thread(work: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(work)


async def test_a_thread_pauses_each_time_it_has_computed_for_a_while(clock: Clock) -> None:
    def work() -> None:
        for _ in range(4):
            clock.now += 0.6 * RUN_SECONDS
            give_way()

    with giving_way(Hurry()):
        await in_a_thread(work)
    assert clock.slept == [PAUSE_SECONDS] * 2


async def test_a_thread_that_was_not_told_to_never_pauses(clock: Clock) -> None:
    clock.step = 1.0
    with giving_way(Hurry()):
        pass
    await in_a_thread(give_way)
    assert clock.slept == []


async def test_the_event_loop_itself_is_never_put_to_sleep(clock: Clock) -> None:
    clock.step = 1.0
    with giving_way(Hurry()):
        give_way()
    assert clock.slept == []


async def test_nobody_gives_way_while_somebody_waits(clock: Clock) -> None:
    clock.step = 1.0
    hurry = Hurry()

    def work() -> None:
        give_way()
        hurry.waiters += 1
        give_way()
        hurry.waiters -= 1
        give_way()

    with giving_way(hurry):
        await in_a_thread(work)
    assert clock.slept == [PAUSE_SECONDS] * 2


class Taking:
    """A fold that changes nothing, and is given batches."""

    def take(self, items: Sequence[Record | Gap]) -> None:
        """Nothing."""

    def take_batches(self, items: Sequence[Any]) -> None:
        """Nothing."""

    def changes(self) -> list[Change]:
        return []


@pytest.mark.parametrize("is_waited_for", [False, True])
async def test_a_catalog_is_folded_giving_way_unless_somebody_waits_for_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, is_waited_for: bool
) -> None:
    monkeypatch.setattr(projector, "LINGER_SECONDS", 0.01)
    journal = InMemoryJournal()
    schema = CatalogSchema(version=1, tables=(Table(name="t", columns={"id": "INTEGER PRIMARY KEY"}),))
    catalog = Catalog(None, schema)
    with trio.fail_after(280):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            follower = Projector(journal, catalog, Taking)
            nursery.start_soon(follower.run)
            await follower.wait_for(0)
            clock.slept.clear()
            clock.step = 1.0
            if is_waited_for:
                nursery.start_soon(follower.wait_for, 10)
                await wait_all_tasks_blocked()
            await journal.submit([Batch(STREAM, 1, (b"record",) * 10, 0)]).wait()
            while follower.position < 10:
                await follower._moved.park()
            nursery.cancel_scope.cancel()
    await catalog.close()
    assert (clock.slept == []) is is_waited_for
