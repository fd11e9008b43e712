"""Every public async function is a checkpoint on every path, success and error alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import assert_checkpoints

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import ExecutionStep, InvalidState, Memory, NotFound, StepwellError, Success
from tests.support import cancelled_at_step, open_on, step

BAD = ExecutionStep(tool="")


@asynccontextmanager
async def prepared() -> AsyncIterator[Memory]:
    """A memory with an episode that is live ("e"), one that has ended ("ended"), and one that was deleted ("gone")."""
    async with open_on(MemoryFileSystem()) as memory:
        await fill(memory)
        yield memory


async def fill(memory: Memory) -> None:
    await (await memory.start_episode("task", episode_id="e")).log_step(step(1, key="k"))
    await (await memory.start_episode("task", episode_id="ended")).complete(Success())
    await memory.start_episode("task", episode_id="gone")
    await memory.delete_episode("gone")


async def drain(iterator: AsyncIterator[object]) -> None:
    async for _ in iterator:
        pass


async def first_event(memory: Memory) -> None:
    async with memory.follow() as events:
        await events.receive()


async def transact(memory: Memory, *steps: ExecutionStep, episode_id: str = "e") -> None:
    async with memory.atomic() as tx:
        for item in steps:
            tx.log_step(episode_id, item)


async def first_thing_told(memory: Memory) -> None:
    async with memory.lifecycle() as events:
        memory._runtime.lifecycle.tell("woken")
        with assert_checkpoints():
            await events.receive()


CALLS: dict[str, Callable[[Memory], Awaitable[object]]] = {
    "start_episode": lambda m: m.start_episode("new"),
    "start_episode, again": lambda m: m.start_episode("task", episode_id="e"),
    "start_episode, bad task": lambda m: m.start_episode(""),
    "start_episode, bad id": lambda m: m.start_episode("task", episode_id=""),
    "start_episode, other arguments": lambda m: m.start_episode("other", episode_id="e"),
    "log_step": lambda m: m.log_step("e", step(2)),
    "log_step, known key": lambda m: m.log_step("e", step(1, key="k")),
    "log_step, bad step": lambda m: m.log_step("e", BAD),
    "log_step, unknown id": lambda m: m.log_step("nope", step(2)),
    "log_step, bad id": lambda m: m.log_step(5, step(2)),  # type: ignore[arg-type]
    "log_step, ended": lambda m: m.log_step("ended", step(2)),
    "log_steps": lambda m: m.log_steps("e", [step(2), step(3)]),
    "log_steps, bad step": lambda m: m.log_steps("e", [step(2), BAD]),
    "log_steps, none": lambda m: m.log_steps("e", []),
    "log_steps, no list": lambda m: m.log_steps("e", 5),  # type: ignore[arg-type]
    "log_step, expected_seq": lambda m: m.log_step("e", step(2), expected_seq=2),
    "log_step, another expected_seq": lambda m: m.log_step("e", step(2), expected_seq=1),
    "log_steps, another expected_seq": lambda m: m.log_steps("e", [step(2)], expected_seq=1),
    "atomic": lambda m: transact(m, step(2)),
    "atomic, known key": lambda m: transact(m, step(1, key="k")),
    "atomic, nothing staged": lambda m: transact(m),
    "atomic, bad step": lambda m: transact(m, BAD),
    "atomic, ended": lambda m: transact(m, step(2), episode_id="ended"),
    "atomic, deleted": lambda m: transact(m, step(2), episode_id="gone"),
    "atomic, unknown id": lambda m: transact(m, step(2), episode_id="nope"),
    "atomic, entering": lambda m: m.atomic().__aenter__(),
    "atomic, leaving": lambda m: m.atomic().__aexit__(None, None, None),
    "flush": lambda m: m.flush(),
    "flush_steps": lambda m: m.flush_steps("e"),
    "flush_steps, ended": lambda m: m.flush_steps("ended"),
    "flush_steps, unknown": lambda m: m.flush_steps("nope"),
    "complete": lambda m: m.complete_episode("e", Success()),
    "complete, again": lambda m: m.complete_episode("ended", Success()),
    "complete, other outcome": lambda m: m.complete_episode("ended", Success("x")),
    "complete, bad outcome": lambda m: m.complete_episode("e", "done"),  # type: ignore[arg-type]
    "complete, unknown": lambda m: m.complete_episode("nope", Success()),
    "abandon": lambda m: m.abandon("e", "why"),
    "resume": lambda m: m.resume("e"),
    "resume, ended": lambda m: m.resume("ended"),
    "get_episode": lambda m: m.get_episode("e"),
    "get_episode, ended": lambda m: m.get_episode("ended"),
    "get_episode, unknown": lambda m: m.get_episode("nope"),
    "get_episodes": lambda m: m.get_episodes(["e", "ended"]),
    "get_episodes, none": lambda m: m.get_episodes([]),
    "open_episodes": lambda m: m.open_episodes(),
    "episode_ids": lambda m: drain(m.episode_ids()),
    "events": lambda m: drain(m.events("e")),
    "events, unknown": lambda m: drain(m.events("nope")),
    "delete_episode": lambda m: m.delete_episode("e"),
    "delete_episode, ended": lambda m: m.delete_episode("ended"),
    "delete_episode, deleted": lambda m: m.delete_episode("gone"),
    "delete_episode, unknown": lambda m: m.delete_episode("nope"),
    "delete_episode, bad id": lambda m: m.delete_episode(5),  # type: ignore[arg-type]
    "start_episode, deleted": lambda m: m.start_episode("task", episode_id="gone"),
    "log_step, deleted": lambda m: m.log_step("gone", step(2)),
    "complete, deleted": lambda m: m.complete_episode("gone", Success()),
    "resume, deleted": lambda m: m.resume("gone"),
    "get_episode, deleted": lambda m: m.get_episode("gone"),
    "events, deleted": lambda m: drain(m.events("gone")),
    "flush_steps, deleted": lambda m: m.flush_steps("gone"),
    "follow": lambda m: first_event(m),
    "follow, entering": lambda m: m.follow().__aenter__(),
    "follow, bad cursor": lambda m: m.follow("nonsense").__aenter__(),
    "lifecycle": lambda m: first_thing_told(m),
    "lifecycle, entering": lambda m: m.lifecycle().__aenter__(),
    "the run scope, entering": lambda m: m.episode("x").__aenter__(),
    "the run scope, bad task": lambda m: m.episode("").__aenter__(),
    "the step scope, entering": lambda m: m.handle("e").step("tool").__aenter__(),
    "the step scope, bad tool": lambda m: m.handle("e").step("").__aenter__(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_is_a_checkpoint(name: str) -> None:
    async with prepared() as memory:
        with assert_checkpoints():
            with suppress(StepwellError):
                await CALLS[name](memory)


@pytest.mark.parametrize("name", [name for name in CALLS if "," not in name])
async def test_is_cancelled_before_anything_happens_if_the_caller_is_cancelled_already(name: str) -> None:
    async with prepared() as memory:
        before = [event.seq async for event in memory.events("e")]
        with trio.CancelScope() as scope:
            scope.cancel()
            await CALLS[name](memory)
        assert scope.cancelled_caught
        assert [event.seq async for event in memory.events("e")] == before


@pytest.mark.parametrize("name", CALLS)
async def test_cancelled_at_any_point_it_leaves_a_sound_memory_and_can_be_repeated(name: str) -> None:
    """At each step of the calling task in turn, until the call gets through."""
    steps, cancelled = 0, True
    while cancelled:
        files = MemoryFileSystem()
        with trio.fail_after(10):
            async with open_on(files) as memory:
                await fill(memory)

                async def call(memory: Memory = memory) -> None:
                    with suppress(StepwellError):
                        await CALLS[name](memory)

                cancelled = await cancelled_at_step(steps, call)
                await call()
                other = await memory.start_episode("another task", episode_id="other")
                receipts = [await other.log_step(step(1))]
                with suppress(InvalidState, NotFound):  # it may have been completed, or deleted
                    receipts.append(await memory.log_step("e", step(99)))
                await memory.flush()
                assert all(receipt.is_durable for receipt in receipts)
        async with open_on(files) as memory:
            for episode_id in [item async for item in memory.episode_ids()]:
                found = await memory.get_episode(episode_id)
                assert [item.seq for item in found.steps] == list(range(2, len(found.steps) + 2))
        steps += 1
    assert steps > 1


async def test_receipts_and_opening_are_checkpoints_too() -> None:
    files = MemoryFileSystem()
    opening = open_on(files)
    with assert_checkpoints():
        memory = await opening.__aenter__()
    handle = await memory.start_episode("task")
    receipt = await handle.log_step(step(1))
    with assert_checkpoints():
        await receipt.wait_durable()
    with assert_checkpoints():
        await receipt.wait_durable()
    with assert_checkpoints():
        await opening.__aexit__(None, None, None)
    with assert_checkpoints():
        await receipt.wait_durable()
