"""The commands that take something out of a memory: their options. Each asks first where it cannot be undone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from stepwell.cli.catalog_commands import OUTCOMES
from stepwell.cli.options import complete_episode_id, directory_option, example, json_option, key_option, yes_option
from stepwell.cli.output import reporting_errors


@click.command(epilog=example("stepwell delete audit-017-heapq", "stepwell delete run-1 run-2 --purge --yes"))
@click.argument("episode_ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_episode_id)
@click.option("--purge", is_flag=True, help="Remove their bytes from every file at once, and prove it.")
@yes_option
@directory_option
@key_option
@json_option
@reporting_errors
def delete(episode_ids: tuple[str, ...], purge: bool, yes: bool, directory: Path, as_json: bool) -> None:
    """Delete episodes for good.

    Nothing reads them from now on, and their ids are never used again. Takes whole ids only, and shows what they are
    before it asks. No other process may have the memory open for writing: there, `await memory.delete_episode(id)` does
    the same.
    """
    from stepwell.cli.erasing import run_delete

    run_delete(episode_ids, directory, purge=purge, yes=yes, as_json=as_json)


@click.command(epilog=example("stepwell compact --dir agent-memory", "stepwell compact --purge --yes"))
@click.option("--purge", is_flag=True, help="Remove all that is left of deleted episodes, whatever it costs.")
@yes_option
@directory_option
@key_option
@json_option
@reporting_errors
def compact(purge: bool, yes: bool, directory: Path, as_json: bool) -> None:
    """Give back the space of deleted episodes and merge small files.

    A memory in use does so by itself. With --purge it asks first, searches the whole directory behind that for what may
    be left, and tells what it looked at; exit code 1 if it cannot prove that nothing is. A damaged file is left alone:
    exit code 1 as well.
    """
    from stepwell.cli.erasing import run_compact

    run_compact(directory, purge=purge, yes=yes, as_json=as_json)


@click.command(
    epilog=example(
        "stepwell retain --outcome failure --older-than 90 --dry-run", "stepwell retain --max-episodes 100000 --yes"
    )
)
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Whose last event is older.")
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice(OUTCOMES),
    multiple=True,
    help="Repeatable: that ended with one of these.",
)
@click.option("--reward-below", type=float, help="Whose total reward is lower.")
@click.option("--max-episodes", type=click.IntRange(min=0), help="Of more than so many, as many as are too many.")
@click.option(
    "--evict",
    type=click.Choice(["relevance", "lru"]),
    default="relevance",
    show_default=True,
    help="Who is too many: the least relevant, or the one whose last event is oldest.",
)
@click.option("--keep-tag", "keep_tags", multiple=True, help="Repeatable: never what has one of these.")
@click.option("--archived-too", is_flag=True, help="Also what is archived, which is kept otherwise.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@yes_option
@directory_option
@key_option
@json_option
@reporting_errors
def retain(
    older_than: float | None,
    outcomes: tuple[str, ...],
    reward_below: float | None,
    max_episodes: int | None,
    evict: Literal["relevance", "lru"],
    keep_tags: tuple[str, ...],
    archived_too: bool,
    dry_run: bool,
    yes: bool,
    directory: Path,
    as_json: bool,
) -> None:
    """Delete ended episodes by age, outcome, reward and number.

    Those go of which everything that is given is true; then, if --max-episodes are still exceeded, the worst of the
    others. An open episode never goes. Asks first, and shows who it is about.
    """
    from stepwell import RetentionPolicy
    from stepwell.cli.retaining import run_retain

    policy = RetentionPolicy(
        max_age_days=older_than,
        outcomes=outcomes or None,
        reward_below=reward_below,
        max_episodes=max_episodes,
        eviction=evict,
        keep_archived=not archived_too,
        keep_tags=keep_tags,
    )
    if not policy.has_rule and max_episodes is None:
        raise click.UsageError(
            "says nothing of who is to go; give --older-than, --outcome, --reward-below or --max-episodes."
        )
    run_retain(policy, directory, dry_run=dry_run, yes=yes, as_json=as_json)


COMMANDS = (delete, compact, retain)
