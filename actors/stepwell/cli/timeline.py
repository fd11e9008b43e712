"""`stepwell show`: one episode as a timeline that a person can read from top to bottom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from stepwell import open_memory
from stepwell.cli.listing import OUTCOME_STYLES
from stepwell.cli.output import count_text, duration_text, print_json, printable, stdout_console
from stepwell.model.episode import Episode
from stepwell.model.outcome import (
    Abstained,
    Failure,
    Interrupted,
    PartialSuccess,
    Success,
    TaskOutcome,
    outcome_kind,
)
from stepwell.model.step import EpisodeStep, StepError, StepInterrupted, StepSuccess

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

STEPS_SHOWN = 100
"""Steps of a long episode that `show` prints without `--all`."""


def run_show(episode_id: str, directory: Path, *, everything: bool, as_json: bool) -> None:
    """Print one episode of the memory in a directory; a very long one without its middle unless `everything`."""

    async def show() -> None:
        async with open_memory(directory, read_only=True) as memory:
            episode = await memory.get_episode(episode_id)
        if as_json:
            print_json(episode_details(episode))
        else:
            stdout_console().print(timeline(episode, most_steps=None if everything else STEPS_SHOWN))

    trio.run(show)


def episode_details(episode: Episode) -> dict[str, Any]:
    """An episode as plain data, for programs."""
    details: dict[str, Any] = msgspec.to_builtins(episode)
    details["status"] = episode.status
    return details


def timeline(
    episode: Episode, *, most_steps: int | None = None, cut_after: int | None = None, brief: bool = False
) -> Group:
    """The episode for people: what it was for, every step at its offset from the start, and how it ended.

    Args:
        most_steps: leave out the middle of a longer episode.
        cut_after: draw a line behind the step with this `seq`, where the process was killed.
        brief: only the beginning of the reflection, and no summary.
    """
    from rich.console import Group
    from rich.text import Text

    steps = list(_step_lines(episode, most_steps, cut_after)) or [Text("  no steps", style="dim")]
    return Group(_heading(episode), "", *steps, "", *_ending(episode, brief))


def _heading(episode: Episode) -> Text:
    from rich.text import Text

    heading = Text()
    heading.append(printable(episode.episode_id, 200), style="bold cyan")
    heading.append("\n" + printable(episode.task_description, 400), style="bold")
    facts = [f"started {episode.start_time:%Y-%m-%d %H:%M:%S} UTC"]
    if episode.agent:
        facts.append(f"agent {printable(episode.agent, 60)}")
    context = episode.context
    facts += [
        f"{word} {value}" for word, value in (("domain", context.domain), ("language", context.language)) if value
    ]
    if context.tags:
        facts.append("tags " + ", ".join(printable(tag, 40) for tag in context.tags))
    heading.append("\n" + " · ".join(facts), style="dim")
    return heading


def _step_lines(episode: Episode, most_steps: int | None, cut_after: int | None) -> Iterator[Text]:
    """One line per step, cut at the edge of the terminal."""
    from rich.text import Text

    def line(*parts: tuple[str, str] | Text) -> Text:
        return Text.assemble("  ", *parts, no_wrap=True, overflow="ellipsis")

    chosen = list(_chosen(episode.steps, most_steps, cut_after))
    tool_width = min(20, max((len(printable(step.tool, 20)) for step, _ in chosen), default=0))
    for step, left_out in chosen:
        if left_out:
            yield line((f"{'⋮':>9}   {count_text(left_out, 'step')} left out", "dim"))
        offset = f"+{(step.timestamp - episode.start_time).total_seconds():.3f} s"
        took = duration_text(None if step.latency_ms is None else step.latency_ms / 1000)
        yield line(
            (f"{offset:>9} ", "dim"),
            _mark(step),
            (f" {took:>7}  ", "dim"),
            (f"{printable(step.tool, 20):<{tool_width}}  ", "cyan"),
            _what(step),
        )
        if step.seq == cut_after:
            yield line(("─── kill -9 ─── another process read the log and went on from here ───", "bold red"))


def _chosen(steps: list[EpisodeStep], most: int | None, cut_after: int | None) -> Iterator[tuple[EpisodeStep, int]]:
    """The steps to show, each with the number of steps left out before it: first, last, and around the cut."""
    wanted = range(len(steps))
    if most is None or len(steps) <= most:
        keep = set(wanted)
    else:
        cut = next((index for index in wanted if steps[index].seq == cut_after), None)
        third = max(1, most // 3) if cut is not None else max(1, most // 2)
        keep = set(wanted[:third]) | set(wanted[-third:])
        if cut is not None:
            keep |= set(wanted[max(0, cut - third // 2) : cut + third - third // 2])
    left_out = 0
    for index, step in enumerate(steps):
        if index not in keep:
            left_out += 1
            continue
        yield step, left_out
        left_out = 0


def _mark(step: EpisodeStep) -> Text:
    from rich.text import Text

    if step.failed:
        return Text("✗", style="bold red")
    if step.succeeded:
        return Text("✓", style="green")
    return Text("–" if isinstance(step.result, StepInterrupted) else "·", style="dim")


def _what(step: EpisodeStep) -> Text:
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


def _ending(episode: Episode, brief: bool) -> Iterator[Text]:
    from rich.text import Text

    if episode.outcome is None:
        yield Text("still open", style="bold cyan")
        return
    kind = outcome_kind(episode.outcome)
    line = Text(kind.replace("_", " ").capitalize(), style=f"bold {OUTCOME_STYLES[kind]}")
    if said := outcome_words(episode.outcome):
        line.append(": " + printable(said, 400), style="not bold")
    yield line
    facts = [count_text(len(episode.steps), "step")]
    if episode.failed_steps:
        facts.append(f"{episode.failed_steps:,} failed")
    if episode.duration is not None:
        facts.append(duration_text(episode.duration.total_seconds()))
    if episode.reward is not None:
        reward = episode.reward
        facts.append(
            f"reward {reward.total:.2f} (base {reward.base:g} × efficiency {reward.efficiency:.2f}"
            f" × complexity {reward.complexity_bonus:.2f} × quality {reward.quality_multiplier:.2f}"
            f" + learning {reward.learning_bonus:.2f})"
        )
    yield Text(" · ".join(facts), style="dim")
    if episode.reflection is not None:
        for sign, style, lines in (
            ("+", "green", episode.reflection.successes),
            ("-", "yellow", episode.reflection.improvements),
            ("i", "blue", episode.reflection.insights),
        ):
            for words in lines[: 2 if brief else None]:
                yield Text.assemble((f"  {sign} ", style), printable(words, 300))
    if episode.summary is not None and not brief:
        yield Text("  " + printable(episode.summary.summary_text, 1200), style="italic dim")


def outcome_words(outcome: TaskOutcome) -> str:
    """What an outcome says in words beside its kind."""
    if isinstance(outcome, Success):
        made = f" (made {', '.join(outcome.artifacts)})" if outcome.artifacts else ""
        return outcome.verdict + made
    if isinstance(outcome, PartialSuccess):
        failed = f" (not done: {', '.join(outcome.failed)})" if outcome.failed else ""
        return outcome.verdict + failed
    if isinstance(outcome, Failure):
        return outcome.reason + (f": {outcome.error_details}" if outcome.error_details else "")
    if isinstance(outcome, Abstained):
        signs = f" ({', '.join(outcome.infeasibility_signals)})" if outcome.infeasibility_signals else ""
        return outcome.reason + signs
    assert isinstance(outcome, Interrupted)
    return f"{outcome.cause}: {outcome.reason}" if outcome.reason else outcome.cause
