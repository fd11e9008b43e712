"""`stepwell export`: everything in a memory as one file, there whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import msgspec
import trio

from stepwell import Memory
from stepwell.cli.episode_history import history_of
from stepwell.cli.neutral_form import History, JsonObject, to_line, write_episode
from stepwell.cli.options import opened
from stepwell.cli.output import CommandFailed, count_text, print_json, printable, progress_bar
from stepwell.errors import EpisodeUnavailable
from stepwell.model.episode import Episode

_CHUNK_BYTES = 1024 * 1024


def run_export(out: str, directory: Path, *, form: str | None = None, partial: bool = False, as_json: bool) -> None:
    """Export the memory in a directory to `out` and say so on stderr, with `--json` on stdout unless that is `out`.

    Raises: as opening it for reading; `CommandFailed` (a table without its library; an episode that is damaged, after
    everything else was written if `partial`), `OSError`.
    """
    chosen = form or ("parquet" if out.endswith(".parquet") else "jsonl")
    report = trio.run(_export, out, directory, chosen, partial, as_json)
    if report.damaged:
        raise CommandFailed(
            f"{count_text(report.episodes, 'episode')} went to {out}; of these {len(report.damaged):,} there is only "
            f"what is sound, or nothing: {printable(', '.join(report.damaged), 2_000)}",
            **msgspec.to_builtins(report),
        )
    if as_json:
        print_json({"out": out, "format": chosen, **msgspec.to_builtins(report)}, to_stderr=out == "-")
        return
    still_open = f" ({report.open_episodes:,} of them open)" if report.open_episodes else ""
    click.echo(
        f"exported {count_text(report.episodes, 'episode')}{still_open} with {count_text(report.steps, 'step')} "
        f"to {'standard output' if out == '-' else out}",
        err=True,
    )


async def _export(out: str, directory: Path, form: str, partial: bool, quiet: bool) -> ExportReport:
    with progress_bar(quiet=quiet) as progress:
        task = progress.add_task("exporting", total=None)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = ExportReport()
        async with opened(directory) as memory:
            with output_file(out) as file, _writer(form, file) as write:
                await export_episodes(memory, write, report, partial=partial, on_progress=on_progress)
    return report


class ExportReport(msgspec.Struct, kw_only=True):
    """What was written."""

    episodes: int = 0
    open_episodes: int = 0
    steps: int = 0
    bytes: int = 0
    damaged: list[str] = []
    """Of these only what is sound was written, or nothing."""


WriteEpisode = Callable[[Episode, History | None], int]
"""Takes an episode in, with its history if that has more than steps, writes what there is to write by now, and tells
how many bytes of text that were; may block."""


@contextmanager
def _writer(form: str, file: IO[bytes]) -> Iterator[WriteEpisode]:
    if form == "parquet":
        from stepwell.cli.parquet import StepTable

        with StepTable(file) as table:
            yield lambda episode, _history: table.add(episode)
        return
    with _Lines(file, _span_lines if form == "otlp" else _event_lines) as lines:
        yield lines.add


def _event_lines(episode: Episode, history: History | None) -> Iterator[JsonObject]:
    return write_episode(episode, history)


def _span_lines(episode: Episode, _history: History | None) -> Iterator[JsonObject]:
    from stepwell.cli.span_form import traces_data

    yield traces_data(episode)


class _Lines:
    """Lines of JSON on their way into a file, about a megabyte at a time."""

    def __init__(self, file: IO[bytes], lines_of: Callable[[Episode, History | None], Iterator[JsonObject]]):
        self._file, self._lines_of = file, lines_of
        self._chunk: list[bytes] = []
        self._waiting = 0

    def add(self, episode: Episode, history: History | None) -> int:
        written = 0
        for item in self._lines_of(episode, history):
            line = to_line(item)
            self._chunk.append(line)
            self._waiting += len(line)
            written += len(line)
            if self._waiting >= _CHUNK_BYTES:
                self._flush()
        return written

    def _flush(self) -> None:
        self._file.write(b"".join(self._chunk))
        self._chunk.clear()
        self._waiting = 0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()


async def export_episodes(
    memory: Memory,
    write: WriteEpisode,
    report: ExportReport,
    *,
    partial: bool,
    on_progress: Callable[[int, int], None],
) -> None:
    """Write every episode, in the order in which they began, and count in `report`. With `partial`, what is sound of
    those that are damaged.

    `on_progress(done, total)` is called with numbers of episodes. Raises: `CommandFailed` (one is damaged).
    """
    total = 0
    async for _ in memory.episode_ids():
        total += 1
    every = memory.episode_ids()
    assert isinstance(every, AsyncGenerator)
    async with contextlib.aclosing(every) as episode_ids:
        async for episode_id in episode_ids:
            episode = await _episode(memory, episode_id, report, partial)
            if episode is None:
                continue
            history = await _history(memory, episode, partial)
            report.bytes += await trio.to_thread.run_sync(write, episode, history)
            report.episodes += 1
            report.open_episodes += not episode.is_complete
            report.steps += len(episode.steps)
            on_progress(report.episodes, max(total, report.episodes))


async def _history(memory: Memory, episode: Episode, partial: bool) -> History | None:
    try:
        return await history_of(memory, episode)
    except EpisodeUnavailable:
        if partial:  # it was said of the episode
            return None
        raise


async def _episode(memory: Memory, episode_id: str, report: ExportReport, partial: bool) -> Episode | None:
    try:
        return await memory.get_episode(episode_id)
    except EpisodeUnavailable as error:
        if not partial:
            raise CommandFailed(
                f"episode {episode_id!r} is {error.reason} (`stepwell verify` says where); with --partial "
                "everything that is sound is exported"
            ) from error
    report.damaged.append(episode_id)
    try:
        return await memory.get_episode(episode_id, partial=True)
    except EpisodeUnavailable:  # not even its start
        return None


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
    """Those of the file that is replaced; a new one is for its owner alone, as the memory is."""
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return 0o600


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
