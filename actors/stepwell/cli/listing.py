"""`stepwell list`: the episodes of a memory, by what they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from stepwell import EpisodeFilter, ListedEpisode
from stepwell.cli.options import opened
from stepwell.cli.output import count_text, duration_text, print_json, printable, stdout_console
from stepwell.cli.waiting import answered

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_WIDE = 120
_NARROW = 100
_WHOLE_ID = 40
"""Characters of an id that are never broken in two: a UUID has 36."""

OUTCOME_STYLES = {
    "success": "green",
    "partial_success": "yellow",
    "failure": "red",
    "abstained": "blue",
    "interrupted": "magenta",
}


def run_list(
    directory: Path, conditions: dict[str, Any], *, limit: int, cursor: str | None, oldest: bool, as_json: bool
) -> None:
    """Print a page of the list of the memory in a directory."""

    async def show() -> None:
        async with opened(directory) as memory:
            filter = EpisodeFilter(**conditions)
            page = await answered(
                memory,
                lambda: memory.list_episodes(
                    filter, limit=limit, cursor=cursor, order="oldest" if oldest else "newest"
                ),
                quiet=as_json,
            )
            total = await memory.count_episodes()
        if as_json:
            found: dict[str, Any] = {"episodes": [episode_row(episode) for episode in page.items], "total": total}
            if page.next_cursor is not None:
                found["next_cursor"] = page.next_cursor
            print_json(found)
        elif not page.items:
            click.echo("no such episodes" if conditions else "no episodes")
        else:
            console = stdout_console()
            console.print(episode_table(page.items, total, width=console.width))

    trio.run(show)


def episode_row(episode: ListedEpisode) -> dict[str, Any]:
    """What `list` says of an episode, for programs."""
    return {
        "episode_id": episode.episode_id,
        "status": episode.status,
        "outcome": episode.outcome,
        "steps": episode.steps,
        "failed_steps": episode.failed_steps,
        "started": episode.start_time.isoformat(),
        "ended": None if episode.end_time is None else episode.end_time.isoformat(),
        "duration_seconds": None if episode.duration is None else episode.duration.total_seconds(),
        "agent": episode.agent,
        "domain": episode.domain,
        "tags": episode.tags,
        "reward": episode.reward,
        "task": episode.task_description,
    }


def episode_table(episodes: list[ListedEpisode], total: int, *, width: int) -> Table:
    """The same for people, in a terminal of `width` columns: one line each where there is room, else the task below
    the id, so that the id can be copied."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    if width < _NARROW:
        _narrow_rows(table, episodes)
    else:
        _wide_rows(table, episodes, with_agent=width >= _WIDE)
    shown = len(episodes)
    table.caption = count_text(total, "episode") if shown == total else f"{shown:,} of {count_text(total, 'episode')}"
    return table


def _narrow_rows(table: Table, episodes: list[ListedEpisode]) -> None:
    from rich.console import Group
    from rich.text import Text

    table.add_column("outcome", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("started (UTC)", no_wrap=True)
    table.add_column("episode", overflow="fold")
    for episode in episodes:
        table.add_row(
            outcome_text(episode),
            f"{episode.steps:,}",
            f"{episode.start_time:%Y-%m-%d %H:%M}",
            Group(
                Text(printable(episode.episode_id, 200), style="cyan", overflow="fold"),
                Text(printable(episode.task_description, 100), no_wrap=True, overflow="ellipsis"),
            ),
        )


def _wide_rows(table: Table, episodes: list[ListedEpisode], *, with_agent: bool) -> None:
    from rich.text import Text

    longest = max(len(episode.episode_id) for episode in episodes)
    table.add_column("episode", overflow="fold", no_wrap=longest <= _WHOLE_ID, style="cyan")
    table.add_column("outcome", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("started (UTC)", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    if with_agent:
        table.add_column("agent", no_wrap=True)
    table.add_column("task")
    for episode in episodes:
        cells: list[str | Text] = [
            Text(printable(episode.episode_id, 200)),
            outcome_text(episode),
            f"{episode.steps:,}",
            f"{episode.start_time:%Y-%m-%d %H:%M}",
            duration_text(None if episode.duration is None else episode.duration.total_seconds()),
        ]
        if with_agent:
            cells.append(Text(printable(episode.agent, 16)))
        table.add_row(*cells, Text(printable(episode.task_description, 100), no_wrap=True, overflow="ellipsis"))


def outcome_text(episode: ListedEpisode) -> Text:
    """The outcome as a coloured word, `open` where there is none yet."""
    from rich.text import Text

    if episode.outcome is None:
        return Text("open", style="bold cyan")
    return Text(episode.outcome.removesuffix("_success"), style=OUTCOME_STYLES[episode.outcome])
