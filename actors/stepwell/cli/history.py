"""What happened in a memory over time: steps, endings and tools, counted per span of time and drawn in the terminal."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from stepstore.journal import Gap
from stepwell.cli.listing import OUTCOME_STYLES
from stepwell.cli.options import opened
from stepwell.cli.output import count_text, duration_text, printable, progress_bar
from stepwell.errors import EpisodeUnavailable
from stepwell.model.event import ENDED, STARTED, STEP, Event, utc

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

BARS = " ▁▂▃▄▅▆▇█"
TOOLS_SHOWN = 10
_SPANS_KEPT = 4_096
_TOOLS_KEPT = 1_000
_OTHER_TOOLS = "(other tools)"
_CHUNK = 256
_LABEL_WIDTH = 20
_FIGURES_WIDTH = 26


class Series:
    """Counts over time in bounded memory: spans are a millisecond wide at first, and twice as wide whenever there are
    too many of them."""

    def __init__(self) -> None:
        self.width_ns = 1_000_000
        self.counts: Counter[int] = Counter()
        self.total = 0

    def add(self, time_ns: int) -> None:
        """Count one at a time."""
        self.counts[time_ns // self.width_ns] += 1
        self.total += 1
        while len(self.counts) > _SPANS_KEPT:
            self.width_ns *= 2
            merged: Counter[int] = Counter()
            for span, count in self.counts.items():
                merged[span // 2] += count
            self.counts = merged

    def columns(self, first_ns: int, last_ns: int, columns: int) -> list[int]:
        """The counts in so many columns of equal width; each span goes to the column in which its middle lies."""
        found = [0] * columns
        whole = max(1, last_ns - first_ns)
        for span, count in self.counts.items():
            middle = span * self.width_ns + self.width_ns // 2
            found[min(columns - 1, max(0, (middle - first_ns) * columns // whole))] += count
        return found


@dataclass
class Tool:
    """How often a tool was used, and failed."""

    used: Series = field(default_factory=Series)
    failed: int = 0


@dataclass
class History:
    """What happened. `unread`: records that could not be read."""

    events: int = 0
    unread: int = 0
    first_ns: int = 0
    last_ns: int = 0
    started: Series = field(default_factory=Series)
    steps: Series = field(default_factory=Series)
    endings: dict[str, Series] = field(default_factory=dict)
    tools: dict[str, Tool] = field(default_factory=dict)

    def add(self, item: Event | Gap) -> None:
        """Count one event."""
        if isinstance(item, Gap):
            self.unread += item.last_lsn - item.first_lsn + 1
            return
        try:
            self._count(item)
        except (EpisodeUnavailable, KeyError, TypeError):
            self.unread += 1
            return
        now = item.time_ns
        self.first_ns = now if not self.events else min(self.first_ns, now)
        self.last_ns = max(self.last_ns, now)
        self.events += 1

    def _count(self, event: Event) -> None:
        if event.kind == STEP:
            data = event.data
            name = str(data["tool"])
            if name not in self.tools and len(self.tools) >= _TOOLS_KEPT:
                name = _OTHER_TOOLS
            tool = self.tools.setdefault(name, Tool())
            tool.used.add(event.time_ns)
            tool.failed += (data.get("result") or {}).get("status") in ("error", "timeout")
            self.steps.add(event.time_ns)
        elif event.kind == ENDED:
            self.endings.setdefault(str(event.data["outcome"]["kind"]), Series()).add(event.time_ns)
        elif event.kind == STARTED:
            self.started.add(event.time_ns)

    def most_used(self) -> list[tuple[str, Tool]]:
        """The tools, the most used first."""
        return sorted(self.tools.items(), key=lambda named: (-named[1].used.total, named[0]))

    def fields(self, columns: int = 60) -> dict[str, Any]:
        """The same for programs."""

        def counts(series: Series) -> list[int]:
            return series.columns(self.first_ns, self.last_ns, columns)

        return {
            "first": None if not self.events else utc(self.first_ns).isoformat(),
            "last": None if not self.events else utc(self.last_ns).isoformat(),
            "unread": self.unread,
            "started": counts(self.started),
            "steps": counts(self.steps),
            "endings": {kind: counts(series) for kind, series in sorted(self.endings.items())},
            "tools": [
                {"tool": name, "steps": tool.used.total, "failed": tool.failed, "over_time": counts(tool.used)}
                for name, tool in self.most_used()
            ],
        }


def history_of(directory: Path, records: int, *, quiet: bool) -> History:
    """Read every event of the memory in a directory; `records` is how many there are about. Raises: as opening it."""
    history = History()

    async def main() -> None:
        async with opened(directory) as memory, memory.follow() as events:
            try:
                while True:
                    some = await events.receive_some(_CHUNK)
                    for item in some:
                        history.add(item)
                    progress.advance(task, len(some))
            except trio.EndOfChannel:
                return

    with progress_bar(quiet=quiet) as progress:
        task = progress.add_task("reading", total=records)
        trio.run(main)
    return history


def history_charts(history: History, *, width: int) -> Group:
    """The history drawn in a terminal of `width` columns."""
    from rich.console import Group
    from rich.text import Text

    columns = max(10, min(60, width - _LABEL_WIDTH - _FIGURES_WIDTH))
    first, last = utc(history.first_ns), utc(history.last_ns)
    span = (history.last_ns - history.first_ns) / 1e9 / columns

    def row(label: str, series: Series, style: str, figures: str = "") -> Text:
        bars = sparkline(series.columns(history.first_ns, history.last_ns, columns))
        name = printable(label, _LABEL_WIDTH - 1)
        line = Text.assemble("  ", f"{name:<{_LABEL_WIDTH}}", (bars, style), f" {series.total:>9,}", no_wrap=True)
        return line.append(figures, style="dim")

    per_second = history.steps.total / max(1e-9, (history.last_ns - history.first_ns) / 1e9)
    lines = [
        Text.assemble(
            ("over time", "bold"),
            (f"  {_when(first)} to {_when(last)} UTC, a column is {duration_text(span)}", "dim"),
        ),
        row("episodes started", history.started, "cyan"),
        row("steps", history.steps, "bold", f"  {per_second:,.1f}/s" if history.steps.total > 1 else ""),
        Text("outcomes", style="bold"),
    ]
    lines += [
        row(kind.replace("_", " "), history.endings[kind], style)
        for kind, style in OUTCOME_STYLES.items()
        if kind in history.endings
    ]
    lines.append(Text("tools", style="bold"))
    ranked = history.most_used()
    for name, tool in ranked[:TOOLS_SHOWN]:
        failed = f"  {tool.failed / tool.used.total:.0%} failed" if tool.failed else ""
        lines.append(row(name, tool.used, "cyan", failed))
    if len(ranked) > TOOLS_SHOWN:
        lines.append(Text(f"  … and {count_text(len(ranked) - TOOLS_SHOWN, 'more tool')}", style="dim"))
    if history.unread:
        lines.append(Text(f"  {count_text(history.unread, 'record')} cannot be read; `stepwell verify`", style="red"))
    return Group(*lines)


def sparkline(counts: list[int]) -> str:
    """Counts as bars, the largest as high as it goes; nothing but zero is empty."""
    highest = max(counts, default=0)
    top = len(BARS) - 1
    return "".join(BARS[0 if not count else max(1, round(count / highest * top))] for count in counts)


def _when(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
