"""The times of a stream never go back, whatever the clock does."""

from __future__ import annotations

import time

import pytest

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import START, Gap, Memory, Success
from tests.support import open_on, step


class Clock:
    """The clock of the system, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1_800_000_000_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda: self.now)

    def go_back(self) -> None:
        self.now -= 3_600_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def times(memory: Memory, episode_id: str) -> list[int]:
    return [event.time_ns async for event in memory.events(episode_id)]


async def test_they_stand_still_while_the_clock_is_behind_them(clock: Clock) -> None:
    """Through every way into an episode, each after the clock was set back."""
    disk = MemoryFileSystem()
    began = clock.now
    async with open_on(disk) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        clock.go_back()
        await handle.log_step(step(1))
        clock.go_back()
        await handle.log_steps([step(2), step(3)])
        clock.go_back()
        async with memory.atomic() as tx:
            tx.log_step("e", step(4))
        clock.go_back()
        await handle.log_step(step(5))
    async with open_on(disk) as memory:
        clock.go_back()
        async with memory.atomic() as tx:
            tx.log_step("e", step(6))
        assert await times(memory, "e") == [began] * 7
        clock.now = began + 5
        async with memory.atomic() as tx:
            tx.log_step("e", step(7, key="k", thought="with everything"))
        clock.go_back()
        await memory.log_step("e", step(8))
    async with open_on(disk) as memory:
        clock.go_back()
        await memory.complete_episode("e", Success())
        assert await times(memory, "e") == [began] * 7 + [began + 5] * 3


async def test_all_records_of_a_transaction_have_the_time_of_its_commit(clock: Clock) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        began = clock.now
        for name in "ef":
            await memory.start_episode("task", episode_id=name)
        async with memory.atomic() as tx:
            tx.log_step("e", step(1))
            clock.now += 10
            tx.log_step("f", step(2))
            clock.now += 10
        assert await times(memory, "e") == await times(memory, "f") == [began, began + 20]


async def test_an_episode_ahead_of_the_clock_takes_no_other_along(clock: Clock) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        began = clock.now
        await memory.start_episode("task", episode_id="ahead")
        clock.go_back()
        await memory.start_episode("task", episode_id="e")
        async with memory.atomic() as tx:
            tx.log_step("ahead", step(1))
            tx.log_step("e", step(1))
        assert await times(memory, "ahead") == [began, began]
        assert await times(memory, "e") == [clock.now, clock.now]


@pytest.mark.parametrize("awake", [True, False])
async def test_the_deletion_of_an_episode_is_not_before_its_last_record(clock: Clock, awake: bool) -> None:
    disk = MemoryFileSystem()
    began = clock.now
    async with open_on(disk) as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
        if awake:
            clock.go_back()
            await memory.delete_episode("e")
    async with open_on(disk) as memory:
        if not awake:
            clock.go_back()
            await memory.delete_episode("e")
        async with memory.follow(START) as events:
            event = await events.receive()
        assert not isinstance(event, Gap)
        assert (event.kind, event.time_ns) == ("deleted", began)
