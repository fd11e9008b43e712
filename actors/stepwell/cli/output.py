"""What every command shares: where output goes, `--json`, progress bars, and errors as one line.

Results go to stdout. Progress bars, warnings and errors go to stderr, so that stdout can always be piped.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

P = ParamSpec("P")
T = TypeVar("T")


class CommandFailed(Exception):
    """The thing asked for failed; the message is the one line to print. `details` are added to the JSON form."""

    def __init__(self, message: str, **details: Any):
        super().__init__(message)
        self.details = details


def stdout_console() -> Console:
    """A rich console for results. It honours NO_COLOR and COLUMNS, and does not colour a pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160  # a file has no edge; this is wide enough to cut little and narrow enough to read
    return console


def stderr_console() -> Console:
    """A rich console for progress and warnings."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json_line(value: Any) -> None:
    """One JSON value on a line of its own, at once: whoever reads may be following."""
    sys.stdout.buffer.write(
        json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"
    )
    sys.stdout.flush()


def print_json(value: Any, *, to_stderr: bool = False) -> None:
    """One JSON value, indented, for programs."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    stream = sys.stderr if to_stderr else sys.stdout
    stream.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    stream.flush()


@contextmanager
def progress_bar(
    *, bytes_unit: bool = False, quiet: bool = False, console: Console | None = None
) -> Iterator[Progress]:
    """A progress bar with its rate and the time left that disappears when done, on stderr unless a console is given.

    Invisible when `quiet`, or where there is no terminal to see it on.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """How many are done per second."""

        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("" if rate is None else f"{rate:,.0f}/s", style="progress.data.speed")

    def whole() -> Column:
        """In a narrow terminal the bar gives way, and each bar stays on one line."""
        return Column(no_wrap=True)

    console = console or stderr_console()
    amount: list[ProgressColumn] = [MofNCompleteColumn(table_column=whole()), RateColumn(table_column=whole())]
    if bytes_unit:
        amount = [DownloadColumn(table_column=whole()), TransferSpeedColumn(table_column=whole())]
    with Progress(
        TextColumn("{task.description}", markup=False, table_column=whole()),
        BarColumn(),
        *amount,
        TimeElapsedColumn(table_column=whole()),
        TextColumn("[dim]left", table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        yield progress


def confirmed(question: str, *, yes: bool, as_json: bool) -> None:
    """Ask before something that cannot be undone, unless it was said beforehand with `--yes`.

    Raises: `CommandFailed` if the answer is no, or if there is nobody at a terminal to ask.
    """
    import click

    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise CommandFailed("nothing was changed: there is nobody to ask; say --yes if it is meant")
    click.echo(question, err=True)
    if not click.confirm("Go on?", default=False, err=True):
        raise CommandFailed("nothing was changed")


def reporting_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Wrap a command: what it raises on purpose becomes one line on stderr, or with `--json` an object, and exit 1.

    Exception groups are flattened first. An error that nobody foresaw is one line as well, unless STEPWELL_DEBUG is
    set: then it keeps its traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            _report(error, as_json=bool(kwargs.get("as_json")))
        except BaseExceptionGroup as group:
            if any(isinstance(leaf, KeyboardInterrupt) for leaf in _leaves(group)):
                raise KeyboardInterrupt from None
            raise

    return wrapped


def _report(error: Exception, *, as_json: bool) -> NoReturn:
    import click

    leaves = _leaves(error)
    for leaf in leaves:
        if isinstance(leaf, click.ClickException | click.exceptions.Exit | click.Abort):
            raise leaf from None
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        # The reader of our output has gone (`stepwell list | head`): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    if os.environ.get("STEPWELL_DEBUG"):
        raise error
    first = leaves[0]
    if as_json:
        details = first.details if isinstance(first, CommandFailed) else {}
        try:
            print_json({"error": {"type": type(first).__name__, "message": one_line(first)}, **details})
        except OSError:  # it is stdout that does not take anything
            as_json = False
    if not as_json:
        click.echo(f"stepwell: {one_line(first)}", err=True)
        if len(leaves) > 1:
            click.echo(f"stepwell: and {len(leaves) - 1} more of the same run", err=True)
    sys.exit(1)


def one_line(error: BaseException) -> str:
    """An error as one line for a person."""
    from stepwell.errors import StepwellError

    if isinstance(error, CommandFailed | StepwellError):
        text = str(error) or type(error).__name__
    elif isinstance(error, OSError) and error.strerror:
        name = f"{error.filename!s}: " if error.filename is not None else ""
        text = f"{name}{error.strerror}" + (" (is the disk full?)" if error.errno == errno.ENOSPC else "")
    else:
        text = f"unexpected {type(error).__name__}: {error} (set STEPWELL_DEBUG=1 to see where)"
    return " ".join(text.split())


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in _leaves(member)]
    return [error]


def printable(text: str, limit: int) -> str:
    """Text on one line, control characters shown as `·` and markup left alone, at most `limit` characters."""
    # Slicing first keeps a megabyte of output from being processed for the sake of one line.
    flat = " ".join(text[: 4 * limit].split())
    flat = "".join(character if character.isprintable() else "·" for character in flat)
    return flat if len(flat) <= limit and len(text) <= 4 * limit else flat[: limit - 1] + "…"


def duration_text(seconds: float | None) -> str:
    """A duration as people say it: `3.2 ms`, `1.4 s`, `2 min 5 s`, `3 h 10 min`."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def count_text(number: int, noun: str) -> str:
    """`1 episode`, `1,200 episodes`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith('ch') else 's'}"
