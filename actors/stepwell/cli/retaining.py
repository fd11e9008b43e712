"""`stepwell retain`: delete episodes by age, outcome, reward and number."""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

from stepwell import RetentionPolicy, RetentionReport
from stepwell.cli.options import opened
from stepwell.cli.output import confirmed, count_text, print_json, printable, progress_bar, stdout_console
from stepwell.cli.waiting import answered

_SHOWN = 10
_ONE_CALL = 1_000
"""Episodes that are deleted before the bar goes on."""


def run_retain(policy: RetentionPolicy, directory: Path, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Say who is to go, ask, and delete them. Raises: `InvalidInput`; `CommandFailed` (it is not wanted)."""

    async def main() -> RetentionReport:
        # Looked at beside whoever writes, so that nobody is kept from writing while somebody reads the question.
        async with opened(directory) as memory:
            report = await answered(memory, lambda: memory.retain(policy, dry_run=True, limit=2**31), quiet=as_json)
        if dry_run or not report.episodes:
            return msgspec.structs.replace(report, dry_run=dry_run)
        confirmed(f"Deletes for good {_described(report, directory)}", yes=yes, as_json=as_json)
        gone = []
        async with opened(directory, to_write=True) as memory:
            with progress_bar(quiet=as_json) as progress:
                task = progress.add_task("deleting", total=len(report.episodes))
                while True:
                    done = await memory.retain(policy, limit=_ONE_CALL, actor="stepwell retain")
                    gone += done.episodes
                    progress.update(task, completed=len(gone))
                    if not done.has_more:
                        return msgspec.structs.replace(done, episodes=gone)

    report = trio.run(main)
    if as_json:
        print_json({**msgspec.to_builtins(report), "counts": report.counts})
        return
    if not report.episodes:
        text = f"nothing to delete: {count_text(report.kept, 'episode')} of {directory} are kept"
    elif dry_run:
        text = f"would delete {_described(report, directory)}"
    else:
        text = (
            f"deleted {count_text(len(report.episodes), 'episode')} of {directory}; {report.kept:,} are left\n"
            "  their bytes stay in the log until it is compacted"
        )
    stdout_console().print(text, soft_wrap=True, markup=False, highlight=False)


def _described(report: RetentionReport, directory: Path) -> str:
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in report.counts.items())
    lines = [f"{count_text(len(report.episodes), 'episode')} of {directory} ({counts}); {report.kept:,} are left"]
    for item in report.episodes[:_SHOWN]:
        reward = "" if item.reward is None else f", reward {item.reward:.2f}"
        last = f"last event {item.last_time:%Y-%m-%d %H:%M} UTC"
        lines.append(f"  {printable(item.episode_id, 80)}  {item.outcome}{reward}, {last}")
    if len(report.episodes) > _SHOWN:
        lines.append(f"  … and {len(report.episodes) - _SHOWN:,} more")
    return "\n".join(lines)
