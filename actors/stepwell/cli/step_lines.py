"""One step on one line: when, whether it worked, how long it took, what was done, and what came of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from stepwell.cli.output import duration_text, printable
from stepwell.model.step import EpisodeStep, StepError, StepInterrupted, StepSuccess

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.padding import Padding
    from rich.text import Text

TOOL_WIDTH = 20
_ERROR_CHARACTERS = 240
_TRACEBACK = "Traceback (most recent call last):"


def tool_width(steps: Iterable[EpisodeStep]) -> int:
    """How wide the column of the tools has to be."""
    return min(TOOL_WIDTH, max((len(printable(step.tool, TOOL_WIDTH)) for step in steps), default=0))


class Retries:
    """How often what a step does had failed in a row just before it: the same tool, action and parameters."""

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}

    def before(self, step: EpisodeStep) -> int:
        """For each step in its turn."""
        what = json.dumps([step.tool, step.action, step.parameters], sort_keys=True)
        before = self._failed.pop(what, 0)
        if step.failed:
            self._failed[what] = before + 1
        return before


def retries(steps: Iterable[EpisodeStep]) -> dict[int, int]:
    """The steps that are retries, by `seq`, each with how often it had failed before."""
    counted = Retries()
    return {step.seq: before for step in steps if (before := counted.before(step))}


class StepLine:
    """A step of an episode that began at `begun`, cut at the edge of the terminal; but an error that would be cut off
    has lines of its own. `retry`: see `Retries`."""

    def __init__(self, step: EpisodeStep, begun: dt.datetime, *, width: int = TOOL_WIDTH, retry: int = 0):
        self._step, self._begun, self._width, self._retry = step, begun, width, retry

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Padding]:
        from rich.padding import Padding
        from rich.text import Text

        said = what(self._step)
        line = _line(self._step, self._begun, self._width, self._retry, said)
        if not self._step.failed or line.cell_len <= options.max_width:
            yield line
            return
        yield _line(self._step, self._begun, self._width, self._retry, what(self._step, with_result=False))
        # Below what was done, or where the tool stands if that leaves too little room.
        indent = line.cell_len - said.cell_len
        error = Text(result_text(self._step, _ERROR_CHARACTERS), style="red")
        yield Padding(error, (0, 0, 0, indent if options.max_width >= 2 * indent else 23), expand=False)


def _line(step: EpisodeStep, begun: dt.datetime, width: int, retry: int, said: Text) -> Text:
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
        said,
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


def what(step: EpisodeStep, *, with_result: bool = True) -> Text:
    """What a step did, and what came of it."""
    from rich.text import Text

    text = Text(printable(step.action, 90))
    result = result_text(step) if with_result else ""
    if step.parameters and (not step.action or not result or len(step.action.split()) == 1):
        # An action of one word ("message", "SELECT") says little: what the tool was called with says more.
        text.append("  " if step.action else "").append(printable(_compact(step.parameters), 90), style="dim")
    if result:
        text.append(" → ", style="dim")
        text.append(result, style="red" if step.failed else "dim")
    if step.reward is not None:
        text.append(f"  reward {step.reward:g}", style="yellow")
    return text


def result_text(step: EpisodeStep, limit: int = 160) -> str:
    """The result of a step on one line. Of a Python traceback its last line, which says what was wrong."""
    result = step.result
    if result is None:
        return ""
    if isinstance(result, StepSuccess):
        return printable(result.output if isinstance(result.output, str) else _compact(result.output), limit)
    if isinstance(result, StepError):
        message = result.message
        if _TRACEBACK in message and (lines := message.strip().splitlines()):
            message = f"{lines[-1].strip()} (and its traceback)"
        return printable(message, limit)
    word = "interrupted" if isinstance(result, StepInterrupted) else "timeout"
    return f"{word}: {printable(result.message, limit - 10)}" if result.message else word


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item if isinstance(item, str) else _json(item)}" for name, item in value.items())
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
