"""What happens in a run of an agent, in klieo's vocabulary."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class RunEvent(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """One event of a run. `wire`: the line of JSON it was read from, where that is another than the event itself would
    be written as (unknown fields, another order or spelling); it is written again as it stood. None for your own."""

    wire: str | None = None


class ToolOk(msgspec.Struct, frozen=True):
    """The tool answered with `value`, any JSON value."""

    value: Any = None


class ToolErr(msgspec.Struct, frozen=True):
    """The tool failed with `message`."""

    message: str


ToolResult: TypeAlias = ToolOk | ToolErr


class Started(RunEvent, frozen=True):
    """The run begins; `agent` runs it."""

    agent: str


class LlmCall(RunEvent, frozen=True):
    """A model was called. `tokens` in all, `latency_ms` in milliseconds; what is known beside that may be added."""

    tokens: int
    latency_ms: int
    provider: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ToolCall(RunEvent, frozen=True):
    """A tool was called with `args`, any JSON value. In the episode this is a step."""

    name: str
    args: Any
    result: ToolResult


class BusPublish(RunEvent, frozen=True):
    """A message was published on `subject`."""

    subject: str


class BusReceive(RunEvent, frozen=True):
    """A message was received on `subject`."""

    subject: str


class Completed(RunEvent, frozen=True):
    """The run has ended with a final answer."""


class Failed(RunEvent, frozen=True):
    """The run has ended with an error."""

    error: str


class SummaryCheckpoint(RunEvent, frozen=True):
    """A conversation was summarised: of how many messages, into how many characters, in how many milliseconds, and for
    how many tokens, prompt and completion together."""

    input_message_count: int
    summary_chars: int
    latency_ms: int
    tokens: int


class Ops(RunEvent, frozen=True):
    """An event of operations; `body` is any JSON value, usually an object with a `kind`."""

    body: Any


class BusCausalLink(RunEvent, frozen=True):
    """What was received on `subject` was caused by another run."""

    subject: str
    caused_by_run: str


class RunAttributed(RunEvent, frozen=True):
    """The run belongs to a tenant."""

    tenant_label: str


class RunOrigin(RunEvent, frozen=True):
    """The run was begun by another one; `parent_anchor` is any JSON value that leads there."""

    parent_anchor: Any


class MemoryRecall(RunEvent, frozen=True):
    """Facts were recalled: for which query, how many were asked for, and which came."""

    query: str
    k: int
    returned_fact_ids: list[str]


class Unknown(RunEvent, frozen=True):
    """An event of a kind that this Stepwell does not know, or not in this form: its name, and whatever stood there.
    `body` None and `is_unit` True: there was nothing but the name."""

    kind: str
    body: Any = None
    is_unit: bool = False


KINDS: dict[str, type[RunEvent]] = {
    kind.__name__: kind
    for kind in (
        Started,
        LlmCall,
        ToolCall,
        BusPublish,
        BusReceive,
        Completed,
        Failed,
        SummaryCheckpoint,
        Ops,
        BusCausalLink,
        RunAttributed,
        RunOrigin,
        MemoryRecall,
    )
}
"""All thirteen, by their names on the wire."""


def kind_of(event: RunEvent) -> str:
    """The name of its kind on the wire."""
    return event.kind if isinstance(event, Unknown) else type(event).__name__
