"""`stepwell export`: everything in a memory as one file of the neutral form, there whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import msgspec
import trio

from stepwell import Memory
from stepwell.cli.neutral_form import to_line, write_episode
from stepwell.cli.options import opened
from stepwell.cli.output import count_text, print_json, progress_bar

_CHUNK_BYTES = 1024 * 1024


def run_export(out: str, directory: Path, *, as_json: bool) -> None:
    """Export the memory in a directory to `out` and say so on stderr, with `--json` on stdout unless that is `out`."""
    report = trio.run(_export, out, directory, as_json)
    if as_json:
        print_json({"out": out, **msgspec.to_builtins(report)}, to_stderr=out == "-")
        return
    still_open = f" ({report.open_episodes:,} of them open)" if report.open_episodes else ""
    click.echo(
        f"exported {count_text(report.episodes, 'episode')}{still_open} with {count_text(report.steps, 'step')} "
        f"to {'standard output' if out == '-' else out}",
        err=True,
    )


async def _export(out: str, directory: Path, quiet: bool) -> ExportReport:
    with progress_bar(quiet=quiet) as progress:
        task = progress.add_task("exporting", total=None)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = ExportReport()
        async with opened(directory) as memory:
            with output_file(out) as file:
                await export_episodes(memory, file, report, on_progress=on_progress)
    return report


class ExportReport(msgspec.Struct, kw_only=True):
    """What was written."""

    episodes: int = 0
    open_episodes: int = 0
    steps: int = 0
    bytes: int = 0


async def export_episodes(
    memory: Memory, out: IO[bytes], report: ExportReport, *, on_progress: Callable[[int, int], None]
) -> None:
    """Write every episode, in the order in which they began, to `out`, and count in `report`.

    `on_progress(done, total)` is called with numbers of episodes.
    """
    total = 0
    async for _ in memory.episode_ids():
        total += 1
    chunk: list[bytes] = []
    waiting = 0
    async for episode_id in memory.episode_ids():
        episode = await memory.get_episode(episode_id)
        for event in write_episode(episode):
            line = to_line(event)
            chunk.append(line)
            waiting += len(line)
            if waiting >= _CHUNK_BYTES:
                report.bytes += waiting
                await trio.to_thread.run_sync(out.write, b"".join(chunk))
                chunk, waiting = [], 0
        report.episodes += 1
        report.open_episodes += not episode.is_complete
        report.steps += len(episode.steps)
        on_progress(report.episodes, max(total, report.episodes))
    report.bytes += waiting
    await trio.to_thread.run_sync(out.write, b"".join(chunk))


@contextmanager
def output_file(target: str) -> Iterator[IO[bytes]]:
    """The file to export to: `-` is stdout, a name ending in `.gz` is compressed.

    A file appears under its name only when the block ends without an exception, complete and durable; until then
    nothing under that name is touched.
    """
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    if path.is_dir():
        raise IsADirectoryError(21, "is a directory; name the file to write", target)
    # A symbolic link keeps pointing: what it names is replaced, not the link.
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with open(path, "wb") as device:  # a pipe, a terminal, /dev/null: there is nothing to replace
            yield device
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as raw:
            if path.name.endswith(".gz"):
                # Without a time in its header the same episodes give the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fchmod(raw.fileno(), _permissions(path))
            os.fsync(raw.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _permissions(path: Path) -> int:
    """Those of the file that is replaced, else what a new file gets here."""
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
