"""Options that commands share, and what is the same in all of them: the group, examples, and which memory is meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from stepwell.memory.opening import OpenMemory
    from stepwell.runtime.config import MemoryConfig

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_DIRECTORY = Path("stepwell-memory")
_KEY_FILE = "stepwell.key_file"
_IDS_OFFERED = 200

PATH = click.Path(path_type=Path, readable=False)
"""What may not be read is no wrong usage: the command says so itself."""

directory_option = click.option(
    "--dir",
    "directory",
    type=PATH,
    envvar="STEPWELL_DIR",
    default=DEFAULT_DIRECTORY,
    show_envvar=True,
    help="Directory of the memory.  [default: ./stepwell-memory]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value, for programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")


def _keep_key_file(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    context.meta[_KEY_FILE] = value


key_option = click.option(
    "--key-file",
    type=PATH,
    envvar="STEPWELL_KEY_FILE",
    show_envvar=True,
    expose_value=False,
    callback=_keep_key_file,
    help="The master key (32 bytes) of encrypted episodes.",
)
"""A command that has this opens its memory with `opened`, which takes the key from the context of the command."""


def memory_config() -> MemoryConfig:
    """The settings that a command opens a memory with: the key of `--key-file`, if there is one.

    Raises: as `LocalKeyProvider.from_file`.
    """
    from stepwell.runtime.config import MemoryConfig

    context = click.get_current_context(silent=True)
    key_file = None if context is None else context.meta.get(_KEY_FILE)
    if key_file is None:
        return MemoryConfig()
    from stepstore.log.key_provider import LocalKeyProvider

    return MemoryConfig(key_provider=LocalKeyProvider.from_file(key_file))


def opened(directory: Path, *, to_write: bool = False) -> OpenMemory:
    """The memory in a directory, beside a process that writes to it unless this is `to_write`; never a new one.

    Entering raises: `NotFound`, and as `open_memory`.
    """
    from stepwell import open_memory

    must_hold_a_memory(directory, to_write=to_write)
    return open_memory(directory, config=memory_config(), read_only=not to_write)


def must_hold_a_memory(directory: Path, *, to_write: bool = False) -> None:
    """Tell somebody who has named no directory, or a wrong one, how to name the right one. Raises: `NotFound`."""
    from stepwell.errors import NotFound

    nothing = not directory.exists() or (directory.is_dir() and next(directory.iterdir(), None) is None)
    if nothing or (to_write and not (directory / "FORMAT").exists()):
        raise NotFound(f"there is no memory in {str(directory)!r}; name its directory with --dir or STEPWELL_DIR")


def example(*lines: str) -> str:
    """The lines that `--help` ends with."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


_SECTIONS = {
    "Look": ("list", "show", "tail", "replay", "stats", "tags"),
    "Find": ("search", "recommend"),
    "In and out": ("import", "export"),
    "Copies": ("backup", "restore"),
    "Damage": ("verify", "salvage", "rebuild"),
    "Delete": ("delete", "retain", "compact"),
    "Besides": ("demo", "completion"),
}


class CommandGroup(click.Group):
    """A group that lists its commands by what they are for, and names the nearest one for one that it does not have."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                room = formatter.width - width - 6
                formatter.write_dl(
                    [(f"{name:<{width}}", self.commands[name].get_short_help_str(room)) for name in names]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near and "Did you mean" not in error.format_message():  # newer versions of click say so themselves
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None
            raise


def complete_episode_id(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids that a shell offers for `ID`, newest first; none where there is no memory that can be read."""
    import trio

    from stepwell.errors import StepwellError

    directory = context.params.get("directory") or DEFAULT_DIRECTORY

    async def ids() -> list[str]:
        async with opened(directory) as memory:
            return [name async for name in memory.episode_ids() if name.startswith(incomplete)]

    try:
        return trio.run(ids)[: -_IDS_OFFERED - 1 : -1]
    except (StepwellError, OSError):  # whoever completes a word wants no error in the middle of it
        return []


episode_argument = click.argument("episode_id", metavar="ID", shell_complete=complete_episode_id)
