"""One event of a memory as a line for people, and as an object for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from stepstore.journal import Gap
from stepwell.cli.listing import OUTCOME_STYLES
from stepwell.cli.output import duration_text, printable
from stepwell.cli.step_lines import mark, what
from stepwell.errors import EpisodeUnavailable
from stepwell.model.event import DELETED, ENDED, STARTED, STEP, Event
from stepwell.model.step import EpisodeStep

if TYPE_CHECKING:
    from rich.text import Text

_EPISODE_WIDTH = 36


def item_fields(item: Event | Gap) -> dict[str, Any]:
    """An event, or what is missing, for programs."""
    if isinstance(item, Gap):
        return {"gap": True, "first_lsn": item.first_lsn, "last_lsn": item.last_lsn}
    fields = {
        "episode_id": item.stream,
        "kind": item.kind,
        "seq": item.seq,
        "lsn": item.lsn,
        "cursor": item.cursor,
        "time": item.time.isoformat(),
    }
    try:
        return {**fields, "data": item.data}
    except EpisodeUnavailable as error:
        return {**fields, "error": str(error)}


def event_line(item: Event | Gap) -> Text:
    """The same for people."""
    from rich.text import Text

    if isinstance(item, Gap):
        return Text(f"records {item.first_lsn:,} to {item.last_lsn:,} cannot be read", style="bold red")
    line = Text().append(f"{item.time:%H:%M:%S}.{item.time.microsecond // 1000:03} ", style="dim")
    line.append(f"{printable(item.stream, _EPISODE_WIDTH) or '?'}  ", style="cyan")
    try:
        return line.append_text(_said(item))
    except (EpisodeUnavailable, msgspec.ValidationError, KeyError, TypeError) as error:
        return line.append(f"{item.kind}: cannot be read ({printable(str(error), 200)})", style="red")


def _said(event: Event) -> Text:
    from rich.text import Text

    if event.kind == STEP:
        step = step_of(event)
        line = Text.assemble(mark(step), " ", (printable(step.tool, 20), "cyan"), "  ", what(step))
        if step.latency_ms is not None:
            line.append(f"  {duration_text(step.latency_ms / 1000)}", style="dim")
        return line
    data = event.data
    if event.kind == STARTED:
        return Text.assemble(("▶ ", "bold"), (printable(str(data.get("task", "")), 160), "bold"))
    if event.kind == ENDED:
        outcome = data["outcome"]
        kind = str(outcome["kind"])
        line = Text().append("■ " + kind.replace("_", " "), style=f"bold {OUTCOME_STYLES.get(kind, 'white')}")
        said = outcome.get("verdict") or outcome.get("reason") or ""
        if said:
            line.append(": " + printable(str(said), 160))
        if (reward := data.get("reward")) is not None:
            line.append(f"  reward {reward['total']:.2f}", style="yellow")
        return line
    if event.kind == DELETED:
        return Text("deleted", style="bold magenta")
    detail = ", ".join(f"{name} {value}" for name, value in data.items() if value)
    return Text.assemble((event.kind, "magenta"), "  ", (printable(detail, 160), "dim"))


def step_of(event: Event) -> EpisodeStep:
    """The step that an event of kind "step" is.

    Raises: `EpisodeUnavailable`, `msgspec.ValidationError`.
    """
    data = event.data
    place = {"seq": event.seq, "timestamp": event.time, "time_ns": event.time_ns, "key": None}
    number = data.get("step_number") or event.seq
    return msgspec.convert({**data, **place, "step_number": number}, EpisodeStep)
