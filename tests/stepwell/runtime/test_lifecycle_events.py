"""Whoever looks is told what happens, in order; nothing waits for a slow reader, and nobody looking costs nothing."""

from __future__ import annotations

import errno
import os
import time

import pytest
import trio
from trio.testing import MockClock

import stepwell.runtime.episode_task as episode_task
import stepwell.runtime.lifecycle_events as lifecycle_events
from stepstore.log.admission import RETRY_FULL_SECONDS
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.files import FileSystem
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.restarting import RestartPolicy
from stepwell import Closed, InvalidState, LifecycleEvent, LogFull, Memory, MemoryConfig, Success
from stepwell.memory.opening import OpenMemory
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.lifecycle_events import EVENTS_KEPT, Lifecycle
from tests.support import LOG, SEGMENT_BYTES, HookedFileSystem, step

NO_JITTER = RestartPolicy(uniform=lambda low, high: 1.0)


class Crash(Exception):
    """Raised into an incarnation by these tests."""


def opened(files: FileSystem) -> OpenMemory:
    return OpenMemory(LOG, MemoryConfig(segment_bytes=SEGMENT_BYTES), False, files, NO_JITTER)


class Story:
    """What was told, as the test reads it."""

    def __init__(self) -> None:
        self.events: list[LifecycleEvent] = []

    async def listen(self, memory: Memory, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with memory.lifecycle() as events:
            task_status.started()
            async for event in events:
                self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


async def test_the_life_of_an_episode_from_its_start_to_its_deletion(autojump_clock: MockClock) -> None:
    files, story = MemoryFileSystem(), Story()
    async with trio.open_nursery() as nursery:
        async with opened(files) as memory:
            await nursery.start(story.listen, memory)
            handle = await memory.start_episode("task", episode_id="e")
            await handle.log_step(step(1))
            await handle.complete(Success())
            await memory.delete_episode("e")
            await memory.delete_episode("e")
    assert story.kinds == ["started", "ended", "deleted", "closing"]
    assert [event.episode_id for event in story.events] == ["e", "e", "e", None]
    times = [event.time_ns for event in story.events]
    assert times == sorted(times)
    for event in story.events:
        assert event.time.utcoffset() is not None
        assert abs(event.time.timestamp() - event.time_ns / 1e9) < 1e-5
        assert abs(event.time_ns - time.time_ns()) < 60 * 10**9


async def test_an_episode_that_was_asleep_is_woken_and_then_live(autojump_clock: MockClock) -> None:
    files, story = MemoryFileSystem(), Story()
    async with opened(files) as memory:
        await memory.start_episode("task", episode_id="open")
        await (await memory.start_episode("task", episode_id="ended")).complete(Success())
    async with trio.open_nursery() as nursery:
        async with opened(files) as memory:
            await nursery.start(story.listen, memory)
            await memory.log_step("open", step(1))
            await memory.complete_episode("ended", Success())
            await memory.complete_episode("open", Success())
    told = [(event.kind, event.episode_id) for event in story.events]
    assert told == [
        ("woken", "open"),
        ("live", "open"),
        ("woken", "ended"),
        ("ended", "open"),
        ("closing", None),
    ], "one that had ended before does not end again"


async def test_restarts_tell_the_error_and_the_delay_and_parking_tells_why(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def failing(cell: EpisodeCell, *_arguments: object) -> None:
        await trio.lowlevel.checkpoint()
        raise Crash("again")

    story = Story()
    async with trio.open_nursery() as nursery:
        async with opened(MemoryFileSystem()) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await nursery.start(story.listen, memory)
            monkeypatch.setattr(episode_task, "run_incarnation", failing)
            cell = memory._supervisor.cells[handle.id]
            cell.failure = Crash("first")
            cell.wake()
            await cell.state.wait_value(lambda value: value == "parked")
    assert story.kinds == ["restarted", "live"] * 5 + ["parked", "closing"]
    details = [event.detail for event in story.events if event.kind == "restarted"]
    errors = ["first", "again", "again", "again", "again"]
    assert details == [f"Crash({error!r}); it runs again in {0.2 * 2**n:.1f} s" for n, error in enumerate(errors)]
    assert "parked after 6 failures in a row, the last: Crash('again')" in story.events[-2].detail


async def test_a_full_log_and_room_again_are_told_once_each(autojump_clock: MockClock) -> None:
    full = False

    def hook(operation: str, path: str) -> None:
        if full and operation in ("write", "allocate") and path.endswith("spare.tmp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    story = Story()
    async with trio.open_nursery() as nursery:
        async with opened(HookedFileSystem(MemoryFileSystem(), hook)) as memory:
            await nursery.start(story.listen, memory)
            handle = await memory.start_episode("task", episode_id="e")
            full = True
            with pytest.raises(LogFull):  # too large for this segment
                await (await handle.log_step(step(1, thought="x" * SEGMENT_BYTES))).reach_log()
            with pytest.raises(LogFull):  # it meets the full medium once more
                await handle.complete(Success("x" * SEGMENT_BYTES))
            assert memory.health().status == "full"
            full = False
            await trio.sleep(RETRY_FULL_SECONDS + 1)
            assert memory.health().status == "ok"
            await (await handle.log_step(step(1))).wait_durable()
    log = [event for event in story.events if event.kind.startswith("log_")]
    assert [event.kind for event in log] == ["log_full", "log_has_room"]
    assert os.strerror(errno.ENOSPC) in log[0].detail


async def test_a_service_that_fails_is_told_by_name(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async def broken(_caretaker: LogCaretaker) -> bool:
        await listening.wait()
        raise Crash("caretaker")

    monkeypatch.setattr(LogCaretaker, "_work", broken)
    story, listening = Story(), trio.Event()
    async with trio.open_nursery() as nursery:
        async with opened(MemoryFileSystem()) as memory:
            await nursery.start(story.listen, memory)
            listening.set()
            await trio.sleep(10)
    assert story.kinds == ["service_failed", "service_restarted"] * 5 + ["service_parked", "closing"]
    assert {event.service for event in story.events} == {"log caretaker", None}
    assert "Crash('caretaker')" in story.events[-2].detail


async def test_a_lost_log_is_told_as_failed(autojump_clock: MockClock) -> None:
    broken = False

    def hook(operation: str, path: str) -> None:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    story = Story()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            async with opened(HookedFileSystem(MemoryFileSystem(), hook)) as memory:
                await nursery.start(story.listen, memory)
                handle = await memory.start_episode("task", episode_id="e")
                broken = True
                await (await handle.log_step(step(1)))._commit.wait()
                await trio.testing.wait_all_tasks_blocked()
                assert memory.health().status == "failed"
    assert caught.group_contains(OSError, match="Input/output error")
    assert "failed" in story.kinds
    assert "Input/output error" in story.events[story.kinds.index("failed")].detail


async def test_what_a_slow_reader_missed_is_told_in_its_place_with_the_number(autojump_clock: MockClock) -> None:
    async with opened(MemoryFileSystem()) as memory:
        lifecycle = memory._runtime.lifecycle
        async with memory.lifecycle() as slow, memory.lifecycle() as fast:
            for number in range(EVENTS_KEPT + 7):
                lifecycle.tell("woken", episode_id=str(number))
                assert (await fast.receive()).episode_id == str(number)
            read = [await slow.receive() for _ in range(10)]
            lifecycle.tell("woken", episode_id="after the gap")
            read += [await slow.receive() for _ in range(EVENTS_KEPT - 10)]
            assert [event.episode_id for event in read] == [str(n) for n in range(EVENTS_KEPT)]
            gap = await slow.receive()
            assert (gap.kind, gap.missed, gap.episode_id) == ("missed", 7, None)
            assert (await slow.receive()).episode_id == "after the gap"
            for _ in range(EVENTS_KEPT + 3):
                lifecycle.tell("woken")
            read = [await slow.receive() for _ in range(EVENTS_KEPT)]
            assert {event.kind for event in read} == {"woken"}
            assert (await slow.receive()).missed == 3, "also if nothing comes behind it"
            with trio.move_on_after(1) as scope:
                await slow.receive()
            assert scope.cancelled_caught


async def test_the_channel_ends_behind_the_last_event_when_the_memory_is_closed(autojump_clock: MockClock) -> None:
    async with opened(MemoryFileSystem()) as memory:
        watching = memory.lifecycle()
        events = await watching.__aenter__()
        await memory.start_episode("task", episode_id="e")
    assert [event.kind async for event in events] == ["started", "closing"]
    with pytest.raises(trio.EndOfChannel):
        await events.receive()
    await watching.__aexit__(None, None, None)
    with pytest.raises(trio.ClosedResourceError):
        await events.receive()
    with pytest.raises(Closed):
        await memory.lifecycle().__aenter__()


async def test_leaving_drops_the_channel_wakes_its_readers_and_it_is_entered_once(autojump_clock: MockClock) -> None:
    async with opened(MemoryFileSystem()) as memory:
        watching = memory.lifecycle()

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await events.receive()

        async with trio.open_nursery() as nursery:
            async with watching as events:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
        assert memory._runtime.lifecycle.watchers == []
        with pytest.raises(InvalidState, match="entered before"):
            await watching.__aenter__()


async def test_a_reader_that_is_cancelled_loses_no_event(autojump_clock: MockClock) -> None:
    async with opened(MemoryFileSystem()) as memory:
        async with memory.lifecycle() as events:
            for number in range(3):
                memory._runtime.lifecycle.tell("woken", episode_id=str(number))
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await events.receive()
                assert scope.cancelled_caught
            with trio.move_on_after(0.1):
                for number in range(3):
                    assert (await events.receive()).episode_id == str(number)
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def tell_as_the_deadline_comes() -> None:
                        await trio.sleep(0.1)
                        memory._runtime.lifecycle.tell("woken", episode_id="late")

                    await events.receive()
            memory._runtime.lifecycle.tell("woken", episode_id="last")
            seen = []
            while "last" not in seen:
                seen.append((await events.receive()).episode_id)
            assert seen[-1] == "last"


async def test_nothing_is_called_and_nothing_made_while_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def must_not_happen(*_arguments: object, **_named: object) -> None:
        raise AssertionError("somebody was told, and nobody looks")

    files = MemoryFileSystem()
    async with opened(files) as memory:
        await memory.start_episode("task", episode_id="asleep")
        async with memory.lifecycle():  # one that has come and gone is nobody
            pass
    monkeypatch.setattr(Lifecycle, "tell", must_not_happen)
    monkeypatch.setattr(lifecycle_events, "_event", must_not_happen)
    async with opened(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await memory.log_step("asleep", step(1))
        cell = memory._supervisor.cells[handle.id]
        cell.failure = Crash("once")
        cell.wake()
        await trio.sleep(1)
        assert memory.stats().restarts == 1
        for number in range(100):
            await handle.log_step(step(number))
        await handle.complete(Success())
        await memory.delete_episode("e")
