"""The neutral form goes into the model and comes back as the very same object."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import (
    Abstained,
    EpisodeStep,
    ExecutionStep,
    Failure,
    Interrupted,
    PartialSuccess,
    StepError,
    StepSuccess,
    StepTimeout,
    Success,
    TaskContext,
    open_memory,
)
from stepwell.cli.neutral_form import (
    BadLine,
    NeutralComplete,
    NeutralStart,
    NeutralStep,
    parse_line,
    read,
    same,
    step_event,
    to_line,
    with_step_count,
    write_episode,
)
from stepwell.model.outcome import TaskOutcome
from tests.stepwell.cli.cli_support import JsonObject, complete, start, step


async def through_a_memory(events: list[JsonObject]) -> list[JsonObject]:
    """Store the events of one episode as `import` does, and write them as `export` does."""
    parsed = [read(event) for event in events]
    assert isinstance(parsed[0], NeutralStart)
    first = parsed[0]
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode(
            first.task,
            context=first.context,
            task_type=first.task_type,
            agent=first.agent,
            episode_id=first.episode,
            parent=first.parent,
            thread=first.thread,
            metadata=first.metadata,
        )
        for event, item in zip(events[1:], parsed[1:], strict=True):
            if isinstance(item, NeutralStep):
                await handle.log_step(item.step)
            else:
                assert isinstance(item, NeutralComplete)
                whole = with_step_count(event, item, len((await handle.get()).steps))
                await handle.complete(whole.outcome, metadata=whole.metadata)
        episode = await handle.get()
    return list(write_episode(episode))


def assert_same(got: list[JsonObject], wanted: list[JsonObject]) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert same(one, other), f"{one}\n{other}"
        assert same(json.loads(to_line(one)), other)


SAMPLES: dict[str, list[JsonObject]] = {
    "every field as usual": [start(), step(), complete()],
    "a NUL, an ESC, CR and U+FFFD": [start(), step(result={"success": "a\0b\x1b[31m\r\n\ufffd é 漢 🙂"})],
    "a megabyte of output": [start(), step(result={"success": "x\0" * 500_000})],
    "a thought, and none": [start(), step(thought="so be it"), step(number=2), step(number=3, thought="")],
    "a thought that is null": [start(), step(thought=None)],
    "whole, broken and no latency": [
        start(),
        *(step(number=n, latency_ms=ms) for n, ms in enumerate([5, 281.413, None, 0, 5.0, 0.0, 2**40], 1)),
    ],
    "rewards": [
        start(),
        *(step(number=n, reward=r) for n, r in enumerate([0.0, 1.0, 0.67, None, 1, 0, -0.5, -0.0], 1)),
    ],
    "numbers in parameters keep their kind": [
        start(),
        step(parameters={"a": 1, "b": 1.0, "c": True, "d": None, "e": 2**70}),
    ],
    "an error": [start(), step(result={"error": "no such file"}), complete(outcome="failure", reward=0.0)],
    "an empty error and an empty success": [
        start(),
        step(result={"error": ""}),
        step(number=2, result={"success": ""}),
    ],
    "a success that is no text": [start(), step(result={"success": {"rows": [1, None, 2.5]}})],
    "no result": [start(), step(result=None)],
    "unknown keys": [
        start(team="red", nested={"a": [1, {"b": None}]}),
        step(cost=0.25, span={"id": "x"}),
        complete(judge="someone", notes=[]),
    ],
    "unknown keys with names of ours": [
        start(
            metadata={"a": 1},
            neutral_form={"values": {"task": "no"}},
            language=7,
            framework="trio",
            parent="",
            thread="t",
        ),
        step(metadata=[1], tokens_used="many", key="k", neutral_form=None, values=1, absent=["tool"]),
        complete(metadata={"reward": 3}, outcome_detail="no object", neutral_form=0),
    ],
    "metadata that looks like the difference": [start(neutral_form={"absent": ["task"], "values": {"task": "other"}})],
    "absent fields": [
        {"event": "start", "episode": "e1", "task": "only what is needed"},
        {"event": "step", "episode": "e1", "tool": "t"},
        {"event": "complete", "episode": "e1", "outcome": "failure"},
    ],
    "fields that are null": [
        start(source=None, task_id=None, domain=None, tags=None, agent=None, trial=None),
        step(action=None, parameters=None, step_number=None),
        complete(reward=None, steps=None, outcome_label=None, meta=None),
    ],
    "tags that the model trims": [start(tags=[" a ", "b", "", "\t"])],
    "a step count that is not true": [start(), step(), complete(steps=17)],
    "step numbers of its own": [start(), step(number=4), step(number=4), step(number=2)],
    "an open episode": [start(), step()],
    "a gold reward that is not ours": [start(), complete(reward=0.25, steps=0)],
    "what the model knows beyond the form": [
        start(
            language="python", framework="trio", complexity="complex", task_type="debugging", parent="e0", thread="t1"
        ),
        step(tokens_used=412),
        complete(outcome="partial_success", outcome_detail={"verdict": "half", "completed": ["a"], "failed": ["b"]}),
    ],
}


@pytest.mark.parametrize("events", SAMPLES.values(), ids=SAMPLES.keys())
async def test_every_event_comes_back_unchanged(events: list[JsonObject]) -> None:
    assert_same(await through_a_memory(events), events)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
words = texts.filter(str.strip)
numbers = st.none() | st.integers(0, 2**40) | st.floats(0, 1e12)
extras = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["metadata", "neutral_form", "language", "outcome_detail"]),
    json_values,
    max_size=3,
)


@st.composite
def neutral_episodes(draw: st.DrawFn) -> list[JsonObject]:
    """A whole episode with odd values, some fields left out, and keys that nobody knows."""

    def event(kind: str, needed: dict[str, Any], optional: dict[str, st.SearchStrategy[Any]]) -> JsonObject:
        made = {"event": kind, "episode": "e", **needed}
        made |= {name: draw(value) for name, value in optional.items() if draw(st.integers(0, 5))}
        others = draw(extras)
        return {**{name: value for name, value in others.items() if name not in made and name not in optional}, **made}

    events = [
        event(
            "start",
            {"task": draw(words)},
            {
                "source": texts,
                "task_id": texts,
                "domain": texts,
                "tags": st.lists(st.sampled_from(["a", " b", "C", "", "d:e"]), max_size=3),
                "agent": texts,
                "trial": st.integers(0, 5) | st.none(),
            },
        )
    ]
    for _ in range(draw(st.integers(0, 3))):
        result = st.none() | st.one_of(
            json_values.map(lambda value: {"success": value}), texts.map(lambda value: {"error": value})
        )
        optional = {
            "step_number": st.integers(1, 99) | st.none(),
            "action": texts,
            "parameters": st.dictionaries(texts, json_values, max_size=3),
            "result": result,
            "latency_ms": numbers,
            "reward": st.none() | st.floats(-1e6, 1e6) | st.integers(-5, 5),
            "thought": texts | st.none(),
        }
        events.append(event("step", {"tool": draw(words)}, optional))
    if draw(st.booleans()):
        optional = {
            "reward": numbers,
            "steps": st.integers(0, 9),
            "outcome_label": texts,
            "meta": st.dictionaries(texts, json_values, max_size=3),
        }
        events.append(event("complete", {"outcome": draw(st.sampled_from(["success", "failure"]))}, optional))
    return events


@given(neutral_episodes())
async def test_any_episode_comes_back_unchanged(events: list[JsonObject]) -> None:
    assert_same(await through_a_memory(events), events)


async def test_what_the_model_has_is_not_kept_twice() -> None:
    parsed = read(start())
    assert isinstance(parsed, NeutralStart)
    assert parsed.metadata == {"source": "hand-made", "task_id": "task-1", "trial": 0}
    assert parsed.context == TaskContext(domain="testing", tags=["one", "two"])
    stepped = read(step(latency_ms=5, reward=0.5, thought="hm"))
    assert isinstance(stepped, NeutralStep)
    assert stepped.step == ExecutionStep(
        "search", "look", {"query": "number 1"}, StepSuccess("found"), 5, reward=0.5, thought="hm", step_number=1
    )
    ended = read(complete())
    assert isinstance(ended, NeutralComplete)
    assert ended.outcome == Success()
    assert ended.metadata == {"reward": 1.0, "outcome_label": "gold", "meta": {"turns": 3}}


@pytest.mark.parametrize(
    ("outcome", "kind", "detail"),
    [
        (Success("works", ["client.py"]), "success", {"verdict": "works", "artifacts": ["client.py"]}),
        (Success(), "success", None),
        (
            PartialSuccess("half", ["a"], ["b"]),
            "partial_success",
            {"verdict": "half", "completed": ["a"], "failed": ["b"]},
        ),
        (Failure("no", "because"), "failure", {"reason": "no", "error_details": "because"}),
        (
            Abstained("no way", 3, ["sign"]),
            "abstained",
            {"reason": "no way", "stopped_at_step": 3, "infeasibility_signals": ["sign"]},
        ),
        (Interrupted("gone", "abandoned"), "interrupted", {"reason": "gone", "cause": "abandoned"}),
    ],
)
async def test_an_episode_that_was_not_imported_is_written_in_the_form_too(
    outcome: TaskOutcome, kind: str, detail: JsonObject | None
) -> None:
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode(
            "Fix it", language="python", metadata={"team": "red", "task": "hides a key"}
        )
        await handle.log_step(
            ExecutionStep("pytest", "run", {"k": 1}, StepError("1 failed"), 12.5, metadata={"cost": 2})
        )
        await handle.log_step(ExecutionStep("pytest", "again", result=StepTimeout("60 s")))
        done = await handle.complete(outcome, metadata={"by": "test"})
        events = list(write_episode(await handle.get()))
    assert [event["event"] for event in events] == ["start", "step", "step", "complete"]
    assert events[0] == {
        "event": "start",
        "episode": handle.id,
        "source": "stepwell",
        "task_id": handle.id,
        "task": "Fix it",
        "domain": "general",
        "tags": [],
        "agent": "",
        "trial": 0,
        "language": "python",
        "team": "red",
        "metadata": {"task": "hides a key"},
    }
    assert events[1]["result"] == {"error": "1 failed"}
    assert events[1]["cost"] == 2
    assert events[2]["result"] == {"timeout": "60 s"}
    assert events[2]["step_number"] == 2
    assert events[3]["outcome"] == kind
    assert events[3].get("outcome_detail") == detail
    assert events[3]["reward"] == (None if done.reward is None else done.reward.total)
    assert events[3]["steps"] == 2
    assert "outcome_label" not in events[3]
    assert_same(await through_a_memory(events), events)


BAD_EVENTS: dict[str, tuple[JsonObject, str]] = {
    "no event": ({"episode": "e"}, 'no "event" field'),
    "an event of another kind": ({"event": "pause", "episode": "e"}, '"pause"'),
    "an event that is no text": ({"event": {}, "episode": "e"}, "event"),
    "no episode": ({"event": "step", "tool": "t"}, "episode: missing"),
    "an episode that is a number": (start(episode=7), "episode: text is wanted, not a number"),  # type: ignore[arg-type]
    "no task": ({"event": "start", "episode": "e"}, "task: missing"),
    "a blank task": (start(task="  "), "task: must not be empty"),
    "tags that are text": (start(tags="a,b"), "tags: a list of texts"),
    "tags that are numbers": (start(tags=[1]), "tags: a list of texts"),
    "no tool": ({"event": "step", "episode": "e"}, "tool: missing"),
    "an empty tool": (step(tool=""), "tool: must not be empty"),
    "parameters that are a list": (step(parameters=[1]), "parameters: an object is wanted, not a list"),
    "a result that is text": (step(result="fine"), "result: "),
    "a result that says both": (step(result={"success": "a", "error": "b"}), "result: "),
    "a result that says neither": (step(result={}), "result: "),
    "a result of another kind": (step(result={"maybe": "a"}), '"maybe"'),
    "an error that is no text": (step(result={"error": {"code": 1}}), "result.error: text is wanted"),
    "a latency that is text": (step(latency_ms="5"), "latency_ms: a number or null is wanted, not text"),
    "a latency below zero": (step(latency_ms=-1), "latency_ms: must be at least 0"),
    "a reward that is true": (step(reward=True), "reward: a number or null"),
    "a reward beyond all bounds": (step(reward=10**400), "reward: "),
    "a step number that is broken": (step(number=1.5), "step_number: a whole number"),  # type: ignore[arg-type]
    "a step number of zero": (step(number=0), "step_number: must be at least 1"),
    "a thought that is a list": (step(thought=["a"]), "thought: text is wanted"),
    "no outcome": ({"event": "complete", "episode": "e"}, "outcome: missing"),
    "another outcome": (complete(outcome="solved"), '"solved"'),
    "an ending's reward that is text": (complete(reward="1"), "reward: a number or null"),
    "a step count below zero": (complete(steps=-1), "steps: must be at least 0"),
    "meta that is text": (complete(meta="m"), "meta: an object is wanted"),
    "a label that is a number": (complete(outcome_label=1), "outcome_label: text is wanted"),
}


@pytest.mark.parametrize(("event", "reason"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_what_is_no_event_is_refused_with_the_field_and_the_reason(event: JsonObject, reason: str) -> None:
    with pytest.raises(BadLine) as refused:
        read(event)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "not a list"),
        (b"null", "not null"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1, "a": 2}', '"a" stands twice'),
        (b'{"x": {"b": 1, "b": 1}}', '"b" stands twice'),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_json_object_is_refused(line: bytes, reason: str) -> None:
    with pytest.raises(BadLine) as refused:
        parse_line(line)
    assert reason in str(refused.value)


def test_same_tells_kinds_of_numbers_apart() -> None:
    assert same({"a": [1, 1.0, True]}, {"a": [1, 1.0, True]})
    for one, other in (
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("1", 1),
        ([1], [1.0]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ([1], [1, 1]),
    ):
        assert not same(one, other)


def test_metadata_of_others_under_our_name_does_no_harm() -> None:
    odd = EpisodeStep(
        seq=2,
        step_number=1,
        timestamp=dt.datetime.now(dt.UTC),
        time_ns=0,
        tool="t",
        action="",
        parameters={},
        result=None,
        latency_ms=None,
        tokens_used=None,
        reward=None,
        thought=None,
        key=None,
        metadata={"neutral_form": ["not", "ours"]},
    )
    assert step_event("e", odd)["tool"] == "t"
