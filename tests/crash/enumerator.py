"""The crash enumerator: every image that a power cut may leave of every short workload, opened and judged.

    python -m tests.crash.enumerator [--short | --images N | --exhaustive | --all] [--seed N] [--setting NAME]
                                     [--only SETTING:OPERATION,...] [--json]

A workload is a sequence of at most four operations of the alphabet (`workloads`) in one of several settings. For each,
every call of the file layer that its last operation makes is a point of the power cut (what happens before the last
operation belongs to the shorter sequence), and for each point every fate of what is not synced there (`fates`), and
besides the death of the process alone. An image is opened twice, the second time after another power cut (`checker`);
some are also recovered, appended to, and cut again meanwhile. Images that are the same byte for byte, with the same
promises, are opened once. Exit status 1 if any promise is broken.

`--exhaustive` visits every image of every workload over the core of the alphabet: append, rotate, delete, compact,
close, kill; some ten minutes. `--images N` and `--short` (20,000) visit so many of the whole alphabet, evenly spread
over sequences and points; the seed decides which. The default is the exhaustive form, and then 200,000 of the whole
alphabet. `--all` visits every image of the whole alphabet, which takes hours; `--setting` takes a part of the work, so
that several processes can share it.
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
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tests.crash.exploring import Case, CutAgain, Explorer, Sampler, Tally
from tests.crash.lives import SETTINGS, Setting
from tests.crash.repeatable import deterministic
from tests.crash.workloads import MISSING, OPERATIONS, Operation

MOST_OPERATIONS = 4
CORE = tuple(o for o in OPERATIONS if o.name in {"append", "rotate", "delete", "compact", "close", "kill"})
"""The letters over which the exhaustive form is exhaustive."""
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
    """A finished run. `exact` tells whether `possible`, the images of all its cases, was counted or estimated."""

    letters: Sequence[Operation]
    settings: Sequence[Setting]
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
    used = {operation for case in cases for operation in case.workload}
    letters = [operation for operation in OPERATIONS if operation in used]
    settings = [setting for setting in SETTINGS if any(case.setting is setting for case in cases)]
    return Outcome(letters, settings, tally, len(cases), possible, exact, time.perf_counter() - began)


def spread(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """So many of the cases, one at random from each of as many equal parts; all of them if there are no more."""
    if count >= len(cases):
        return list(cases)
    dice = Random(seed)
    edges = [len(cases) * n // count for n in range(count + 1)]
    return [cases[dice.randrange(start, end)] for start, end in itertools.pairwise(edges)]


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.enumerator", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--short", action="store_true", help=f"{SHORT:,} images of the whole alphabet")
    parser.add_argument("--images", type=int, help=f"so many images of the whole alphabet (in the long form {LONG:,})")
    parser.add_argument("--exhaustive", action="store_true", help="every image of the core of the alphabet")
    parser.add_argument("--all", action="store_true", help="every image of the whole alphabet; takes hours")
    parser.add_argument("--seed", type=int, default=1, help="which images (default: %(default)s)")
    parser.add_argument("--setting", choices=[setting.name for setting in SETTINGS], help="in this setting only")
    parser.add_argument("--only", metavar="SETTING:OPERATION,...", help="all images of this one workload")
    parser.add_argument("--keep-going", action="store_true", help=f"also after {ENOUGH} broken promises")
    parser.add_argument("--json", action="store_true", help="figures for programs, a line for each part of the run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 if any promise was broken."""
    options = options_of(arguments)
    broken = False
    for cases, images in parts(options):
        outcome = _watched(cases, images, options)
        if options.json:
            print(json.dumps(figures(outcome, options.seed)), flush=True)
        else:
            report(outcome, options.seed)
        broken = broken or bool(outcome.tally.broken)
    return 1 if broken else 0


def parts(options: argparse.Namespace) -> list[tuple[list[Case], int | None]]:
    """What the command line asks for: cases, and how many images of them, None for all."""
    if options.only:
        return [([Case.parse(options.only)], None)]
    whole, core = (
        [case for case in all_cases(letters) if options.setting in (None, case.setting.name)]
        for letters in (OPERATIONS, CORE)
    )
    if options.all:
        return [(whole, None)]
    if options.exhaustive:
        return [(core, None)]
    if options.short or options.images is not None:
        return [(whole, SHORT if options.short else options.images)]
    return [(core, None), (whole, LONG)]


def _watched(cases: Sequence[Case], images: int | None, options: argparse.Namespace) -> Outcome:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("workloads")
        return enumerate_crashes(
            cases,
            images,
            options.seed,
            enough=sys.maxsize if options.keep_going else ENOUGH,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )


def figures(outcome: Outcome, seed: int) -> dict[str, Any]:
    """What a run has seen, for programs."""
    tally = outcome.tally
    return {
        "suite": "crash enumerator",
        "seed": seed,
        "images": tally.images,
        "distinct": tally.distinct,
        "cut_again": tally.cut_again,
        "possible": outcome.possible,
        "possible_is_exact": outcome.exact,
        "workloads": tally.workloads,
        "possible_workloads": outcome.cases,
        "operations": [operation.name for operation in outcome.letters],
        "operations_missing": list(MISSING),
        "settings": [setting.name for setting in outcome.settings],
        "seen": dict(tally.seen),
        "violations": tally.broken,
        "seconds": round(outcome.seconds, 2),
    }


def report(outcome: Outcome, seed: int) -> None:
    """Print what a run has seen."""
    tally = outcome.tally
    print(f"crash enumerator, seed {seed}; operations: {', '.join(operation.name for operation in outcome.letters)}")
    if MISSING:
        print(f"not in the journal yet, so left out: {', '.join(MISSING)}")
    print(
        f"{tally.workloads:,} of {outcome.cases:,} workloads of at most {MOST_OPERATIONS} operations in "
        f"{', '.join(setting.name for setting in outcome.settings)}"
    )
    print(
        f"{tally.images:,} of {'' if outcome.exact else 'about '}{outcome.possible:,} images, {tally.distinct:,} "
        f"distinct; {tally.cut_again:,} more from cutting again during recovery"
    )
    print("among the distinct: " + ", ".join(f"{what} {count:,}" for what, count in sorted(tally.seen.items())))
    for text in tally.broken:
        print(f"BROKEN {text}")
    each = outcome.seconds / max(tally.images, 1) * 1000
    print(f"{len(tally.broken)} promises broken; {outcome.seconds:.1f} s, {each:.2f} ms an image", flush=True)


if __name__ == "__main__":
    sys.exit(main())
