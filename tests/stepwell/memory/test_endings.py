"""However a run ends, the ending found after reopening is the one that happened."""

from __future__ import annotations

import errno
import gc
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    Abstained,
    Closed,
    Episode,
    Failure,
    Interrupted,
    LogFull,
    Memory,
    MemoryConfig,
    PartialSuccess,
    StepInterrupted,
    StepSuccess,
    StepTimeout,
    Success,
    open_memory,
)
from stepwell.memory.run_scope import RunScope
from tests.support import SEGMENT_BYTES, HookedFileSystem, open_on, step


async def found_after_reopening(files: MemoryFileSystem, episode_id: str = "e") -> Episode:
    async with open_on(files) as memory:
        return await memory.get_episode(episode_id)


async def test_a_clean_return_is_success() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory, memory.episode("task", episode_id="e") as episode:
        await episode.log_step(step(1))
    found = await found_after_reopening(files)
    assert found.outcome == Success("")
    assert found.reward is not None
    assert found.reflection is not None
    assert found.summary is not None
    assert len(found.steps) == 1


@pytest.mark.parametrize(
    ("setter", "outcome"),
    [
        (lambda run: run.succeed("fine", ["a.py"]), Success("fine", ["a.py"])),
        (lambda run: run.partially("half", ["a"], ["b"]), PartialSuccess("half", ["a"], ["b"])),
        (lambda run: run.fail("no", "details"), Failure("no", "details")),
        (lambda run: run.abstain("cannot", 3, ["x"]), Abstained("cannot", 3, ["x"])),
    ],
)
async def test_a_return_with_an_outcome_set_is_that_outcome(setter, outcome) -> None:  # type: ignore[no-untyped-def]
    files = MemoryFileSystem()
    async with open_on(files) as memory, memory.episode("task", episode_id="e") as episode:
        setter(episode)
    assert (await found_after_reopening(files)).outcome == outcome


async def test_an_exception_is_failure_and_beats_what_was_set() -> None:
    files = MemoryFileSystem()
    with pytest.raises(ValueError, match="boom"):
        async with open_on(files) as memory, memory.episode("task", episode_id="e") as episode:
            episode.succeed("too early")
            raise ValueError("boom")
    assert (await found_after_reopening(files)).outcome == Failure("ValueError: boom")


async def test_an_exception_inside_a_nursery_is_failure_of_the_leaf() -> None:
    files = MemoryFileSystem()

    async def child() -> None:
        raise KeyError("inner")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_on(files) as memory, memory.episode("task", episode_id="e"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(trio.sleep_forever)
    assert isinstance(caught.value.exceptions[0], KeyError)
    assert (await found_after_reopening(files)).outcome == Failure("KeyError: 'inner'")


async def test_several_exceptions_in_a_group_are_all_named() -> None:
    files = MemoryFileSystem()
    with pytest.raises(ExceptionGroup):
        async with open_on(files) as memory, memory.episode("task", episode_id="e"):
            raise ExceptionGroup("outer", [ValueError("one"), ExceptionGroup("inner", [OSError("two")])])
    outcome = (await found_after_reopening(files)).outcome
    assert outcome == Failure("2 errors: ValueError: one; OSError: two")


async def test_an_outer_cancel_is_an_interruption() -> None:
    files = MemoryFileSystem()
    with trio.CancelScope() as scope:
        async with open_on(files) as memory, memory.episode("task", episode_id="e") as episode:
            await episode.log_step(step(1))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    found = await found_after_reopening(files)
    assert isinstance(found.outcome, Interrupted)
    assert found.outcome.cause == "cancelled"
    assert found.reward is None
    assert found.reflection is None
    assert len(found.steps) == 1


async def test_a_cancel_with_a_failing_cleanup_is_failure() -> None:
    files = MemoryFileSystem()
    with trio.CancelScope() as scope:
        with pytest.raises(RuntimeError, match="cleanup"):
            async with open_on(files) as memory, memory.episode("task", episode_id="e"):
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    raise RuntimeError("cleanup failed")
    assert (await found_after_reopening(files)).outcome == Failure("RuntimeError: cleanup failed")


async def test_a_deadline_inside_the_body_that_is_caught_there_is_no_interruption() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory, memory.episode("task", episode_id="e"):
        with trio.move_on_after(0):
            await trio.sleep_forever()
    assert (await found_after_reopening(files)).outcome == Success("")


def test_ctrl_c_is_an_interruption(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "m") as memory, memory.episode("task", episode_id="e") as episode:
            await episode.log_step(step(1))
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)

    async def look() -> Episode:
        async with open_memory(tmp_path / "m") as memory:
            return await memory.get_episode("e")

    found = trio.run(look)
    assert isinstance(found.outcome, Interrupted)
    assert len(found.steps) == 1


