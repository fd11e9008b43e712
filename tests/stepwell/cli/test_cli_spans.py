"""OpenTelemetry spans: ours are what the schema says and come back whole, and those of others are understood."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from stepwell import (
    Abstained,
    ExecutionStep,
    Failure,
    Interrupted,
    PartialSuccess,
    StepError,
    StepInterrupted,
    StepSuccess,
    StepTimeout,
    Success,
    open_memory,
)
from stepwell.cli.neutral_form import JsonObject, same, write_episode
from stepwell.cli.span_form import read_spans, traces_data
from stepwell.cli.span_form import spans as span_files
from stepwell.model.context import TaskContext
from stepwell.model.episode import Episode
from stepwell.model.outcome import TaskOutcome
from stepwell.model.step import EpisodeStep
from tests.stepwell.cli.cli_support import exported, read_lines, run, run_json, write_lines

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
texts = st.text(st.characters(codec="utf-8"), max_size=10)
TRACE = "5b8efff798038103d269b633813fc60c"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory with every kind of outcome and of result, awkward texts among them."""
    directory = tmp_path_factory.mktemp("spans") / "memory"
    outcomes: tuple[TaskOutcome, ...] = (
        Success("it works", ["a.py"]),
        PartialSuccess("half", ["a"], ["b"]),
        Failure("no", "why"),
        Abstained("x"),
        Interrupted("gone", "cancelled"),
    )

    async def main() -> None:
        async with open_memory(directory) as memory:
            for number, outcome in enumerate(outcomes):
                handle = await memory.start_episode(
                    f"Task {number} 🪜",
                    agent="agent" if number else "",
                    domain="testing",
                    tags=["t"],
                    language="python",
                    metadata={"n": number, "trial": 3},
                    episode_id=f"ended-{number}",
                    parent="ended-0" if number else None,
                )
                for result in (
                    StepSuccess("plain text"),
                    StepSuccess('{"looks": "like JSON"}'),
                    StepSuccess({"is": ["JSON", 1, None, 1.0]}),
                    StepSuccess(5),
                    StepError(""),
                    StepTimeout("60 s"),
                    StepInterrupted("stop"),
                    None,
                ):
                    await handle.log_step(
                        ExecutionStep(
                            "tool",
                            "do it",
                            {"x": [1, {"y": None}]},
                            result,
                            12.5,
                            7,
                            0.5,
                            "hm",
                            {"m": 1},
                            "k" + repr(result),
                        )
                    )
                await handle.complete(outcome)
            await memory.start_episode("Still open", episode_id="open")

    trio.run(main)
    return directory


def otlp(directory: Path, to: Path) -> list[JsonObject]:
    assert run("export", to, "--format", "otlp", "--dir", directory).exit_code == 0
    return read_lines(to)


def test_what_is_exported_is_what_the_published_schema_says(filled: Path, tmp_path: Path) -> None:
    lines = otlp(filled, tmp_path / "spans.jsonl")
    assert len(lines) == 6
    for line in lines:
        json_format.ParseDict(line, TracesData())  # refuses a field or a type that the schema does not have
    spans = [span for line in lines for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    assert len({span["spanId"] for span in spans}) == len(spans) == 5 * 9 + 1
    for span in spans:
        assert len(span["traceId"]) == 32
        assert len(span["spanId"]) == 16
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])


def test_the_conventions_are_kept(filled: Path, tmp_path: Path) -> None:
    line = otlp(filled, tmp_path / "spans.jsonl")[2]
    agent, *tools = line["resourceSpans"][0]["scopeSpans"][0]["spans"]
    attributes = {item["key"]: next(iter(item["value"].values())) for item in agent["attributes"]}
    assert agent["name"] == "invoke_agent agent"
    assert attributes["gen_ai.operation.name"] == "invoke_agent"
    assert attributes["gen_ai.agent.name"] == "agent"
    assert agent["status"] == {"code": 2, "message": "no"}
    assert {tool["parentSpanId"] for tool in tools} == {agent["spanId"]}
    of_json = {item["key"]: next(iter(item["value"].values())) for item in tools[2]["attributes"]}
    assert tools[2]["name"] == "execute_tool tool"
    assert of_json["gen_ai.operation.name"] == "execute_tool"
    assert of_json["gen_ai.tool.name"] == "tool"
    assert json.loads(of_json["gen_ai.tool.call.arguments"]) == {"x": [1, {"y": None}]}
    assert json.loads(of_json["gen_ai.tool.call.result"]) == {"is": ["JSON", 1, None, 1.0]}
    assert int(tools[2]["endTimeUnixNano"]) - int(tools[2]["startTimeUnixNano"]) == 12_500_000
    timeout = {item["key"]: next(iter(item["value"].values())) for item in tools[5]["attributes"]}
    assert timeout["error.type"] == "timeout"
    assert tools[5]["status"] == {"code": 2, "message": "60 s"}


