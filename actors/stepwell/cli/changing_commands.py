"""The commands that take something out of a memory: their options. Each asks first where it cannot be undone."""

from __future__ import annotations

from pathlib import Path

import click

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
    be left, and tells what it looked at; exit code 1 if it cannot prove that nothing is.
    """
    from stepwell.cli.erasing import run_compact

    run_compact(directory, purge=purge, yes=yes, as_json=as_json)


COMMANDS = (delete, compact)