@pytest.mark.filterwarnings("ignore:Async generator.*was garbage collected:ResourceWarning")
async def test_an_abandoned_async_generator_is_an_interruption() -> None:
    files = MemoryFileSystem()

    async def agent(memory: Memory) -> AsyncIterator[int]:
        async with memory.episode("task", episode_id="e") as episode:
            await episode.log_step(step(1))
            yield 1
            yield 2

    async with open_on(files) as memory:
        async for _ in agent(memory):
            break
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
    assert isinstance((await found_after_reopening(files)).outcome, Interrupted)


def test_an_async_generator_that_outlives_the_memory_is_an_interruption(tmp_path: Path) -> None:
    async def agent(memory: Memory) -> AsyncIterator[int]:
        async with memory.episode("task", episode_id="e") as episode:
            await episode.log_step(step(1))
            yield 1

    async def main() -> None:
        async with open_memory(tmp_path / "m") as memory:
            running = agent(memory)
            await anext(running)
        await running.aclose()  # type: ignore[attr-defined]

    trio.run(main)

    async def look() -> Episode:
        async with open_memory(tmp_path / "m") as memory:
            return await memory.get_episode("e")

    assert isinstance(trio.run(look).outcome, Interrupted)


async def test_a_run_still_open_when_the_memory_closes_is_an_interruption() -> None:
    files = MemoryFileSystem()
    opened, closed = trio.Event(), trio.Event()

    async def agent(memory: Memory) -> None:
        with pytest.raises(Closed):
            async with memory.episode("task", episode_id="e") as episode:
                await episode.log_step(step(1))
                opened.set()
                await closed.wait()
                await episode.log_step(step(2))

    async with trio.open_nursery() as nursery:
        async with open_on(files) as memory:
            nursery.start_soon(agent, memory)
            await opened.wait()
        closed.set()
    found = await found_after_reopening(files)
    assert isinstance(found.outcome, Interrupted)
    assert "closed" in found.outcome.reason
    assert len(found.steps) == 1


async def test_a_run_that_sleeps_where_the_medium_cannot_be_read_stays_open_and_the_memory_closes(
    autojump_clock: object,
) -> None:
    kept, unreadable = MemoryFileSystem(), False

    def hook(name: str, path: str) -> None:
        if unreadable and name == "read" and path.endswith(".seg"):
            raise OSError(errno.EIO, "I/O error")

    files = HookedFileSystem(kept, hook)
    async with open_on(files, MemoryConfig(segment_bytes=64 * 1024, idle_seconds=1)) as memory:
        await memory.episode("task", episode_id="e").__aenter__()
        other = await memory.start_episode("other", episode_id="other")
        for number in range(100):  # more segments, so that where "e" lies has to be read
            await other.log_step(step(number, thought="x" * 2_000))
        await other.flush()
        await trio.sleep(5)
        assert not memory._supervisor.cells
        unreadable = True
    unreadable = False
    async with open_on(kept) as memory:
        assert {found.episode_id for found in await memory.open_episodes()} == {"e", "other"}