def test_what_is_exported_comes_back_without_loss(filled: Path, tmp_path: Path) -> None:
    otlp(filled, tmp_path / "spans.jsonl.gz")
    report = run_json("import", tmp_path / "spans.jsonl.gz", "--strict", "--dir", tmp_path / "copy")
    assert (report["episodes"], report["steps"], report["endings"], report["bad_lines"]) == (6, 40, 5, 0)
    assert report["files"][0]["file"] == str(tmp_path / "spans.jsonl.gz")
    by_id = {event["episode"]: event for event in exported(filled, tmp_path / "a.jsonl") if event["event"] == "start"}
    assert len(by_id) == 6
    again = exported(tmp_path / "copy", tmp_path / "b.jsonl")
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, exported(filled, tmp_path / "a.jsonl")))
    twice = run_json("import", tmp_path / "spans.jsonl.gz", "--dir", tmp_path / "copy")
    assert (twice["added"], twice["present"]) == (0, 51)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
results = st.none() | st.one_of(
    json_values.map(StepSuccess), texts.map(StepError), texts.map(StepTimeout), texts.map(StepInterrupted)
)


@given(
    st.lists(
        st.builds(
            EpisodeStep,
            seq=st.integers(2, 100),
            step_number=st.integers(1, 100),
            timestamp=st.just(NOW),
            time_ns=st.just(10**18),
            tool=texts.filter(str.strip),
            action=texts,
            parameters=st.dictionaries(texts, json_values, max_size=3),
            result=results,
            latency_ms=st.none() | st.floats(0, 1e6),
            tokens_used=st.none() | st.integers(0, 10**6),
            reward=st.none() | st.floats(-10, 10),
            thought=st.none() | texts,
            metadata=st.dictionaries(texts, json_values, max_size=3),
            key=st.none(),
        ),
        max_size=4,
    ),
    st.none() | st.just(Success("fine")) | st.just(Failure("no", "why")),
    st.dictionaries(texts, json_values, max_size=3),
)
def test_whatever_an_episode_says_comes_back(
    steps: list[EpisodeStep], outcome: TaskOutcome | None, metadata: JsonObject
) -> None:
    numbered = [msgspec.structs.replace(step, seq=number) for number, step in enumerate(steps, 2)]
    episode = Episode(
        episode_id="e",
        task_description="a task",
        task_type="other",
        context=TaskContext(domain="d"),
        agent="a",
        start_time=NOW,
        last_seq=9,
        steps=numbered,
        metadata=metadata,
        outcome=outcome,
        end_time=None if outcome is None else NOW,
    )
    written = json.loads(json.dumps(traces_data(episode)))
    spans = list(span_files._spans(written))
    assert same(list(read_spans(spans)), json.loads(json.dumps(list(write_episode(episode)))))


def value(content: Any) -> JsonObject:
    if isinstance(content, bool):
        return {"boolValue": content}
    if isinstance(content, int):
        return {"intValue": str(content)}
    if isinstance(content, list):
        return {"arrayValue": {"values": [value(item) for item in content]}}
    return {"stringValue": content}


def span(name: str, number: int, parent: int | None = None, trace: str = TRACE, **fields: Any) -> JsonObject:
    """A span as an instrumented agent writes it; `fields` are attributes, with `_` for `.`, or those of the span."""
    own: dict[str, Any] = {name: fields.pop(name) for name in ("status", "events", "begun", "ended") if name in fields}
    attributes = [{"key": key.replace("__", "."), "value": value(content)} for key, content in fields.items()]
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        **({} if parent is None else {"parentSpanId": f"{parent:016x}"}),
        "name": name,
        "startTimeUnixNano": str(own.pop("begun", number) * 1_000_000_000),
        "endTimeUnixNano": str(own.pop("ended", number + 1) * 1_000_000_000),
        "attributes": attributes,
        **own,
    }


