"""Events of runs as klieo's JSON, and back.

An event is a map of one key, `{"<Kind>": {fields}}`; one without fields is the bare name, and the body of `Ops` stands
there itself. `ToolResult` is tagged inside. Fields that are None are left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model import wire
from stepwell.model.limits import Limits
from stepwell.model.run_event import (
    KINDS,
    Completed,
    LlmCall,
    MemoryRecall,
    Ops,
    RunEvent,
    SummaryCheckpoint,
    ToolCall,
    ToolErr,
    ToolOk,
    ToolResult,
    Unknown,
    kind_of,
)

_NUMBERS: dict[type[RunEvent], tuple[str, ...]] = {
    LlmCall: ("tokens", "latency_ms", "prompt_tokens", "completion_tokens"),
    SummaryCheckpoint: ("input_message_count", "summary_chars", "latency_ms", "tokens"),
    MemoryRecall: ("k",),
}
_FIELDS = {kind: tuple(name for name in kind.__struct_fields__ if name != "wire") for kind in KINDS.values()}
_UNIT = object()


def body_of(event: RunEvent) -> Any:
    """What stands behind the name of its kind; None for one that is but a name."""
    kind = type(event)
    if kind is Unknown:
        return event.body  # type: ignore[attr-defined]
    if kind is Ops:
        return event.body  # type: ignore[attr-defined]
    if kind is Completed:
        return None
    body = {name: value for name in _FIELDS[kind] if (value := getattr(event, name)) is not None or name in _ANY}
    if kind is ToolCall:
        body["result"] = _result_body(event.result)  # type: ignore[attr-defined]
    return body


_ANY = ("args", "parent_anchor")
"""Fields that hold any JSON value, null as well."""


def _result_body(result: ToolResult) -> dict[str, Any]:
    if isinstance(result, ToolOk):
        return {"outcome": "ok", "value": result.value}
    return {"outcome": "err", "message": result.message}


def is_unit(event: RunEvent) -> bool:
    """Whether it is written as its bare name."""
    return event.is_unit if isinstance(event, Unknown) else isinstance(event, Completed)


def to_json(event: RunEvent, *, strict: bool = False) -> str:
    """The event as one line of klieo's JSON; as it was read, if it was. With `strict`, only what klieo can read.

    Raises: `InvalidInput` (it is no event; with `strict`, a number beyond 32 bits).
    """
    check_event(event, Limits())
    if strict:
        for name in _NUMBERS.get(type(event), ()):
            wire.check_u32(getattr(event, name), f"event.{name}")
    return wire_of(event)


def wire_of(event: RunEvent) -> str:
    """As `to_json`, for an event that was checked."""
    if event.wire is not None:
        return event.wire
    name = kind_of(event)
    return wire.dump(name) if is_unit(event) else wire.dump({name: body_of(event)})


def from_json(line: str) -> RunEvent:
    """The event in a line of klieo's JSON. What is not known here is `Unknown`, and every event is written again byte
    for byte.

    Raises: `InvalidInput` if the line is no event at all.
    """
    text = line.strip(" \t\r\n") if isinstance(line, str) else line
    event = of_value(wire.load(text, "event"))
    if wire_of(event) != text:
        event = msgspec.structs.replace(event, wire=text)
    return event


def of_value(value: Any) -> RunEvent:
    """The event that a JSON value stands for. Raises: `InvalidInput`."""
    if isinstance(value, str) and value:
        return made(value, _UNIT)
    if isinstance(value, dict) and len(value) == 1:
        ((name, body),) = value.items()
        return made(name, body)
    raise InvalidInput(f"event: must be the name of a kind, or a map of one kind, not {check.shown(value)}")


def made(name: str, body: Any) -> RunEvent:
    """The event of this kind with this body; `Unknown` if it is none of ours or not in our form."""
    event = _known(name, body)
    if event is None:
        return Unknown(kind=name, is_unit=True) if body is _UNIT else Unknown(kind=name, body=body)
    return event


def of_stored(name: str, body: Any, *, unit: bool, stored_wire: str | None) -> RunEvent:
    """The event that a record of the log holds."""
    event = made(name, _UNIT if unit else body)
    return event if stored_wire is None else msgspec.structs.replace(event, wire=stored_wire)


def _known(name: str, body: Any) -> RunEvent | None:
    kind = KINDS.get(name)
    if kind is None:
        return None
    if kind is Completed:
        return Completed() if body is _UNIT else None
    if body is _UNIT:
        return None
    if kind is Ops:
        return Ops(body)
    if not isinstance(body, dict):
        return None
    fields = {name: body[name] for name in _FIELDS[kind] if name in body}
    try:
        if kind is ToolCall:
            fields["result"] = _result_of(fields.get("result"))
        event = kind(**fields)
        check_event(event, _NO_LIMITS)
    except (TypeError, InvalidInput, _NotThere):
        return None
    return event


class _NotThere(Exception):
    pass


def _result_of(body: Any) -> ToolResult:
    if isinstance(body, dict):
        if body.get("outcome") == "ok" and "value" in body:
            return ToolOk(body["value"])
        if body.get("outcome") == "err" and isinstance(body.get("message"), str):
            return ToolErr(body["message"])
    raise _NotThere


def check_event(event: object, limits: Limits) -> None:
    """Check one event. Raises: `InvalidInput`, `TooLarge`, naming the path inside it."""
    kind = type(event)
    if kind is LlmCall:  # the one that comes most often, after tool calls
        _check_llm_call(event, limits)  # type: ignore[arg-type]
    elif kind is Unknown:
        check.check_text(event.kind, "event.kind", limits.text_bytes, empty=False)  # type: ignore[attr-defined]
        check.check_json(event.body, "event.body")  # type: ignore[attr-defined]
    elif kind is Ops:
        check.check_json(event.body, "event.body")  # type: ignore[attr-defined]
    elif kind in _FIELDS:
        _check_fields(event, kind, limits)
    else:
        raise InvalidInput(f"event: must be one of stepwell.events, not {kind.__name__}")
    known_wire = event.wire  # type: ignore[attr-defined]
    if known_wire is not None and not isinstance(known_wire, str):
        raise InvalidInput("event.wire: must be a line of JSON as text")


def _check_llm_call(event: LlmCall, limits: Limits) -> None:
    tokens, latency_ms = event.tokens, event.latency_ms
    if not (type(tokens) is int and 0 <= tokens <= wire.U32):
        check.check_number(tokens, "event.tokens", minimum=0, whole=True)
    if not (type(latency_ms) is int and 0 <= latency_ms <= wire.U32):
        check.check_number(latency_ms, "event.latency_ms", minimum=0, whole=True)
    check.check_optional_text(event.provider, "event.provider", limits.text_bytes)
    check.check_optional_text(event.model, "event.model", limits.text_bytes)
    for name in ("prompt_tokens", "completion_tokens"):
        if getattr(event, name) is not None:
            check.check_number(getattr(event, name), f"event.{name}", minimum=0, whole=True)


def _check_fields(event: object, kind: Any, limits: Limits) -> None:
    for name in _FIELDS[kind]:
        value, path = getattr(event, name), f"event.{name}"
        if name in _NUMBERS.get(kind, ()):
            check.check_number(value, path, minimum=0, whole=True)
        elif name in _ANY:
            check.check_json(value, path)
        elif name == "returned_fact_ids":
            check.check_text_list(value, path, limits.text_bytes)
        elif name == "result":
            _check_result(value, limits)
        else:
            check.check_text(value, path, limits.text_bytes)


def _check_result(result: object, limits: Limits) -> None:
    if type(result) is ToolOk:
        check.check_json(result.value, "event.result.value")
    elif type(result) is ToolErr:
        check.check_text(result.message, "event.result.message", limits.text_bytes)
    else:
        raise InvalidInput(f"event.result: must be ToolOk or ToolErr, not {type(result).__name__}")


_NO_LIMITS = Limits(text_bytes=2**62)