async def test_a_run_that_ends_well_after_the_memory_closed_is_told_so() -> None:
    files = MemoryFileSystem()
    scope = None
    async with open_on(files) as memory:
        scope = memory.episode("task", episode_id="e")
        await scope.__aenter__()
    with pytest.raises(Exception, match=r"ended before|closed"):
        await scope.__aexit__(None, None, None)
    assert isinstance((await found_after_reopening(files)).outcome, Interrupted)


async def test_an_episode_without_a_run_scope_stays_open_when_the_memory_closes() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
    async with open_on(files) as memory:
        assert [item.episode_id for item in await memory.open_episodes()] == ["e"]


async def test_with_the_log_full_the_run_is_a_failure_written_into_the_reserve(autojump_clock: object) -> None:
    disk = MemoryFileSystem()
    full = False

    def hook(call: str, path: str) -> None:
        reserve_spent = disk.stat("/log/reserve") is None
        if full and not reserve_spent and call in ("write", "allocate"):
            raise OSError(errno.ENOSPC, "No space left on device")
        if full and call == "allocate":
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LogFull) as caught:
        async with open_on(HookedFileSystem(disk, hook)) as memory, memory.episode("task", episode_id="e") as episode:
            await (await episode.log_step(step(1))).wait_durable()
            full = True
            await episode.log_step(step(2))
            await trio.sleep(1)  # the interval sends it, and the medium has no room
            await episode.log_step(step(3))
    (note,) = caught.value.__notes__
    assert "records of episode 'e' could not be written" in note, "it says nothing of the ending, which is there"
    full = False
    found = await found_after_reopening(disk)
    assert isinstance(found.outcome, Failure)
    assert found.outcome.reason.startswith("LogFull: ")
    assert [item.action for item in found.steps] == ["action 1"]


async def test_with_not_even_a_reserve_the_error_leaves_unchanged_with_a_note(autojump_clock: object) -> None:
    disk = MemoryFileSystem()
    full = False

    def hook(call: str, path: str) -> None:
        if full and call in ("write", "allocate"):
            raise OSError(errno.ENOSPC, "No space left on device")

    error: BaseException | None = None
    try:
        async with open_on(HookedFileSystem(disk, hook)) as memory, memory.episode("task", episode_id="e") as episode:
            await (await episode.log_step(step(1))).wait_durable()
            full = True
            raise ValueError("mine")
    except ValueError as caught:
        error = caught
    except BaseExceptionGroup as group:  # the log itself is lost as well
        error = next(item for item in group.exceptions if isinstance(item, ValueError))
    assert error is not None
    assert "could not be written" in "".join(error.__notes__)
    full = False
    async with open_on(disk) as memory:
        assert [item.episode_id for item in await memory.open_episodes()] == ["e"]


async def test_steps_lost_to_a_full_log_make_a_run_that_believed_in_success_a_failure(autojump_clock: object) -> None:
    disk = MemoryFileSystem()
    full = False

    def hook(call: str, path: str) -> None:
        if full and (call == "allocate" or (call == "write" and disk.stat("/log/reserve") is not None)):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LogFull):
        async with open_on(HookedFileSystem(disk, hook)) as memory, memory.episode("task", episode_id="e") as episode:
            full = True
            await episode.log_step(step(1))
            episode.succeed("all stored, or so I think")
    full = False
    assert isinstance((await found_after_reopening(disk)).outcome, Failure)


async def test_an_ending_the_body_wrote_itself_counts() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory, memory.episode("task", episode_id="e") as episode:
        await episode.complete(Failure("decided inside"))
    assert (await found_after_reopening(files)).outcome == Failure("decided inside")


async def test_metadata_that_is_changed_while_its_episode_is_completed_stays_as_it_was_given() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        metadata: dict[str, object] = {"a": {"b": 1}}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: handle.complete(Success(""), metadata=metadata))
            while memory._supervisor.cells["e"].ending_request is None:
                await trio.lowlevel.checkpoint()
            metadata["a"] = object()
        assert (await handle.get()).outcome_metadata == {"a": {"b": 1}}
        assert memory.stats().restarts == 0


