"""The command around the importer: files checked first, a progress bar, bad lines as they come."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from stepwell import default_redactor, open_memory
from stepwell.cli.importing.importer import import_files, refuse_files_without_events
from stepwell.cli.importing.report import FileReport, Problem
from stepwell.cli.importing.spans import Converted, with_spans_converted
from stepwell.cli.options import memory_config
from stepwell.cli.output import CommandFailed, count_text, duration_text, print_json, progress_bar
from stepwell.model.redaction import Redaction

PROBLEMS_SHOWN = 20
"""Bad lines of one file that are printed one by one; `--json` gives more, and both give the count."""


def run_import(paths: list[Path], directory: Path, *, strict: bool, redact: bool, as_json: bool) -> None:
    """Import the files into the memory in `directory`; with `redact` without what looks like a secret.

    Raises:
        CommandFailed: a file is not to be imported at all (before anything is stored), could not be read to its end,
            or, with `strict`, holds a bad line.
    """
    began = time.perf_counter()
    with with_spans_converted(paths, strict=strict) as converted:
        refuse_files_without_events(converted.paths)
        redaction = Redaction(default_redactor) if redact else None
        reports = trio.run(_import, converted, directory, strict, redaction, as_json)
        converted.name_originals(reports)
    seconds = time.perf_counter() - began
    failure = _failure(reports, strict)
    if as_json:
        fields = _fields(reports, directory, seconds)
        if redaction is not None:
            fields["redacted"] = redaction.count
        if failure is not None:
            raise CommandFailed(failure, **fields)
        print_json(fields)
        return
    for report in reports:
        click.echo(_summary(report))
    if len(reports) > 1:
        total = sum(report.added for report in reports)
        click.echo(f"{count_text(total, 'event')} added to {directory} in {duration_text(seconds)}")
    if redaction is not None:
        click.echo(f"{count_text(redaction.count, 'text')} redacted")
    if failure is not None:
        raise CommandFailed(failure)


async def _import(
    converted: Converted, directory: Path, strict: bool, redaction: Redaction | None, as_json: bool
) -> list[FileReport]:
    paths = converted.paths
    shown: Counter[str] = Counter()
    with progress_bar(bytes_unit=True, quiet=as_json) as progress:

        def on_problem(problem: Problem) -> None:
            shown[problem.file] += 1
            if as_json or strict or shown[problem.file] > PROBLEMS_SHOWN:
                return
            progress.console.print(str(converted.named(problem)), markup=False, soft_wrap=True, style="yellow")

        bars = {str(path): progress.add_task(path.name, total=path.stat().st_size) for path in paths}

        def on_progress(report: FileReport, position: int) -> None:
            progress.update(bars[report.file], completed=position)

        async with open_memory(directory, config=memory_config()) as memory:
            reports = await import_files(
                memory, paths, strict=strict, on_problem=on_problem, on_progress=on_progress, redaction=redaction
            )
    return reports


def _failure(reports: list[FileReport], strict: bool) -> str | None:
    for report in reports:
        if report.unreadable is not None:
            return f"{report.file}: {report.unreadable}. What came before is imported."
        if strict and report.bad_lines:
            first = min(report.problems, key=lambda problem: problem.line)
            return f"stopped at a bad line: {first}. What came before is imported."
    return None


def _summary(report: FileReport) -> str:
    parts = [count_text(report.episodes, "episode"), count_text(report.steps, "step")]
    text = f"{report.file}: added {', '.join(parts)}, {count_text(report.endings, 'ending')}"
    if report.present:
        text += f"; {count_text(report.present, 'event')} there already"
    if report.bad_lines:
        hidden = report.bad_lines - PROBLEMS_SHOWN
        text += f"; skipped {count_text(report.bad_lines, 'bad line')}"
        text += f" ({hidden:,} of them not shown)" if hidden > 0 else ""
    return text


def _fields(reports: list[FileReport], directory: Path, seconds: float) -> dict[str, Any]:
    return {
        "dir": str(directory),
        "files": [msgspec.to_builtins(report) for report in reports],
        "episodes": sum(report.episodes for report in reports),
        "steps": sum(report.steps for report in reports),
        "endings": sum(report.endings for report in reports),
        "present": sum(report.present for report in reports),
        "added": sum(report.added for report in reports),
        "bad_lines": sum(report.bad_lines for report in reports),
        "seconds": round(seconds, 3),
    }
