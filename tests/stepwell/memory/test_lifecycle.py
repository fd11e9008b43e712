"""Starting, finding again, continuing and completing episodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    Closed,
    ExecutionStep,
    Failure,
    InvalidState,
    MemoryConfig,
    NotFound,
    StepError,
    StepSuccess,
    StepTimeout,
    Success,
    TaskContext,
    open_memory,
)
from stepwell.model.analysis import FORMULA_VERSION
from tests.support import SEGMENT_BYTES, open_on, step


async def test_everything_about_a_start_comes_back_after_reopening() -> None:
    files = MemoryFileSystem()
    context = TaskContext(language="python", framework="trio", domain="async-io", complexity="complex", tags=["a", "B"])
    async with open_on(files) as memory:
        handle = await memory.start_episode(
            "Implement it",
            context=context,
            task_type="code_generation",
            agent="coder-1",
            parent="p",
            thread="t",
            metadata={"k": [1, {"x": None}]},
        )
        assert handle.id == handle.episode_id
    async with open_on(files) as memory:
        found = await memory.get_episode(handle.id)
    assert found.task_description == "Implement it"
    assert found.context == context
    assert found.tags == ["a", "B"]
    assert (found.task_type, found.agent, found.parent, found.thread) == ("code_generation", "coder-1", "p", "t")
    assert found.metadata == {"k": [1, {"x": None}]}
    assert found.status == "open"
    assert found.end_time is None
    assert found.start_time.tzinfo is not None


async def test_context_fields_may_be_given_as_keywords_and_win() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("t", context=TaskContext(domain="a", language="c"), domain="b", tags=["x"])
        assert (await handle.get()).context == TaskContext(domain="b", language="c", tags=["x"])


async def test_every_field_of_a_step_comes_back_after_reopening() -> None:
    files = MemoryFileSystem()
    steps = [
        ExecutionStep(
            "tool",
            "act",
            {"a": [1, 2.5, None, True, "ü\0😀"], "big": 2**80},
            StepSuccess({"rows": [1]}),
            latency_ms=1.5,
            tokens_used=7,
            reward=-0.5,
            thought="hm",
            metadata={"m": 1},
            key="k1",
            step_number=40,
        ),
        ExecutionStep("tool", result=StepError("no")),
        ExecutionStep("tool", result=StepTimeout("late")),
        ExecutionStep("tool", latency_ms=3),
    ]
    async with open_on(files) as memory:
        handle = await memory.start_episode("t", episode_id="e")
        for item in steps:
            await handle.log_step(item)
    async with open_on(files) as memory:
        found = (await memory.get_episode("e")).steps
    for number, (given, stored) in enumerate(zip(steps, found, strict=True)):
        for name in ("tool", "action", "parameters", "result", "latency_ms", "tokens_used", "reward", "thought", "key"):
            assert getattr(stored, name) == getattr(given, name), name
        assert stored.metadata == given.metadata
        assert stored.seq == number + 2
    assert [item.step_number for item in found] == [40, 2, 3, 4]
    assert isinstance(found[3].latency_ms, int)


async def test_starting_again_with_the_same_arguments_gives_a_handle_to_the_same_episode() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        first = await memory.start_episode("task", episode_id="e", domain="d")
        await first.log_step(step(1))
        again = await memory.start_episode("task", episode_id="e", domain="d")
        assert again.id == "e"
        with pytest.raises(InvalidState, match="context"):
            await memory.start_episode("task", episode_id="e", domain="other")
    async with open_on(files) as memory:
        again = await memory.start_episode("task", episode_id="e", domain="d")
        assert (await again.log_step(step(2))).seq == 3
        with pytest.raises(InvalidState, match="task"):
            await memory.start_episode("other", episode_id="e", domain="d")


async def test_many_callers_starting_the_same_id_at_once_share_one_episode() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(lambda: memory.start_episode("task", episode_id="e"))
        assert (await memory.get_episode("e")).last_seq == 1


async def test_get_episode_sees_everything_accepted_before_the_call() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        for number in range(150):
            await handle.log_step(step(number))
            if number % 40 == 0:
                assert len((await handle.get()).steps) == number + 1
        assert [found.last_seq for found in await memory.get_episodes([handle.id, handle.id])] == [151, 151]


async def test_completing_twice_gives_the_same_result_and_another_outcome_is_refused() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        done = await handle.complete(Success("fine"), metadata={"gold": 1})
        assert done.receipt.is_durable
        assert done.receipt.seq == 3
        assert await handle.complete(Success("fine")) == done
        with pytest.raises(InvalidState, match="another outcome"):
            await handle.complete(Failure("no"))
    async with open_on(files) as memory:
        assert await memory.complete_episode("e", Success("fine")) == done
        found = await memory.get_episode("e")
        assert found.outcome_metadata == {"gold": 1}
        assert (found.reward, found.reflection, found.summary) == (done.reward, done.reflection, done.summary)
        assert found.formula_version == FORMULA_VERSION
        assert found.status == "ended"
        with pytest.raises(InvalidState, match="another outcome"):
            await memory.complete_episode("e", Failure("no"))


async def test_completing_at_the_same_time_writes_one_ending() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        results: list[object] = []

        async def complete() -> None:
            results.append(await handle.complete(Success("fine")))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(complete)
        assert len(results) == 5
        assert all(result == results[0] for result in results)
        assert [event.kind async for event in handle.events()] == ["started", "ended"]


async def test_a_cancelled_completion_goes_on_and_can_be_asked_again() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        await handle.log_step(step(1))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle.complete, Success("fine"))
                await trio.lowlevel.checkpoint()
                scope.cancel()
        done = await handle.complete(Success("fine"))
        assert done.outcome == Success("fine")


async def test_steps_after_the_ending_are_refused_even_after_reopening() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.complete(Success())
        for call in (handle.log_step(step(1)), handle.log_steps([step(1)]), memory.resume("e")):
            with pytest.raises(InvalidState, match="ended"):
                await call
    async with open_on(files) as memory:
        with pytest.raises(InvalidState, match="ended"):
            await memory.log_step("e", step(1))
        assert (await memory.get_episode("e")).last_seq == 2


async def test_open_episodes_are_those_left_open_and_resume_continues_one() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        for name in ("a", "b", "c"):
            await (await memory.start_episode(f"task {name}", episode_id=name, agent="x")).log_step(step(1))
        await memory.complete_episode("b", Success())
        assert await memory.open_episodes() == []  # they are running, nobody left them
    async with open_on(files) as memory:
        assert memory.recovery.open_episodes == 2
        left = await memory.open_episodes()
        assert [(item.episode_id, item.task_description, item.agent, item.last_seq) for item in left] == [
            ("a", "task a", "x", 2),
            ("c", "task c", "x", 2),
        ]
        handle = await memory.resume("a")
        assert (await handle.log_step(step(2))).seq == 3
        await handle.complete(Success())
        assert [item.episode_id for item in await memory.open_episodes()] == ["c"]
        with pytest.raises(NotFound, match="'nope'"):
            await memory.resume("nope")


async def test_events_are_in_order_resumable_and_carry_their_place() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        await handle.log_steps([step(n) for n in range(600)])
        await handle.complete(Success())
        events = [event async for event in handle.events()]
        assert [event.seq for event in events] == list(range(1, 603))
        assert [event.lsn for event in events] == list(range(1, 603))
        assert [event.kind for event in events] == ["started", *["step"] * 600, "ended"]
        assert all(event.stream == handle.id and event.schema_version == 1 for event in events)
        times = [event.time_ns for event in events]
        assert times == sorted(times)
        assert [event.seq async for event in handle.events(after=600)] == [601, 602]
        assert events[5].data["parameters"] == {"n": 4}
        assert events[5].data["result"] == {"status": "success", "output": "output 4"}
        with pytest.raises(NotFound):
            await anext(memory.events("nope"))


async def test_times_never_go_back_within_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1_000_000_500, 1_000_000_200, 1_000_000_900, 1_000_000_100])
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        base = (await handle.get()).start_time
        monkeypatch.setattr("stepwell.runtime.cell.time.time_ns", lambda: int(base.timestamp() * 1e9) + next(clock))
        for number in range(4):
            await handle.log_step(step(number))
        monkeypatch.undo()
        times = [event.time_ns async for event in handle.events()]
    assert times == sorted(times)


async def test_a_key_makes_a_resubmit_return_the_first_receipt_across_restarts() -> None:
    files = MemoryFileSystem()
    config = MemoryConfig(keys_kept=2, segment_bytes=SEGMENT_BYTES)
    async with open_on(files, config) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        first = await handle.log_step(step(1, key="a"))
        await handle.log_step(step(2))
        assert await handle.log_step(step(1, key="a")) == first
        with pytest.raises(InvalidState, match="'a'"):
            await handle.log_step(step(3, key="a"))
        batch = await handle.log_steps([step(4, key="b"), step(5, key="c")])
        assert await handle.log_steps([step(4, key="b"), step(5, key="c")]) == batch
        with pytest.raises(InvalidState, match="some"):
            await handle.log_steps([step(4, key="b"), step(6, key="d")])
    async with open_on(files, config) as memory:
        again = await memory.log_step("e", step(5, key="c"))
        assert again.seq == batch.seq
        assert again.lsn == batch.lsn
        assert again.is_durable
        with pytest.raises(InvalidState):
            await memory.log_step("e", step(6, key="c"))
        assert (await memory.log_step("e", step(1, key="a"))).seq == 6  # forgotten: only two keys are kept
        assert len((await memory.get_episode("e")).steps) == 5


async def test_a_closed_memory_refuses_everything_and_says_so() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
    for call in (
        handle.log_step(step(1)),
        handle.log_steps([step(1)]),
        memory.start_episode("x"),
        handle.complete(Success()),
    ):
        with pytest.raises(Closed, match="closed"):
            await call
    with pytest.raises(Closed):
        handle.log_step_nowait(step(1))


async def test_reading_beside_a_living_writer_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m"
    async with open_memory(path) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await (await handle.log_step(step(1))).wait_durable()
        await memory.list_episodes(at_least=2)  # the writer's own catalog has come to rest
        before = {item.name: item.read_bytes() for item in path.iterdir() if item.is_file()}
        async with open_memory(path, read_only=True) as reader:
            assert len((await reader.get_episode("e")).steps) == 1
            assert [item async for item in reader.episode_ids()] == ["e"]
            assert [item.episode_id for item in await reader.open_episodes()] == ["e"]
            with pytest.raises(Closed, match="read_only"):
                await reader.log_step("e", step(2))
            with pytest.raises(Closed, match="read_only"):
                await reader.start_episode("x")
            with pytest.raises(Closed, match="read_only"):
                await reader.complete_episode("e", Success())
        assert {item.name: item.read_bytes() for item in path.iterdir() if item.is_file()} == before
        assert (await handle.log_step(step(2))).seq == 3
    with pytest.raises(NotFound, match="no Stepwell memory"):
        async with open_memory(tmp_path / "absent", read_only=True):
            pass
    assert not (tmp_path / "absent").exists()


async def test_a_memory_in_memory_keeps_nothing_but_behaves_the_same() -> None:
    async with open_memory(":memory:") as memory:
        async with memory.episode("task", episode_id="e") as episode:
            await episode.log_step(step(1))
        assert (await memory.get_episode("e")).status == "ended"
        assert [item async for item in memory.episode_ids()] == ["e"]
    async with open_memory(":memory:") as memory:
        with pytest.raises(NotFound):
            await memory.get_episode("e")


async def test_one_opening_object_can_be_entered_once(tmp_path: Path) -> None:
    opening = open_memory(tmp_path / "m")
    async with opening:
        pass
    with pytest.raises(InvalidState, match="again"):
        await opening.__aenter__()
