"""`stepwell show`: one episode as a timeline that a person can read from top to bottom."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from stepwell.cli.finding import whole_id
from stepwell.cli.listing import OUTCOME_STYLES
from stepwell.cli.options import opened
from stepwell.cli.output import CommandFailed, count_text, duration_text, print_json, printable, stdout_console
from stepwell.cli.step_lines import StepLine, retries, tool_width
from stepwell.errors import EpisodeUnavailable
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
from stepwell.model.step import EpisodeStep

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

STEPS_SHOWN = 100
"""Steps of a long episode that `show` prints without `--all`."""


def run_show(episode_id: str, directory: Path, *, everything: bool, as_json: bool) -> None:
    """Print one episode of the memory in a directory; a very long one without its middle unless `everything`.

    Raises: `NotFound`; `CommandFailed` (it is damaged; what is sound of it was printed, or is in the details).
    """
    most_steps = None if everything else STEPS_SHOWN

    async def show() -> None:
        async with opened(directory) as memory:
            known = await whole_id(memory, episode_id)
            try:
                episode = await memory.get_episode(known)
            except EpisodeUnavailable as error:
                sound = await memory.get_episode(known, partial=True)
                if not as_json:
                    stdout_console().print(timeline(sound, most_steps=most_steps, whole=False))
                raise CommandFailed(
                    f"episode {known!r} is {error.reason}: of it there is {count_text(len(sound.steps), 'step')} up to "
                    "the first that cannot be read; `stepwell verify` says where",
                    sound=episode_details(sound),
                ) from error
        if as_json:
            print_json(episode_details(episode))
        else:
            stdout_console().print(timeline(episode, most_steps=most_steps))

    trio.run(show)


def episode_details(episode: Episode) -> dict[str, Any]:
    """An episode as plain data, for programs."""
    details: dict[str, Any] = msgspec.to_builtins(episode)
    details["status"] = episode.status
    return details


def timeline(
    episode: Episode,
    *,
    most_steps: int | None = None,
    cut_after: int | None = None,
    brief: bool = False,
    whole: bool = True,
) -> Group:
    """The episode for people: what it was for, every step at its offset from the start, and how it ended.

    Args:
        most_steps: leave out the middle of a longer episode.
        cut_after: draw a line behind the step with this `seq`, where the process was killed.
        brief: only the beginning of the reflection, and no summary.
        whole: the end is known; of a damaged one it is not.
    """
    from rich.console import Group
    from rich.text import Text

    steps: list[Text | StepLine] = list(_step_lines(episode, most_steps, cut_after)) or [
        Text("  no steps", style="dim")
    ]
    return Group(_heading(episode), "", *steps, "", *(_ending(episode, brief) if whole else ()))


def _heading(episode: Episode) -> Text:
    from rich.text import Text

    heading = Text()
    heading.append(printable(episode.episode_id, 200), style="bold cyan")
    if episode.task_description:  # a run that was recorded has none
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


def _step_lines(episode: Episode, most_steps: int | None, cut_after: int | None) -> Iterator[Text | StepLine]:
    """A line for each step."""
    from rich.text import Text

    def line(words: str, style: str) -> Text:
        return Text.assemble("  ", (words, style), no_wrap=True, overflow="ellipsis")

    chosen = list(_chosen(episode.steps, most_steps, cut_after))
    width = tool_width(step for step, _ in chosen)
    again = retries(episode.steps)
    for step, left_out in chosen:
        if left_out:
            yield line(f"{'⋮':>9}   {count_text(left_out, 'step')} left out", "dim")
        yield StepLine(step, episode.start_time, width=width, retry=again.get(step.seq, 0))
        if step.seq == cut_after:
            yield line("─── kill -9 ─── another process read the log and went on from here ───", "bold red")


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


def _ending(episode: Episode, brief: bool) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if episode.outcome is None:
        line = Text("still open", style="bold cyan")
        if episode.steps:
            last = episode.steps[-1].timestamp
            silent = max(0.0, (dt.datetime.now(dt.UTC) - last).total_seconds())
            line.append(f": {_counts(episode)}, the last {duration_text(silent)} ago", style="not bold")
        yield line
        return
    kind = outcome_kind(episode.outcome)
    line = Text(kind.replace("_", " ").capitalize(), style=f"bold {OUTCOME_STYLES[kind]}")
    if said := outcome_words(episode.outcome):
        line.append(": " + printable(said, 400), style="not bold")
    yield line
    facts = [_counts(episode)]
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
        signed = Table.grid()
        for sign, style, lines in (
            ("+", "green", episode.reflection.successes),
            ("-", "yellow", episode.reflection.improvements),
            ("i", "blue", episode.reflection.insights),
        ):
            for words in lines[: 2 if brief else None]:
                signed.add_row(Text(f"  {sign} ", style), Text(printable(words, 300)))
        yield signed
    if episode.summary is not None and not brief:
        yield Padding(Text(printable(episode.summary.summary_text, 1200), style="italic dim"), (0, 0, 0, 2))


def _counts(episode: Episode) -> str:
    parts = [count_text(len(episode.steps), "step")]
    if episode.failed_steps:
        parts.append(f"{episode.failed_steps:,} failed")
    if again := len(retries(episode.steps)):
        parts.append("1 retry" if again == 1 else f"{again:,} retries")
    return " · ".join(parts)


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
