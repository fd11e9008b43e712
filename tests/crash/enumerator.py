"""The crash enumerator: every image that a power cut may leave of every short workload, opened and judged.

    python -m tests.crash.enumerator [--short | --images N | --all] [--seed N] [--only SETTING:OPERATION,...] [--json]

The exhaustive set: all sequences of at most four operations of the alphabet (`workloads`), each in several settings.
For each, every call of the file layer that its last operation makes is a point of the power cut (what happens before
the last operation belongs to the shorter sequence), and for each point every fate of what is not synced there
(`fates`), and besides the death of the process alone. `--all` visits all of them, the default 200,000 and `--short`
20,000 of them, evenly spread over sequences and points; the seed decides which. An image is opened twice, the second
time after another power cut (`checker`); some are also recovered, appended to, and cut again meanwhile. Images that are
the same byte for byte, with the same promises, are opened once. Exit status 1 if any promise is broken.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from rich.console import Console
from rich.progress import Progress

from tests.crash.exploring import Case, CutAgain, Explorer, Sampler, Tally
from tests.crash.lives import SETTINGS
from tests.crash.repeatable import deterministic
from tests.crash.workloads import MISSING, OPERATIONS, Operation

MOST_OPERATIONS = 4
SHORT, LONG = 20_000, 200_000
IMAGES_PER_WORKLOAD = 16
"""How many images of a workload are visited in a run that does not visit all of them."""
ENOUGH = 5
"""After so many broken promises the run ends."""


def all_cases(operations: Sequence[Operation] = OPERATIONS, most: int = MOST_OPERATIONS) -> list[Case]:
    """Every sequence of at most so many operations, in every setting."""
    return [
        Case(setting, workload)
        for length in range(most + 1)
        for workload in itertools.product(operations, repeat=length)
        for setting in SETTINGS
    ]


@dataclass
class Outcome:
    """A finished run. `exact` tells whether `possible`, the size of the exhaustive set, was counted or estimated."""

    tally: Tally
    cases: int
    possible: int
    exact: bool
    seconds: float


def enumerate_crashes(
    cases: Sequence[Case],
    images: int | None,
    seed: int,
    *,
    cut_again: CutAgain | None = None,
    enough: int = ENOUGH,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Visit so many images, evenly spread over the cases, or all of them."""
    began = time.perf_counter()
    with deterministic() as dice:
        sampler = Sampler(seed)
        explorer = Explorer(seed, dice, sampler, images, cut_again or CutAgain())
        tally = explorer.tally
        chosen = list(cases)
        if images is not None:
            chosen = spread(cases, max(images // IMAGES_PER_WORKLOAD, 1), seed)
            sampler.step = IMAGES_PER_WORKLOAD
        for number, case in enumerate(chosen):
            if images is not None and number:
                to_come = tally.possible / number * (len(chosen) - number)
                sampler.step = to_come / max(images - tally.images, 1)
            explorer.explore(case)
            on_progress(number + 1, len(chosen))
            if len(tally.broken) >= enough:
                break
        else:
            visited = set(map(str, chosen))
            more = Random(seed)
            while images is not None and tally.images < images and tally.workloads < len(cases):
                if str(case := more.choice(cases)) not in visited:  # the estimates were a few images off
                    visited.add(str(case))
                    explorer.explore(case)
    exact = tally.workloads == len(cases)
    possible = tally.possible if exact else round(tally.possible / tally.workloads * len(cases))
    return Outcome(tally, len(cases), possible, exact, time.perf_counter() - began)


def spread(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """So many of the cases, one at random from each of as many equal parts; all of them if there are no more."""
    if count >= len(cases):
        return list(cases)
    dice = Random(seed)
    edges = [len(cases) * n // count for n in range(count + 1)]
    return [cases[dice.randrange(start, end)] for start, end in itertools.pairwise(edges)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 if any promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.enumerator", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--short", action="store_true", help=f"{SHORT:,} images")
    parser.add_argument("--images", type=int, default=LONG, help="so many images (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="the whole exhaustive set")
    parser.add_argument("--seed", type=int, default=1, help="which images (default: %(default)s)")
    parser.add_argument("--only", metavar="SETTING:OPERATION,...", help="all images of this one workload")
    parser.add_argument("--keep-going", action="store_true", help=f"also after {ENOUGH} broken promises")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    options = parser.parse_args(arguments)
    cases = [Case.parse(options.only)] if options.only else all_cases()
    images = None if options.all or options.only else SHORT if options.short else options.images
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("workloads")
        outcome = enumerate_crashes(
            cases,
            images,
            options.seed,
            enough=sys.maxsize if options.keep_going else ENOUGH,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    tally = outcome.tally
    if options.json:
        figures = {
            "suite": "crash enumerator",
            "seed": options.seed,
            "images": tally.images,
            "distinct": tally.distinct,
            "cut_again": tally.cut_again,
            "possible": outcome.possible,
            "possible_is_exact": outcome.exact,
            "workloads": tally.workloads,
            "possible_workloads": outcome.cases,
            "operations": [operation.name for operation in OPERATIONS],
            "operations_missing": list(MISSING),
            "settings": [setting.name for setting in SETTINGS],
            "seen": dict(tally.seen),
            "violations": tally.broken,
            "seconds": round(outcome.seconds, 2),
        }
        print(json.dumps(figures, indent=2))
    else:
        report(outcome, options.seed)
    return 1 if tally.broken else 0


def report(outcome: Outcome, seed: int) -> None:
    """Print what a run has seen."""
    tally = outcome.tally
    print(f"crash enumerator, seed {seed}; operations: {', '.join(operation.name for operation in OPERATIONS)}")
    if MISSING:
        print(f"not in the journal yet, so left out: {', '.join(MISSING)}")
    print(
        f"{tally.workloads:,} of {outcome.cases:,} workloads (all of at most {MOST_OPERATIONS} operations in "
        f"{len(SETTINGS)} settings)"
    )
    print(
        f"{tally.images:,} of {'' if outcome.exact else 'about '}{outcome.possible:,} images, {tally.distinct:,} "
        f"distinct; {tally.cut_again:,} more from cutting again during recovery"
    )
    print("among the distinct: " + ", ".join(f"{what} {count:,}" for what, count in sorted(tally.seen.items())))
    for text in tally.broken:
        print(f"BROKEN {text}")
    each = outcome.seconds / max(tally.images, 1) * 1000
    print(f"{len(tally.broken)} promises broken; {outcome.seconds:.1f} s, {each:.2f} ms an image")


if __name__ == "__main__":
    sys.exit(main())
