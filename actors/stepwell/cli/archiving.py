"""`stepwell backup` and `stepwell restore`: a checked copy of a memory, and a memory made of one."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.cli.output import count_text, print_json, printable, progress_bar, stdout_console

if TYPE_CHECKING:
    from stepstore.journal import ArchiveReport


def run_backup(directory: Path, target: Path, *, as_json: bool) -> None:
    """Copy the memory in a directory into an archive and print what is in it.

    Raises: `NotFound`, `LogLocked`, and as `Memory.backup`.
    """
    import trio

    from stepwell.cli.options import opened

    async def main() -> ArchiveReport:
        async with opened(directory, to_write=True) as memory, trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            report = await memory.backup(target)
            nursery.cancel_scope.cancel()
            return report

    with progress_bar(bytes_unit=True, quiet=as_json) as progress:
        task = progress.add_task("copying", total=segment_bytes(directory))

        async def watch() -> None:
            while True:
                progress.update(task, completed=segment_bytes(target))
                await trio.sleep(0.2)

        report = trio.run(main)
    _print("backed up to", report, as_json=as_json)


def run_archive(directory: Path, target: Path, *, as_json: bool) -> None:
    """Copy the finished files of the memory in a directory, beside whoever writes, and print what is in the copy.

    Raises: as `archive_finished`.
    """
    from stepstore.log.archive import archive_finished
    from stepwell.cli.options import must_hold_a_memory

    must_hold_a_memory(directory)
    with progress_bar(bytes_unit=True, quiet=as_json) as progress:
        task = progress.add_task("copying", total=None)
        report = archive_finished(
            str(directory.resolve()),
            str(target.resolve()),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    _print("archived to", report, as_json=as_json)


def segment_bytes(directory: Path) -> int:
    """How large the segments in a directory are, 0 if it is not there: what a bar can tell of a copy being made."""
    total = 0
    for path in directory.glob("*.seg"):
        with contextlib.suppress(FileNotFoundError):  # compacted away just now
            total += path.stat().st_size
    return total


def run_restore(source: Path, target: Path, *, as_json: bool) -> None:
    """Make a memory of an archive and print what is in it. Raises: as `restore_archive`."""
    from stepstore.log.archive import restore_archive

    with progress_bar(bytes_unit=True, quiet=as_json) as progress:
        task = progress.add_task("restoring", total=None)
        report = restore_archive(
            str(source.resolve()),
            str(target.resolve()),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    _print("restored to", report, as_json=as_json)


def _print(done: str, report: ArchiveReport, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    from rich.text import Text

    text = Text(done, style="bold green")
    text.append(
        f" {report.path}: {count_text(report.records, 'record')} up to LSN {report.end_lsn:,} in "
        f"{count_text(report.files, 'file')}, {count_text(report.bytes, 'byte')}, every one compared",
        style="not bold default",
    )
    for note in report.notes:
        text.append(f"\n  · {printable(note, 2_000)}", style="not bold default")
    stdout_console().print(text, soft_wrap=True)
