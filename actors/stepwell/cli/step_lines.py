"""One step on one line: when, whether it worked, how long it took, what was done, and what came of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stepwell.cli.output import duration_text, printable
from stepwell.model.step import EpisodeStep, StepError, StepInterrupted, StepSuccess

if TYPE_CHECKING:
    from rich.text import Text

TOOL_WIDTH = 20


def tool_width(steps: Iterable[EpisodeStep]) -> int:
    """How wide the column of the tools has to be."""
    return min(TOOL_WIDTH, max((len(printable(step.tool, TOOL_WIDTH)) for step in steps), default=0))


def retries(steps: Iterable[EpisodeStep]) -> dict[int, int]:
    """By `seq`, how often what a step does had failed in a row just before it: the same tool, action and parameters."""
    failed: dict[str, int] = {}
    found = {}
    for step in steps:
        what = json.dumps([step.tool, step.action, step.parameters], sort_keys=True)
        if before := failed.pop(what, 0):
            found[step.seq] = before
        if step.failed:
            failed[what] = before + 1
    return found


def step_line(step: EpisodeStep, begun: dt.datetime, *, width: int = TOOL_WIDTH, retry: int = 0) -> Text:
    """A step of an episode that began at `begun`, cut at the edge of the terminal. `retry`: see `retries`."""
    from rich.text import Text

    offset = f"+{(step.timestamp - begun).total_seconds():.3f} s"
    took = duration_text(None if step.latency_ms is None else step.latency_ms / 1000)
    return Text.assemble(
        "  ",
        (f"{offset:>9} ", "dim"),
        mark(step),
        (f" {took:>7}  ", "dim"),
        (f"{printable(step.tool, TOOL_WIDTH):<{width}}  ", "cyan"),
        (f"retry {retry}  " if retry else "", "yellow"),
        what(step),
        no_wrap=True,
        overflow="ellipsis",
    )


def mark(step: EpisodeStep) -> Text:
    """Whether a step worked, as one sign."""
    from rich.text import Text

    if step.failed:
        return Text("✗", style="bold red")
    if step.succeeded:
        return Text("✓", style="green")
    return Text("–" if isinstance(step.result, StepInterrupted) else "·", style="dim")


def what(step: EpisodeStep) -> Text:
    """What a step did, and what came of it."""
    from rich.text import Text

    text = Text(printable(step.action, 90))
    result = result_text(step)
    if step.parameters and (not step.action or not result or len(step.action.split()) == 1):
        # An action of one word ("message", "SELECT") says little: what the tool was called with says more.
        text.append("  " if step.action else "").append(printable(_compact(step.parameters), 90), style="dim")
    if result:
        text.append(" → ", style="dim")
        text.append(result, style="red" if step.failed else "dim")
    if step.reward is not None:
        text.append(f"  reward {step.reward:g}", style="yellow")
    return text


def result_text(step: EpisodeStep) -> str:
    """The result of a step on one line."""
    result = step.result
    if result is None:
        return ""
    if isinstance(result, StepSuccess):
        return printable(result.output if isinstance(result.output, str) else _compact(result.output), 160)
    if isinstance(result, StepError):
        return printable(result.message, 160)
    word = "interrupted" if isinstance(result, StepInterrupted) else "timeout"
    return f"{word}: {printable(result.message, 150)}" if result.message else word


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item if isinstance(item, str) else _json(item)}" for name, item in value.items())
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
