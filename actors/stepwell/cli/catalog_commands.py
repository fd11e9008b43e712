"""The commands that use the catalog: their options."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stepwell.cli.options import directory_option, example, json_option, key_option
from stepwell.cli.output import reporting_errors

OUTCOMES = ["success", "partial_success", "failure", "abstained", "interrupted"]
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


class _Time(click.DateTime):
    """A day or a time, UTC unless it says otherwise."""

    def __init__(self) -> None:
        super().__init__(_FORMATS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:
        found: dt.datetime = super().convert(value, param, ctx)
        return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)


_TIME = _Time()
_CONDITIONS = (
    click.option("--status", type=click.Choice(["open", "ended"]), help="Only those."),
    click.option("--outcome", "outcomes", type=click.Choice(OUTCOMES), multiple=True, help="Repeatable: any of."),
    click.option("--agent", help="Only those of this agent."),
    click.option("--task-type", help="Only tasks of this type."),
    click.option("--domain", help="Only this domain."),
    click.option("--language", help="Only this language."),
    click.option("--tag", "tags_all", multiple=True, help="Repeatable: only what has all of them."),
    click.option("--any-tag", "tags_any", multiple=True, help="Repeatable: only what has one of them."),
    click.option(
        "--since",
        "started_from",
        type=_TIME,
        metavar="TIME",
        help="Started then or later: 2026-11-27, or 2026-11-27T15:04 (UTC).",
    ),
    click.option("--before", "started_before", type=_TIME, metavar="TIME", help="Started earlier."),
    click.option("--ended-since", "ended_from", type=_TIME, metavar="TIME", help="Ended then or later."),
    click.option("--ended-before", "ended_before", type=_TIME, metavar="TIME", help="Ended earlier."),
    click.option("--min-reward", "reward_from", type=float, help="A total reward of so much or more."),
    click.option("--max-reward", "reward_to", type=float, help="A total reward of so much or less."),
    click.option("--archived/--not-archived", "archived", default=None, help="Only archived ones, or only others."),
    click.option("--text", help="Only tasks with all of these words."),
    click.option(
        "--match",
        "text_match",
        type=click.Choice(["words", "substring", "exact"]),
        default="words",
        show_default=True,
        help="How --text is looked for.",
    ),
)


def _conditions(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_CONDITIONS):
        command = option(command)
    return command


@click.command(
    "list",
    epilog=example(
        "stepwell list --status open --dir agent-memory",
        "stepwell list --outcome failure --tag team:billing --since 2026-01-01",
        'stepwell list --text "refund invoice" --json',
    ),
    short_help="Episodes, newest first; by outcome, tag, time, words …",
)
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="At most so many.")
@click.option("--cursor", help="Go on behind the page that gave this as its next_cursor (--json).")
@click.option("--oldest", is_flag=True, help="Oldest first instead of newest.")
@_conditions
@directory_option
@key_option
@json_option
@reporting_errors
def list_(limit: int, cursor: str | None, oldest: bool, directory: Path, as_json: bool, **conditions: Any) -> None:
    """List episodes, newest first, by what they are: every condition that is given must hold."""
    from stepwell.cli.listing import run_list

    given = {name: value for name, value in conditions.items() if value not in (None, ())}
    if "text" not in given:
        del given["text_match"]
    run_list(directory, given, limit=limit, cursor=cursor, oldest=oldest, as_json=as_json)


@click.command(
    epilog=example("stepwell tags --dir agent-memory", "stepwell tags --frequent --limit 10 --json"),
    short_help="All tags there are, with counts.",
)
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="At most so many.")
@click.option("--cursor", help="Go on behind the page that gave this as its next_cursor (--json).")
@click.option("--frequent", is_flag=True, help="The most frequent first instead of in order.")
@directory_option
@key_option
@json_option
@reporting_errors
def tags(limit: int, cursor: str | None, frequent: bool, directory: Path, as_json: bool) -> None:
    """List all tags that episodes have, and how many episodes have each."""
    from stepwell.cli.tag_listing import run_tags

    run_tags(directory, limit=limit, cursor=cursor, frequent=frequent, as_json=as_json)


@click.command(
    epilog=example("stepwell rebuild --dir agent-memory"), short_help="Derive what is kept beside the log anew."
)
@directory_option
@key_option
@json_option
@reporting_errors
def rebuild(directory: Path, as_json: bool) -> None:
    """Throw away everything that is derived from the log, and derive it anew.

    Nothing is lost: the log is the only truth, and is not touched. No other process may have the memory open for
    writing.
    """
    from stepwell.cli.rebuilding import run_rebuild

    run_rebuild(directory, as_json=as_json)


COMMANDS = (list_, tags, rebuild)