def traces(*spans: JsonObject, service: str = "shop") -> JsonObject:
    resource = {"attributes": [{"key": "service.name", "value": value(service)}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def agent(number: int, parent: int | None = None, **fields: Any) -> JsonObject:
    return span("invoke_agent Support", number, parent, gen_ai__operation__name="invoke_agent", **fields)


def tool(name: str, number: int, parent: int, **fields: Any) -> JsonObject:
    return span(
        f"execute_tool {name}",
        number,
        parent,
        gen_ai__operation__name="execute_tool",
        gen_ai__tool__name=name,
        **fields,
    )


def imported(tmp_path: Path, *lines: JsonObject | str) -> dict[str, JsonObject]:
    source = write_lines(tmp_path / "spans.jsonl", lines)
    report = run_json("import", source, "--dir", tmp_path / "memory")
    assert report["bad_lines"] == 0, report
    found = {}
    for line in read_lines_of(tmp_path / "memory"):
        found[line["episode_id"]] = line
    return found


def read_lines_of(directory: Path) -> list[JsonObject]:
    async def main() -> list[str]:
        async with open_memory(directory, read_only=True) as memory:
            return [name async for name in memory.episode_ids()]

    return [run_json("show", name, "--dir", directory) for name in trio.run(main)]


def test_the_trace_of_another_agent_becomes_an_episode(tmp_path: Path) -> None:
    messages = json.dumps(
        [
            {"role": "system", "parts": [{"type": "text", "content": "Be kind."}]},
            {"role": "user", "parts": [{"type": "text", "content": "Where is my order?"}]},
        ]
    )
    answer = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "On its way."}]}])
    (episode,) = imported(
        tmp_path,
        traces(
            agent(
                1,
                ended=20,
                gen_ai__agent__name="Support",
                gen_ai__conversation__id="thread-7",
                gen_ai__input__messages=messages,
                gen_ai__output__messages=answer,
            ),
            span(
                "chat gpt",
                2,
                1,
                gen_ai__operation__name="chat",
                gen_ai__request__model="gpt",
                gen_ai__usage__input_tokens=100,
                gen_ai__usage__output_tokens=20,
                gen_ai__output__messages=answer,
            ),
            span("HTTP GET", 3, 2, http__method="GET"),
            tool(
                "look_up",
                4,
                3,
                gen_ai__tool__call__arguments='{"order": 5}',
                gen_ai__tool__call__result='{"at": "depot"}',
            ),
            tool(
                "call", 6, 1, gen_ai__tool__call__arguments="not JSON", error__type="TimeoutError", status={"code": 2}
            ),
            tool(
                "pay",
                8,
                1,
                status={"code": "STATUS_CODE_ERROR"},
                events=[
                    {"name": "exception", "attributes": [{"key": "exception.message", "value": value("card declined")}]}
                ],
            ),
        ),
    ).values()
    assert episode["episode_id"] == f"otel-{TRACE}-{1:016x}"
    assert (episode["task_description"], episode["agent"]) == ("Where is my order?", "Support")
    assert (episode["thread"], episode["context"]["domain"]) == ("thread-7", "shop")
    assert episode["outcome"] == {"kind": "success", "verdict": "On its way.", "artifacts": []}
    chat, look_up, call, pay = episode["steps"]
    assert (chat["tool"], chat["action"], chat["tokens_used"]) == ("chat", "gpt", 120)
    assert (look_up["tool"], look_up["parameters"]) == ("look_up", {"order": 5})
    assert look_up["result"] == {"status": "success", "output": {"at": "depot"}}
    assert look_up["latency_ms"] == 1_000
    assert call["parameters"] == {"arguments": "not JSON"}
    assert call["result"] == {"status": "timeout", "message": "TimeoutError"}
    assert pay["result"] == {"status": "error", "message": "card declined"}
    assert look_up["metadata"]["otel"]["span_id"] == f"{4:016x}"


def test_an_agent_that_calls_another_is_its_parent(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        traces(tool("inner", 4, 3), agent(3, 2), tool("outer", 5, 1)),
        traces(span("route", 2, 1, http__route="/"), agent(1, ended=30), span("router", 9, http__route="/")),
    )
    outer, inner = found[f"otel-{TRACE}-{1:016x}"], found[f"otel-{TRACE}-{3:016x}"]
    assert inner["parent"] == outer["episode_id"]
    assert [step["tool"] for step in inner["steps"]] == ["inner"]
    assert [step["tool"] for step in outer["steps"]] == ["outer"]


def test_steps_without_an_agent_are_one_episode_of_their_trace(tmp_path: Path) -> None:
    failed = tool("second", 3, 9, status={"code": 2, "message": "no"})
    found = imported(tmp_path, traces(failed, tool("first", 1, 9)), traces(tool("other", 1, 9, trace="ab" * 16)))
    assert [step["tool"] for step in found[f"otel-{TRACE}"]["steps"]] == ["first", "second"]
    assert found[f"otel-{TRACE}"]["outcome"]["kind"] == "failure"
    assert len(found) == 2


