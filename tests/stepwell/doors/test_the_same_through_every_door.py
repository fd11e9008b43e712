"""What a caller sees does not depend on the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    START,
    BatchConfig,
    Busy,
    Closed,
    DeletionReport,
    ExecutionStep,
    Fact,
    Failure,
    InvalidInput,
    InvalidState,
    MemoryConfig,
    Message,
    NotFound,
    Role,
    RunFilter,
    Scope,
    StepError,
    StepTimeout,
    Success,
    events,
)
from tests.stepwell.doors.awaited import DOORS, through
from tests.support import step

pytestmark = pytest.mark.parametrize("door", DOORS)


def test_a_run_is_stored_with_its_steps_and_its_ending(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        scope = memory.episode("task", domain="ci", episode_id="e")
        async with scope as episode:
            first = await episode.log_step(step(1))
            batch = await episode.log_steps([step(2), step(3)])
            now = episode.log_step_nowait(step(4))
            assert (first.seq, batch.seq, now.seq) == (2, 4, 5)
            await now.wait_durable()
            assert first.is_durable
            assert first.lsn == 2
            episode.succeed("fine", ["a.py"])
        assert scope.completed.outcome == Success("fine", ["a.py"])
        assert scope.completed.receipt.is_durable
        found = await memory.get_episode("e")
        assert [item.action for item in found.steps] == [f"action {n}" for n in (1, 2, 3, 4)]
        assert found.reward is not None
        assert memory.stats().records == 6
        assert [event.kind async for event in memory.events("e")] == ["started", *["step"] * 4, "ended"]
        assert [name async for name in memory.episode_ids()] == ["e"]

    through(door, tmp_path / "m", scenario)


def test_what_was_acknowledged_is_there_after_closing_and_opening_again(door: str, tmp_path: Path) -> None:
    async def first(memory: Any) -> None:
        handle = await memory.start_episode("task", episode_id="e")
        for number in range(200):  # more than the mailbox holds
            await handle.log_step(step(number))

    async def second(memory: Any) -> None:
        assert [episode.episode_id for episode in await memory.open_episodes()] == ["e"]
        handle = await memory.resume("e")
        assert len((await handle.get()).steps) == 200
        done = await handle.complete(Success("now"))
        assert done.outcome == Success("now")

    through(door, tmp_path / "m", first)
    through(door, tmp_path / "m", second)


def test_an_exception_in_a_run_leaves_unchanged_and_makes_it_a_failure(door: str, tmp_path: Path) -> None:
    problem = LookupError("no such flight")

    async def scenario(memory: Any) -> None:
        with pytest.raises(LookupError) as caught:
            async with memory.episode("task", episode_id="e"):
                raise problem
        assert caught.value is problem
        assert (await memory.get_episode("e")).outcome == Failure("LookupError: no such flight")

    through(door, tmp_path / "m", scenario)


def test_what_the_body_raises_leaves_open_memory_unchanged(door: str, tmp_path: Path) -> None:
    problem = LookupError("mine")

    async def scenario(memory: Any) -> None:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        raise problem

    with pytest.raises(LookupError) as caught:
        through(door, tmp_path / "m", scenario)
    assert caught.value is problem

    async def afterwards(memory: Any) -> None:
        assert len((await memory.get_episode("e")).steps) == 1

    through(door, tmp_path / "m", afterwards)


def test_a_step_scope_logs_output_errors_and_expired_deadlines(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        handle = await memory.start_episode("task")
        async with handle.step("search", "look", {"q": 1}) as scope:
            scope.output = [1, 2]
        with pytest.raises(ValueError, match="bad"):
            async with handle.step("search"):
                raise ValueError("bad")
        with pytest.raises(TimeoutError):
            async with handle.step("search"):
                raise TimeoutError("too late")
        results = [item.result for item in (await handle.get()).steps]
        assert results[0].output == [1, 2]
        assert results[1:] == [StepError("ValueError: bad"), StepTimeout("too late")]

    through(door, tmp_path / "m", scenario)


def test_the_errors_are_the_same_and_typed(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        with pytest.raises(NotFound):
            await memory.get_episode("nobody")
        with pytest.raises(InvalidInput, match=r"step\.parameters"):
            await (await memory.start_episode("task", episode_id="e")).log_step(
                ExecutionStep("tool", "action", {"bad": {1, 2}})
            )
        with pytest.raises(InvalidInput, match=r"steps\[1\]"):
            await memory.log_steps("e", [step(1), ExecutionStep("", "action")])
        with pytest.raises(InvalidInput, match="episode_id"):
            await memory.log_step(7, step(1))
        with pytest.raises(InvalidInput, match="episode_id"):
            memory.handle("")
        await memory.complete_episode("e", Success("done"))
        with pytest.raises(InvalidState):
            await memory.log_step("e", step(2))
        with pytest.raises(InvalidState):
            await memory.complete_episode("e", Failure("no"))
        assert (await memory.get_episode("e")).steps == []

    through(door, tmp_path / "m", scenario)


def test_nowait_is_busy_where_log_step_would_wait_and_log_step_waits_for_room(door: str, tmp_path: Path) -> None:
    async def start(memory: Any) -> None:
        await memory.start_episode("task", episode_id="e")

    async def scenario(memory: Any) -> None:
        handle = memory.handle("e")  # asleep since the memory was opened
        with pytest.raises(Busy):
            handle.log_step_nowait(step(1))
        for number in range(20):  # ten times what the mailbox holds
            await handle.log_step(step(number))
        assert [item.action for item in (await handle.get()).steps] == [f"action {number}" for number in range(20)]

    through(door, tmp_path / "m", start)
    through(door, tmp_path / "m", scenario, MemoryConfig(mailbox_size=2, batch=BatchConfig.manual()))


def test_with_commit_durability_a_step_is_durable_on_return(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        handle = await memory.start_episode("task")
        assert (await handle.log_step(step(1))).is_durable
        assert (await handle.log_steps([step(2), step(3)])).is_durable
        assert (await memory.log_step(handle.id, step(4))).is_durable

    through(door, tmp_path / "m", scenario, MemoryConfig(durability="commit"))


def test_a_key_gives_the_first_receipt_again(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        handle = await memory.start_episode("task")
        first = await handle.log_step(step(1, key="k"))
        assert await handle.log_step(step(1, key="k")) == first
        with pytest.raises(InvalidState):
            await handle.log_step(step(2, key="k"))

    through(door, tmp_path / "m", scenario)


def test_events_are_followed_in_order_also_behind_a_cursor(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        async with memory.episode("task", episode_id="e") as episode:
            for number in range(600):
                await episode.log_step(step(number))
        async with memory.follow(START) as events:
            seen = [await events.receive() for _ in range(602)]
        assert [event.lsn for event in seen] == list(range(1, 603))
        async with memory.follow(seen[599].cursor, kinds=["ended"]) as events:
            assert (await events.receive()).kind == "ended"
        with pytest.raises(InvalidInput):
            async with memory.follow("no cursor"):
                pass
        assert len([event async for event in memory.events("e", after=300)]) == 302

    through(door, tmp_path / "m", scenario)


def test_a_transaction_over_two_episodes_and_a_step_that_expects_a_place(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        one, two = await memory.start_episode("one"), await memory.start_episode("two")
        scope = memory.atomic()
        async with scope as tx:
            tx.log_step(one.id, step(1))
            tx.log_steps(two.id, [step(2), step(3)])
            with pytest.raises(InvalidInput):
                tx.log_step(one.id, ExecutionStep("", "action"))
        assert tx.receipt.is_durable
        assert (tx.receipt_of(one.id).seq, tx.receipt_of(two.id).seq) == (2, 3)
        with pytest.raises(LookupError):
            async with memory.atomic() as tx:
                tx.log_step(one.id, step(4))
                raise LookupError
        assert (await one.log_step(step(5), expected_seq=2)).seq == 3
        with pytest.raises(InvalidState):
            await memory.log_steps(one.id, [step(6)], expected_seq=2)
        assert [item.action for item in (await one.get()).steps] == ["action 1", "action 5"]

    through(door, tmp_path / "m", scenario)


def test_what_happens_to_episodes_is_told(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        async with memory.lifecycle() as events:
            async with memory.episode("task", episode_id="e"):
                pass
            assert [(await events.receive()).kind, (await events.receive()).kind] == ["started", "ended"]
        assert memory.health().status == "ok"

    through(door, tmp_path / "m", scenario)


def test_deleting_and_compacting_and_backing_up(door: str, tmp_path: Path) -> None:
    async def scenario(memory: Any) -> None:
        async with memory.episode("task", episode_id="e"):
            pass
        await memory.backup(tmp_path / "archive")
        await memory.delete_episode("e")
        with pytest.raises(NotFound):
            await memory.get_episode("e")
        assert isinstance(await memory.compact(purge=True), DeletionReport)

    through(door, tmp_path / "m", scenario)
    assert (tmp_path / "archive").is_dir()


def test_a_memory_that_was_left_says_so(door: str, tmp_path: Path) -> None:
    kept: list[Any] = []

    async def scenario(memory: Any) -> None:
        kept.append(memory)
        kept.append(await memory.start_episode("task"))

    through(door, tmp_path / "m", scenario)

    async def again(_memory: Any) -> None:
        with pytest.raises(Closed):
            await kept[1].log_step(step(1))
        with pytest.raises(Closed):
            await kept[0].start_episode("other")

    if door != "aio":  # an asyncio memory belongs to the loop that opened it, see test_wrong_loops.py
        through(door, tmp_path / "other", again)


def test_a_transaction_organises_episodes_through_every_door(door: str, tmp_path: Path) -> None:
    async def first(memory: Any) -> None:
        for name in "ab":
            await memory.start_episode("task", episode_id=name, tags=["old"])
        async with memory.atomic() as tx:
            tx.log_step("a", step(1))
            tx.add_tags("a", ["x"], actor="ann")
            tx.remove_tags("a", ["old"])
            tx.set_tags("b", ["y"])
            tx.update_episode("a", description="other", metadata={"n": 1})
            tx.checkpoint("a", "why", note="here")
            tx.archive("a")
            tx.archive("b")
            tx.restore("b")
            tx.relate("a", "b", "follows", priority=3)
            tx.relate("a", "b", "blocks")
            tx.unrelate("a", "b", "blocks")
            with pytest.raises(InvalidInput):
                tx.add_tags("a", "x")
        assert tx.receipt.is_durable

    async def second(memory: Any) -> None:
        a, b = await memory.get_episode("a"), await memory.get_episode("b")
        assert (a.context.tags, a.task_description, a.metadata) == (["x"], "other", {"n": 1})
        assert [(place.steps, place.note) for place in a.checkpoints] == [(1, "here")]
        assert (a.archived_at is not None, b.archived_at, b.context.tags) == (True, None, ["y"])
        assert [(edge.kind, edge.priority) for edge in await memory.related("a")] == [("follows", 3)]

    through(door, tmp_path / "m", first)
    through(door, tmp_path / "m", second)


def test_facts_are_remembered_and_found(door: str, tmp_path: Path) -> None:
    team = Scope.workspace("team")

    async def first(memory: Any) -> None:
        facts = memory.long_term
        sky = await facts.remember(team, Fact("the sky is blue", {"n": 1}))
        await facts.remember_many(team, [Fact("the sea is deep"), Fact("the grass is green")])
        async with memory.atomic() as tx:
            tx.remember(team, Fact("the sky is wide"))
        assert tx.fact_ids(team) == ["workspace:team/1.4"]
        assert [hit.id for hit in await facts.search(team, "sky", where={"n": 1})] == [sky]
        assert await facts.forget(sky)
        with pytest.raises(NotFound):
            await facts.get(sky)
        with pytest.raises(InvalidInput):
            await facts.recall(team, "sky", -1)
        assert facts.ranking.kind == "lexical"

    async def second(memory: Any) -> None:
        assert await memory.long_term.recall(team, "sky") == [Fact("the sky is wide")]
        assert len((await memory.long_term.facts(team)).items) == 3
        await memory.long_term.clear(team)
        assert await memory.long_term.recall(team, "sky") == []

    through(door, tmp_path / "m", first)
    through(door, tmp_path / "m", second)


def test_the_ports_work_through_every_door(door: str, tmp_path: Path) -> None:
    async def first(memory: Any) -> None:
        receipt = await memory.short_term.append("t", Message(Role.USER, "hi"))
        await receipt.wait_durable()
        assert (receipt.seq, receipt.is_durable) == (1, True)
        with pytest.raises(InvalidInput):
            await memory.short_term.append("t", "hi")
        async with memory.atomic() as tx:
            tx.append("t", Message(Role.ASSISTANT, "hello"))
            tx.record("r", events.Started("a"), events.LlmCall(1, 2))
        assert tx.receipt.is_durable
        handle = memory.handle("r")
        await handle.record(events.Ops(1))
        async with memory.episodic.follow("r") as found:
            assert [(await found.receive()).event for _ in range(3)] == await memory.episodic.replay("r")
        summary = await memory.short_term.summarize_history(
            "t", lambda messages: f"{len(messages)} messages", trigger_token_budget=1, keep_recent_messages=1, run="r"
        )
        assert (summary.text, summary.last_seq) == ("1 messages", 1)

    async def second(memory: Any) -> None:
        loaded = await memory.short_term.load("t", 100, with_summary=True)
        assert [message.content for message in loaded] == ["1 messages", "hello"]
        assert (await memory.short_term.window("t", 100)).last_seq == 2
        assert await memory.short_term.threads() == ["t"]
        assert [type(item.event).__name__ async for item in memory.episodic.iter_replay("r")] == [
            *("Started", "LlmCall", "Ops", "SummaryCheckpoint"),
        ]
        assert (await memory.episodic.usage(["r"])).total.llm_calls == 1
        await memory.short_term.clear("t")
        assert await memory.short_term.load("t", 100) == []
        (run,) = await memory.episodic.list_runs(RunFilter(agent="a"))
        assert (run.run_id, run.episode_count) == ("r", 4)

    through(door, tmp_path / "m", first)
    through(door, tmp_path / "m", second)
