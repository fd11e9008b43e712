"""What is taken from a file of spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from stepwell.cli.neutral_form import BadLine, JsonObject, parse_line
from stepwell.cli.neutral_form.files import Line, LineFile
from stepwell.cli.span_form.attributes import EPISODE, OPERATION, START, STEP, TOOL, decoded, whole_number

MAX_SPANS = 1_000_000
"""Spans of one file that are taken; they are sorted in memory, since those of a trace may stand anywhere in it."""
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""A file that is one JSON document, not one per line, must not be larger."""

_ERROR = 2
_BEGINNING, _LINES = 4_096, 20
_FIRST_KEYS = (b'"resourceSpans"', b'"resource_spans"')


class TooManySpans(BadLine):
    """A file holds more spans than can be sorted in memory."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a span. Times in nanoseconds since 1970; `error`: its message, None if it did not fail."""

    trace: str
    span: str
    parent: str
    name: str
    begun_ns: int
    ended_ns: int
    error: str | None
    attributes: JsonObject
    service: str

    @property
    def operation(self) -> str:
        """What it did, by the conventions; "" if it is no span of generative AI."""
        named = self.attributes.get(OPERATION)
        if isinstance(named, str) and named:
            return named
        if self.attributes.keys() & {START, EPISODE}:
            return "invoke_agent"
        return "execute_tool" if self.attributes.keys() & {TOOL, STEP} else ""


def holds_spans(path: Path) -> bool:
    """Whether the beginning of a file is of OTLP's JSON encoding of spans. Raises: `OSError`, `Unreadable`."""
    with LineFile(path) as file:
        beginning = b"".join(line.data[:_BEGINNING] for line in file.next_lines()[:_LINES])
    return beginning.startswith(b"{") and any(name in beginning[:_BEGINNING] for name in _FIRST_KEYS)


def spans_of_file(path: Path, on_problem: Callable[[int, BadLine], None]) -> list[Span]:
    """Every span of a file, in the order of the file: those of something else link the ones that are wanted.

    `on_problem` is called with the number and the trouble of each line that is none.
    Raises: `OSError`, `Unreadable`, `TooManySpans`.
    """
    found: list[Span] = []
    for number, document in _documents(path, on_problem):
        try:
            for span in _spans(document):
                found.append(span)
                if len(found) > MAX_SPANS:
                    raise TooManySpans(
                        f"more than {MAX_SPANS:,} spans; split the file so that the spans of a trace stay together"
                    )
        except TooManySpans:
            raise
        except BadLine as error:
            on_problem(number, error)
    return found


def _documents(path: Path, on_problem: Callable[[int, BadLine], None]) -> Iterator[tuple[int, JsonObject]]:
    with LineFile(path) as file:
        whole: list[bytes] | None = None
        size = 0
        while lines := file.next_lines():
            for line in lines:
                if whole is None and line.number == lines[0].number == 1 and _goes_on(line):
                    whole = []
                if whole is not None:
                    whole.append(line.data)
                    size += len(line.data) + 1
                    if size > MAX_DOCUMENT_BYTES or line.problem is not None:
                        limit = MAX_DOCUMENT_BYTES >> 20
                        raise TooManySpans(f"one JSON document of more than {limit} MiB; write one object per line")
                    continue
                try:
                    if line.problem is not None:
                        raise BadLine(line.problem)
                    yield line.number, parse_line(line.data)
                except BadLine as error:
                    on_problem(line.number, error)
    if whole is not None:
        try:
            yield 1, parse_line(b"\n".join(whole))
        except BadLine as error:
            on_problem(1, error)


def _goes_on(line: Line) -> bool:
    """Whether a first line is only the beginning of a document."""
    if line.problem is not None:
        return False
    try:
        parse_line(line.data)
    except BadLine:
        return line.data.startswith(b"{") and not line.data.endswith(b"}")
    return False


def _spans(document: JsonObject) -> Iterator[Span]:
    resources = _objects(document, "resourceSpans", "resource_spans")
    for resource in resources:
        holder = resource.get("resource")
        attributes = decoded(holder.get("attributes")) if isinstance(holder, dict) else {}
        service = attributes.get("service.name")
        for scope in _objects(resource, "scopeSpans", "scope_spans"):
            for span in _objects(scope, "spans", "spans"):
                yield _span(span, service if isinstance(service, str) else "")


def _objects(holder: JsonObject, name: str, other_name: str) -> list[JsonObject]:
    found = holder.get(name, holder.get(other_name, []))
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise BadLine(f"{name}: a list of objects is wanted")
    return found


def _span(span: JsonObject, service: str) -> Span:
    trace, span_id = _text(span, "traceId", "trace_id").lower(), _text(span, "spanId", "span_id").lower()
    if not trace or not span_id:
        raise BadLine("a span without traceId or spanId")
    begun = whole_number(_of(span, "startTimeUnixNano", "start_time_unix_nano")) or 0
    ended = whole_number(_of(span, "endTimeUnixNano", "end_time_unix_nano")) or begun
    attributes = decoded(span.get("attributes"))
    return Span(
        trace=trace,
        span=span_id,
        parent=_text(span, "parentSpanId", "parent_span_id").lower(),
        name=_text(span, "name", "name"),
        begun_ns=begun,
        ended_ns=max(begun, ended),
        error=_error(span, attributes),
        attributes=attributes,
        service=service,
    )


def _error(span: JsonObject, attributes: JsonObject) -> str | None:
    status = span.get("status")
    code, message = (status.get("code"), status.get("message")) if isinstance(status, dict) else (None, None)
    kind = attributes.get("error.type")
    if code not in (_ERROR, "STATUS_CODE_ERROR") and not kind:
        return None
    for event in _objects(span, "events", "events"):
        if event.get("name") == "exception" and not message:
            said = decoded(event.get("attributes"))
            message = said.get("exception.message") or said.get("exception.type")
    return str(message or kind or "error")


def _of(span: JsonObject, name: str, other_name: str) -> Any:
    return span.get(name, span.get(other_name))


def _text(span: JsonObject, name: str, other_name: str) -> str:
    value = _of(span, name, other_name)
    return value if isinstance(value, str) else ""
