"""Runs beyond what the contract of the ports says: a run is an episode, live followers, costs, failures."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    Abstained,
    BatchConfig,
    ExecutionStep,
    Failure,
    InvalidInput,
    InvalidState,
    Limits,
    Memory,
    MemoryConfig,
    OutcomeUnknown,
    PartialSuccess,
    Price,
    RunId,
    StepError,
    StepInterrupted,
    StepSuccess,
    StepTimeout,
    Success,
    TooLarge,
    default_redactor,
    events,
)
from stepwell.model.limits import DEFAULT_LIMITS
from stepwell.model.run_event import RunEvent
from stepwell.model.run_filter import RunFilter, RunFold, select
from stepwell.model.run_record import encode_event, encode_plain_llm_call
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import cancelled_at_step, open_on, step

CALLED = events.ToolCall("search", {"q": "x"}, events.ToolOk([1, 2]))


# ---- a run is an episode ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "result"),
    [
        (events.ToolCall("t", {"a": 1}, events.ToolOk({"b": [2]})), StepSuccess({"b": [2]})),
        (events.ToolCall("t", {"a": 1}, events.ToolErr("no")), StepError("no")),
    ],
)
async def test_a_tool_call_is_a_step(event: events.ToolCall, result: object) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record("r", events.Started("a"))
        await memory.episodic.record("r", event)
        (found,) = (await memory.get_episode("r")).steps
        assert (found.tool, found.action, found.parameters, found.result) == ("t", "", {"a": 1}, result)


@pytest.mark.parametrize(
    ("result", "replayed"),
    [
        (StepSuccess("text"), events.ToolOk("text")),
        (StepError("no"), events.ToolErr("no")),
        (StepTimeout("late"), events.ToolErr("late")),
        (StepTimeout(), events.ToolErr("timeout")),
        (StepInterrupted(), events.ToolErr("interrupted")),
        (None, events.ToolOk(None)),
    ],
)
async def test_a_step_is_a_tool_call(result: StepSuccess, replayed: events.ToolResult) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", agent="a")
        await handle.log_step(ExecutionStep("t", "words", {"p": 1}, result, latency_ms=5, thought="hm"))
        assert await memory.episodic.replay(handle.id) == [
            events.Started("a"),
            events.ToolCall("t", {"p": 1}, replayed),
        ]


async def test_a_start_is_a_start_both_ways() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="logged", agent="a")
        assert await memory.episodic.replay("logged") == [events.Started("a")]
        await memory.episodic.record("recorded", events.Started("b"))
        episode = await memory.get_episode("recorded")
        assert (episode.task_description, episode.agent, episode.outcome) == ("", "b", None)
        await memory.episodic.record("begun otherwise", CALLED)
        episode = await memory.get_episode("begun otherwise")
        assert (episode.agent, len(episode.steps)) == ("", 1)


@pytest.mark.parametrize(
    ("event", "outcome"), [(events.Completed(), Success("")), (events.Failed("boom"), Failure("boom"))]
)
async def test_an_ending_recorded_ends_the_episode_and_is_not_analysed(event: RunEvent, outcome: Success) -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.episodic.record("r", events.Started("a"))
        await memory.episodic.record("r", event)
        episode = await memory.get_episode("r")
        assert (episode.outcome, episode.reward, episode.reflection) == (outcome, None, None)
        with pytest.raises(InvalidState):
            await memory.log_step("r", step(1))
        done = await memory.complete_episode("r", outcome)
        assert (done.outcome, done.reward) == (outcome, None)
        with pytest.raises(InvalidState):
            await memory.complete_episode("r", Success("another"))
        assert memory.stats().live_episodes == 0
    async with open_on(files) as memory:
        assert memory.recovery.open_episodes == 0
        assert (await memory.complete_episode("r", outcome)).outcome == outcome


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        (Success("fine"), events.Completed()),
        (PartialSuccess("half", ["a"], ["b"]), events.Completed()),
        (Failure("no", "details"), events.Failed("no")),
        (Abstained("too hard"), events.Failed("too hard")),
    ],
)
async def test_an_ending_is_the_event_it_comes_nearest_to(outcome: Success, event: RunEvent) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", agent="a")
        done = await handle.complete(outcome)
        assert done.reward is not None  # this one was analysed
        assert await memory.episodic.replay(handle.id) == [events.Started("a"), event]


async def test_an_abandoned_run_has_failed() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", agent="a")
        await memory.abandon(handle.id, "nobody goes on")
        assert (await memory.episodic.replay(handle.id))[1:] == [events.Failed("nobody goes on")]


async def test_other_events_are_no_steps_and_stand_in_their_place() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        async with memory.episode("task", episode_id="r", agent="a") as episode:
            await episode.record(events.LlmCall(tokens=412, latency_ms=900))
            await episode.log_step(step(1))
            await episode.record(events.Ops({"kind": "x"}), CALLED)
            episode.succeed("done")
        found = await memory.get_episode("r")
        assert [item.tool for item in found.steps] == ["tool", "search"]
        assert [event.kind async for event in memory.events("r")] == [
            *("started", "recorded", "step", "recorded", "step", "ended"),
        ]
        replayed = await memory.episodic.replay("r")
        assert [type(event).__name__ for event in replayed] == [
            *("Started", "LlmCall", "ToolCall", "Ops", "ToolCall", "Completed"),
        ]
        assert [event.data async for event in memory.events("r")][1] == {"LlmCall": {"tokens": 412, "latency_ms": 900}}


async def test_how_an_episode_is_organised_is_no_event_of_the_run() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record_many("r", [events.Started("a"), events.Completed()])
        await memory.add_tags("r", ["x"])
        await memory.update_episode("r", description="what it was")
        assert await memory.episodic.replay("r") == [events.Started("a"), events.Completed()]
        assert (await memory.episodic.list_runs())[0].episode_count == 2
        await memory.episodic.record("r", events.Ops(1))
        assert len(await memory.episodic.replay("r")) == 3


async def test_a_deleted_run_is_gone_and_takes_no_events() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record("r", events.Started("a"))
        await memory.delete_episode("r")
        assert await memory.episodic.replay("r") == []
        assert await memory.episodic.list_runs() == []
        with pytest.raises(InvalidState, match="deleted"):
            await memory.episodic.record("r", events.Ops(1))


async def test_a_list_of_episodes_has_the_runs_as_well_and_threads_are_none() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        from stepwell import Message

        await memory.short_term.append("t", Message("user", "hi"))
        receipt = await memory.episodic.record_many("r", [events.Started("a"), CALLED, events.Failed("no")])
        await receipt.wait_durable()
        page = await memory.list_episodes(at_least=receipt.lsn)
        assert [item.episode_id for item in page.items] == ["r"]


# ---- ids, encoding, order --------------------------------------------------------------------------------------------


def test_an_id_of_a_run_is_a_ulid_that_sorts_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000_000_000_000
    monkeypatch.setattr("stepwell.model.ids.time.time_ns", lambda: now)
    first = RunId.new()
    assert len(first) == 26
    assert first[:10] == "01HF7YAT00"
    assert RunId.new() != first
    assert RunId.new()[:10] == first[:10]
    monkeypatch.setattr("stepwell.model.ids.time.time_ns", lambda: now + 1_000_000)
    assert RunId.new() > first
    assert RunId(first) == str(first)


@pytest.mark.parametrize(
    "call",
    [
        events.LlmCall(1, 2),
        events.LlmCall(2**32 - 1, 0, "p", "m", 1, 2),
        events.LlmCall(1, 2, model="Käse"),
        events.LlmCall(1, 2, completion_tokens=0),
    ],
)
def test_the_fast_encoding_gives_the_same_bytes(call: events.LlmCall) -> None:
    now = 1_700_000_000_000_000_000
    assert encode_plain_llm_call(call, now) == encode_event(call, now, DEFAULT_LIMITS)


@pytest.mark.parametrize(
    "call",
    [
        events.LlmCall(2**32, 2),
        events.LlmCall(-1, 2),
        events.LlmCall(1, True),
        events.LlmCall(1, 2, "x" * 300),
        events.LlmCall(1, 2, 5),  # type: ignore[arg-type]
        events.LlmCall(1, 2, "\ud800"),
        events.LlmCall(1, 2, prompt_tokens=-1),
        events.LlmCall(1, 2, wire="{}"),
    ],
)
def test_what_has_to_be_looked_at_is_not_encoded_fast(call: events.LlmCall) -> None:
    assert encode_plain_llm_call(call, 5) is None


async def test_runs_that_began_at_one_time_are_listed_by_their_ids_backwards() -> None:
    folds = []
    for run, at in (("a", 2_000), ("c", 1_000), ("b", 1_000), ("d", 2_000)):
        fold = RunFold(run)
        fold.add(at)
        folds.append(fold)
    found = select(folds, RunFilter())
    assert [item.run_id for item in found] == ["d", "a", "c", "b"]
    seen, cursor = [], None
    while page := select(folds, RunFilter(limit=1, after=cursor)):
        seen.append(page[0].run_id)
        cursor = page[0].cursor
    assert seen == ["d", "a", "c", "b"]


@pytest.mark.parametrize(
    "event",
    [
        events.ToolCall("t", {"a": float("nan")}, events.ToolOk()),
        events.ToolCall("t", {}, events.ToolOk({1: 2})),
        events.ToolCall("t", {}, "ok"),  # type: ignore[arg-type]
        events.LlmCall("many", 2),  # type: ignore[arg-type]
        events.Failed("\ud800"),
        5,
    ],
)
async def test_what_cannot_be_stored_is_refused_with_its_place_and_a_run_is_not_begun(event: RunEvent) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record("r", events.Started("a"))
        for run in ("r", "new"):
            with pytest.raises(InvalidInput, match=r"event|LlmCall|Failed|outcome"):
                await memory.episodic.record(run, event)
        assert await memory.episodic.replay("r") == [events.Started("a")]
        assert len(await memory.episodic.list_runs()) == 1
        assert memory.stats().rejected == {"InvalidInput": 2}


async def test_limits_hold_for_recorded_steps_and_batches() -> None:
    limits = Limits(steps_per_episode=2, record_bytes=2_000)
    async with open_on(MemoryFileSystem(), MemoryConfig(limits=limits)) as memory:
        await memory.episodic.record_many("r", [CALLED, CALLED])
        with pytest.raises(TooLarge):
            await memory.episodic.record("r", CALLED)
        with pytest.raises(TooLarge):
            await memory.episodic.record_many("r", [CALLED])
        with pytest.raises(TooLarge):
            async with memory.atomic() as tx:
                tx.record("r", CALLED)
        with pytest.raises(TooLarge, match="events"):
            await memory.episodic.record_many("r", [events.Ops("x" * 500)] * 5)
        assert len(await memory.episodic.replay("r")) == 2


async def test_what_must_not_be_stored_is_replaced_in_events_too() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(redact=default_redactor)) as memory:
        token = "ghp_0123456789012345678901"
        await memory.episodic.record("r", events.ToolCall("t", {"api_key": "x", "n": 1}, events.ToolOk(token)))
        await memory.episodic.record("r", events.from_json('{"Failed":{"error":"' + token + '","code":3}}'))
        assert await memory.episodic.replay("r") == [
            events.ToolCall("t", {"api_key": "[redacted]", "n": 1}, events.ToolOk("[redacted]")),
            events.Failed("[redacted]"),
        ]
        async with memory.atomic() as tx:
            tx.record("r", events.Ops({"password": "x"}))
        assert (await memory.episodic.replay("r"))[-1] == events.Ops({"password": "[redacted]"})


# ---- failures and cancellation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["fail_next", "lose_ack_next", "reject_next"])
async def test_a_run_goes_on_from_what_the_log_holds(policy: str, autojump_clock: MockClock) -> None:
    whole: list[RunEvent] = [events.Started("a"), CALLED, events.Completed()]
    journal = MemoryJournal()
    async with open_memory_on(journal, MemoryConfig(batch=BatchConfig.manual())) as memory:
        getattr(journal, policy)()
        receipt = await memory.episodic.record_many("r", whole)
        with pytest.raises(OutcomeUnknown):
            await receipt.wait_durable()
        stored = whole if policy == "lose_ack_next" else []
        assert await memory.episodic.replay("r") == stored
        if not stored:
            await (await memory.episodic.record_many("r", whole)).wait_durable()
        assert (await memory.get_episode("r")).outcome == Success("")
        await memory.episodic.record("r", events.Ops("late"))
        assert await memory.episodic.replay("r") == [*whole, events.Ops("late")]


async def test_an_ending_that_did_not_reach_the_log_can_be_recorded_again(autojump_clock: MockClock) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal, MemoryConfig(batch=BatchConfig.manual())) as memory:
        await (await memory.episodic.record("r", events.Started("a"))).wait_durable()
        journal.fail_next()
        with pytest.raises(OutcomeUnknown):
            await (await memory.episodic.record("r", events.Failed("no"))).wait_durable()
        assert (await memory.get_episode("r")).outcome is None
        await (await memory.episodic.record("r", events.Completed())).wait_durable()
        assert (await memory.get_episode("r")).outcome == Success("")


async def test_cancelled_at_any_point_a_batch_is_stored_whole_or_not_at_all() -> None:
    whole: list[RunEvent] = [CALLED, events.Completed(), events.Ops("late")]
    steps, cancelled = 0, True
    found = set()
    while cancelled:
        files = MemoryFileSystem()
        async with open_on(files, MemoryConfig(durability="commit")) as memory:
            cancelled = await cancelled_at_step(steps, lambda m=memory: m.episodic.record_many("r", whole))  # type: ignore[misc]
        async with open_on(files) as memory:
            replayed = await memory.episodic.replay("r")
            assert replayed in ([], whole)
            found.add((cancelled, bool(replayed)))
        steps += 1
    assert found >= {(True, False), (False, True)}


async def test_a_run_that_begins_in_a_transaction_is_not_there_if_that_fails() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="e")
        with pytest.raises(InvalidState):
            async with memory.atomic() as tx:
                tx.record("new", events.Started("a"))
                tx.log_step("e", step(1), expected_seq=9)
        assert await memory.episodic.replay("new") == []
        assert "new" not in memory._cells
        await memory.episodic.record("new", events.Started("b"))
        assert await memory.episodic.replay("new") == [events.Started("b")]


async def test_for_one_run_a_transaction_has_steps_or_events() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="e")
        async with memory.atomic() as tx:
            tx.log_step("e", step(1))
            with pytest.raises(InvalidInput, match="ToolCall"):
                tx.record("e", events.Ops(1))
        async with memory.atomic() as tx:
            tx.record("e", events.Ops(1), events.Completed())
            with pytest.raises(InvalidInput, match="ToolCall"):
                tx.log_step("e", step(1))
        assert tx.receipt_of("e") == tx.receipt
        assert (await memory.get_episode("e")).outcome == Success("")


async def test_an_idle_run_falls_asleep_and_wakes_for_its_next_event(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(idle_seconds=1)) as memory:
        await memory.episodic.record("r", CALLED)
        await trio.sleep(5)
        assert not memory._cells
        await memory.episodic.record("r", events.Completed())
        await trio.sleep(5)
        await memory.episodic.record("r", events.Ops("late"))
        await trio.sleep(5)
        assert not memory._cells
        assert len(await memory.episodic.replay("r")) == 3


# ---- following -------------------------------------------------------------------------------------------------------


async def test_a_follower_of_a_run_sees_what_is_there_and_what_comes_and_nothing_else() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record_many("r", [events.Started("a"), events.Ops(0)])
        async with memory.episodic.follow("r") as found, memory.episodic.follow("later") as other:
            await memory.episodic.record("other", events.Ops("not mine"))
            for number in range(1, 400):
                await memory.episodic.record("r", events.Ops(number))
            await memory.episodic.record("later", events.Ops("mine"))
            await memory.flush()
            seen = [await found.receive() for _ in range(401)]
            assert [item.event for item in seen][1:] == [events.Ops(number) for number in range(400)]
            assert [item.seq for item in seen] == list(range(1, 402))
            assert (await other.receive()).event == events.Ops("mine")
        async with memory.episodic.follow("r", after=400) as found:
            assert (await found.receive()).event == events.Ops(399)


async def test_a_follower_ends_with_the_run_or_the_memory() -> None:
    ended: list[object] = []

    async def follow(memory: Memory, run: str, task_status: trio.TaskStatus[None]) -> None:
        async with memory.episodic.follow(run) as found:
            task_status.started()
            async for item in found:
                ended.append(item.event)
        ended.append(run)

    async with trio.open_nursery() as nursery:
        async with open_on(MemoryFileSystem()) as memory:
            for run in ("gone", "r"):
                await memory.episodic.record(run, events.Started(run))
                await nursery.start(follow, memory, run)
            await memory.delete_episode("gone")
            await wait_all_tasks_blocked()
            assert ended[-1:] == ["gone"]
    assert ended[-1:] == ["r"]


# ---- costs -----------------------------------------------------------------------------------------------------------

PRICES = {
    ("openai", "gpt-4o"): Price(2.5, 10.0),
    ("openai", "gpt-4o-2024-05-13"): Price(5.0, 15.0),
    ("anthropic", "claude-sonnet"): Price(3.0, 15.0),
}


async def test_what_runs_have_used_is_told_per_run_agent_and_model() -> None:
    def call(model: str | None, provider: str | None = "openai", prompt: int | None = 1_000) -> events.LlmCall:
        return events.LlmCall(1_500, 100, provider, model, prompt, 500)

    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record_many("a", [events.Started("planner"), call("gpt-4o"), CALLED])
        await memory.episodic.record_many("b", [call("gpt-4o-2024-05-13"), call("gpt-4o-2024-08-06"), call(None)])
        await memory.episodic.record_many(
            "c",
            [
                events.Started("planner"),
                call("claude-sonnet-4-5", "anthropic"),
                call("gpt-4o", prompt=None),
                call("o3"),
                events.SummaryCheckpoint(5, 80, 30, 200),
            ],
        )
        report = await memory.episodic.usage(["a", "b", "c", "unknown"], PRICES)
    assert (report.total.llm_calls, report.total.tool_calls, report.total.summaries) == (7, 1, 1)
    assert (report.total.tokens, report.total.llm_latency_ms) == (7 * 1_500 + 200, 730)
    assert {run: round(usage.cost, 6) for run, usage in report.by_run.items()} == {
        "a": 7.5,
        "b": 12.5 + 7.5,
        "c": 10.5,
        "unknown": 0,
    }
    assert {run: usage.unpriced_calls for run, usage in report.by_run.items()} == {"a": 0, "b": 1, "c": 2, "unknown": 0}
    assert {agent: usage.llm_calls for agent, usage in report.by_agent.items()} == {"planner": 4, "": 3}
    assert report.by_model["openai", "gpt-4o"].llm_calls == 2
    assert report.by_model["openai", ""].unpriced_calls == 1
    assert round(report.total.cost, 6) == 7.5 + 20.0 + 10.5


@pytest.mark.parametrize("prices", [5, {"gpt": Price(1, 1)}, {("openai", "gpt"): 3}])
async def test_a_table_of_prices_that_is_none_is_refused(prices: object) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        with pytest.raises(InvalidInput, match="prices"):
            await memory.episodic.usage([], prices)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        Price(-1, 0)


async def test_runs_are_listed_beside_a_writer(tmp_path: Path) -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.episodic.record("r", events.Started("a"))
        await memory.flush()
        async with open_on(files, read_only=True) as reader:
            assert [item.run_id for item in await reader.episodic.list_runs()] == ["r"]
            await memory.episodic.record("s", events.Started("a"))
            await memory.flush()
            assert [item.run_id for item in await reader.episodic.list_runs()] == ["s", "r"]
            assert await reader.episodic.replay("s") == [events.Started("a")]
