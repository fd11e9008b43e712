"""The one timer for steps that nobody waits for: when they go, and how much it keeps."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import BatchConfig, MemoryConfig, OutcomeUnknown
from tests.support import open_on, step

SECOND = MemoryConfig(batch=BatchConfig(max_batch_size=1_000, flush_interval_ms=1_000))


async def pass_time(clock: MockClock, seconds: float) -> None:
    await trio.testing.wait_all_tasks_blocked()  # whoever is about to sleep begins now, and not behind the jump
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def test_however_many_batches_go_before_their_time_the_flusher_keeps_one_entry_for_each_cell(
    mock_clock: MockClock,
) -> None:
    async with open_on(MemoryFileSystem(), SECOND) as memory:
        flusher = memory._supervisor.flusher
        handles = [await memory.start_episode("task", episode_id=f"e{number}") for number in range(3)]
        for number in range(20):
            for handle in handles:
                receipt = await handle.log_step(step(number))
                await receipt.wait_durable()
        assert len(flusher) == 3
        await pass_time(mock_clock, 1)
        assert len(flusher) == 0


async def test_a_step_behind_a_batch_that_went_early_waits_for_its_own_interval(mock_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), SECOND) as memory:
        handle, other = await memory.start_episode("task"), await memory.start_episode("task")
        receipt = await handle.log_step(step(0))
        await receipt.wait_durable()
        await pass_time(mock_clock, 0.6)
        first = await handle.log_step(step(1))
        second = await other.log_step(step(1))
        await pass_time(mock_clock, 0.5)  # 1.1: the entry of the first batch has come up
        assert not first.is_durable
        await pass_time(mock_clock, 0.49)
        assert (first.is_durable, second.is_durable) == (False, False)
        await pass_time(mock_clock, 0.01)  # 1.6
        assert (first.is_durable, second.is_durable) == (True, True)
        assert len(memory._supervisor.flusher) == 0


async def test_the_time_of_steps_that_were_given_up_says_nothing_about_later_ones(mock_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), SECOND) as memory:
        handle = await memory.start_episode("task")
        await handle.flush()
        await pass_time(mock_clock, 1)
        lost = await handle.log_step(step(0))
        memory._supervisor.cells[handle.id].fail_pending(OutcomeUnknown("the journal said so"))
        with pytest.raises(OutcomeUnknown):
            await lost.wait_durable()
        await pass_time(mock_clock, 1)  # it has been rebuilt, and the interval of the lost step is over
        later = await handle.log_step(step(1))
        await pass_time(mock_clock, 0.9)
        assert not later.is_durable
        await pass_time(mock_clock, 0.1)
        assert later.is_durable
