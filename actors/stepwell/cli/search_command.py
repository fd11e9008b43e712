"""`stepwell search`: its options."""

from __future__ import annotations

from pathlib import Path

import click

from stepwell.cli.options import directory_option, example, json_option, key_option
from stepwell.cli.output import reporting_errors


@click.command(
    epilog=example(
        'stepwell search "flights arriving in Boston" --dir agent-memory',
        'stepwell search "fix the parser" --language python --tag net --outcome success --json',
    ),
    short_help="Finished episodes that help with a task, and why.",
)
@click.argument("query", metavar="TASK")
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="At most so many, best first.")
@click.option("--domain", help="Rank episodes of this domain higher.")
@click.option("--language", help="Rank episodes in this language higher.")
@click.option("--framework", help="Rank episodes with this framework higher.")
@click.option("--tag", "tags", multiple=True, help="Rank episodes with this tag higher; repeatable.")
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice(["success", "partial_success", "failure", "abstained"]),
    help="Only episodes that ended so; repeatable.",
)
@click.option("--agent", help="Only episodes of this agent.")
@directory_option
@key_option
@json_option
@reporting_errors
def search(
    query: str,
    limit: int,
    domain: str | None,
    language: str | None,
    framework: str | None,
    tags: tuple[str, ...],
    outcomes: tuple[str, ...],
    agent: str | None,
    directory: Path,
    as_json: bool,
) -> None:
    """Find the finished episodes that help with a task, and say why each does."""
    from stepwell import EpisodeFilter, TaskContext
    from stepwell.cli.searching import run_search

    context = TaskContext(domain=domain or "general", language=language, framework=framework, tags=list(tags))
    filter = EpisodeFilter(outcomes=outcomes or None, agent=agent)  # type: ignore[arg-type]
    run_search(query, directory, context=context, filter=filter, limit=limit, as_json=as_json)


COMMANDS = (search,)
