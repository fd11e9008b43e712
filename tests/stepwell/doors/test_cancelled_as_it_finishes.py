"""Cancelled in asyncio, or interrupted in plain code, when the Trio side has finished the call and the caller was not
told yet: what the call took from the memory, or entered, is not lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import stepwell.aio
import stepwell.sync
from stepstore.journal.contract import append
from stepwell import START, EpisodeFilter, EpisodeUnavailable
from stepwell.bridge.crossing import Call, Crossing
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.sync.door import Door
from tests.support import step


async def cancelled_as_it_finishes(crossing: Crossing, start: Callable[[], Awaitable[object]]) -> None:
    """Make one call and cancel its task once the Trio side has finished, before this loop can hear of it."""
    calls: list[Call] = []
    put = crossing.put

    def noted(call: Call) -> None:
        calls.append(call)
        put(call)

    crossing.put = noted  # type: ignore[method-assign]
    task = asyncio.ensure_future(start())
    while not calls:  # noqa: ASYNC110 - it takes the loop a turn
        await asyncio.sleep(0)
    crossing.put = put  # type: ignore[method-assign]
    while not calls[0].finished:
        time.sleep(0)  # noqa: ASYNC251 - this loop is to stand still
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_following_from_asyncio_skips_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await handle.log_steps([step(number) for number in range(9)])
            await handle.flush()
            async with memory.follow(START) as events:
                await cancelled_as_it_finishes(memory._door.crossing, events.receive)
                assert [(await events.receive()).seq for _ in range(10)] == list(range(1, 11))  # type: ignore[union-attr]

    asyncio.run(main())


def test_reading_events_from_asyncio_skips_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await handle.log_steps([step(number) for number in range(9)])
            events = handle.events()
            await cancelled_as_it_finishes(memory._door.crossing, events.__anext__)
            assert [event.seq async for event in events] == list(range(1, 11))

    asyncio.run(main())


def test_a_run_scope_entered_from_asyncio_by_a_cancelled_task_is_left_as_under_trio(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:

            async def run(episode_id: str | None) -> None:
                async with memory.episode("task", episode_id=episode_id):
                    raise AssertionError("not reached")

            await cancelled_as_it_finishes(memory._door.crossing, lambda: run(None))
            (ended,) = (await memory.list_episodes(at_least=2)).items
            assert ended.outcome == "interrupted"  # nobody can know its id
            await cancelled_as_it_finishes(memory._door.crossing, lambda: run("e"))
            assert not memory._target._scopes
            async with memory.episode("task", episode_id="e") as episode:
                await episode.log_step(step(1))

    asyncio.run(main())


def test_a_follower_and_a_step_entered_from_asyncio_by_a_cancelled_task_are_as_if_they_were_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task", episode_id="e")
            following = memory.follow(START)
            await cancelled_as_it_finishes(memory._door.crossing, following.__aenter__)
            assert following._scope._channel.closed
            await cancelled_as_it_finishes(memory._door.crossing, handle.step("tool").__aenter__)
            assert (await handle.get()).steps == []

    asyncio.run(main())


def interrupted_as_it_finishes(monkeypatch: pytest.MonkeyPatch, start: Callable[[], object]) -> None:
    """Make a plain call, and have Ctrl-C come between its result and its caller."""
    real = Door.call

    def call(door: Door, *arguments: Any) -> Any:
        monkeypatch.setattr(Door, "call", real)
        real(door, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Door, "call", call)
    with pytest.raises(KeyboardInterrupt):
        start()


def test_ctrl_c_in_plain_code_skips_no_event_and_leaves_what_was_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stepwell.sync.open_memory(tmp_path / "m") as memory:
        handle = memory.start_episode("task", episode_id="e")
        handle.log_steps([step(number) for number in range(9)])
        events = handle.events()
        interrupted_as_it_finishes(monkeypatch, events.__next__)
        assert [event.seq for event in events] == list(range(1, 11))
        with memory.follow(START) as channel:
            interrupted_as_it_finishes(monkeypatch, channel.receive)
            assert [channel.receive().seq for _ in range(10)] == list(range(1, 11))  # type: ignore[union-attr]
        interrupted_as_it_finishes(monkeypatch, memory.episode("another task").__enter__)
        (ended,) = memory.list_episodes(EpisodeFilter(outcomes=["interrupted"]), at_least=12).items
        assert ended.task_description == "another task"


def test_what_cannot_be_read_comes_behind_what_can_through_every_door(tmp_path: Path) -> None:
    async def spoil() -> None:
        async with stepwell.open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await handle.log_steps([step(number) for number in range(3)])
            await handle.flush()
            last = memory._journal.last_seq(stream_id(EPISODE_STREAM, "e"))
            await append(memory._journal, stream_id(EPISODE_STREAM, "e"), [b"no record of ours"], expected_seq=last)

    trio.run(spoil)
    with stepwell.sync.open_memory(tmp_path / "m") as memory:
        events = memory.events("e")
        assert [next(events).seq for _ in range(4)] == [1, 2, 3, 4]
        for _ in range(2):
            with pytest.raises(EpisodeUnavailable):
                next(events)
