"""A message that comes while the task is parked and nothing is queued is taken in hand at the door."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import BatchConfig, Busy, Closed, EpisodeHandle, Memory, MemoryConfig, Success
from stepwell.runtime.cell import EpisodeCell
from tests.support import open_on, step

HOLDING = MemoryConfig(batch=BatchConfig.manual(), mailbox_size=4)


async def parked(memory: Memory) -> tuple[EpisodeHandle, EpisodeCell]:
    handle = await memory.start_episode("task", episode_id="e")
    await handle.flush()
    cell = memory._supervisor.cells[handle.id]
    with trio.fail_after(100):
        while cell._sleeper is None:
            await trio.lowlevel.checkpoint()
    return handle, cell


def has_channel(cell: EpisodeCell) -> bool:
    return cell.mail is not None


def queued(cell: EpisodeCell) -> int:
    return 0 if cell.mail is None else cell.mail.statistics().current_buffer_used


async def test_behind_a_task_that_was_woken_everything_goes_through_the_channel_and_keeps_its_order() -> None:
    files = MemoryFileSystem()
    async with open_on(files, HOLDING) as memory:
        handle, cell = await parked(memory)
        handle.log_step_nowait(step(0))
        assert (queued(cell), len(cell.in_hand)) == (0, 1)
        cell.wake()
        handle.log_step_nowait(step(1))
        assert (queued(cell), len(cell.in_hand)) == (1, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert cell._sleeper is not None
        handle.log_step_nowait(step(2))  # parked again, but not past what is queued
        assert (queued(cell), len(cell.in_hand)) == (2, 1)
        await handle.flush()
        assert (queued(cell), len(cell.in_hand)) == (0, 0)
        handle.log_step_nowait(step(3))
        assert (queued(cell), len(cell.in_hand)) == (0, 1)
    async with open_on(files) as memory:
        found = await memory.get_episode("e")
    assert [item.action for item in found.steps] == [f"action {number}" for number in range(4)]


async def test_what_was_taken_in_hand_at_the_door_fills_the_mailbox_all_the_same() -> None:
    async with open_on(MemoryFileSystem(), HOLDING) as memory:
        handle, cell = await parked(memory)
        for number in range(4):
            assert cell.waiting[0] == number
            handle.log_step_nowait(step(number))
        assert queued(cell) == 0
        with pytest.raises(Busy, match="full"):
            handle.log_step_nowait(step(4))
        await trio.testing.wait_all_tasks_blocked()
        assert cell.waiting == (0, 0)
        handle.log_step_nowait(step(4))
        await handle.flush()
        assert len((await handle.get()).steps) == 5


async def test_the_channel_is_there_only_while_something_is_to_go_through_it() -> None:
    async with open_on(MemoryFileSystem(), HOLDING) as memory:
        handle, cell = await parked(memory)
        assert not has_channel(cell)  # its start went through one
        handle.log_step_nowait(step(0))
        assert not has_channel(cell)
        cell.wake()
        handle.log_step_nowait(step(1))
        assert has_channel(cell)
        await handle.flush()
        assert not has_channel(cell)
        assert [item.action for item in (await handle.get()).steps] == ["action 0", "action 1"]


async def test_a_cell_whose_task_is_gone_for_good_takes_no_message_that_nobody_would_read() -> None:
    async with open_on(MemoryFileSystem(), HOLDING) as memory:
        handle, cell = await parked(memory)
        await handle.complete(Success("done"))
        await trio.testing.wait_all_tasks_blocked()
        assert handle.id not in memory._supervisor.cells
        with pytest.raises(Closed, match=r"'e' is not in memory any more"):
            cell.accept_event(b"", 0, is_step=False)
        assert not has_channel(cell)
