"""What a run over mutants came to, for people and as JSON, and how far it is while it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.mutants.mutant import Mutant
from tests.mutants.trial import Verdict


class Watching:
    """Progress on stderr: a bar where somebody watches, else a line per mutant."""

    def __init__(self, total: int):
        console = Console(stderr=True)
        columns = (TextColumn("mutants"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._has_bar = console.is_terminal
        self._progress = Progress(*columns, console=console, transient=True, disable=not self._has_bar)
        self._total, self._done = total, 0
        self._task = self._progress.add_task("mutants", total=total)

    def __enter__(self) -> Watching:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def note(self, verdict: Verdict) -> None:
        """One more was tried."""
        self._done += 1
        self._progress.advance(self._task)
        line = f"{self._done}/{self._total} {verdict.fate} {verdict.mutant.name}"
        if not verdict.is_good:
            self._progress.console.print(line, markup=False, highlight=False)
        elif not self._has_bar:
            print(line, file=sys.stderr, flush=True)


def print_table(verdicts: Sequence[Verdict], stale: Sequence[tuple[Mutant, str]], seconds: float) -> None:
    """Each mutant with the test that killed it, then those that are not as they should be, then the sum."""
    for verdict in verdicts:
        print(f"{verdict.seconds:6.1f} s  {verdict.fate:8}  {verdict.mutant.name}")
        if verdict.by:
            late = "  (not one of the tests named with the mutant)" if verdict.late else ""
            print(f"                    by {verdict.by}{late}")
    bad = [verdict for verdict in verdicts if not verdict.is_good]
    if bad:
        print("\nnot noticed by any test, or not testable:")
        for verdict in bad:
            print(f"  {verdict.fate:8}  {verdict.mutant.name}  {verdict.by}")
    if stale:
        print("\nstale, to be written anew:")
        for mutant, why in stale:
            print(f"  {mutant.name}\n      {why}")
    fates = [verdict.fate for verdict in verdicts]
    counts = ", ".join(f"{fates.count(fate)} {fate}" for fate in dict.fromkeys(fates))
    print(f"\n{len(verdicts)} mutants tried: {counts or 'none'}; {len(stale)} stale; {seconds:.0f} s")


def summary(verdicts: Sequence[Verdict], stale: Sequence[tuple[Mutant, str]], seconds: float) -> dict[str, Any]:
    """The same as JSON can hold it."""
    return {
        "mutants": [
            {
                "name": verdict.mutant.name,
                "fate": verdict.fate,
                "by": verdict.by,
                "late": verdict.late,
                "seconds": round(verdict.seconds, 2),
            }
            for verdict in verdicts
        ],
        "stale": [{"name": mutant.name, "why": why} for mutant, why in stale],
        "good": not stale and all(verdict.is_good for verdict in verdicts),
        "seconds": round(seconds, 1),
    }
