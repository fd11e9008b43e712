"""`stepwell salvage`: write a new log from what is sound in a damaged one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stepwell.cli.output import CommandFailed, count_text, print_json, printable, progress_bar, stdout_console
from stepwell.cli.payloads import describe_payload, stream_name

if TYPE_CHECKING:
    from rich.text import Text

    from stepstore.log.salvage_report import SalvageReport

SHOWN = 20
"""Damaged places, and streams that are not whole, that are printed; the reports have all of them."""


def run_salvage(source: Path, target: Path, *, key_file: Path | None, yes: bool, as_json: bool) -> bool:
    """Salvage the log in `source` into `target` and print what became of it; whether nothing is lost.

    Raises: `CommandFailed` if the person at the terminal does not want it.
    """
    from stepstore.log.key_provider import LocalKeyProvider
    from stepstore.log.opening import LogOptions
    from stepstore.log.salvage import salvage_log

    provider = None if key_file is None else LocalKeyProvider.from_file(key_file)
    if not yes and not as_json and _is_terminal():
        click.echo(_question(source, target), err=True)
        if not click.confirm("Go on?", default=True, err=True):
            raise CommandFailed("nothing was written")
    with progress_bar(bytes_unit=True, quiet=as_json) as progress:
        task = progress.add_task("salvaging", total=None)
        report = salvage_log(
            str(source.resolve()),
            str(target.resolve()),
            lambda done, total: progress.update(task, completed=done, total=total),
            options=LogOptions(key_provider=provider),
            describe=describe_payload,
            name=stream_name,
        )
    if as_json:
        print_json(report.fields())
    else:
        stdout_console().print(report_text(report), soft_wrap=True)
    return not report.lost


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _question(source: Path, target: Path) -> str:
    size = sum(path.stat().st_size for path in source.glob("*.seg"))
    above = next(folder for folder in (target.resolve(), *target.resolve().parents) if folder.exists())
    room = shutil.disk_usage(above).free
    return (
        f"Reads {source} ({size / 2**20:,.1f} MiB of segments), which stays as it is, and writes a new log to {target} "
        f"({room / 2**20:,.1f} MiB free there)."
    )


def report_text(report: SalvageReport) -> Text:
    """A report for people: what REPORT.txt says, without its long lists."""
    from rich.text import Text

    text = Text()
    if report.lost:
        text.append("INCOMPLETE", style="bold red")
    else:
        text.append("complete", style="bold green")
    text.append(
        f"  {count_text(report.kept_records, 'record')} in {count_text(report.kept_streams, 'stream')} are in the new "
        f"log {report.target}"
    )
    if report.behind_records:
        text.append(f"\n  {count_text(report.behind_records, 'record')} behind a hole went to salvaged/*.jsonl in it")
    for place in report.places[:SHOWN]:
        text.append("\n  ✗ " if place.lost else "\n  · ", style="red" if place.lost else "dim")
        text.append(printable(str(place), 2_000))
    if len(report.places) > SHOWN:
        text.append(f"\n    … and {len(report.places) - SHOWN:,} more damaged places")
    for stream in report.streams[:SHOWN]:
        text.append("\n  ✗ ", style="red").append(printable(str(stream), 2_000))
    if len(report.streams) > SHOWN:
        text.append(f"\n    … and {len(report.streams) - SHOWN:,} more streams that are not whole")
    for note in report.notes:
        text.append("\n  · ", style="dim").append(printable(note, 2_000))
    text.append(f"\n  the whole list: {report.target}/salvaged/REPORT.txt, and REPORT.json for programs")
    return text
