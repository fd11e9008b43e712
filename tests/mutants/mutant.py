"""A mutant: one thing of the product switched off on purpose, and the tests that must notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOG = "storage/stepstore/log/"


class StaleError(Exception):
    """The source no longer reads as the mutant thinks it does: the mutant has to be written anew."""


@dataclass(frozen=True)
class Change:
    """In `file`, which is relative to the root of the tree, `old` becomes `new`; `old` must be there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """`name`: what is switched off, behind the row, promise or part it belongs to. `tests`: a file or directory of
    tests, and `only` the `-k` expression that picks those which must notice. `short`: whether it runs in CI."""

    name: str
    changes: tuple[Change, ...]
    tests: str
    only: str
    short: bool = False

    @property
    def part(self) -> str:
        """What the mutant belongs to: "row 4", "promise 2", "footer" …"""
        return self.name.partition(":")[0]


def mutant(name: str, file: str, old: str, new: str, tests: str, only: str, *, short: bool = False) -> Mutant:
    """A mutant of one change. A `file` without a directory is one of the log."""
    return several(name, [(file, old, new)], tests, only, short=short)


def several(
    name: str, changes: Iterable[tuple[str, str, str]], tests: str, only: str, *, short: bool = False
) -> Mutant:
    """A mutant of several changes, as (file, old, new)."""
    made = tuple(Change(file if "/" in file else LOG + file, old, new) for file, old, new in changes)
    return Mutant(name, made, tests, only, short)


def changed_text(root: Path, change: Change) -> str:
    """The whole file with the change made. Raises: `StaleError`."""
    path = root / change.file
    if not path.is_file():
        raise StaleError(f"{change.file} is not there")
    text = path.read_text(encoding="utf-8")
    found = text.count(change.old)
    if found != 1:
        raise StaleError(f"{change.file} holds its text {found} times instead of once: {change.old.strip()[:80]!r}")
    made = text.replace(change.old, change.new)
    if made == text:
        raise StaleError(f"it changes nothing in {change.file}")
    try:
        compile(made, change.file, "exec")
    except SyntaxError as error:
        raise StaleError(f"{change.file} is no Python any more: {error}") from error
    return made


def why_stale(root: Path, mutant: Mutant) -> str | None:
    """Why a mutant cannot be made of the tree at `root`, None if it can."""
    try:
        for change in mutant.changes:
            changed_text(root, change)
    except StaleError as error:
        return str(error)
    return None


def matching(mutants: Sequence[Mutant], pattern: str | None, *, short: bool) -> list[Mutant]:
    """Those whose name matches the regular expression, and, with `short`, that are meant for CI."""
    wanted = re.compile(pattern or "", re.IGNORECASE)
    return [mutant for mutant in mutants if wanted.search(mutant.name) and (mutant.short or not short)]
