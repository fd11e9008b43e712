"""Spans as events of the neutral form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from stepwell.cli.neutral_form import BadLine, JsonObject, parse_line
from stepwell.cli.neutral_form.fields import is_id
from stepwell.cli.span_form import attributes as names
from stepwell.cli.span_form.attributes import from_json
from stepwell.cli.span_form.spans import Span

AGENTS = ("invoke_agent", "invoke_workflow", "create_agent")
_MOST_LEVELS = 1_000


def read_spans(spans: Iterable[Span]) -> Iterator[JsonObject]:
    """The episodes that spans tell of, as events, one episode after another in the order in which they began.

    A span that comes twice counts once.
    """
    traces: dict[str, dict[str, Span]] = defaultdict(dict)
    for span in spans:
        traces[span.trace].setdefault(span.span, span)
    episodes = [episode for trace in traces.values() for episode in _episodes(trace)]
    for agent, steps in sorted(episodes, key=lambda found: (found[0].begun_ns, found[0].trace, found[0].span)):
        yield from _events(agent, steps, traces[agent.trace])


def _episodes(trace: dict[str, Span]) -> Iterator[tuple[Span, list[Span]]]:
    """Each agent's span with the spans of its steps, in the order in which they ended."""
    steps: dict[str, list[Span]] = defaultdict(list)
    agents = {span.span: span for span in trace.values() if span.operation in AGENTS}
    for span in trace.values():
        if span.span in agents or not span.operation:
            continue
        agent = _agent_above(span, trace)
        steps["" if agent is None else agent.span].append(span)
    if "" in steps:  # of no agent: the trace itself is the episode
        alone = steps.pop("")
        first = min(alone, key=lambda span: span.begun_ns)
        yield first, _in_order(alone)
    for agent in agents.values():
        yield agent, _in_order(steps[agent.span])


def _in_order(steps: list[Span]) -> list[Span]:
    """By their ends; those that ended at one time as they stand in the file."""
    return sorted(steps, key=lambda span: span.ended_ns)


def _agent_above(span: Span, trace: dict[str, Span]) -> Span | None:
    above = trace.get(span.parent)
    for _ in range(_MOST_LEVELS):  # a trace that runs in a circle ends here
        if above is None or above.operation in AGENTS:
            return above
        above = trace.get(above.parent)
    return None


def _events(agent: Span, steps: list[Span], trace: dict[str, Span]) -> Iterator[JsonObject]:
    is_agent = agent.operation in AGENTS
    episode = _episode_id(agent, is_agent)
    written = _object(agent.attributes.get(names.START))
    yield written if written and written.get("event") == "start" else _start(agent, steps, trace, episode, is_agent)
    for number, span in enumerate(steps, 1):
        yield _step(span, episode, number)
    written = _object(agent.attributes.get(names.COMPLETE))
    if written and written.get("event") == "complete":
        yield written
    elif names.START not in agent.attributes:  # ours has an ending only if it says so
        yield _complete(agent, steps, episode, is_agent)


def _episode_id(agent: Span, is_agent: bool) -> str:
    ours = agent.attributes.get(names.EPISODE)
    if isinstance(ours, str) and is_id(ours):
        return ours
    return f"otel-{agent.trace}-{agent.span}" if is_agent else f"otel-{agent.trace}"


def _object(text: object) -> JsonObject | None:
    """An event that we have put into an attribute; None if it is not there or is none."""
    if not isinstance(text, str):
        return None
    try:
        return parse_line(text.encode("utf-8", "surrogatepass"))
    except BadLine:
        return None


