"""`stepwell search`: the episodes that are relevant to a task, each with why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from stepwell import EpisodeFilter, RelevantEpisodes, ScoredEpisode, TaskContext, open_memory
from stepwell.cli.listing import OUTCOME_STYLES
from stepwell.cli.output import print_json, printable, stdout_console
from stepwell.learning.prompt_text import told_for_a_prompt
from stepwell.model.outcome import outcome_kind

_TASK_CHARACTERS = 200
_LINE_CHARACTERS = 1_000


def run_search(
    query: str, directory: Path, *, context: TaskContext, filter: EpisodeFilter, limit: int, as_json: bool
) -> None:
    """Print what a memory has for a task."""

    async def search() -> RelevantEpisodes:
        async with open_memory(directory, read_only=True) as memory:
            return await memory.retrieve_relevant_context(query, context, limit, filter=filter)

    found = trio.run(search)
    if as_json:
        print_json(
            {
                "hits": [_hit(hit) for hit in found],
                "ranked_by": found.ranked_by,
                "why_empty": found.why_empty,
                "note": found.note,
            }
        )
        return
    if not found:
        click.echo(f"nothing found: {found.why_empty}")
    for hit in found:
        _print_hit(hit)
    if found.note:
        click.echo(found.note)


def _hit(hit: ScoredEpisode) -> dict[str, Any]:
    return {
        "episode_id": hit.episode_id,
        "task": hit.episode.task_description,
        "outcome": _outcome(hit),
        "agent": hit.episode.agent,
        "domain": hit.episode.context.domain,
        "tags": hit.episode.tags,
        "reward": None if hit.episode.reward is None else hit.episode.reward.total,
        "ended": None if hit.episode.end_time is None else hit.episode.end_time.isoformat(),
        "score": hit.score,
        "why": hit.why,
        "parts": [msgspec.to_builtins(part) for part in hit.parts],
    }


def _outcome(hit: ScoredEpisode) -> str:
    assert hit.episode.outcome is not None  # only what is finished is found
    return outcome_kind(hit.episode.outcome)


def _print_hit(hit: ScoredEpisode) -> None:
    from rich.text import Text

    console = stdout_console()
    line = Text(f"{hit.score:.2f}  ", style="bold")
    line.append(printable(hit.episode_id, 200), style="cyan")
    line.append("  ").append(_outcome(hit).removesuffix("_success"), style=OUTCOME_STYLES[_outcome(hit)])
    console.print(line, soft_wrap=True)
    console.print(Text(f"      {printable(hit.episode.task_description, _TASK_CHARACTERS)}"), soft_wrap=True)
    for told in told_for_a_prompt(hit.episode).splitlines()[2:]:
        console.print(Text(f"      {printable(told.strip(), _LINE_CHARACTERS)}"), soft_wrap=True)
    console.print(Text(f"      why: {printable(hit.why, _LINE_CHARACTERS)}", style="dim"), soft_wrap=True)
    console.print()
