"""What became of the files of an import."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

PROBLEMS_KEPT = 100
"""How many bad lines of a file are reported one by one; all are counted."""


class Problem(msgspec.Struct, frozen=True):
    """A line that was not imported, and why. `line` is 0 where it is known of an episode only."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.reason}"


class FileReport(msgspec.Struct, kw_only=True):
    """What became of one file. `changes`: of how episodes are organised; `present`: events that the memory held
    already."""

    file: str
    episodes: int = 0
    steps: int = 0
    endings: int = 0
    changes: int = 0
    present: int = 0
    bad_lines: int = 0
    problems: list[Problem] = []
    unreadable: str | None = None

    @property
    def added(self) -> int:
        """How many events were stored."""
        return self.episodes + self.steps + self.endings + self.changes

    def refuse(self, line: int, reason: Exception) -> Problem:
        """Count a bad line, and keep it if there are not too many already."""
        problem = Problem(self.file, line, " ".join(str(reason).split()))
        self.bad_lines += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)
        return problem


OnProblem = Callable[[Problem], None]
OnProgress = Callable[[FileReport, int], None]
