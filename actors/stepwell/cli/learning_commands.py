"""The commands that ask what a memory has learned: their options."""

from __future__ import annotations

from pathlib import Path

import click

from stepwell.cli.options import directory_option, example, json_option, key_option
from stepwell.cli.output import reporting_errors


@click.command(
    epilog=example(
        'stepwell recommend "List the orders of March" --domain sql --tag db:shop',
        'stepwell recommend "Fix the flaky test" --domain ci --limit 5 --json',
    ),
    short_help="What to do, what to avoid, and how it was solved before.",
)
@click.argument("task")
@click.option("--domain", default="general", show_default=True, help="The domain of the task.")
@click.option("--tag", "tags", multiple=True, help="A tag of the task; repeatable.")
@click.option("--language", help="The programming language of the task.")
@click.option("--limit", type=click.IntRange(1, 50), default=4, show_default=True, help="At most so many pieces.")
@click.option("--record", is_flag=True, help="Store what was advised, so that a program can give feedback on it.")
@directory_option
@key_option
@json_option
@reporting_errors
def recommend(
    task: str,
    domain: str,
    tags: tuple[str, ...],
    language: str | None,
    limit: int,
    record: bool,
    directory: Path,
    as_json: bool,
) -> None:
    """Ask for advice on a TASK: what to do, what to avoid, and how it was solved before.

    Everything it says is counted over the episodes of the memory; no model is asked. Domain and tags say most of where
    to look: give those that the episodes have.
    """
    from stepwell.cli.recommending import run_recommend
    from stepwell.model.context import TaskContext

    context = TaskContext(domain=domain, tags=list(tags), language=language)
    run_recommend(task, context, directory, limit=limit, record=record, as_json=as_json)


COMMANDS = (recommend,)