async def test_what_the_body_raises_leaves_as_the_same_object() -> None:
    mine = ValueError("mine")
    try:
        async with open_on(MemoryFileSystem()) as memory, memory.episode("task"):
            raise mine
    except ValueError as caught:
        assert caught is mine
        assert not getattr(caught, "__notes__", [])


async def test_abandon_ends_an_episode_that_nobody_continues() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
    async with open_on(files) as memory:
        done = await memory.abandon("e", "its agent is gone")
        assert done.outcome == Interrupted("its agent is gone", cause="abandoned")
        assert await memory.open_episodes() == []
    assert (await found_after_reopening(files)).outcome == Interrupted("its agent is gone", cause="abandoned")


async def test_the_step_scope_logs_what_happened_inside() -> None:
    files = MemoryFileSystem()
    with trio.CancelScope() as outer:
        async with open_on(files) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            async with handle.step("search", "find", {"q": 1}) as scope:
                scope.output = {"hits": [1, 2]}
            with pytest.raises(KeyError):
                async with handle.step("lookup"):
                    raise KeyError("missing")
            with pytest.raises(trio.TooSlowError):
                async with handle.step("slow"):
                    with trio.fail_after(0):
                        await trio.sleep_forever()
            async with handle.step("cut off"):
                outer.cancel()
                await trio.sleep_forever()
    results = [item.result for item in (await found_after_reopening(files)).steps]
    assert [type(result).__name__ for result in results] == [
        "StepSuccess",
        "StepError",
        "StepTimeout",
        "StepInterrupted",
    ]
    assert results[0].output == {"hits": [1, 2]}  # type: ignore[union-attr]
    assert results[1].message == "KeyError: 'missing'"  # type: ignore[union-attr]


async def cancelled_once_it_is_accepted(memory: Memory, scope: RunScope) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scope.__aenter__)
        while not memory.stats().live_episodes:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(not hasattr(trio.Cancelled, "source"), reason="Trio before 0.31 does not tell")
async def test_a_step_that_a_deadline_around_it_cuts_off_has_timed_out(autojump_clock: MockClock) -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        with trio.move_on_after(5):
            async with handle.step("slow"):
                await trio.sleep_forever()
        with trio.move_on_after(5), trio.CancelScope() as inner:
            async with handle.step("not wanted any more"):
                inner.cancel()
                await trio.sleep_forever()
    results = [item.result for item in (await found_after_reopening(files)).steps]
    assert results == [StepTimeout("the deadline around the step has expired"), StepInterrupted("Cancelled")]


async def test_a_run_scope_cancelled_while_it_is_entered_leaves_no_run_that_looks_alive_for_ever() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await cancelled_once_it_is_accepted(memory, memory.episode("task"))
    async with open_on(files) as memory:
        assert await memory.open_episodes() == []
        (found,) = [await memory.get_episode(episode_id) async for episode_id in memory.episode_ids()]
    assert found.outcome == Interrupted("the run was interrupted (Cancelled)", cause="cancelled")


async def test_a_run_scope_with_an_id_of_the_callers_may_be_entered_again_after_a_cancellation() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await cancelled_once_it_is_accepted(memory, memory.episode("task", episode_id="e"))
        async with memory.episode("task", episode_id="e") as episode:
            await episode.log_step(step(1))
        assert (await memory.get_episode("e")).outcome == Success("")


@pytest.mark.parametrize("durability", ["receipt", "commit"])
async def test_the_step_of_a_body_that_ended_well_is_logged_although_the_task_is_cancelled(
    durability: Literal["receipt", "commit"],
) -> None:
    files = MemoryFileSystem()
    async with open_on(files, MemoryConfig(segment_bytes=SEGMENT_BYTES, durability=durability)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        with trio.CancelScope() as outer:
            async with handle.step("book", "a flight") as scope:
                outer.cancel()  # while the tool is at work, in a thread for instance; it cannot be taken back
                scope.output = "booked"
        assert outer.cancelled_caught
        assert [found.result for found in (await handle.get()).steps] == [StepSuccess("booked")]
    assert [found.action for found in (await found_after_reopening(files)).steps] == ["a flight"]
