"""An episode is started while a transaction that is to begin a run of the same id waits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import InvalidState, events
from stepwell.runtime.cell import EpisodeCell
from tests.support import open_on, step


@pytest.mark.parametrize("is_committed", [True, False])
async def test_starting_waits_for_a_transaction_that_is_to_begin_that_run(
    is_committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    medium_answers = trio.Event()

    async def settle(_cell: EpisodeCell) -> None:
        await medium_answers.wait()

    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="z")
        monkeypatch.setattr(EpisodeCell, "settle", settle)
        scope = trio.CancelScope()

        async def commit() -> None:
            with scope:
                async with memory.atomic() as transaction:
                    transaction.record("e", events.Started(agent="a"))
                    transaction.log_step("z", step(1))

        async def start() -> None:
            if is_committed:
                with pytest.raises(InvalidState, match="was started with another task, agent"):
                    await memory.start_episode("task", episode_id="e")
            else:
                await memory.start_episode("task", episode_id="e")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            await wait_all_tasks_blocked()
            nursery.start_soon(start)
            with trio.fail_after(100):  # it never returns while a task spins
                await wait_all_tasks_blocked()
            assert "e" in memory._supervisor.cells
            if is_committed:
                medium_answers.set()
            else:
                scope.cancel()
        monkeypatch.undo()
        assert (await memory.get_episode("e")).agent == ("a" if is_committed else "")
