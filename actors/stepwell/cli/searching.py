"""`stepwell search`: the episodes that are relevant to a task, each with why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from stepwell import EpisodeFilter, RelevantEpisodes, ScoredEpisode, TaskContext
from stepwell.cli.listing import OUTCOME_STYLES
from stepwell.cli.options import opened
from stepwell.cli.output import print_json, printable, stdout_console
from stepwell.cli.waiting import answered
from stepwell.learning.prompt_text import told_for_a_prompt
from stepwell.model.outcome import outcome_kind

_TASK_CHARACTERS = 200
_LINE_CHARACTERS = 1_000


def run_search(
    query: str, directory: Path, *, context: TaskContext, filter: EpisodeFilter, limit: int, as_json: bool
) -> None:
    """Print what a memory has for a task."""

    async def search() -> RelevantEpisodes:
        async with opened(directory) as memory:
            return await answered(
                memory,
                lambda: memory.retrieve_relevant_context(query, context, limit, filter=filter),
                quiet=as_json,
            )

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
    from rich.padding import Padding
    from rich.text import Text

    console = stdout_console()

    def below(words: str, style: str = "") -> None:
        text = Text(words, style=style)
        if console.is_terminal:
            console.print(Padding(text, (0, 0, 0, 6), expand=False))
        else:  # one line each, for grep
            console.print(Text("      ").append_text(text), soft_wrap=True)

    line = Text(f"{hit.score:.2f}  ", style="bold")
    line.append(printable(hit.episode_id, 200), style="cyan")
    line.append("  ").append(_outcome(hit).removesuffix("_success"), style=OUTCOME_STYLES[_outcome(hit)])
    console.print(line, soft_wrap=True)
    below(printable(hit.episode.task_description, _TASK_CHARACTERS), "bold")
    for told in told_for_a_prompt(hit.episode).splitlines()[2:]:
        below(printable(told.strip(), _LINE_CHARACTERS))
    below(f"why: {printable(hit.why, _LINE_CHARACTERS)}", "dim")
    console.print()
