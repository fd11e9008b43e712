"""Cancelled in asyncio: the Trio side has unwound first, and the contract is that of the same call under Trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import stepwell.aio
from stepwell import Closed, Interrupted, LogLocked, MemoryConfig
from tests.support import step


async def cancelled_while(start: Callable[[], Awaitable[object]], until: Callable[[], bool]) -> None:
    """Begin a call in a task, cancel it once `until` is true, and see the cancellation leave it."""
    task = asyncio.ensure_future(start())
    while not until():  # noqa: ASYNC110 - what it waits for happens in another thread
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_step_cancelled_while_it_waits_for_room_has_unwound_and_is_not_stored(tmp_path: Path) -> None:
    log: list[str] = []

    async def waits_for_room(_episode_id: str) -> None:
        log.append("waits")
        try:
            await trio.sleep_forever()
        finally:
            log.append("unwound")

    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task", episode_id="e")
            supervisor = memory._target._supervisor
            accepting, cell = supervisor.accepting, supervisor.cells["e"]
            cell.accepting, supervisor.accepting = False, waits_for_room  # type: ignore[method-assign,assignment]
            await cancelled_while(lambda: handle.log_step(step(1)), lambda: log == ["waits"])
            assert log == ["waits", "unwound"]
            cell.accepting, supervisor.accepting = True, accepting  # type: ignore[method-assign]
            assert (await handle.log_step(step(2))).seq == 2
            assert [item.action for item in (await handle.get()).steps] == ["action 2"]

    asyncio.run(main())


def test_a_step_cancelled_while_it_becomes_durable_is_stored_once_when_resubmitted(tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with stepwell.aio.open_memory(tmp_path / "m", config=MemoryConfig(durability="commit")) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            for number in range(30):
                task = asyncio.ensure_future(handle.log_step(step(number, key=f"k{number}")))
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                again = await handle.log_step(step(number, key=f"k{number}"))
                assert again.is_durable
            return [item.action for item in (await handle.get()).steps]

    assert asyncio.run(main()) == [f"action {number}" for number in range(30)]


def test_a_call_cancelled_before_the_trio_thread_has_seen_it_is_not_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task", episode_id="e")
            hold, held = threading.Event(), threading.Event()

            def stand_still() -> None:
                held.set()
                hold.wait(10)

            memory._door.crossing.token.run_sync_soon(stand_still)
            held.wait(10)
            task = asyncio.ensure_future(handle.log_step(step(1)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()  # not before the Trio side knows
            hold.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await handle.get()).steps == []

    asyncio.run(main())


def test_a_run_cancelled_in_asyncio_ends_as_interrupted_and_durable(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            begun = asyncio.Event()

            async def run() -> None:
                async with memory.episode("task", episode_id="e") as episode:
                    await episode.log_step(step(1))
                    async with episode.step("search"):
                        begun.set()
                        await asyncio.sleep(60)

            task = asyncio.ensure_future(run())
            await begun.wait()
            await cancelled_while(lambda: task, lambda: True)
            episode = await memory.get_episode("e")
            assert isinstance(episode.outcome, Interrupted)
            assert [type(item.result).__name__ for item in episode.steps] == ["StepSuccess", "StepInterrupted"]

    asyncio.run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_an_opening_that_is_cancelled_leaves_nothing_running_and_the_log_free(turns: int, tmp_path: Path) -> None:
    async def main() -> None:
        async def enter() -> None:
            async with stepwell.aio.open_memory(tmp_path / "m"):
                await asyncio.sleep(60)

        task = asyncio.ensure_future(enter())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [thread for thread in threading.enumerate() if thread.name == "stepwell"]
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            await memory.flush()

    asyncio.run(main())


def test_leaving_with_a_cancellation_stores_what_was_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        async def use() -> None:
            async with stepwell.aio.open_memory(tmp_path / "m") as memory:
                handle = await memory.start_episode("task", episode_id="e")
                for number in range(500):
                    await handle.log_step(step(number))
                accepted.set()
                await asyncio.sleep(60)

        accepted = asyncio.Event()
        task = asyncio.ensure_future(use())
        await accepted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    async def read() -> int:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            return len((await memory.get_episode("e")).steps)

    assert asyncio.run(read()) == 500


def test_calls_under_way_when_the_memory_is_left_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            scope = memory.follow(stepwell.NOW)
            events = await scope.__aenter__()
            waiting = asyncio.ensure_future(events.receive())
            await asyncio.sleep(0.01)
        with pytest.raises((EOFError, stepwell.OutcomeUnknown)):
            await waiting
        with pytest.raises(Closed):
            await memory.flush()

    asyncio.run(main())


def test_opening_errors_leave_bare_and_end_the_thread(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m"):
            with pytest.raises(LogLocked):
                async with stepwell.aio.open_memory(tmp_path / "m"):
                    pass
            assert len([thread for thread in threading.enumerate() if thread.name == "stepwell"]) == 1
        assert not [thread for thread in threading.enumerate() if thread.name == "stepwell"]

    asyncio.run(main())
