"""`stepwell list`: the episodes of a memory, newest first."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from stepwell import Memory
from stepwell.cli.options import opened
from stepwell.cli.output import count_text, duration_text, print_json, printable, stdout_console
from stepwell.model.episode import Episode, EpisodeStatus
from stepwell.model.outcome import outcome_kind

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_WIDE = 120

OUTCOME_STYLES = {
    "success": "green",
    "partial_success": "yellow",
    "failure": "red",
    "abstained": "blue",
    "interrupted": "magenta",
}


def run_list(directory: Path, *, limit: int, status: EpisodeStatus | None, as_json: bool) -> None:
    """Print the newest episodes of the memory in a directory."""

    async def show() -> None:
        async with opened(directory) as memory:
            episodes, total = await newest_episodes(memory, limit=limit, status=status)
        if as_json:
            print_json({"episodes": [episode_row(episode) for episode in episodes], "total": total})
        elif not episodes:
            click.echo("no episodes" if status is None else f"no {status} episodes")
        else:
            console = stdout_console()
            console.print(episode_table(episodes, total, width=console.width))

    trio.run(show)


async def newest_episodes(memory: Memory, *, limit: int, status: EpisodeStatus | None) -> tuple[list[Episode], int]:
    """The newest episodes in the state asked for, and how many episodes there are in all."""
    if status is None:
        newest: deque[str] = deque(maxlen=limit)
        total = 0
        async for episode_id in memory.episode_ids():
            newest.append(episode_id)
            total += 1
        return [await memory.get_episode(episode_id) for episode_id in reversed(newest)], total
    ids = [episode_id async for episode_id in memory.episode_ids()]
    found: list[Episode] = []
    for episode_id in reversed(ids):
        if len(found) == limit:
            break
        episode = await memory.get_episode(episode_id)
        if episode.status == status:
            found.append(episode)
    return found, len(ids)


def episode_row(episode: Episode) -> dict[str, Any]:
    """What `list` says of an episode, for programs."""
    return {
        "episode_id": episode.episode_id,
        "status": episode.status,
        "outcome": None if episode.outcome is None else outcome_kind(episode.outcome),
        "steps": len(episode.steps),
        "failed_steps": episode.failed_steps,
        "started": episode.start_time.isoformat(),
        "ended": None if episode.end_time is None else episode.end_time.isoformat(),
        "duration_seconds": None if episode.duration is None else episode.duration.total_seconds(),
        "agent": episode.agent,
        "domain": episode.context.domain,
        "tags": episode.tags,
        "reward": None if episode.reward is None else episode.reward.total,
        "task": episode.task_description,
    }


def episode_table(episodes: list[Episode], total: int, *, width: int) -> Table:
    """The same for people, in a terminal of `width` columns: a narrow one does without the agent."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    table.add_column("episode", overflow="fold", style="cyan")
    table.add_column("outcome", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("started (UTC)", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column("agent", no_wrap=True)
    table.add_column("task")
    for episode in episodes:
        cells: list[str | Text] = [
            Text(printable(episode.episode_id, 200)),
            outcome_text(episode),
            f"{len(episode.steps):,}",
            f"{episode.start_time:%Y-%m-%d %H:%M}",
            duration_text(None if episode.duration is None else episode.duration.total_seconds()),
        ]
        if width >= _WIDE:
            cells.append(Text(printable(episode.agent, 16)))
        table.add_row(*cells, Text(printable(episode.task_description, 100), no_wrap=True, overflow="ellipsis"))
    shown = len(episodes)
    table.caption = count_text(total, "episode") if shown == total else f"{shown:,} of {count_text(total, 'episode')}"
    return table


def outcome_text(episode: Episode) -> Text:
    """The outcome as a coloured word, `open` where there is none yet."""
    from rich.text import Text

    if episode.outcome is None:
        return Text("open", style="bold cyan")
    kind = outcome_kind(episode.outcome)
    return Text(kind.removesuffix("_success"), style=OUTCOME_STYLES[kind])
