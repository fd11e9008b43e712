"""What a memory tells of itself is so, and is plain to export."""

from __future__ import annotations

import errno
import json
import logging
import os
import time

import msgspec
import pytest
import trio
from trio.testing import MockClock

import stepwell.runtime.episode_task as episode_task
from stepstore.log.active_segment import ActiveSegment
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.restarting import RestartPolicy
from stepwell import (
    BatchConfig,
    Busy,
    Closed,
    EpisodeUnavailable,
    ExecutionStep,
    InvalidInput,
    InvalidState,
    MemoryConfig,
    MemoryHealth,
    Success,
    open_memory,
)
from stepwell.memory.observing import PARKED_SHOWN
from stepwell.memory.opening import OpenMemory
from stepwell.runtime.cell import EpisodeCell
from tests.support import LOG, SEGMENT_BYTES, HookedFileSystem, open_on, step

MANUAL = MemoryConfig(batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)
NO_JITTER = RestartPolicy(uniform=lambda low, high: 1.0)


class Crash(Exception):
    """Raised into an incarnation by these tests."""


async def always_crash(cell: EpisodeCell, *_arguments: object) -> None:
    await trio.lowlevel.checkpoint()
    raise Crash("always")


async def test_a_memory_at_rest(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        stats, health = memory.stats(), memory.health()
        assert (stats.groups, stats.records, stats.mean_group, stats.commit_latency.count) == (0, 0, 0.0, 0)
        assert (stats.flush_lag_seconds, stats.queue_bytes, stats.dropped, stats.rejected) == (0.0, 0, 0, {})
        assert (health.status, health.reasons, health.log, health.parked_count) == ("ok", [], "writing", 0)
        assert [service.name for service in health.services] == [
            "log caretaker",
            "log compactor",
            "log scrubber",
            "projector",
            "indexer",
            "learner",
        ]
        assert {service.state for service in health.services} <= {"waiting", "running"}


async def test_what_is_accepted_and_not_durable_is_counted_where_it_waits(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    async with open_on(MemoryFileSystem(), MANUAL) as memory:
        first = await memory.start_episode("task", episode_id="first")
        second = await memory.start_episode("task", episode_id="second")
        assert memory.stats().flush_lag_seconds == 0.0
        first.log_step_nowait(step(1))
        now += 2 * 10**9
        second.log_step_nowait(step(2))
        second.log_step_nowait(step(3))
        now += 10**9
        stats = memory.stats()
        assert stats.flush_lag_seconds == 3.0, "the oldest of all"
        assert (stats.mailbox_messages, stats.in_hand_records, stats.queue_bytes) == (3, 0, 0)
        assert 100 < stats.mailbox_bytes < 1_000
        memory._supervisor.cells["first"].make_urgent()
        stats = memory.stats()
        assert (stats.mailbox_messages, stats.in_hand_records) == (2, 1)
        assert stats.queue_bytes > 30
        assert stats.flush_lag_seconds == 3.0
        await first.flush()
        assert memory.stats().flush_lag_seconds == 1.0
        await memory.flush()
        stats = memory.stats()
        assert (stats.flush_lag_seconds, stats.queue_bytes) == (0, 0)
        assert (stats.mailbox_messages, stats.mailbox_bytes, stats.in_hand_records) == (0, 0, 0)
        assert stats.records == 5
        assert stats.mean_group == stats.records / stats.groups
        assert stats.largest_group == 2


async def test_episodes_are_counted_by_what_they_do(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        for name in ("a", "b", "c"):
            await memory.start_episode("task", episode_id=name)
        await (await memory.start_episode("task", episode_id="ended")).complete(Success())
        assert (memory.stats().live_episodes, memory.stats().asleep_episodes) == (3, 0)
    async with OpenMemory(LOG, MANUAL, False, files, NO_JITTER) as memory:
        assert (memory.stats().live_episodes, memory.stats().asleep_episodes) == (0, 3)
        await memory.log_step("a", step(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.start_episode, "its start is not durable yet")
            while len(memory._supervisor.cells) < 2:
                await trio.lowlevel.checkpoint()
            stats = memory.stats()
            assert (stats.live_episodes, stats.asleep_episodes) == (2, 2)
        stats = memory.stats()
        assert (stats.live_episodes, stats.asleep_episodes) == (2, 2)
        monkeypatch.setattr(episode_task, "run_incarnation", always_crash)
        cell = memory._supervisor.cells["a"]
        cell.failure = Crash("first")
        cell.wake()
        await trio.sleep(0.1)
        stats, health = memory.stats(), memory.health()
        assert (stats.live_episodes, stats.waking_episodes, stats.restarts) == (1, 1, 1)
        assert (health.status, health.reasons) == ("degraded", ["1 episode is being restarted after a failure"])
        await cell.state.wait_value(lambda value: value == "parked")
        stats = memory.stats()
        assert (stats.live_episodes, stats.waking_episodes, stats.parked_episodes) == (1, 0, 1)
        assert (stats.asleep_episodes, stats.restarts) == (2, 5)


async def test_refused_calls_are_counted_by_reason(autojump_clock: MockClock) -> None:
    config = MemoryConfig(mailbox_size=2, batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)
    async with open_on(MemoryFileSystem(), config) as memory:
        handle = await memory.start_episode("task")
        handle.log_step_nowait(step(1))
        handle.log_step_nowait(step(2))
        for _ in range(3):
            with pytest.raises(Busy):
                handle.log_step_nowait(step(3))
        await memory.flush()
        with pytest.raises(InvalidInput):
            await handle.log_step(ExecutionStep(""))
        with pytest.raises(InvalidInput):
            await handle.log_steps([])
        await handle.complete(Success())
        with pytest.raises(InvalidState):  # contradicts what is stored: not one of `Rejected`
            await handle.log_step(step(4))
        assert memory.stats().rejected == {"Busy": 3, "InvalidInput": 2}
    with pytest.raises(Closed):
        await handle.log_step(step(5))
    assert memory.stats().rejected == {"Busy": 3, "InvalidInput": 2, "Closed": 1}


async def test_health_names_parked_episodes_and_counts_all(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with OpenMemory(LOG, None, False, MemoryFileSystem(), NO_JITTER) as memory:
        handles = [await memory.start_episode("task", episode_id=f"e{n}") for n in range(PARKED_SHOWN + 3)]
        monkeypatch.setattr(episode_task, "run_incarnation", always_crash)
        for handle in handles:
            cell = memory._supervisor.cells[handle.id]
            cell.failure = Crash("first")
            cell.wake()
        await trio.sleep(60)
        health = memory.health()
        assert (health.status, health.log, health.parked_count) == ("degraded", "writing", PARKED_SHOWN + 3)
        assert len(health.parked) == PARKED_SHOWN
        assert health.parked[0].episode_id == "e0"
        assert "Crash('always')" in health.parked[0].error
        assert health.reasons == [f"{PARKED_SHOWN + 3} episodes are parked, the first: {health.parked[0].error}"]
        with pytest.raises(EpisodeUnavailable, match="parked"):
            await handles[0].log_step(step(1))
        await memory.delete_episode("e0")
        assert memory.health().parked_count == PARKED_SHOWN + 2


async def test_a_failing_caretaker_degrades_health_and_the_memory_goes_on(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_caretaker: LogCaretaker) -> bool:
        await trio.lowlevel.checkpoint()
        raise Crash("caretaker")

    monkeypatch.setattr(LogCaretaker, "_work", broken)
    with caplog.at_level(logging.WARNING):
        async with OpenMemory(LOG, None, False, MemoryFileSystem(), NO_JITTER) as memory:
            await trio.sleep(0.1)
            health = memory.health()
            assert (health.status, health.services[0].state) == ("degraded", "restarting")
            await trio.sleep(10)
            health = memory.health()
            caretaker = health.services[0]
            assert (caretaker.state, caretaker.restarts, caretaker.error) == ("parked", 5, "Crash('caretaker')")
            assert health.reasons == ["the log caretaker is parked (Crash('caretaker'))"]
            assert (health.status, health.log) == ("degraded", "writing")
            handle = await memory.start_episode("task")
            await handle.log_step(step(1))
            await handle.complete(Success())
    told = [(record.name, record.levelname) for record in caplog.records]
    assert told == [("stepstore.log", "WARNING")] * 5 + [("stepstore.log", "ERROR")], "one line each"


async def test_closing_closed_and_read_only_memories_say_so(autojump_clock: MockClock) -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.start_episode("task")
    assert (memory.health().status, memory.health().log) == ("closing", "closed")
    assert memory.stats().records == 1
    async with open_on(files, read_only=True) as memory:
        health = memory.health()
        assert (health.status, health.log, health.services) == ("read-only", "read-only", [])
        assert memory.stats().asleep_episodes == 1
    async with open_memory(":memory:") as memory:
        await (await memory.start_episode("task")).log_step(step(1))
        assert memory.health().status == "ok"
        assert memory.stats().live_episodes == 1


async def test_a_failed_memory_says_why(autojump_clock: MockClock) -> None:
    broken = False

    def hook(operation: str, path: str) -> None:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with pytest.raises(OSError):
        async with open_on(HookedFileSystem(MemoryFileSystem(), hook)) as memory:
            handle = await memory.start_episode("task")
            broken = True
            await (await handle.log_step(step(1)))._commit.wait()
            health = memory.health()
            assert (health.status, health.log) == ("failed", "failed")
            assert "Input/output error" in health.reasons[0]


async def test_commit_latency_is_told_in_buckets(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    real = ActiveSegment.with_room

    async def slowly(active: ActiveSegment, size: int) -> object:
        await trio.sleep(0.03)
        return await real(active, size)

    monkeypatch.setattr(ActiveSegment, "with_room", slowly)
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        for number in range(9):
            await (await handle.log_step(step(number))).wait_durable()
        latency = memory.stats().commit_latency
        assert latency.count == 10
        assert latency.longest_seconds == pytest.approx(0.03)
        assert latency.p50_seconds == latency.p99_seconds == latency.longest_seconds
        filled = [(bucket.upto_seconds, bucket.count) for bucket in latency.buckets if bucket.count]
        assert filled == [(0.05, 10)]


async def test_both_can_be_exported_as_json(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task")
        for shown in (memory.stats(), memory.health()):
            plain = msgspec.to_builtins(shown)
            assert json.loads(json.dumps(plain)) == json.loads(msgspec.json.encode(shown)) == plain
        assert msgspec.convert(msgspec.to_builtins(memory.health()), MemoryHealth) == memory.health()


async def test_steps_never_come_before_the_start_of_their_episode_when_the_clock_goes_back(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        now -= 3_600 * 10**9
        await handle.log_step(step(1))
        times = [event.time_ns async for event in handle.events()]
        assert times == sorted(times)
        assert len(times) == 2
