"""Idle episodes leave memory and come back without losing anything; with too many awake, the least recently used go."""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    BatchConfig,
    Busy,
    EpisodeHandle,
    Event,
    Interrupted,
    InvalidInput,
    InvalidState,
    Memory,
    MemoryConfig,
    NotFound,
    Success,
)
from stepwell.runtime.cell import EpisodeCell
from tests.support import SEGMENT_BYTES, open_on, step

IDLE = 8.0
"""Seconds; the passivator looks every second."""
LATE = 2.0
HOUR = BatchConfig(max_batch_size=10_000, flush_interval_ms=3_600_000)


def config(**settings: Any) -> MemoryConfig:
    return MemoryConfig(**{"idle_seconds": IDLE, "segment_bytes": SEGMENT_BYTES} | settings)


def awake(memory: Memory) -> set[str]:
    """The episodes that are in memory."""
    return {name for name, cell in memory._supervisor.cells.items() if cell.is_awake}


def cell_of(memory: Memory, handle: EpisodeHandle) -> EpisodeCell:
    return memory._supervisor.cells[handle.id]


async def put_to_sleep(memory: Memory) -> None:
    """Wait until all episodes of a memory are asleep."""
    await trio.sleep(IDLE + LATE)
    assert not memory._supervisor.cells
    assert memory.stats().live_episodes == 0


async def test_an_episode_that_nobody_uses_goes_to_sleep_in_time_and_a_step_wakes_it(
    autojump_clock: MockClock,
) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        used = trio.current_time()
        cell = cell_of(memory, handle)
        await cell.state.wait_value(lambda value: value == "draining")
        assert IDLE <= trio.current_time() - used <= IDLE + LATE
        await wait_all_tasks_blocked()
        assert cell.state.value == "asleep"
        assert not memory._supervisor.cells
        assert (await handle.log_step(step(1))).seq == 2
        assert awake(memory) == {"e"}
        assert cell_of(memory, handle) is not cell
        await put_to_sleep(memory)


