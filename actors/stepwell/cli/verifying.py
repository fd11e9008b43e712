"""`stepwell verify`: read every byte of a log and say whether it is what was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.cli.options import must_hold_a_memory
from stepwell.cli.output import count_text, print_json, printable, progress_bar, stdout_console
from stepwell.cli.payloads import stream_name

if TYPE_CHECKING:
    from rich.text import Text

    from stepstore.log.verify_report import VerifyReport


def run_verify(directory: Path, *, as_json: bool) -> bool:
    """Verify the log in a directory and print what was found; whether it is sound."""
    must_hold_a_memory(directory)
    report = verify_directory(directory, quiet=as_json)
    if as_json:
        print_json(report_fields(directory, report))
    else:
        stdout_console().print(report_text(directory, report), soft_wrap=True)
    return not report.problems


def verify_directory(directory: Path, *, quiet: bool) -> VerifyReport:
    """Verify the log in a directory, beside a living writer or without one; nothing is changed."""
    from stepstore.log.verify import verify_log

    with progress_bar(bytes_unit=True, quiet=quiet) as progress:
        task = progress.add_task("verifying", total=None)
        return verify_log(
            str(directory),
            lambda done, total: progress.update(task, completed=done, total=total),
            name=stream_name,
        )


def report_fields(directory: Path, report: VerifyReport) -> dict[str, Any]:
    """A report for programs."""
    return {"dir": str(directory), "ok": not report.problems, **dataclasses.asdict(report)}


def report_text(directory: Path, report: VerifyReport) -> Text:
    """A report for people."""
    from rich.text import Text

    text = Text()
    if report.problems:
        text.append("DAMAGED", style="bold red")
    else:
        text.append("sound", style="bold green")
    text.append(
        f"  {directory}: {count_text(report.segments, 'segment')}, {count_text(report.frames, 'frame')}, "
        f"{count_text(report.records, 'record')} in {count_text(report.streams, 'stream')}, "
        f"{count_text(report.bytes, 'byte')}"
    )
    for problem in report.problems:
        text.append("\n  ✗ ", style="red").append(printable(str(problem), 4_000))
    for note in report.notes:
        text.append("\n  · ", style="dim").append(printable(note, 2_000))
    if report.live_tail is not None:
        text.append("\n  · not judged: ", style="dim").append(printable(report.live_tail, 2_000))
    return text
