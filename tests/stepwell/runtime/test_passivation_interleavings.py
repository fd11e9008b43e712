"""A message may arrive at any scheduler step of a passivation, or of a wake: none is lost, and none raises for it.

Each sweep lets something happen just before the k-th task step since the last step was logged, for every k until the
episode was asleep before it came. Tasks run in the same order each time a seed is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    BatchConfig,
    Busy,
    EpisodeHandle,
    InvalidState,
    LogFull,
    Memory,
    MemoryConfig,
    NotFound,
    StepwellError,
    Success,
)
from stepwell.runtime.cell import EpisodeCell
from tests.crash.repeatable import deterministic, run
from tests.support import SEGMENT_BYTES, cancelled_at_step, open_on, step

SEEDS = range(4)
MOST_STEPS = 400
CONFIG = MemoryConfig(
    idle_seconds=1,
    segment_bytes=SEGMENT_BYTES,
    batch=BatchConfig(max_batch_size=10_000, flush_interval_ms=3_600_000),
    keys_kept=8,
)


class _AtStep(trio.abc.Instrument):
    """Calls a plain function before the k-th task step from now, unless the episode is asleep by then."""

    def __init__(self, cell: EpisodeCell, k: int, call: Callable[[], None]):
        self._cell, self._left, self._call = cell, k, call
        self.called = False
        self.met = ""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        state = self._cell.state.value
        if self.called or state == "asleep":
            return
        if self._left == 0:
            self.called = True
            self.met = state
            self._call()
        self._left -= 1


class Meeting:
    """One run: an episode with three steps that are not stored yet, and what it is to meet."""

    def __init__(self, memory: Memory, handle: EpisodeHandle):
        self.memory, self.handle = memory, handle
        self.arrived = trio.Event()
        self.accepted = [f"action {n}" for n in range(3)]
        self.errors: list[BaseException] = []

    async def log_step(self) -> None:
        receipt = await self.handle.log_step(step(3))
        assert receipt.seq == 5
        self.accepted.append("action 3")

    async def log_step_durable(self) -> None:
        await self.log_step()
        await self.handle.flush()

    async def two_senders(self) -> None:
        async def send(first: int) -> None:
            for number in range(first, first + 3):
                await self.handle.log_step(step(number))
                self.accepted.append(f"action {number}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, 10)
            nursery.start_soon(send, 20)

    async def log_steps(self) -> None:
        assert (await self.handle.log_steps([step(3), step(4)])).seq == 6
        self.accepted += ["action 3", "action 4"]

    async def transaction(self) -> None:
        async with self.memory.atomic() as tx:
            tx.log_step("e", step(3))
            tx.log_step("e", step(4))
        self.accepted += ["action 3", "action 4"]

    async def known_key(self) -> None:
        receipt = await self.handle.log_step(step(0, key="key 0"))
        assert receipt.seq == 2
        await receipt.wait_durable()

    async def flush(self) -> None:
        await self.handle.flush()

    async def read(self) -> None:
        assert [item.action for item in (await self.handle.get()).steps] == self.accepted

    async def start_again(self) -> None:
        await self.memory.start_episode("task", episode_id="e")

    async def resume(self) -> None:
        await self.memory.resume("e")

    async def refused(self) -> None:
        """The journal refuses what is sent: receipts say so, and the episode goes on from what the log has."""
        journal = self.memory._journal
        real = journal.submit

        def refuse(*_arguments: Any, **_named: Any) -> Any:
            journal.submit = real  # type: ignore[method-assign]
            raise LogFull("refused by this test")

        journal.submit = refuse  # type: ignore[method-assign]
        cell = self.memory._supervisor.cells.get(self.handle.id)
        pending = () if cell is None else cell.pending_commits
        for commit in pending:
            await commit.wait()
            if commit.error is not None:
                self.accepted.clear()
        journal.submit = real  # type: ignore[method-assign]
        await self.handle.log_step(step(3))
        self.accepted.append("action 3")

    async def complete(self) -> None:
        assert (await self.handle.complete(Success("well"))).outcome == Success("well")
        with pytest.raises(InvalidState):
            await self.handle.log_step(step(9))

    async def delete(self) -> None:
        await self.memory.delete_episode("e")
        with pytest.raises(NotFound):
            await self.handle.get()

    async def crash(self) -> None:
        """Its task crashes, and is restarted from the log."""
        cell = self.memory._supervisor.cells.get(self.handle.id)
        if cell is not None:
            cell.failure = RuntimeError("a crash of this test")
            cell.wake()
        await self.log_step()

    async def pressure(self) -> None:
        """So many others awake that it must go, which it does already."""
        for number in range(4):
            await self.memory.start_episode("task", episode_id=f"other {number}")

    async def close(self) -> None:
        """The memory is closed (see `one_run`)."""
        await trio.lowlevel.checkpoint()


ARRIVING = [name for name, value in vars(Meeting).items() if callable(value) and not name.startswith("_")]


async def _one_run(kind: str, k: int, *, in_the_instrument: bool = False) -> str:
    """The state that the message met; "" if the episode was asleep before the k-th step."""
    files = MemoryFileSystem()
    settings = (
        CONFIG
        if kind != "pressure"
        else MemoryConfig(max_live_episodes=1, idle_seconds=1, segment_bytes=SEGMENT_BYTES, batch=CONFIG.batch)
    )
    async with open_on(files, settings) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        meeting = Meeting(memory, handle)
        for number in range(3):
            await handle.log_step(step(number, key=f"key {number}"))
        cell = memory._supervisor.cells[handle.id]

        def now() -> None:
            if in_the_instrument:
                try:
                    meeting.handle.log_step_nowait(step(3))
                    meeting.accepted.append("action 3")
                except BaseException as error:
                    meeting.errors.append(error)
            meeting.arrived.set()

        instrument = _AtStep(cell, k, now)
        trio.lowlevel.add_instrument(instrument)
        arrived = False
        with trio.move_on_after(3):
            await meeting.arrived.wait()
            arrived = True
        trio.lowlevel.remove_instrument(instrument)
        if arrived and not in_the_instrument:
            await getattr(meeting, kind)()
            if kind in ("log_step", "log_step_durable", "log_steps", "transaction", "resume"):
                await trio.testing.wait_all_tasks_blocked()
                assert memory._supervisor.cells[handle.id].state.value == "live", "it was used and drains on"
        if kind != "close":
            await trio.sleep(4)
            assert "e" not in memory._supervisor.cells, "it does not go to sleep any more"
    assert arrived == instrument.called
    if in_the_instrument and meeting.errors:
        assert all(isinstance(error, Busy) for error in meeting.errors), meeting.errors
        assert meeting.accepted[3:] == []
    async with open_on(files) as memory:
        if kind == "delete" and arrived:
            with pytest.raises(NotFound):
                await memory.get_episode("e")
        else:
            stored = [item.action for item in (await memory.get_episode("e")).steps]
            if kind == "two_senders":
                assert sorted(stored) == sorted(meeting.accepted)
                for first in (10, 20):
                    mine = [text for text in stored if text in {f"action {n}" for n in range(first, first + 3)}]
                    assert mine == sorted(mine)
            else:
                assert stored == meeting.accepted
    return instrument.met


def sweep(seed: int, one_run: Callable[[int], Awaitable[str]]) -> list[str]:
    """Run for every k until it comes too late; gives what each that came in time has met."""
    print(f"seed {seed}")
    with deterministic() as dice:
        met: list[str] = []
        for k in range(MOST_STEPS):

            async def main(k: int = k) -> None:
                met.append(await one_run(k))

            dice.throw_anew(seed)
            try:
                run(main)
            except BaseException as error:
                error.add_note(f"seed {seed}, step {k}")
                raise
            if not met[-1]:
                return met[:-1]
    raise AssertionError(f"it was not asleep after {MOST_STEPS} steps")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ARRIVING)
def test_a_message_at_every_step_of_a_passivation(kind: str, seed: int) -> None:
    met = sweep(seed, lambda k: _one_run(kind, k))
    assert met.count("live") > 10
    assert met.count("draining") > 1


@pytest.mark.parametrize("seed", SEEDS)
def test_nowait_between_any_two_steps_of_a_passivation_is_stored_or_busy(seed: int) -> None:
    met = sweep(seed, lambda k: _one_run("nowait", k, in_the_instrument=True))
    assert met.count("draining") > 1


Call = Callable[[Memory], Awaitable[Any]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "call",
    [
        lambda memory: memory.log_step("e", step(3)),
        lambda memory: memory.resume("e"),
        lambda memory: memory.complete_episode("e", Success("well")),
    ],
    ids=["log_step", "resume", "complete"],
)
def test_a_looker_cancelled_at_every_step_of_a_wake_does_not_kill_it(call: Call, seed: int) -> None:
    async def one_run(k: int) -> str:
        files = MemoryFileSystem()
        async with open_on(files, CONFIG) as memory:
            await memory.start_episode("task", episode_id="e")
            for number in range(3):
                await memory.log_step("e", step(number))
            await trio.sleep(3)
            assert not memory._supervisor.cells
            cancelled = await cancelled_at_step(k, lambda: call(memory))
            cell = memory._supervisor.cells.get(memory.handle("e").id)
            if cell is not None:
                await cell.state.wait_value(lambda value: value != "waking")
                assert cell.state.value in ("live", "ended")
            try:
                await memory.log_step("e", step(4))
            except StepwellError as error:
                assert isinstance(error, InvalidState), error
            await trio.sleep(3)
            assert not memory._supervisor.cells
            stored = [item.action for item in (await memory.get_episode("e")).steps]
            assert stored[:3] == ["action 0", "action 1", "action 2"]
            assert stored[3:] in ([], ["action 4"], ["action 3", "action 4"])
        return "cancelled" if cancelled else ""

    assert len(sweep(seed, one_run)) > 2
