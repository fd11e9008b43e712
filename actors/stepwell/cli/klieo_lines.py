"""`stepwell export --format klieo` and `stepwell import --format klieo`."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import trio

from stepwell import klieo, open_memory
from stepwell.cli.exporting import output_file
from stepwell.cli.options import memory_config, opened
from stepwell.cli.output import count_text, print_json

_CHUNK_LINES = 1_000


def run_export_klieo(out: str, directory: Path, *, as_json: bool) -> None:
    """Export the runs and threads of a memory, and say how many lines they are."""
    lines = trio.run(_export, out, directory)
    if as_json:
        print_json({"out": out, "lines": lines}, to_stderr=out == "-")
    else:
        click.echo(f"exported {count_text(lines, 'line')} to {'standard output' if out == '-' else out}", err=True)


async def _export(out: str, directory: Path) -> int:
    count = 0
    chunk: list[str] = []
    async with opened(directory) as memory:
        with output_file(out) as file:
            async for line in klieo.export_lines(memory):
                chunk.append(line + "\n")
                count += 1
                if len(chunk) >= _CHUNK_LINES:
                    await trio.to_thread.run_sync(file.write, "".join(chunk).encode())
                    chunk = []
            await trio.to_thread.run_sync(file.write, "".join(chunk).encode())
    return count


def run_import_klieo(files: Sequence[Path], directory: Path, *, as_json: bool) -> None:
    """Import files of klieo's lines, and say what was done."""
    done = trio.run(_import, files, directory)
    if as_json:
        print_json(msgspec.to_builtins(done))
        return
    known = f", {done.known:,} of them there already" if done.known else ""
    events, messages = count_text(done.events, "event"), count_text(done.messages, "message")
    click.echo(f"imported {events} and {messages} from {count_text(done.lines, 'line')}{known}", err=True)


async def _import(files: Sequence[Path], directory: Path) -> klieo.ImportedLines:
    total = klieo.ImportedLines()
    async with open_memory(directory, config=memory_config()) as memory:
        for path in files:
            with _lines(path) as lines:
                done = await klieo.import_lines(memory, lines)
            for name in done.__struct_fields__:
                setattr(total, name, getattr(total, name) + getattr(done, name))
    return total


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file; `-` is stdin, a name ending in `.gz` is compressed."""
    if str(path) == "-":
        yield iter(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape", newline="\n"))
    elif path.name.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            yield iter(file)
    else:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            yield iter(file)
