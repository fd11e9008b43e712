"""An episode as the spans of one trace."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

from stepwell._version import __version__
from stepwell.cli.neutral_form import JsonObject, start_event, step_event
from stepwell.cli.neutral_form.writing import complete_event
from stepwell.cli.span_form import attributes as names
from stepwell.cli.span_form.attributes import as_json, encoded, without
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted
from stepwell.model.step import EpisodeStep, StepError, StepInterrupted, StepSuccess, StepTimeout

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
_INTERNAL, _OK, _ERROR = 1, 1, 2
_SERVICE = "stepwell"


def traces_data(episode: Episode) -> JsonObject:
    """An episode as one `TracesData` object."""
    trace = _digest(episode.episode_id, "", 16)
    root = _digest(episode.episode_id, "episode", 8)
    spans = [_agent_span(episode, trace, root)]
    spans += [_tool_span(episode, step, trace, root) for step in episode.steps]
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": encoded({"service.name": episode.context.domain or _SERVICE})},
                "scopeSpans": [
                    {"scope": {"name": "stepwell", "version": __version__}, "spans": spans, "schemaUrl": SCHEMA_URL}
                ],
            }
        ]
    }


def _agent_span(episode: Episode, trace: str, span: str) -> JsonObject:
    begun = _ns(episode.start_time)
    last = max((step.time_ns for step in episode.steps), default=begun)
    agent = episode.agent
    attributes: dict[str, Any] = {
        names.OPERATION: "invoke_agent",
        names.AGENT: agent or None,
        names.CONVERSATION: episode.thread or episode.episode_id,
        names.EPISODE: episode.episode_id,
        names.START: as_json(start_event(episode)),
    }
    status: JsonObject = {}
    if episode.outcome is not None:
        attributes[names.COMPLETE] = as_json(complete_event(episode))
        status = {"code": _OK}
        if isinstance(episode.outcome, Failure | Interrupted | Abstained):
            status = {"code": _ERROR, "message": episode.outcome.reason}
            attributes[names.ERROR_TYPE] = type(episode.outcome).__name__.lower()
    return {
        "traceId": trace,
        "spanId": span,
        "name": f"invoke_agent {agent}" if agent else "invoke_agent",
        "kind": _INTERNAL,
        "startTimeUnixNano": str(begun),
        "endTimeUnixNano": str(last if episode.end_time is None else max(last, _ns(episode.end_time))),
        "attributes": encoded(attributes),
        "status": status,
    }


def _tool_span(episode: Episode, step: EpisodeStep, trace: str, parent: str) -> JsonObject:
    result = step.result
    event = step_event(episode.episode_id, step)
    attributes: dict[str, Any] = {
        names.OPERATION: "execute_tool",
        names.AGENT: episode.agent or None,
        names.TOOL: step.tool,
        names.CALL_ID: step.key if step.key is not None else str(step.seq),
        names.ARGUMENTS: as_json(step.parameters),
    }
    left_out = ["event", "episode", "tool", "parameters"]
    status: JsonObject = {}
    if isinstance(result, StepSuccess):
        is_text = isinstance(result.output, str)
        attributes[names.RESULT] = result.output if is_text else as_json(result.output)
        status = {"code": _OK}
        if is_text:
            left_out.append("result")
    elif isinstance(result, StepError | StepTimeout | StepInterrupted):
        kind = {StepError: "_OTHER", StepTimeout: "timeout", StepInterrupted: "cancelled"}[type(result)]
        attributes[names.ERROR_TYPE] = kind
        status = {"code": _ERROR, "message": result.message}
    attributes[names.STEP] = as_json(without(event, left_out))
    lasted = 0 if step.latency_ms is None else round(step.latency_ms * 1e6)
    return {
        "traceId": trace,
        "spanId": _digest(episode.episode_id, str(step.seq), 8),
        "parentSpanId": parent,
        "name": f"execute_tool {step.tool}",
        "kind": _INTERNAL,
        "startTimeUnixNano": str(max(0, step.time_ns - lasted)),
        "endTimeUnixNano": str(step.time_ns),
        "attributes": encoded(attributes),
        "status": status,
    }


def _digest(episode_id: str, part: str, size: int) -> str:
    """An id that is the same whenever this is exported."""
    return hashlib.blake2b(f"{episode_id}\0{part}".encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def _ns(time: dt.datetime) -> int:
    return round(time.timestamp() * 1_000_000) * 1_000
