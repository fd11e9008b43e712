"""The mapping "a run is an episode": what an event of a run is as a record of the episode's stream, and back.

| event | record |
|---|---|
| `Started`, the first record | "started": task "", and the agent |
| anything else first | "started" with no agent, marked as implied: no event; then the event |
| `ToolCall` | "step": name = tool, args = parameters, ok or err = result |
| `Completed`, `Failed`, the first of them | "ended": `Success("")`, `Failure(error)`, not analysed |
| every other event, and these in any other place | "recorded" |

Read as events, a step that timed out, was interrupted or has no result is a `ToolCall` too, and an episode that was
ended in another way has `Completed` (a partial success) or `Failed` (abstained, interrupted).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import cbor2
import msgspec

from stepwell.errors import InvalidInput
from stepwell.model.analysis import EpisodeSummary
from stepwell.model.codec import DecodedRecord, encode_record, encode_step, first_record_meta, kind_head, step_fields
from stepwell.model.context import TaskContext
from stepwell.model.ending import Ending, decode_ending
from stepwell.model.event import ENDED, RECORDED, STARTED, STEP, utc
from stepwell.model.limits import Limits
from stepwell.model.outcome import Failure, PartialSuccess, Success, TaskOutcome
from stepwell.model.redaction import Redaction
from stepwell.model.run_event import (
    Completed,
    Failed,
    LlmCall,
    RunEvent,
    Started,
    ToolCall,
    ToolErr,
    ToolOk,
    ToolResult,
    kind_of,
)
from stepwell.model.run_event_wire import body_of, check_event, is_unit, made, of_stored
from stepwell.model.start import EpisodeStart
from stepwell.model.step import ExecutionStep, StepError, StepSuccess
from stepwell.model.wire import U32

RUN_KINDS = frozenset({STARTED, STEP, RECORDED, ENDED})
"""The kinds of records that are events of a run; the others say how the episode was organised."""
_BARE = "args"
"""Where args stand that are no object, in the parameters of the step and, as a mark, in the meta of its record."""


def is_ending(event: RunEvent) -> bool:
    """Whether the run is over with it."""
    return type(event) is Completed or type(event) is Failed


def checked_event(event: RunEvent, limits: Limits, redaction: Redaction | None) -> RunEvent:
    """An event as it is to be stored. Raises: `InvalidInput`, `TooLarge`, `Rejected` (by the redactor)."""
    check_event(event, limits)
    if redaction is None:
        return event
    body = body_of(event)
    redacted = made_of(event, redaction.value("event", body))
    if body_of(redacted) != body:  # the line it was read from says what must not be stored
        return redacted
    return event


def made_of(event: RunEvent, body: Any) -> RunEvent:
    """The event of the same kind with another body."""
    return event if is_unit(event) else made(kind_of(event), body)


def encode_implied_start(run_id: str, time_ns: int, limits: Limits) -> bytes:
    """The first record of a run whose first event is no `Started`."""
    return _encode_start(run_id, "", time_ns, limits, {"implied": True})


def encode_started(event: Started, run_id: str, time_ns: int, limits: Limits) -> bytes:
    """The first record of a run. Raises: `InvalidInput`, `TooLarge`."""
    return _encode_start(run_id, event.agent, time_ns, limits, _wire_meta(event))


def _encode_start(run_id: str, agent: str, time_ns: int, limits: Limits, meta: dict[str, Any]) -> bytes:
    data = msgspec.to_builtins(EpisodeStart(task="", context=TaskContext(), agent=agent))
    del data["actor"]
    meta = first_record_meta(run_id) | meta
    return encode_record(STARTED, time_ns, data, meta, path="event", limit=limits.record_bytes)


def step_of_tool_call(event: ToolCall) -> ExecutionStep | None:
    """The step that a tool call is as it stands, which what checks steps checks whole; None if there is more to it."""
    args, result = event.args, event.result
    if event.wire is not None or type(args) is not dict:
        return None
    kind = type(result)
    if kind is ToolOk:
        return ExecutionStep(event.name, "", args, StepSuccess(result.value))  # type: ignore[union-attr]
    if kind is ToolErr:
        return ExecutionStep(event.name, "", args, StepError(result.message))  # type: ignore[union-attr]
    return None


_HEAD = kind_head(RECORDED) + b"\x1b"
_NULL = cbor2.dumps(None)


def encode_plain_llm_call(call: LlmCall, time_ns: int) -> bytes | None:
    """The record of an LLM call, the bytes that `encode_event` makes, in a third of the time; None if it is not plain:
    whatever has to be looked at, or refused, takes the checks one by one."""
    tokens, latency_ms = call.tokens, call.latency_ms
    if type(tokens) is not int or type(latency_ms) is not int or call.wire is not None:
        return None
    if not (0 <= tokens <= U32 and 0 <= latency_ms <= U32):
        return None
    body: dict[str, Any] = {"tokens": tokens, "latency_ms": latency_ms}
    provider, model, prompt, completion = call.provider, call.model, call.prompt_tokens, call.completion_tokens
    if provider is not None:
        if type(provider) is not str or len(provider) > _SHORT:
            return None
        body["provider"] = provider
    if model is not None:
        if type(model) is not str or len(model) > _SHORT:
            return None
        body["model"] = model
    if prompt is not None:
        if type(prompt) is not int or not 0 <= prompt <= U32:
            return None
        body["prompt_tokens"] = prompt
    if completion is not None:
        if type(completion) is not int or not 0 <= completion <= U32:
            return None
        body["completion_tokens"] = completion
    try:
        return b"".join((_HEAD, time_ns.to_bytes(8, "big"), cbor2.dumps({"LlmCall": body}), _NULL))
    except UnicodeEncodeError:
        return None


_SHORT = 200


def encode_event(event: RunEvent, time_ns: int, limits: Limits) -> bytes:
    """The record of an event that is not the first one and not the ending. Raises: `InvalidInput`, `TooLarge`."""
    kind = type(event)
    if kind is ToolCall and not event.name.isspace() and event.name:  # type: ignore[attr-defined]
        return _encode_tool_call(event, time_ns, limits)  # type: ignore[arg-type]
    meta: dict[str, Any] | None = None
    if event.wire is not None:
        meta = {"wire": event.wire}
    if kind is not LlmCall and is_unit(event):
        meta = {"unit": True, **(meta or {})}
    data = {kind_of(event): body_of(event)}
    return encode_record(RECORDED, time_ns, data, meta, path="event", limit=limits.record_bytes)


def _encode_tool_call(event: ToolCall, time_ns: int, limits: Limits) -> bytes:
    result = event.result
    outcome = StepSuccess(result.value) if type(result) is ToolOk else StepError(result.message)  # type: ignore[union-attr]
    if type(event.args) is dict and event.wire is None:
        return encode_step(ExecutionStep(event.name, "", event.args, outcome), time_ns, limits)
    coded = (0, outcome.output) if isinstance(outcome, StepSuccess) else (1, outcome.message)
    is_bare = not isinstance(event.args, dict)
    data = (event.name, "", {_BARE: event.args} if is_bare else event.args, coded, None)
    meta = _wire_meta(event) | ({_BARE: True} if is_bare else {})
    return encode_record(STEP, time_ns, data, meta, path="event", limit=limits.record_bytes)


def _wire_meta(event: RunEvent) -> dict[str, Any]:
    return {} if event.wire is None else {"wire": event.wire}


def outcome_of(event: RunEvent) -> TaskOutcome:
    """How a run ends with this event."""
    return Failure(event.error) if isinstance(event, Failed) else Success("")


def recorded_ending(event: RunEvent, time_ns: int) -> Ending:
    """The ending of a run as an event tells it. Nothing of it is analysed."""
    return Ending(
        outcome=outcome_of(event),
        reward=None,
        reflection=None,
        summary=EpisodeSummary(summary_text="", key_concepts=[], key_steps=[]),
        formula_version=0,
        created_at=utc(time_ns),
    )


def encode_recorded_ending(event: RunEvent, time_ns: int, limits: Limits) -> bytes:
    """The record that ends a run. Raises: `InvalidInput`, `TooLarge`."""
    data = msgspec.to_builtins(recorded_ending(event, time_ns))
    del data["actor"]
    meta = _wire_meta(event) or None
    return encode_record(ENDED, time_ns, data, meta, path="event", limit=limits.record_bytes)


# ---- and back --------------------------------------------------------------------------------------------------------


def event_of_record(record: DecodedRecord) -> RunEvent | None:
    """The event that a record is; None for an implied start, and for what organises the episode.

    Raises: `InvalidInput`, `msgspec.ValidationError`, `KeyError`, `TypeError`, `ValueError` for one that is not sound.
    """
    kind, data, meta = record.kind, record.data, record.meta or {}
    stored_wire = meta.get("wire")
    if stored_wire is not None and not isinstance(stored_wire, str):
        raise InvalidInput("its line of JSON is no text")
    if kind == STEP:
        return _tool_call(data, meta, stored_wire)
    if kind == RECORDED:
        ((name, body),) = data.items()
        return of_stored(name, body, unit=meta.get("unit") is True, stored_wire=stored_wire)
    if kind == STARTED:
        return None if meta.get("implied") is True else Started(str(data["agent"]), wire=stored_wire)
    if kind == ENDED:
        outcome = decode_ending(data).outcome
        if isinstance(outcome, Success | PartialSuccess):
            return Completed(wire=stored_wire)
        return Failed(outcome.reason, wire=stored_wire)
    return None


def _tool_call(data: list[Any], meta: dict[str, Any], stored_wire: str | None) -> ToolCall:
    tool, _action, parameters, coded = step_fields(data)[:4]
    args = parameters[_BARE] if meta.get(_BARE) is True else parameters
    result: ToolResult
    if coded is None:
        result = ToolOk(None)
    elif coded[0] == 0:
        result = ToolOk(coded[1])
    else:
        result = ToolErr(coded[1] or _UNTOLD[coded[0]])
    return ToolCall(tool, args, result, wire=stored_wire)


_UNTOLD = {1: "", 2: "timeout", 3: "interrupted"}
"""What an error says whose step says nothing, by the code of its result."""


class RecordedEvent(msgspec.Struct, frozen=True):
    """One event of a run and its envelope: `seq` its number in the run's stream, `time` when it was accepted (UTC)."""

    seq: int
    lsn: int
    time_ns: int
    event: RunEvent

    @property
    def time(self) -> dt.datetime:
        return utc(self.time_ns)
