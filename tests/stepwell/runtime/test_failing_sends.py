"""Giving a batch to the journal fails for a reason that nobody foresaw: that concerns one episode.

Whoever happens to send it goes on: a caller that waits, the timer, the writer with the result of the batch before, the
episode's own task with an ending.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import EpisodeHandle, EpisodeUnavailable, OutcomeUnknown, Receipt, Success
from stepwell.runtime.cell_mailbox import CellMailbox
from stepwell.runtime.receipt import Commit
from tests.support import open_on, step


class Bug(Exception):
    """Nobody has foreseen it."""


@contextmanager
def breaking(monkeypatch: pytest.MonkeyPatch, episode_id: str, times: int) -> Iterator[None]:
    """Have the next `times` batches of an episode fail on their way to the journal."""
    real = CellMailbox._batches_of

    def fail(cell: CellMailbox, commit: Commit) -> object:
        nonlocal times
        if cell.episode_id == episode_id and times:
            times -= 1
            raise Bug(f"{times} to come")
        return real(cell, commit)

    with monkeypatch.context() as patch:
        patch.setattr(CellMailbox, "_batches_of", fail)
        yield
    assert not times, "no batch was sent"


async def by_who_waits(bad: EpisodeHandle) -> Receipt:
    receipt = await bad.log_step(step(1))
    with pytest.raises(OutcomeUnknown):
        await receipt.wait_durable()
    return receipt


async def by_the_timer(bad: EpisodeHandle) -> Receipt:
    receipt = await bad.log_step(step(1))
    await trio.sleep(1)
    return receipt


async def by_the_writer(bad: EpisodeHandle) -> Receipt:
    return await bad.log_step(step(1))  # behind a batch that is at the journal


async def by_its_task_with_an_ending(bad: EpisodeHandle) -> Receipt | None:
    with pytest.raises(OutcomeUnknown):
        await bad.complete(Success())
    return None


Way = Callable[[EpisodeHandle], Awaitable[Receipt | None]]


@pytest.mark.parametrize("send", [by_who_waits, by_the_timer, by_the_writer, by_its_task_with_an_ending])
async def test_a_batch_that_cannot_be_given_to_the_journal_fails_its_episode_only(
    send: Way, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    with trio.fail_after(3_600):  # of the clock that jumps: what waits for a result that never comes is to fail
        async with open_on(MemoryFileSystem()) as memory:
            good = await memory.start_episode("task", episode_id="good")
            bad = await memory.start_episode("task", episode_id="bad")
            await memory.flush()
            cell = memory._supervisor.cells["bad"]
            at_journal = await bad.log_step(step(0))
            kept = await good.log_step(step(0))
            cell.make_urgent()
            if send is not by_the_writer:
                await at_journal.wait_durable()
            with breaking(monkeypatch, "bad", 1):
                receipt = await send(bad)
                if send is by_the_writer:
                    cell.make_urgent()
                    await at_journal.wait_durable()
                if receipt is not None:
                    with pytest.raises(OutcomeUnknown, match="Bug") as caught:
                        await receipt.wait_durable()
                    assert isinstance(caught.value.__cause__, Bug)
            await kept.wait_durable()
            again = await bad.log_step(step(2))  # it has been rebuilt meanwhile
            await again.wait_durable()
            assert (again.seq, memory.stats().restarts) == (3, 1)
            await bad.complete(Success())
            await good.complete(Success())
            assert [it.action for it in (await bad.get()).steps] == ["action 0", "action 2"]


async def test_an_episode_whose_batches_never_reach_the_journal_is_parked_and_says_why(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    with trio.fail_after(3_600):  # of the clock that jumps: what waits for a result that never comes is to fail
        async with open_on(MemoryFileSystem()) as memory:
            good = await memory.start_episode("task", episode_id="good")
            bad = await memory.start_episode("task", episode_id="bad")
            await memory.flush()
            with breaking(monkeypatch, "bad", 6):
                for number in range(6):
                    await by_who_waits(bad)
                    await (await good.log_step(step(number))).wait_durable()
                with pytest.raises(EpisodeUnavailable, match="Bug") as caught:
                    await bad.log_step(step(0))
            assert caught.value.reason == "parked"
            assert len((await good.get()).steps) == 6
