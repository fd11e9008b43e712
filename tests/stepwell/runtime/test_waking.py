"""Waking from the log: at most eight at a time, first come, first served; and `resume_open` wakes what was open."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import stepwell.runtime.episode_task as episode_task
from stepstore.journal import Batch
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import EpisodeUnavailable, InvalidState, Memory, MemoryConfig, NotFound, Success
from stepwell.model.ids import EpisodeId, stream_id
from stepwell.runtime.reading import fold_episode
from stepwell.runtime.supervisor import REBUILDS
from tests.support import SEGMENT_BYTES, force_into_log, open_on, step


class SlowFolds:
    """Folds that wait until they are let go, and note how many there are at a time and in which order they began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.began: list[str] = []
        self.now = self.most = 0
        self.gate = trio.Event()
        self.turns: dict[str, trio.Event] = {}
        monkeypatch.setattr(episode_task, "fold_episode", self._fold)

    async def _fold(self, journal: Any, episode_id: str) -> Any:
        self.began.append(episode_id)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.turns.get(episode_id, self.gate).wait()
            return await fold_episode(journal, EpisodeId(episode_id))
        finally:
            self.now -= 1


async def leave_open(files: MemoryFileSystem, names: Iterable[str]) -> None:
    """Leave a log with open episodes of one step each, in this order."""
    async with open_on(files) as memory:
        for name in names:
            await (await memory.start_episode("task", episode_id=name)).log_step(step(1))


def awake(memory: Memory) -> set[str]:
    return {name for name, cell in memory._supervisor.cells.items() if cell.state.value == "live"}


async def test_at_most_eight_rebuild_at_a_time_in_the_order_in_which_they_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(30)]
    await leave_open(files, names)
    folds = SlowFolds(monkeypatch)
    folds.turns = {name: trio.Event() for name in names}
    async with open_on(files) as memory, trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(memory.log_step, name, step(2))
            await wait_all_tasks_blocked()
        assert folds.began == names[:8]
        assert REBUILDS == 8
        # What is awake is not held up by what waits.
        handle = await memory.start_episode("task", episode_id="fresh")
        assert (await handle.log_step(step(1))).seq == 2
        for ended, name in enumerate(names, 1):
            folds.turns[name].set()
            await wait_all_tasks_blocked()
            assert folds.began == names[: 8 + ended]
        assert folds.most == 8
        assert awake(memory) == {*names, "fresh"}


async def test_a_looker_that_is_cancelled_kills_no_rebuild_and_one_rebuild_serves_all(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files = MemoryFileSystem()
    await leave_open(files, ["e"])
    folds = SlowFolds(monkeypatch)
    async with open_on(files) as memory:
        with trio.move_on_after(1) as scope:
            await memory.log_step("e", step(2))
        assert scope.cancelled_caught
        cell = memory._supervisor.cells[memory.handle("e").id]
        assert cell.wanted_by == 0
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(memory.resume, "e")
            await wait_all_tasks_blocked()
            assert cell.wanted_by == 5
            folds.gate.set()
        assert folds.began == ["e"]
        assert memory._supervisor.cells["e"] is cell
        assert len((await memory.get_episode("e")).steps) == 1


async def test_an_episode_somebody_waits_for_does_not_fall_asleep_before_that_caller_has_its_turn(
    autojump_clock: MockClock,
) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(20)]
    await leave_open(files, names)
    config = MemoryConfig(segment_bytes=SEGMENT_BYTES, max_live_episodes=1)
    async with open_on(files, config) as memory:
        wakes = 0
        real = memory._supervisor._add

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return real(*arguments, **named)

        memory._supervisor._add = counted  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(memory.log_step, name, step(2))
        assert wakes == len(names)
        for name in names:
            assert len((await memory.get_episode(name)).steps) == 2


# ---- resume_open ---------------------------------------------------------------------------------------------------

RESUMING = MemoryConfig(segment_bytes=SEGMENT_BYTES, resume_open=True)


async def test_resume_open_wakes_what_was_open_and_nothing_else(autojump_clock: MockClock) -> None:
    files = MemoryFileSystem()
    await leave_open(files, ["a", "b", "ended", "deleted"])
    async with open_on(files) as memory:
        await memory.complete_episode("ended", Success())
        await memory.delete_episode("deleted")
    async with open_on(files) as memory:
        await trio.sleep(1)
        assert awake(memory) == set()
    async with open_on(files, RESUMING) as memory:
        await trio.sleep(1)
        assert awake(memory) == {"a", "b"}
        assert memory.handle("a").log_step_nowait(step(2)).seq == 3
        await trio.sleep(200)
        assert awake(memory) == set()
    async with open_on(files, RESUMING, read_only=True) as memory:
        await trio.sleep(1)
        assert awake(memory) == set()


