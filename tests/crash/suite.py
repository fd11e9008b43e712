"""What the commands of the crash suites on real media share: arguments, progress, the summary, the exit status."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.crash.children import ChildFailedError
from tests.crash.media import Skipped

ENOUGH = 10


class EnoughViolationsError(Exception):
    """More of them would tell nothing new."""


@dataclass
class Result:
    """What a run came to. `figures` go into the summary as they are; a run is sound if nothing is in `violations`."""

    figures: dict[str, int | float | str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a figure."""
        before = self.figures.get(name, 0)
        assert isinstance(before, int)
        self.figures[name] = before + by

    def add(self, other: Result) -> None:
        """Add what another part of the run came to."""
        for name, value in other.figures.items():
            assert isinstance(value, int)
            self.count(name, value)
        self.violations += other.violations

    def violate(self, text: str) -> None:
        """Take note of a violation, and say so at once. Raises: `EnoughViolationsError` at the tenth."""
        self.violations.append(text)
        print(f"VIOLATION: {text}", file=sys.stderr, flush=True)
        if len(self.violations) >= ENOUGH:
            raise EnoughViolationsError


class Steps:
    """Counts rounds, with a bar where somebody watches: `with Steps("power cuts", 200) as steps: … steps.advance()`."""

    def __init__(self, name: str, total: int):
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(name, total=total)

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)


def parser(module: str, text: str, *, unit: str, short: int, long: int) -> argparse.ArgumentParser:
    """The arguments that every suite takes."""
    made = argparse.ArgumentParser(prog=f"python -m tests.crash.{module}", description=text.splitlines()[0])
    made.add_argument("--short", action="store_true", help=f"{short:,} {unit} instead of {long:,}")
    made.add_argument(f"--{unit}", dest="count", type=int, default=None, help=f"that many {unit}")
    made.add_argument("--seed", type=int, default=None, help="repeat the choices of an earlier run")
    made.add_argument("--json", action="store_true", help="print the summary as JSON")
    made.set_defaults(unit=unit, short_count=short, long_count=long)
    return made


def run(name: str, options: argparse.Namespace, body: Callable[[argparse.Namespace, Result], None]) -> int:
    """Run a suite; gives the exit status: 1 if anything was violated, 0 otherwise, also where it could not run.

    `options.count` and `options.seed` are set when `body` is called.
    """
    if options.count is None:
        options.count = options.short_count if options.short else options.long_count
    if options.seed is None:
        options.seed = random.randrange(2**32)
    signal.signal(signal.SIGTERM, _terminate)
    result = Result()
    began = time.monotonic()
    summary: dict[str, Any] = {"suite": name, options.unit: options.count, "seed": options.seed}
    if not options.json:
        print(f"{name}: {options.count:,} {options.unit}, seed {options.seed}", flush=True)
    try:
        body(options, result)
    except Skipped as reason:
        summary["skipped"] = str(reason)
        print(f"SKIPPED: {name}: {reason}", file=sys.stderr if options.json else sys.stdout)
    except ChildFailedError as error:
        result.violations.append(str(error))
        print(f"VIOLATION: {error}", file=sys.stderr)
    except EnoughViolationsError:
        print("given up after so many violations", file=sys.stderr)
    summary |= result.figures
    summary |= {"seconds": round(time.monotonic() - began, 1), "violations": result.violations}
    if options.json:
        print(json.dumps(summary))
    elif "skipped" not in summary:
        _print_summary(result, summary["seconds"], options.seed)
    return 1 if result.violations else 0


def _print_summary(result: Result, seconds: float, seed: int) -> None:
    for figure, value in result.figures.items():
        print(f"  {figure.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"  {figure}: {value}")
    if result.violations:
        print(f"{len(result.violations)} VIOLATIONS, seed {seed}, {seconds} s")
    else:
        print(f"0 violations, {seconds} s")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that every `finally` runs


def seeded(options: argparse.Namespace, *what: object) -> random.Random:
    """A generator for one part of a run, so that one part's choices do not move those of another."""
    return random.Random("/".join(map(str, (options.seed, *what))))


Arguments = Sequence[str] | None