def _start(agent: Span, steps: list[Span], trace: dict[str, Span], episode: str, is_agent: bool) -> JsonObject:
    attributes = agent.attributes
    outer = _agent_above(agent, trace) if is_agent else None
    task = _last_words(attributes.get(names.INPUT), "user")
    if not task:
        task = next((words for step in steps if (words := _last_words(step.attributes.get(names.INPUT), "user"))), "")
    event: JsonObject = {
        "event": "start",
        "episode": episode,
        "source": "opentelemetry",
        "task_id": agent.trace,
        "task": task or agent.name or agent.operation,
        "domain": agent.service,
        "tags": [],
        "agent": _text(attributes.get(names.AGENT)),
        "trial": 0,
        "otel": _place(agent),
    }
    if outer is not None:
        event["parent"] = _episode_id(outer, True)
    if is_id(thread := attributes.get(names.CONVERSATION)):
        event["thread"] = thread
    return event


def _step(span: Span, episode: str, number: int) -> JsonObject:
    attributes = span.attributes
    head: JsonObject = {"event": "step", "episode": episode}
    ours = _object(attributes.get(names.STEP))
    arguments = from_json(attributes.get(names.ARGUMENTS))
    parameters = arguments if isinstance(arguments, dict) else {} if arguments is None else {"arguments": arguments}
    if ours is not None:
        head |= {"tool": _text(attributes.get(names.TOOL)) or "tool", "parameters": parameters}
        if "result" not in ours:
            ours["result"] = {"success": _text(attributes.get(names.RESULT))}
        return {**head, **ours}
    operation = span.operation
    model = _text(attributes.get(names.MODEL))
    if (asked := from_json(attributes.get(names.INPUT))) is not None:
        parameters = {**parameters, "messages": asked}
    event = {
        **head,
        "step_number": number,
        "tool": _text(attributes.get(names.TOOL)) or operation,
        "action": model if operation != "execute_tool" else "",
        "parameters": parameters,
        "result": _result(span),
        "latency_ms": (span.ended_ns - span.begun_ns) / 1e6,
        "reward": None,
        "otel": _place(span),
    }
    counted = [attributes.get(name) for name in (names.INPUT_TOKENS, names.OUTPUT_TOKENS)]
    known = [count for count in counted if type(count) is int and count >= 0]
    if known:
        event["tokens_used"] = sum(known)
    return event


def _result(span: Span) -> JsonObject | None:
    kind = span.attributes.get(names.ERROR_TYPE)
    if span.error is not None:
        timed_out = isinstance(kind, str) and "timeout" in kind.lower()
        return {"timeout" if timed_out else "error": span.error}
    for name in (names.RESULT, names.OUTPUT):
        if name in span.attributes:
            return {"success": from_json(span.attributes[name])}
    return {"success": ""}


def _complete(agent: Span, steps: list[Span], episode: str, is_agent: bool) -> JsonObject:
    error = agent.error if is_agent else next((step.error for step in reversed(steps[-1:])), None)
    event: JsonObject = {
        "event": "complete",
        "episode": episode,
        "outcome": "success" if error is None else "failure",
        "reward": None,
        "steps": len(steps),
    }
    if error is not None:
        event["outcome_detail"] = {"reason": error}
    elif said := _last_words(agent.attributes.get(names.OUTPUT), "assistant"):
        event["outcome_detail"] = {"verdict": said}
    return event


def _place(span: Span) -> JsonObject:
    return {
        "trace_id": span.trace,
        "span_id": span.span,
        "start_unix_nano": str(span.begun_ns),
        "end_unix_nano": str(span.ended_ns),
    }


def _last_words(messages: object, role: str) -> str:
    """The text of the last message of a role, by the conventions' shape of messages; "" if there is none."""
    listed = from_json(messages)
    if not isinstance(listed, list):
        return ""
    for message in reversed(listed):
        if not isinstance(message, dict) or message.get("role") != role:
            continue
        parts: Any = message.get("parts", message.get("content"))
        if isinstance(parts, str):
            return parts.strip()
        if isinstance(parts, list):
            texts = [part.get("content") or part.get("text") for part in parts if isinstance(part, dict)]
            return "\n".join(text for text in texts if isinstance(text, str)).strip()
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