async def test_resume_open_is_bounded_by_max_live_and_takes_the_latest(autojump_clock: MockClock) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(20)]
    await leave_open(files, names)
    config = MemoryConfig(segment_bytes=SEGMENT_BYTES, resume_open=True, max_live_episodes=7)
    async with open_on(files, config) as memory:
        await trio.sleep(1)
        assert awake(memory) == set(names[-7:])


async def test_resume_open_sends_nothing_to_sleep_that_a_caller_has_started_meanwhile(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(20)]
    await leave_open(files, names)
    folds = SlowFolds(monkeypatch)
    config = MemoryConfig(segment_bytes=SEGMENT_BYTES, resume_open=True, max_live_episodes=7)
    async with open_on(files, config) as memory:
        await wait_all_tasks_blocked()
        for number in range(6):
            await memory.start_episode("task", episode_id=f"fresh {number}")
        folds.gate.set()
        await trio.sleep(1)
        assert awake(memory) == {"e19", *(f"fresh {number}" for number in range(6))}


async def test_resume_open_leaves_seven_places_to_callers(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(20)]
    await leave_open(files, names)
    folds = SlowFolds(monkeypatch)
    async with open_on(files, RESUMING) as memory, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        assert folds.began == ["e19"]
        for name in names[:10]:
            nursery.start_soon(memory.log_step, name, step(2))
            await wait_all_tasks_blocked()
        assert folds.began == ["e19", *names[:7]]
        folds.gate.set()
        await trio.sleep(0.5)
        assert awake(memory) == set(names)
        assert folds.most == 8


async def test_what_cannot_be_resumed_is_parked_alone(autojump_clock: MockClock) -> None:
    files, names = MemoryFileSystem(), ["a", "bad", "c", "unnamed"]
    await leave_open(files, names)
    await force_into_log(files, Batch(stream_id("episode", "bad"), 3, [b"\xff not cbor"], 0))
    await force_into_log(files, Batch(b"x" * 16, 1, [b"\xff not cbor"], 1))
    async with open_on(files, RESUMING) as memory:
        await trio.sleep(1)
        assert awake(memory) == {"a", "c", "unnamed"}
        with pytest.raises(EpisodeUnavailable):
            await memory.log_step("bad", step(2))
        await memory.log_step("a", step(2))


async def test_an_episode_whose_rebuild_fails_again_and_again_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(4)]
    await leave_open(files, names)

    async def failing(journal: Any, episode_id: Any) -> Any:
        if episode_id == "e2":
            await trio.lowlevel.checkpoint()
            raise RuntimeError("always")
        return await fold_episode(journal, episode_id)

    monkeypatch.setattr(episode_task, "fold_episode", failing)
    async with open_on(files, RESUMING) as memory:
        await trio.sleep(3)
        assert awake(memory) == {"e0", "e1", "e3"}
        await trio.sleep(100)
        with pytest.raises(EpisodeUnavailable, match="parked"):
            await memory.log_step("e2", step(2))


@pytest.mark.parametrize("yields", range(0, 40, 3))
async def test_closing_ends_resuming_at_any_moment(yields: int, autojump_clock: MockClock) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(10)]
    await leave_open(files, names)
    async with open_on(files, RESUMING) as memory:
        for _ in range(yields):
            await trio.lowlevel.checkpoint()
        woken = len(awake(memory))
    assert woken <= len(names)
    async with open_on(files) as memory:
        assert [item.episode_id for item in await memory.open_episodes()] == names


async def test_deleting_what_is_asleep_waking_or_draining(autojump_clock: MockClock) -> None:
    files, names = MemoryFileSystem(), [f"e{n}" for n in range(6)]
    await leave_open(files, names)
    async with open_on(files) as memory:
        for yields, name in zip(itertools.count(), names, strict=False):
            with trio.move_on_after(1):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_try_to_log, memory, name)
                    for _ in range(yields):
                        await trio.lowlevel.checkpoint()
                    await memory.delete_episode(name)
            with pytest.raises(NotFound):
                await memory.get_episode(name)
        await trio.sleep(1)
        assert awake(memory) == set()


async def _try_to_log(memory: Memory, name: str) -> None:
    try:
        await memory.log_step(name, step(2))
    except (NotFound, InvalidState):
        await trio.lowlevel.checkpoint()
