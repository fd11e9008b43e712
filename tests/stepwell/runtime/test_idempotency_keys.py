"""The window of idempotency keys is that of the last `keys_kept` accepted, whatever the episode went through."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import EpisodeHandle, ExecutionStep, InvalidState, MemoryConfig, OutcomeUnknown, StepSuccess
from stepwell.memory.memory import Memory
from tests.support import SEGMENT_BYTES, open_on, step


class Crash(Exception):
    """Raised into an incarnation by these tests."""


def config() -> MemoryConfig:
    return MemoryConfig(keys_kept=3, segment_bytes=SEGMENT_BYTES)


async def log_keyed(handle: EpisodeHandle, number: int) -> int:
    return (await handle.log_step(step(number, key=f"key {number}"))).seq


async def crash(memory: Memory, handle: EpisodeHandle) -> None:
    """Have the incarnation crash, and wait until the next one runs."""
    cell = memory._supervisor.cells[handle.id]
    cell.failure = Crash()
    cell.wake()
    await trio.sleep(1)
    assert cell.restarts == 1


async def test_a_restart_with_keyed_steps_in_hand_forgets_none_of_their_keys(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task")
        seqs = [await log_keyed(handle, number) for number in range(4)]
        await handle.flush()
        seqs.append(await log_keyed(handle, 4))
        await crash(memory, handle)
        assert [await log_keyed(handle, number) for number in (2, 3, 4)] == seqs[2:]
        assert len((await handle.get()).steps) == 5


async def test_a_restart_keeps_the_order_in_which_keys_leave(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task")
        seqs = [await log_keyed(handle, number) for number in range(3)]
        await handle.flush()
        await log_keyed(handle, 3)
        memory._supervisor.cells[handle.id].fail_pending(OutcomeUnknown("lost"))
        await trio.sleep(1)
        seqs += [await log_keyed(handle, number) for number in (3, 4)]
        assert [await log_keyed(handle, number) for number in (2, 3, 4)] == seqs[2:]
        with pytest.raises(InvalidState, match="was used for another step"):
            await handle.log_step(step(9, key="key 2"))


async def test_of_a_key_that_was_used_twice_under_a_smaller_window_the_last_use_counts() -> None:
    files = MemoryFileSystem()
    async with open_on(files, MemoryConfig(keys_kept=1, segment_bytes=SEGMENT_BYTES)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for number in (0, 1, 0):
            last = await log_keyed(handle, number)
    async with open_on(files, config()) as memory:
        assert await log_keyed(memory.handle("e"), 0) == last


async def test_objects_in_another_order_are_the_same_step_also_after_a_restart() -> None:
    files = MemoryFileSystem()
    first, again = ({"a": {"x": 1, "y": 2}, "b": [1]}, {"b": [1], "a": {"y": 2, "x": 1}})
    async with open_on(files, config()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        sent = ExecutionStep("tool", "act", first, StepSuccess(first), metadata=first, key="k")
        receipt = await handle.log_step(sent)
    sent_again = ExecutionStep("tool", "act", again, StepSuccess(again), metadata=again, key="k")
    async with open_on(files, config()) as memory:
        assert (await memory.log_step("e", sent_again)).seq == receipt.seq
        async with memory.atomic() as tx:
            tx.log_step("e", sent_again)
        assert tx.receipt is not None
        assert tx.receipt.seq == receipt.seq
        with pytest.raises(InvalidState, match="was used for another step"):
            await memory.log_step("e", ExecutionStep("tool", "act", {"b": [2]}, key="k"))


async def test_a_batch_of_many_keyed_steps_does_not_copy_the_keys_before_each() -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task")
        commit = (await handle.log_steps([step(1, key="first"), step(2, key="second")]))._commit
        keys = commit.keys
        assert keys is not None
        assert (await log_keyed(handle, 3)) == 4
        assert commit.keys is keys  # 99,000 copies of it would hold up the event loop for seconds
        assert keys == ["first", "second", "key 3"]
