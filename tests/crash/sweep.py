"""Many small cases: shared out to processes, counted, shown on a progress bar, and summed up."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Case = TypeVar("Case")
SHOWN = 5
"""How many places of each kind of violation are told; all of them are counted."""


@dataclass
class Tally:
    """What was seen, by label; what is wrong, how often, and where it can be seen again; the highest figures."""

    cases: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    def violation(self, place: object, what: str) -> None:
        """Count a violation."""
        self.violations[what] += 1
        if len(self.places.setdefault(what, [])) < SHOWN:
            self.places[what].append(str(place))

    def peak(self, label: str, figure: float) -> None:
        """Note a figure of which the highest counts."""
        self.peaks[label] = max(figure, self.peaks.get(label, figure))

    def add(self, other: Tally) -> None:
        """Take over what another process has seen."""
        self.cases += other.cases
        self.seen += other.seen
        self.violations += other.violations
        for what, places in other.places.items():
            self.places[what] = (self.places.get(what, []) + places)[:SHOWN]
        for label, figure in other.peaks.items():
            self.peak(label, figure)

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Tally:
        """What `to_json` of another process gave."""
        counters = {"seen": Counter(known["seen"]), "violations": Counter(known["violations"])}
        return cls(**{**known, **counters})

    @property
    def sound(self) -> bool:
        """Whether there was no violation."""
        return not self.violations


def sweep(
    cases: Sequence[Case],
    work: Callable[[Sequence[Case]], Tally],
    *,
    jobs: int,
    chunk: int = 500,
    total: int | None = None,
) -> Tally:
    """Have every case worked on, in this process (`jobs` = 1) or in several. `total`: what the tallies will add up to,
    if not to the number of cases."""
    chunks = [cases[start : start + chunk] for start in range(0, len(cases), chunk)]
    seen = Tally()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("cases", total=len(cases) if total is None else total)
        for tally in _tallies(chunks, work, jobs):
            seen.add(tally)
            bar.update(task, completed=seen.cases)
    return seen


def _tallies(chunks: list[Sequence[Case]], work: Callable[[Sequence[Case]], Tally], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        logger = logging.getLogger("stepstore")
        level = logger.level
        _quiet()
        try:
            yield from map(work, chunks)
        finally:
            logger.setLevel(level)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet) as pool:
        waiting = [pool.submit(work, chunk) for chunk in chunks]
        for future in as_completed(waiting):
            yield future.result()


def _quiet() -> None:
    """The log warns of every damaged index it meets; here that is every other case."""
    logging.getLogger("stepstore").setLevel(logging.CRITICAL)


def evenly(population: int, count: int, seed: int) -> list[int]:
    """`count` numbers below `population`, one at random from each of as many equal stretches; all where it is fewer."""
    if count >= population:
        return list(range(population))
    dice = random.Random(seed)
    bounds = [n * population // count for n in range(count + 1)]
    return [dice.randrange(low, high) for low, high in itertools.pairwise(bounds)]


def parser_for(name: str, doc: str | None, short: str) -> argparse.ArgumentParser:
    """The options that all sweeps have."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.crash.{name}", description=(doc or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help=short)
    parser.add_argument("--seed", type=int, default=None, help="of the logs and of what is sampled")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")
    return parser


def conclude(name: str, tally: Tally, began: float, *, as_json: bool, **facts: Any) -> int:
    """Print what was seen. The exit status: 1 if there was a violation."""
    seconds = round(time.monotonic() - began, 1)
    wrong = [{"what": what, "count": count, "places": tally.places[what]} for what, count in tally.violations.items()]
    if as_json:
        outcome = {"suite": name, **facts, "cases": tally.cases, "seconds": seconds, "seen": dict(tally.seen)}
        print(json.dumps({**outcome, "peaks": tally.peaks, "sound": tally.sound, "violations": wrong}))
        return 0 if tally.sound else 1
    for label, count in sorted(tally.seen.items()):
        print(f"  {count:>9,}  {label}")
    for label, figure in tally.peaks.items():
        print(f"  {figure:>9.1f}  at most: {label}")
    for what, count in tally.violations.items():
        print(f"VIOLATION, {count:,} times: {what}")
        for place in tally.places[what]:
            print(f"    {place}")
    print(f"{tally.cases:,} cases in {seconds} s, {tally.violations.total():,} violations")
    return 0 if tally.sound else 1