async def test_whoever_looks_is_told_that_an_episode_sleeps_and_wakes(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory, memory.lifecycle() as events:
        handle = await memory.start_episode("task", episode_id="e")
        await put_to_sleep(memory)
        assert memory.stats().asleep_episodes == 1
        await handle.log_step(step(1))
        assert memory.stats().asleep_episodes == 0
        kinds = [(await events.receive()).kind for _ in range(4)]
        assert kinds == ["started", "asleep", "woken", "live"]


async def test_an_episode_a_transaction_has_locked_does_not_go_to_sleep(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        cell = cell_of(memory, handle)
        cell.lock()
        await trio.sleep(3 * IDLE)
        assert cell_of(memory, handle) is cell
        cell.unlock()
        await put_to_sleep(memory)


async def test_an_episode_in_use_never_goes_to_sleep(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task")
        cell = cell_of(memory, handle)
        for number in range(100):
            await trio.sleep(IDLE - 0.5)
            await handle.log_step(step(number))
            assert cell_of(memory, handle) is cell


async def test_resuming_an_episode_is_use_and_reading_it_is_not(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        for name in ("resumed", "read"):
            await memory.start_episode("task", episode_id=name)
        for _ in range(5):
            await trio.sleep(IDLE - 1)
            await memory.resume("resumed")
            await memory.get_episode("read")
        assert awake(memory) == {"resumed"}


async def test_what_was_accepted_and_is_not_stored_yet_is_stored_before_the_episode_sleeps(
    autojump_clock: MockClock,
) -> None:
    async with open_on(MemoryFileSystem(), config(batch=HOUR)) as memory:
        handle = await memory.start_episode("task")
        receipts = [await handle.log_step(step(n)) for n in range(5)]
        await trio.sleep(IDLE - 1)
        assert not any(receipt.is_durable for receipt in receipts)
        await trio.sleep(1 + LATE)
        assert not memory._supervisor.cells
        assert all(receipt.is_durable for receipt in receipts)
        for receipt in receipts:
            await receipt.wait_durable()
        assert [item.action for item in (await handle.get()).steps] == [f"action {n}" for n in range(5)]


async def test_manual_batches_that_hold_steps_keep_their_episode_awake(autojump_clock: MockClock) -> None:
    settings = config(batch=BatchConfig.manual(), max_live_episodes=1)
    async with open_on(MemoryFileSystem(), settings) as memory:
        holding = await memory.start_episode("task", episode_id="holding")
        receipt = await holding.log_step(step(1))
        await memory.start_episode("task", episode_id="empty")
        await trio.sleep(100 * IDLE)
        assert awake(memory) == {"holding"}
        assert not receipt.is_durable
        await holding.flush()
        await put_to_sleep(memory)


async def test_reading_wakes_nothing(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        await put_to_sleep(memory)
        assert len((await memory.get_episode("e")).steps) == 1
        assert len(await memory.get_episodes(["e"])) == 1
        assert [event.seq async for event in memory.events("e")] == [1, 2]
        assert [name async for name in memory.episode_ids()] == ["e"]
        await memory.flush_steps("e")
        await memory.flush()
        await memory.start_episode("task", episode_id="e")
        async with memory.follow() as events:
            event = await events.receive()
            assert isinstance(event, Event)
            assert event.stream == "e"
        assert not memory._supervisor.cells


# ---- as if it had never slept --------------------------------------------------------------------------------------

Rest = Callable[[Memory], Awaitable[None]]
Scenario = Callable[[Memory, Rest], Awaitable[object]]


async def _steps(memory: Memory, rest: Rest) -> object:
    handle = await memory.start_episode("task", episode_id="e")
    receipts = []
    for number in range(4):
        receipts.append(await handle.log_step(step(number)))
        await rest(memory)
        receipts.append(await handle.log_steps([step(10 * number), step(10 * number + 1)]))
        await rest(memory)
    await handle.flush()
    return [(receipt.seq, receipt.lsn) for receipt in receipts]


async def _keys(memory: Memory, rest: Rest) -> object:
    """`keys_kept` is 3: the resubmit of a key gives the first receipt, its use for another step is refused, and a key
    that is forgotten is free."""
    handle = await memory.start_episode("task", episode_id="e")
    first = [await handle.log_step(step(n, key=f"key {n}")) for n in range(5)]
    await rest(memory)
    again = [await handle.log_step(step(n, key=f"key {n}")) for n in (2, 3, 4)]
    assert again == first[2:]
    together = await handle.log_steps([step(3, key="key 3"), step(4, key="key 4")])
    assert together == first[4]
    await rest(memory)
    with pytest.raises(InvalidState, match="key 3"):
        await handle.log_step(step(99, key="key 3"))
    await rest(memory)
    forgotten = await handle.log_step(step(1, key="key 1"))
    await rest(memory)
    return [receipt.seq for receipt in (*first, *again, together, forgotten)]


async def _completion(memory: Memory, rest: Rest) -> object:
    handle = await memory.start_episode("task", episode_id="e")
    await handle.log_step(step(1))
    await rest(memory)
    done = await handle.complete(Success("well"))
    await rest(memory)
    again = await handle.complete(Success("well"))
    assert (again.outcome, again.reward, again.summary, again.receipt.seq) == (
        done.outcome,
        done.reward,
        done.summary,
        done.receipt.seq,
    )
    with pytest.raises(InvalidState, match="another outcome"):
        await handle.complete(Success("otherwise"))
    with pytest.raises(InvalidState, match="has ended"):
        await handle.log_step(step(2))
    return done.receipt.seq, done.receipt.lsn


async def _resuming(memory: Memory, rest: Rest) -> object:
    await memory.start_episode("task", episode_id="e")
    await rest(memory)
    handle = await memory.resume("e")
    receipt = await handle.log_step(step(1))
    await rest(memory)
    await memory.abandon("e", "nobody")
    return receipt.seq


async def _run_scope(memory: Memory, rest: Rest) -> object:
    async with memory.episode("task", episode_id="e") as episode:
        await episode.log_step(step(1))
        await rest(memory)
        async with episode.step("tool", "slow") as running:
            await rest(memory)
            running.output = "done"
        await rest(memory)
        episode.succeed("well")
        await rest(memory)
    return (await episode.get()).outcome


async def _deletion(memory: Memory, rest: Rest) -> object:
    handle = await memory.start_episode("task", episode_id="e")
    await rest(memory)
    await memory.delete_episode("e")
    await rest(memory)
    with pytest.raises(NotFound):
        await handle.log_step(step(1))
    with pytest.raises(InvalidState, match="deleted"):
        await memory.start_episode("task", episode_id="e")
    return None


@pytest.mark.parametrize("scenario", [_steps, _keys, _completion, _resuming, _run_scope, _deletion])
async def test_an_episode_that_slept_behaves_as_if_it_never_had(scenario: Scenario, autojump_clock: MockClock) -> None:
    async def stay_awake(memory: Memory) -> None:
        await trio.lowlevel.checkpoint()

    found: list[object] = []
    for rest in (stay_awake, put_to_sleep):
        files = MemoryFileSystem()
        async with open_on(files, config(keys_kept=3)) as memory:
            result = await scenario(memory, rest)
        try:
            async with open_on(files) as memory:
                episode = await memory.get_episode("e")
                bodies = [(item.seq, item.action, item.key) for item in episode.steps]
                kinds = [event.kind async for event in memory.events("e")]
                found.append((result, bodies, kinds, episode.outcome))
        except NotFound:
            found.append((result, "deleted"))
    assert found[0] == found[1]


async def test_times_do_not_go_back_over_a_sleep(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        await put_to_sleep(memory)
        with mock.patch("time.time_ns", return_value=1_000_000_000):
            await handle.log_step(step(2))
            await put_to_sleep(memory)
            await handle.complete(Success())
        times = [event.time_ns async for event in memory.events("e")]
        assert len(times) == 4
        assert times == sorted(times)
        assert min(times) > 1_000_000_000


async def test_a_run_scope_that_is_open_when_the_memory_closes_ends_also_while_its_episode_sleeps(
    autojump_clock: MockClock,
) -> None:
    files = MemoryFileSystem()
    async with open_on(files, config()) as memory:
        scopes = [memory.episode("task", episode_id=name) for name in ("asleep", "deleted", "awake")]
        for scope in scopes:
            await scope.__aenter__()
        await memory.delete_episode("deleted")
        await trio.sleep(IDLE + LATE)
        assert not memory._supervisor.cells
        await memory.log_step("awake", step(1))
    async with open_on(files) as memory:
        for name in ("asleep", "awake"):
            outcome = (await memory.get_episode(name)).outcome
            assert isinstance(outcome, Interrupted)
            assert outcome.cause == "cancelled"
        with pytest.raises(NotFound):
            await memory.get_episode("deleted")
        assert await memory.open_episodes() == []


async def test_nowait_is_accepted_while_draining_and_says_busy_to_what_is_asleep_or_waking(
    autojump_clock: MockClock,
) -> None:
    async with open_on(MemoryFileSystem(), config(batch=HOUR)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        cell = cell_of(memory, handle)
        await cell.state.wait_value(lambda value: value == "draining")
        assert cell.state.value == "draining"
        assert handle.log_step_nowait(step(2)).seq == 3
        await wait_all_tasks_blocked()
        assert cell.state.value == "live"
        await put_to_sleep(memory)
        with pytest.raises(Busy, match="not awake"):
            handle.log_step_nowait(step(3))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.log_step, step(3))
            while "e" not in memory._supervisor.cells:
                await trio.lowlevel.checkpoint()
            assert cell_of(memory, handle).state.value == "waking"
            with pytest.raises(Busy, match="being rebuilt"):
                handle.log_step_nowait(step(4))
        assert [item.action for item in (await handle.get()).steps] == ["action 1", "action 2", "action 3"]


# ---- too many ------------------------------------------------------------------------------------------------------


async def test_with_more_than_max_live_the_least_recently_used_goes_to_sleep(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config(max_live_episodes=3)) as memory:
        a, b, c = [await memory.start_episode("task", episode_id=name) for name in "abc"]
        await a.log_step(step(1))
        await memory.start_episode("task", episode_id="d")
        await wait_all_tasks_blocked()
        assert awake(memory) == {"a", "c", "d"}
        await b.log_step(step(1))
        await wait_all_tasks_blocked()
        assert awake(memory) == {"a", "b", "d"}
        await c.get()
        assert awake(memory) == {"a", "b", "d"}


@pytest.mark.parametrize("seed", range(5))
async def test_the_order_of_use_is_exact(seed: int, autojump_clock: MockClock) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    model: OrderedDict[str, None] = OrderedDict()
    names = [f"episode {n}" for n in range(12)]
    async with open_on(MemoryFileSystem(), config(max_live_episodes=5, idle_seconds=1e9)) as memory:
        for name in names:
            await memory.start_episode("task", episode_id=name)
            model[name] = None
        for number in range(200):
            # Often one that is awake, so that what the heap holds is out of date.
            recent = list(model)[-5:]
            name = chance.choice(recent if chance.random() < 0.7 else names)
            await memory.log_step(name, step(number))
            model.move_to_end(name)
            if chance.random() < 0.5:
                await wait_all_tasks_blocked()
                assert awake(memory) == set(list(model)[-5:])
            if chance.random() < 0.1:
                await trio.sleep(2)  # the passivator looks as well


async def test_under_pressure_what_is_busy_stores_its_steps_and_sleeps_and_no_caller_is_refused(
    autojump_clock: MockClock,
) -> None:
    files = MemoryFileSystem()
    most = 0
    async with open_on(files, config(max_live_episodes=4, batch=HOUR)) as memory:

        async def agent(name: str) -> None:
            nonlocal most
            handle = await memory.start_episode("task", episode_id=name)
            for number in range(10):
                await handle.log_step(step(number))
                most = max(most, memory.stats().live_episodes)
                if number % 3 == 0:
                    await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(agent, f"e{number}")
        await trio.sleep(LATE)
        assert len(awake(memory)) <= 4
        assert most <= 40
        for number in range(40):
            found = (await memory.get_episode(f"e{number}")).steps
            assert [item.action for item in found] == [f"action {n}" for n in range(10)]


async def test_with_room_for_one_two_callers_that_alternate_both_get_on(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), config(max_live_episodes=1, durability="commit")) as memory:
        for name in "ab":
            await memory.start_episode("task", episode_id=name)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for name in "ab":

                    async def log(name: str = name) -> None:
                        for number in range(50):
                            await memory.log_step(name, step(number))

                    nursery.start_soon(log)
        await trio.sleep(LATE)
        assert len(awake(memory)) == 1
        for name in "ab":
            assert len((await memory.get_episode(name)).steps) == 50


async def test_the_passivator_forgets_what_has_ended_and_rests_while_nothing_is_awake(
    autojump_clock: MockClock,
) -> None:
    async with open_on(MemoryFileSystem(), config()) as memory:
        passivator = memory._supervisor.passivator
        kept = await memory.start_episode("task")
        for _ in range(500):
            handle = await memory.start_episode("task")
            await handle.complete(Success())
            await kept.log_step(step(1))
            assert len(passivator._heap) < 100
        assert passivator.live == 1
        await put_to_sleep(memory)
        await trio.sleep(LATE)
        assert passivator.live == 0
        assert not passivator._heap
        with mock.patch.object(passivator, "_note_moment", side_effect=AssertionError("it looked")):
            await trio.sleep(1_000)
        await kept.log_step(step(2))
        await put_to_sleep(memory)


async def test_closing_with_many_awake_does_not_clean_up_for_each_of_them(autojump_clock: MockClock) -> None:
    with mock.patch("heapq.heapify", wraps=heapq.heapify) as cleaned:
        async with open_on(MemoryFileSystem(), config()) as memory:
            for number in range(1_000):
                await memory.start_episode("task", episode_id=f"e{number}")
            assert memory.stats().live_episodes == 1_000
            passivator = memory._supervisor.passivator
        assert passivator.live == 0
        assert 0 < cleaned.call_count < 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_live_episodes": 0},
        {"max_live_episodes": 1.5},
        {"idle_seconds": -1},
        {"idle_seconds": "1"},
        {"resume_open": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        MemoryConfig(**wrong)
