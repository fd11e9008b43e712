"""The demo's story as a person reads it, and as a program does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.cli.demo.crash import Crash
from stepwell.cli.demo.ledger import Verdict
from stepwell.cli.demo.story import Act, Reopened, Resumed, Story
from stepwell.cli.listing import OUTCOME_STYLES
from stepwell.cli.output import count_text, duration_text, printable
from stepwell.cli.timeline import timeline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_TOOLS_SHOWN = 6
_PROBLEMS_SHOWN = 5
_MARGIN = " " * 11


def story_fields(story: Story, *, kept: bool) -> dict[str, Any]:
    """The story for programs."""
    fields: dict[str, Any] = msgspec.to_builtins(story)
    del fields["example"], fields["example_cut"]
    fields["directory"] = story.directory if kept else None
    return {
        "ok": story.ok,
        "episodes": sum(story.outcomes.values()),
        "steps": story.final.recovered,
        "steps_per_second": round(_rate(story.crash), 1),
        **fields,
    }


def print_opening(console: Console, agents: int) -> None:
    """Say what is going to happen."""
    python = ".".join(map(str, sys.version_info[:3]))
    console.print(
        f"\n[bold]{count_text(agents, 'agent')}[/] {'audit' if agents > 1 else 'audits'} the standard library of "
        f"Python {python} and {'log' if agents > 1 else 'logs'} every tool call.\n"
        "In the middle of it their process gets a [bold red]kill -9[/].\n"
    )


def act_text(act: Act) -> Text:
    """One act of the story on a line or two."""
    if isinstance(act, Crash):
        text = _line("log").append(count_text(act.acknowledged, "step"), style="bold")
        text.append(f" acknowledged as durable in {duration_text(act.seconds)}, {_rate(act):,.0f} per second\n")
        text.append_text(_line("kill")).append("SIGKILL", style="bold red").append(f" to process {act.pid}")
        return text.append(", which had just finished" if act.finished else ", in mid-flight")
    if isinstance(act, Reopened):
        text = _line("recover").append(count_text(act.records, "record"), style="bold")
        cut = f"{count_text(act.bytes_cut, 'byte')} of a torn write set aside" if act.bytes_cut else "no torn write"
        text.append(f" found in {duration_text(act.recovery_seconds)}, {cut}, ")
        return text.append(f"{count_text(act.open_episodes, 'episode')} open")
    if isinstance(act, Resumed):
        text = _line("resume")
        if not act.episodes:
            return text.append("nothing was open")
        text.append(count_text(act.episodes, "audit"), style="bold")
        stood = "they" if act.episodes > 1 else "it"
        steps = count_text(act.steps, "more step")
        return text.append(f" went on where {stood} stood: {steps} in {duration_text(act.seconds)}")
    return _verdict_text(act)


def _verdict_text(verdict: Verdict) -> Text:
    text = _line("compare").append(
        f"{verdict.acknowledged:,} acknowledged with {verdict.recovered:,} logged, by content"
    )
    found = (len(verdict.missing), len(verdict.changed), len(verdict.duplicated), len(verdict.out_of_order))
    words = ("missing", "changed", "duplicated", "out of order")
    counts = ", ".join(f"{count:,} {word}" for count, word in zip(found, words, strict=True))
    text.append(f"\n{_MARGIN}{counts}", style="bold")
    text.append(" ✓" if verdict.ok else " ✗", style="bold green" if verdict.ok else "bold red")
    for name, places in verdict.problems.items():
        for place in places[:_PROBLEMS_SHOWN]:
            text.append(f"\n{_MARGIN}{name.replace('_', ' ')}: {printable(place, 200)}", style="red")
        if len(places) > _PROBLEMS_SHOWN:
            text.append(f"\n{_MARGIN}… and {len(places) - _PROBLEMS_SHOWN:,} more {name}", style="red")
    return text


def print_ending(console: Console, story: Story, *, kept: bool) -> None:
    """The figures, one episode from its first step to its last, and what it all comes to."""
    from rich.padding import Padding
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_row(_run_table(story), _outcome_table(story), _tool_table(story))
    console.print()
    console.print(Padding(grid, (0, 0, 0, 2)))
    if story.example is not None:
        shown = timeline(story.example, most_steps=18, cut_after=story.example_cut, brief=True)
        console.print()
        console.print(Padding(shown, (0, 0, 0, 2)))
    console.print()
    if story.ok:
        console.print("[bold green]Nothing that was acknowledged is lost.[/]")
    else:
        console.print("[bold red]The memory broke a promise: see the lines marked ✗ above.[/]")
    if kept:
        console.print(f"The log is in {story.directory}; look around with", soft_wrap=True, markup=False)
        console.print(f"  stepwell list --dir {story.directory}", soft_wrap=True, markup=False)


def _run_table(story: Story) -> Table:
    table = _table("the run", "")
    for name, value in (
        ("episodes", f"{sum(story.outcomes.values()):,}"),
        ("steps", f"{story.final.recovered:,}"),
        ("steps/s", f"{_rate(story.crash):,.0f}"),
        ("recovery", duration_text(story.reopened.recovery_seconds)),
    ):
        table.add_row(name, value)
    return table


def _outcome_table(story: Story) -> Table:
    from rich.text import Text

    table = _table("outcomes", "")
    for kind, count in story.outcomes.items():
        table.add_row(Text(kind.removesuffix("_success"), style=OUTCOME_STYLES.get(kind, "bold red")), f"{count:,}")
    return table


def _tool_table(story: Story) -> Table:
    table = _table("slowest tools", "calls", "mean", "max")
    for tool in story.tools[:_TOOLS_SHOWN]:
        table.add_row(
            tool.tool,
            f"{tool.calls:,}",
            duration_text(tool.mean_ms / 1000),
            duration_text(tool.slowest_ms / 1000),
        )
    return table


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _line(name: str) -> Text:
    from rich.text import Text

    return Text().append(f"  {name:<8} ", style="bold cyan")


def _rate(crash: Crash) -> float:
    return crash.acknowledged / crash.seconds if crash.seconds > 0 else 0.0
