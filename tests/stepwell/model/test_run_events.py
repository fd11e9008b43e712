"""Events of runs keep klieo's wire shapes byte for byte, and are the records of an episode."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import InvalidInput, Message, Role, events
from stepwell.model.codec import decode_record
from stepwell.model.limits import Limits
from stepwell.model.message import message_from_json, message_to_json
from stepwell.model.run_event import KINDS
from stepwell.model.run_record import (
    checked_event,
    encode_event,
    encode_recorded_ending,
    encode_started,
    event_of_record,
)

SHAPES: list[tuple[str, events.RunEvent]] = [
    ('{"Started":{"agent":"a"}}', events.Started("a")),
    ('{"LlmCall":{"tokens":9,"latency_ms":120}}', events.LlmCall(tokens=9, latency_ms=120)),
    (
        '{"LlmCall":{"tokens":9,"latency_ms":1,"provider":"p","model":"m","prompt_tokens":4,"completion_tokens":5}}',
        events.LlmCall(9, 1, "p", "m", 4, 5),
    ),
    (
        '{"ToolCall":{"name":"t","args":{},"result":{"outcome":"ok","value":1}}}',
        events.ToolCall(name="t", args={}, result=events.ToolOk(value=1)),
    ),
    (
        '{"ToolCall":{"name":"t","args":{"b":1,"a":[null]},"result":{"outcome":"err","message":"no"}}}',
        events.ToolCall("t", {"b": 1, "a": [None]}, events.ToolErr("no")),
    ),
    (
        '{"ToolCall":{"name":"t","args":[1,"x"],"result":{"outcome":"ok","value":null}}}',
        events.ToolCall("t", [1, "x"], events.ToolOk(None)),
    ),
    ('{"BusPublish":{"subject":"x.y"}}', events.BusPublish("x.y")),
    ('{"BusReceive":{"subject":"x.y"}}', events.BusReceive("x.y")),
    ('"Completed"', events.Completed()),
    ('{"Failed":{"error":"boom"}}', events.Failed("boom")),
    (
        '{"SummaryCheckpoint":{"input_message_count":12,"summary_chars":80,"latency_ms":7,"tokens":300}}',
        events.SummaryCheckpoint(input_message_count=12, summary_chars=80, latency_ms=7, tokens=300),
    ),
    ('{"Ops":{"kind":"gate_decision","tool":"rm"}}', events.Ops({"kind": "gate_decision", "tool": "rm"})),
    ('{"Ops":null}', events.Ops(None)),
    ('{"BusCausalLink":{"subject":"s","caused_by_run":"r"}}', events.BusCausalLink("s", "r")),
    ('{"RunAttributed":{"tenant_label":"t"}}', events.RunAttributed("t")),
    ('{"RunOrigin":{"parent_anchor":"p"}}', events.RunOrigin("p")),
    (
        '{"MemoryRecall":{"query":"sky","k":5,"returned_fact_ids":["f1","f2"]}}',
        events.MemoryRecall("sky", 5, ["f1", "f2"]),
    ),
]
ODD = [
    '"Suspended"',
    '{"Suspended":null}',
    '{"Suspended":{"until":"2030-01-01T00:00:00Z","why":"Käse 🧀"}}',
    '{"LlmCall":{"latency_ms":120,"tokens":9}}',
    '{ "LlmCall": {"tokens": 9, "latency_ms": 120} }',
    '{"LlmCall":{"tokens":9,"latency_ms":120,"provider":null}}',
    '{"LlmCall":{"tokens":9,"latency_ms":120,"cached_tokens":3}}',
    '{"LlmCall":{"tokens":-9,"latency_ms":120}}',
    '{"LlmCall":{"tokens":"nine","latency_ms":120}}',
    '{"LlmCall":{"tokens":9}}',
    '{"Completed":null}',
    '{"Completed":{"answer":"x"}}',
    '"Started"',
    '"Ops"',
    '{"ToolCall":{"name":"t","args":{},"result":{"outcome":"maybe"}}}',
    '{"ToolCall":{"name":"t","args":{},"result":{"outcome":"ok","value":1,"ms":3}}}',
    '{"ToolCall":{"name":"","args":{},"result":{"outcome":"ok","value":1}}}',
    '{"ToolCall":{"name":"t","args":{"x":1e3,"y":1.50,"z":"\\u00e9"},"result":{"outcome":"ok","value":1}}}',
    '{"Failed":{"error":"a\\/b"}}',
    '{"Started":{"agent":"a","agent":"b"}}',
]
"""Lines that are no event of ours, or in another spelling."""
LIMITS = Limits()


def through_the_log(event: events.RunEvent) -> events.RunEvent:
    """The event as its record gives it back, wherever in a run it may stand."""
    event = checked_event(event, LIMITS, None)
    payloads = [encode_event(event, 5, LIMITS)]
    if isinstance(event, events.Started):
        payloads.append(encode_started(event, "run", 5, LIMITS))
    if isinstance(event, events.Completed | events.Failed):
        payloads.append(encode_recorded_ending(event, 5, LIMITS))
    found = [event_of_record(decode_record(payload, "a record")) for payload in payloads]
    assert all(item == found[0] for item in found)
    assert found[0] is not None
    return found[0]


def test_every_kind_is_among_the_shapes() -> None:
    assert len(KINDS) == 13
    assert {type(event).__name__ for _line, event in SHAPES} == KINDS.keys()


@pytest.mark.parametrize("line, event", SHAPES)
def test_a_shape_of_the_specification_goes_both_ways_byte_for_byte(line: str, event: events.RunEvent) -> None:
    assert events.to_json(event) == line
    assert events.from_json(line) == event
    assert through_the_log(event) == event
    assert events.to_json(through_the_log(events.from_json(line))) == line


@pytest.mark.parametrize("line", ODD)
def test_what_is_not_known_or_spelt_otherwise_is_kept_byte_for_byte(line: str) -> None:
    event = events.from_json(line)
    assert events.to_json(event) == line
    assert through_the_log(event) == event
    assert events.to_json(through_the_log(event)) == line


def test_a_known_kind_with_more_fields_than_we_know_is_still_that_kind() -> None:
    event = events.from_json('{"LlmCall":{"tokens":9,"latency_ms":120,"cached_tokens":3}}')
    assert isinstance(event, events.LlmCall)
    assert (event.tokens, event.latency_ms) == (9, 120)
    unknown = events.from_json('{"LlmCall":{"tokens":"nine","latency_ms":120}}')
    assert unknown == events.Unknown(kind="LlmCall", body={"tokens": "nine", "latency_ms": 120})


@pytest.mark.parametrize("line", ["", "[]", "3", "{}", '{"a":1,"b":2}', '""', "{", '{"Ops":NaN}', '{"Ops":"\\ud800"}'])
def test_what_is_no_event_at_all_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        events.from_json(line)


@pytest.mark.parametrize(
    "event",
    [
        events.LlmCall(tokens=-1, latency_ms=0),
        events.LlmCall(tokens=1.5, latency_ms=0),  # type: ignore[arg-type]
        events.LlmCall(tokens=True, latency_ms=0),
        events.ToolCall("t", {}, None),  # type: ignore[arg-type]
        events.ToolCall("t", {1: 2}, events.ToolOk()),
        events.ToolCall("t", {}, events.ToolOk(float("nan"))),
        events.ToolCall("t", {}, events.ToolErr(3)),  # type: ignore[arg-type]
        events.Ops(b"bytes"),
        events.Started(None),  # type: ignore[arg-type]
        events.MemoryRecall("q", 1, "f1"),  # type: ignore[arg-type]
        events.Unknown(kind="", body=1),
        "Completed",
    ],
)
def test_what_cannot_be_written_as_json_is_refused_at_the_door(event: Any) -> None:
    with pytest.raises(InvalidInput, match="event"):
        checked_event(event, LIMITS, None)


def test_numbers_beyond_32_bits_are_kept_and_refused_where_klieo_is_to_read_them() -> None:
    event = events.LlmCall(tokens=2**32, latency_ms=1)
    assert through_the_log(event) == event
    assert events.to_json(event) == '{"LlmCall":{"tokens":4294967296,"latency_ms":1}}'
    with pytest.raises(InvalidInput, match=r"event\.tokens"):
        events.to_json(event, strict=True)
    assert events.to_json(events.LlmCall(2**32 - 1, 1), strict=True)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(name=st.sampled_from([*KINDS, "New", "x"]), body=JSON, compact=st.booleans())
def test_any_map_of_one_key_comes_back_byte_for_byte(name: str, body: Any, compact: bool) -> None:
    separators = (",", ":") if compact else (", ", ": ")
    line = json.dumps({name: body}, separators=separators, ensure_ascii=not compact)
    event = events.from_json(line)
    assert events.to_json(event) == line
    assert events.to_json(through_the_log(event)) == line


MESSAGES = [
    ('{"role":"user","content":"hi","tool_calls":[],"tool_call_id":null}', Message(Role.USER, "hi")),
    (
        '{"role":"tool","content":"42","tool_calls":[],"tool_call_id":"c1"}',
        Message(Role.TOOL, "42", tool_call_id="c1"),
    ),
    (
        '{"role":"assistant","content":"","tool_calls":[{"id":"c1","name":"t","args":{}}],"tool_call_id":null}',
        Message(Role.ASSISTANT, "", [{"id": "c1", "name": "t", "args": {}}]),
    ),
    ('{"role":"developer","content":"x","tool_calls":[],"tool_call_id":null}', Message("developer", "x")),
]


@pytest.mark.parametrize("line, message", MESSAGES)
def test_a_message_goes_both_ways_byte_for_byte(line: str, message: Message) -> None:
    assert message_to_json(message) == line
    assert message_from_json(line) == message


@pytest.mark.parametrize(
    "line",
    [
        '{"role":"user","content":"hi"}',
        '{"content":"hi","role":"user"}',
        '{"role":"user","content":"hi","name":"ann"}',
        '{"role":"user","content":[{"type":"text","text":"hi"}]}',
        '{"role": "user", "content": null}',
    ],
)
def test_a_message_in_another_spelling_is_kept_byte_for_byte(line: str) -> None:
    message = message_from_json(line)
    assert message.role == Role.USER
    assert message_to_json(message) == line
