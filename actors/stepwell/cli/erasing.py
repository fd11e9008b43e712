"""`stepwell delete` and `stepwell compact`: take episodes out of a memory, and give back their space."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from stepwell import CompactionReport, DeletionReport, Memory
from stepwell.cli.options import opened
from stepwell.cli.output import (
    CommandFailed,
    confirmed,
    count_text,
    print_json,
    printable,
    progress_bar,
    stdout_console,
)
from stepwell.errors import EpisodeUnavailable

if TYPE_CHECKING:
    from rich.text import Text

_SHOWN = 10


def run_delete(episode_ids: Sequence[str], directory: Path, *, purge: bool, yes: bool, as_json: bool) -> None:
    """Delete episodes of the memory in a directory, after asking.

    Raises: `NotFound` before anything is deleted; `CommandFailed` (it is not wanted, or the purge proves nothing).
    """
    wanted = list(dict.fromkeys(episode_ids))

    async def main() -> CompactionReport | None:
        # Looked at beside whoever writes, so that nobody is kept from writing while somebody reads the question.
        async with opened(directory) as memory:
            described = [await _described(memory, episode_id) for episode_id in wanted]
        confirmed(_question(described, directory, purge), yes=yes, as_json=as_json)
        async with opened(directory, to_write=True) as memory:
            for episode_id in wanted:
                await memory.delete_episode(episode_id, actor="stepwell delete")
            return await _compacted(memory, purge=True, quiet=as_json) if purge else None

    report = trio.run(main)
    _refuse_unproven(report)
    if as_json:
        print_json({"deleted": wanted, "purge": None if report is None else dataclasses.asdict(report)})
        return
    from rich.text import Text

    text = Text().append("deleted", style="bold green")
    text.append(f" {count_text(len(wanted), 'episode')} of {directory}")
    if report is not None:
        text.append("\n").append_text(report_text(report))
    else:
        text.append(
            "\n  their bytes stay in the log until it is compacted; `stepwell compact --purge` removes them",
            style="dim",
        )
    stdout_console().print(text, soft_wrap=True)


def run_compact(directory: Path, *, purge: bool, yes: bool, as_json: bool) -> None:
    """Compact the memory in a directory; a purge asks first. Raises: `CommandFailed`, as `Memory.compact`."""
    if purge:
        question = (
            f"Rewrites every file of {directory} that holds something of a deleted episode, and removes what was set "
            "aside of one. What is gone then is gone."
        )
        confirmed(question, yes=yes, as_json=as_json)

    async def main() -> CompactionReport:
        async with opened(directory, to_write=True) as memory:
            return await _compacted(memory, purge=purge, quiet=as_json)

    report = trio.run(main)
    _refuse_unproven(report)
    if as_json:
        print_json({"dir": str(directory), **dataclasses.asdict(report)})
    else:
        stdout_console().print(report_text(report), soft_wrap=True)
    if report.left_alone:
        raise SystemExit(1)


async def _compacted(memory: Memory, *, purge: bool, quiet: bool) -> CompactionReport:
    """Compact, with a sign of life: how much there is to do shows only while it is done."""
    with progress_bar(quiet=quiet) as progress:
        progress.add_task("purging" if purge else "compacting", total=None)
        return await memory.compact(purge=purge)


async def _described(memory: Memory, episode_id: str) -> str:
    """An episode in a line, so that somebody can see that it is the one meant. Raises: `NotFound`."""
    try:
        episode = await memory.get_episode(episode_id)
    except EpisodeUnavailable as error:
        return f"{printable(episode_id, 200)}  ({error.reason})"
    return (
        f"{printable(episode_id, 200)}  {episode.status}, {count_text(len(episode.steps), 'step')}, "
        f"{episode.start_time:%Y-%m-%d %H:%M}  {printable(episode.task_description, 80)}"
    )


def _question(described: Sequence[str], directory: Path, purge: bool) -> str:
    lines = [f"Deletes {count_text(len(described), 'episode')} of {directory} for good:"]
    lines += [f"  {line}" for line in described[:_SHOWN]]
    if len(described) > _SHOWN:
        lines.append(f"  … and {len(described) - _SHOWN:,} more")
    if purge:
        lines.append("Their bytes, and those of all that were deleted before, are removed from every file at once.")
    return "\n".join(lines)


def _refuse_unproven(report: CompactionReport | None) -> None:
    if isinstance(report, DeletionReport) and not report.is_proven:
        left = [*report.found, *report.unreadable]
        raise CommandFailed(
            f"the purge cannot prove that nothing is left: {', '.join(map(str, left[:_SHOWN]))}",
            report=dataclasses.asdict(report),
        )


def report_text(report: CompactionReport) -> Text:
    """What a compaction or a purge did, for people."""
    from rich.text import Text

    text = Text().append("compacted", style="bold green")
    saved = report.bytes_before - report.bytes_after
    text.append(
        f"  {count_text(report.files_rewritten, 'file')} into {report.files_written:,}: "
        f"{count_text(report.streams_removed, 'deleted episode')} and {count_text(report.records_removed, 'record')} "
        f"left out, {count_text(max(0, saved), 'byte')} given back",
    )
    for path in report.left_alone:
        text.append(f"\n  ✗ {printable(path, 500)} is damaged and was left alone", style="red")
    if isinstance(report, DeletionReport):
        text.append("\n  proven", style="bold green")
        text.append(
            f"  nothing of {count_text(report.streams_purged, 'deleted episode')} is left: "
            f"{count_text(report.files_checked, 'file')} with {count_text(report.batches_checked, 'batch')} decoded, "
            f"{count_text(report.bytes_searched, 'byte')} searched for {count_text(report.samples, 'piece')} of them",
        )
        for path in (*report.quarantine_removed, *report.salvaged_removed):
            text.append(f"\n  · removed {printable(path, 500)}")
        for place in report.out_of_reach:
            text.append(f"\n  · not looked at: {printable(place, 500)}", style="dim")
    return text
