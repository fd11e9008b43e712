"""An incarnation may crash at any moment; what was accepted is in the cell or in the log."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

import stepwell.runtime.episode_task as episode_task
from stepstore.journal import SegmentLogJournal, Submission
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.restarting import RestartPolicy
from stepwell import (
    Busy,
    EpisodeUnavailable,
    ExecutionStep,
    InvalidInput,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    RecoveryFailed,
    Success,
)
from stepwell.runtime.cell import EpisodeCell
from tests.support import SEGMENT_BYTES, open_on, step


class Crash(Exception):
    """Raised into an incarnation by these tests."""


async def crash_incarnations(
    monkeypatch: pytest.MonkeyPatch, episode_id: str, times: int, *, after_drain: bool = True
) -> trio.Event:
    """Have the next `times` incarnations of an episode crash when the event is set, with everything drained in hand."""
    trigger = trio.Event()
    real = episode_task.run_incarnation
    left = times

    async def crashing(cell: EpisodeCell, *arguments: object) -> None:
        nonlocal left
        if cell.episode_id != episode_id or not left:
            await real(cell, *arguments)  # type: ignore[arg-type]
            return
        await trigger.wait()
        left -= 1
        if after_drain:
            cell.drain()
        raise Crash(f"{left} to come")

    monkeypatch.setattr(episode_task, "run_incarnation", crashing)
    return trigger


async def test_an_incarnation_that_crashes_with_20_accepted_steps_in_hand_loses_none(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files = MemoryFileSystem()
    trigger = await crash_incarnations(monkeypatch, "e", 1)
    async with open_on(files) as memory:
        with trio.move_on_after(0.01):  # its task does not send the start yet
            await memory.start_episode("task", episode_id="e")
        handle = memory.handle("e")
        receipts = [await handle.log_step(step(n)) for n in range(20)]
        cell = memory._supervisor.cells[handle.id]
        assert not cell.in_hand
        trigger.set()
        await trio.testing.wait_all_tasks_blocked()
        await receipts[-1].wait_durable()
        assert cell.restarts == 1
        assert [receipt.lsn for receipt in receipts] == list(range(2, 22))
    async with open_on(files) as memory:
        assert [item.action for item in (await memory.get_episode("e")).steps] == [f"action {n}" for n in range(20)]


async def test_a_crash_while_a_batch_is_at_the_journal_stores_it_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files = MemoryFileSystem()
    real = episode_task.run_incarnation
    crashes = 1

    async def crashing(cell: EpisodeCell, *arguments: object) -> None:
        nonlocal crashes
        if not crashes:
            await real(cell, *arguments)  # type: ignore[arg-type]
            return
        while len(cell.pending_commits) == 0 or not cell.should_send:
            await trio.lowlevel.wait_task_rescheduled(cell.until_woken())
        cell.send()
        crashes -= 1
        raise Crash

    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(0))
        monkeypatch.setattr(episode_task, "run_incarnation", crashing)
        await memory._supervisor.awake(handle.id)
        await handle.flush()
        await handle.complete(Success())
    monkeypatch.setattr(episode_task, "run_incarnation", real)
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="f")
        monkeypatch.setattr(episode_task, "run_incarnation", crashing)
        crashes = 1
        memory._supervisor.cells[handle.id].failure = Crash()
        memory._supervisor.cells[handle.id].wake()
        await trio.sleep(1)
        receipts = [await handle.log_step(step(n)) for n in range(5)]
        await receipts[-1].wait_durable()
        await trio.sleep(1)
        assert [item.action for item in (await handle.get()).steps] == [f"action {n}" for n in range(5)]


async def test_backoff_doubles_and_after_six_failures_in_a_row_the_episode_is_parked(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def failing(cell: EpisodeCell, *arguments: object) -> None:
        if cell.episode_id != "bad":
            await real(cell, *arguments)  # type: ignore[arg-type]
            return
        times.append(trio.current_time())
        raise Crash("always")

    async with open_on(MemoryFileSystem()) as memory:
        good = await memory.start_episode("task", episode_id="good")
        bad = await memory.start_episode("task", episode_id="bad")
        await bad.log_step(step(1))
        await bad.flush()
        real = episode_task.run_incarnation
        monkeypatch.setattr(episode_task, "run_incarnation", failing)
        cell = memory._supervisor.cells[bad.id]
        pending = await bad.log_step(step(2))
        cell.failure = Crash("first")
        cell.wake()
        with pytest.raises(OutcomeUnknown):
            await pending.wait_durable()
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert len(times) == 5
        for number, gap in enumerate(gaps):
            assert 0.4 * 2**number * 0.8 <= gap <= 0.4 * 2**number * 1.2
        with pytest.raises(EpisodeUnavailable, match="parked") as caught:
            await bad.log_step(step(3))
        assert caught.value.reason == "parked"
        assert isinstance(caught.value.__cause__, Crash)
        with pytest.raises(EpisodeUnavailable):
            await bad.complete(Success())
        assert len((await bad.get()).steps) == 1
        assert (await good.log_step(step(1))).seq == 2
        await good.complete(Success())


async def test_an_error_that_cannot_show_itself_parks_its_episode_only(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    class Unspeakable(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("not even this")

        __str__ = __repr__

    async def failing(cell: EpisodeCell, *arguments: object) -> None:
        if cell.episode_id == "bad":
            raise Unspeakable
        await real(cell, *arguments)  # type: ignore[arg-type]

    real = episode_task.run_incarnation
    async with open_on(MemoryFileSystem()) as memory:
        good = await memory.start_episode("task", episode_id="good")
        bad = await memory.start_episode("task", episode_id="bad")
        monkeypatch.setattr(episode_task, "run_incarnation", failing)
        cell = memory._supervisor.cells[bad.id]
        cell.failure = Crash("first")
        cell.wake()
        await cell.state.wait_value(lambda value: value == "parked")
        with pytest.raises(EpisodeUnavailable, match="cannot be shown"):
            await bad.log_step(step(1))
        assert "cannot be shown" in memory.health().parked[0].error
        await good.complete(Success())


async def test_an_episode_that_fails_while_the_medium_cannot_be_read_touches_no_other(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    unreadable = False
    real = SegmentLogJournal.durable_seq

    def durable_seq(journal: SegmentLogJournal, stream: bytes) -> int:
        if unreadable and stream == bad_stream:
            raise RecoveryFailed("an I/O error")
        return real(journal, stream)

    monkeypatch.setattr(SegmentLogJournal, "durable_seq", durable_seq)
    async with open_on(MemoryFileSystem()) as memory:
        good = await memory.start_episode("task", episode_id="good")
        bad = await memory.start_episode("task", episode_id="bad")
        cell = memory._supervisor.cells[bad.id]
        bad_stream = cell.stream
        unreadable = True
        cell.failure = Crash("first")
        cell.wake()
        await trio.sleep(0.01)
        await (await good.log_step(step(1))).wait_durable()
        unreadable = False
        await (await bad.log_step(step(1))).wait_durable()
        assert cell.restarts == 1


async def test_nowait_says_busy_instead_of_waiting() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(mailbox_size=8, segment_bytes=SEGMENT_BYTES)) as memory:
        handle = await memory.start_episode("task")
        accepted = 0
        with pytest.raises(Busy, match="full"):
            while True:
                handle.log_step_nowait(step(accepted))
                accepted += 1
        assert accepted == 8
        await handle.log_step(step(8))
        handle.log_step_nowait(step(9))
        assert [item.action for item in (await handle.get()).steps] == [f"action {n}" for n in range(10)]
        with pytest.raises(NotFound, match="unknown"):
            memory.handle("unknown").log_step_nowait(step(1))


async def test_nowait_to_an_episode_that_is_asleep_says_busy_and_log_step_wakes_it() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.start_episode("task", episode_id="e")
    async with open_on(files) as memory:
        handle = memory.handle("e")
        with pytest.raises(Busy, match="not awake"):
            handle.log_step_nowait(step(1))
        await handle.log_step(step(1))
        assert handle.log_step_nowait(step(2)).seq == 3


async def test_a_batch_names_the_step_that_is_wrong_and_accepts_none() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        with pytest.raises(InvalidInput, match=r"steps\[1\]: step\.parameters\.x"):
            await handle.log_steps([step(1), ExecutionStep("tool", parameters={"x": b""})])
        assert (await handle.log_step(step(2))).seq == 2


async def test_cancelling_a_caller_that_waits_for_room_leaves_no_gap() -> None:
    config = MemoryConfig(mailbox_size=4, segment_bytes=SEGMENT_BYTES)
    async with open_on(MemoryFileSystem(), config) as memory:
        handle = await memory.start_episode("task")
        for number in range(4):
            handle.log_step_nowait(step(number))
        with trio.CancelScope() as scope:
            scope.cancel()
            await handle.log_step(step(99))
        assert scope.cancelled_caught
        assert (await handle.log_step(step(4))).seq == 6
        assert [item.action for item in (await handle.get()).steps] == [f"action {n}" for n in range(5)]


async def test_the_mailbox_is_bounded_by_bytes_as_well() -> None:
    from stepwell import ExecutionStep, StepSuccess

    big = ExecutionStep("tool", result=StepSuccess("x" * 1_000_000))
    async with open_on(MemoryFileSystem(), MemoryConfig(segment_bytes=1 << 20)) as memory:
        handle = await memory.start_episode("task")
        accepted = 0
        with pytest.raises(Busy):
            for _ in range(60):
                handle.log_step_nowait(big)
                accepted += 1
        assert accepted == 5


async def test_steps_of_one_sender_keep_their_order_with_many_senders() -> None:
    config = MemoryConfig(mailbox_size=3, segment_bytes=SEGMENT_BYTES)
    async with open_on(MemoryFileSystem(), config) as memory:
        handle = await memory.start_episode("task")

        async def send(sender: int) -> None:
            for number in range(20):
                await handle.log_step(step(number, metadata={"sender": sender}))

        async with trio.open_nursery() as nursery:
            for sender in range(8):
                nursery.start_soon(send, sender)
        found = (await handle.get()).steps
        assert len(found) == 160
        for sender in range(8):
            mine = [item.parameters["n"] for item in found if item.metadata["sender"] == sender]
            assert mine == list(range(20))


async def test_an_undecodable_record_makes_only_its_own_episode_unavailable() -> None:
    from stepstore.journal import Batch
    from stepwell.model.ids import stream_id

    files = MemoryFileSystem()
    async with open_on(files) as memory:
        for name in ("good", "bad"):
            await (await memory.start_episode("task", episode_id=name)).log_step(step(1))
    journal = SegmentLogJournal.open("/log", files=files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await journal.submit([Batch(stream_id("episode", "bad"), 3, [b"\xff not cbor"], 0)]).wait()
        journal.finish()
    journal.release()
    async with open_on(files) as memory:
        with pytest.raises(EpisodeUnavailable) as caught:
            await memory.get_episode("bad")
        assert caught.value.reason == "undecodable"
        with pytest.raises(EpisodeUnavailable):
            await memory.log_step("bad", step(2))
        assert len((await memory.get_episode("bad", partial=True)).steps) == 1
        assert (await memory.log_step("good", step(2))).seq == 3


async def test_a_result_that_comes_after_its_episode_was_parked_hurts_nobody(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The bug: the writer stumbled over the batch that had been given up, and the whole memory failed."""
    disk = MemoryFileSystem()
    gate = trio.Event()
    async with open_on(disk, restarts=RestartPolicy(park_after=1)) as memory:
        bad, good = await memory.start_episode("task", episode_id="bad"), await memory.start_episode("task")
        journal = memory._journal
        assert isinstance(journal, SegmentLogJournal)
        assert journal._writer is not None
        group_commit = journal._writer._group_commit
        real = group_commit.commit

        async def held(group: list[Submission]) -> None:
            await gate.wait()
            await real(group)

        monkeypatch.setattr(group_commit, "commit", held)
        receipt = await bad.log_step(step(1))
        cell = memory._supervisor.cells[bad.id]
        cell.make_urgent()
        await trio.testing.wait_all_tasks_blocked()
        assert not cell.should_send
        cell.failure = Crash("with a batch on its way")
        cell.wake()
        with pytest.raises(OutcomeUnknown):
            await receipt.wait_durable()
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        await (await good.log_step(step(1))).wait_durable()
        with pytest.raises(EpisodeUnavailable, match="parked"):
            await bad.log_step(step(2))
    async with open_on(disk) as memory:
        assert [item.action for item in (await memory.get_episode("bad")).steps] == ["action 1"]