def test_a_trace_that_runs_in_a_circle_ends(tmp_path: Path) -> None:
    found = imported(tmp_path, traces(tool("a", 1, 2), tool("b", 2, 1), tool("c", 3, 3)))
    assert len(found[f"otel-{TRACE}"]["steps"]) == 3


def test_one_document_over_many_lines_is_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "pretty.json").write_text(json.dumps(traces(agent(1), tool("t", 2, 1)), indent=2))
    report = run_json("import", tmp_path / "pretty.json", "--dir", tmp_path / "memory")
    assert (report["episodes"], report["steps"]) == (1, 1)


def test_what_is_no_span_is_reported_and_the_rest_imported(tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "spans.jsonl",
        [
            traces(agent(1)),
            '{"resourceSpans": 5}',
            "not JSON",
            '{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}',
        ],
    )
    report = run_json("import", source, "--dir", tmp_path / "memory")
    assert (report["episodes"], report["bad_lines"]) == (1, 3)
    assert [problem["line"] for problem in report["files"][0]["problems"]] == [2, 3, 4]
    assert {problem["file"] for problem in report["files"][0]["problems"]} == {str(source)}
    strict = run("import", source, "--strict", "--dir", tmp_path / "other")
    assert strict.exit_code == 1
    assert f"{source}:2" in strict.stderr
    assert not (tmp_path / "other").exists()


def test_an_episode_of_spans_that_is_refused_is_told_of_the_file_that_was_named(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "spans.jsonl", [traces(agent(1), tool("find", 2, 1))])
    run_json("import", source, "--dir", tmp_path / "memory")
    longer = write_lines(tmp_path / "longer.jsonl", [traces(agent(1), tool("look", 2, 1))])
    result = run("import", longer, "--dir", tmp_path / "memory")
    assert f"{longer}: episode " in result.stderr
    assert "stepwell-import-" not in result.stderr
    problems = run_json("import", longer, "--dir", tmp_path / "memory")["files"][0]["problems"]
    assert {(problem["file"], problem["line"]) for problem in problems} == {(str(longer), 0)}
    strict = run("import", longer, "--strict", "--dir", tmp_path / "memory")
    assert (strict.exit_code, "stepwell-import-" in strict.stderr) == (1, False)


def test_spans_of_something_else_are_no_episodes(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "spans.jsonl", [traces(span("GET", 1, http__method="GET"))])
    result = run("import", source, "--dir", tmp_path / "memory")
    assert result.exit_code == 1
    assert "gen_ai.operation.name" in result.stderr
    assert not (tmp_path / "memory").exists()


DEEP = '{"resourceSpans":' + '{"a":' * 100_000


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":5}]}]}]}',
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"a","spanId":"b","attributes":{}}]}]}]}',
        '{"resourceSpans":[{"resource":{"attributes":[5]},"scopeSpans":[]}]}',
        json.dumps(traces(agent(1, gen_ai__conversation__id="x" * 10_000, stepwell__start="{" * 50_000))),
        json.dumps(traces(tool("t", 1, 2, gen_ai__tool__call__arguments="[" * 50_000))),
        json.dumps(traces(tool("t", 1, 2, stepwell__step='{"result": {"success": NaN}}'))),
        json.dumps(traces(tool("t", 1, 2, begun=0, ended=10**9))),
        json.dumps(traces(tool("", 1, 2))),
        json.dumps(traces(tool("\0\ud800", 1, 2))),
    ],
)
def test_a_hostile_file_is_refused_or_taken_and_never_a_surprise(tmp_path: Path, line: str) -> None:
    source = tmp_path / "spans.jsonl"
    source.write_bytes(line.encode("utf-8", "surrogatepass") + b"\n")
    result = run("import", source, "--dir", tmp_path / "memory")
    assert "unexpected" not in result.output
    assert result.exit_code in (0, 1)


def test_more_spans_than_can_be_sorted_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_files, "MAX_SPANS", 2)
    source = write_lines(tmp_path / "spans.jsonl", [traces(*(tool("t", number, 9) for number in range(1, 4)))])
    result = run("import", source, "--dir", tmp_path / "memory")
    assert result.exit_code == 1
    assert "split the file" in result.stderr
    assert not (tmp_path / "memory").exists()


def test_a_document_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_files, "MAX_DOCUMENT_BYTES", 500)
    (tmp_path / "pretty.json").write_text(json.dumps(traces(agent(1), tool("t", 2, 1)), indent=2))
    result = run("import", tmp_path / "pretty.json", "--dir", tmp_path / "memory")
    assert result.exit_code == 1
    assert "one object per line" in result.stderr
