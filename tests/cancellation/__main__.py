"""Cancel every scenario at every scheduler step, one run each, until a run completes untouched.

    python -m tests.cancellation [--short] [--seed N] [--only SCENARIO:K] [--list] [--json]

`scenarios.py` has what is cancelled; every public async function is in one at least (`--list` prints which). What is
cancelled is the calling task, and the memory is used afterwards; or everything from opening to closing. Both on a
medium that answers at once, and on one on which every call takes time and is cancelled meanwhile; scheduling and clock
are deterministic. Behind each run: the memory, opened again, holds every accepted step exactly once and in order; what
each cancelled call says of what is stored is true; what the caller may do next works; receipts are resolved; no task is
left; `Cancelled` was neither swallowed nor replaced; nothing hangs. `--short` takes one step in several, another one
with each seed. Exit status 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import Progress

from tests.cancellation.scenarios import SCENARIOS, Scenario
from tests.cancellation.sweep import Around, Sweeper, Variant
from tests.crash.repeatable import deterministic
from tests.public_surface import public_async_functions

STRIDE = 4
"""The short form cancels at one step in so many."""
SEEDS = 2
"""Orders of tasks, in the long form."""
ENOUGH = 10


def variants(seed: int, *, short: bool) -> list[Variant]:
    """What is cancelled, on what medium, in what order of tasks."""
    if short:  # the medium that takes time has all the steps of the other one, and more
        return [Variant(around, True, seed) for around in Around]
    return [Variant(*chosen) for chosen in itertools.product(Around, (True, False), range(seed, seed + SEEDS))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 if any promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.cancellation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help=f"one step in {STRIDE}, on the slow medium only")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--only", metavar="SCENARIO[:K]", help="only this scenario, or only its runs cancelled at step K"
    )
    parser.add_argument("--list", action="store_true", help="print which scenario calls which functions")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    options = parser.parse_args(arguments)
    logging.getLogger("stepwell").disabled = True
    logging.getLogger("stepwell.runtime").disabled = True
    with deterministic() as dice:
        sweeper = Sweeper(dice)
        if options.list:
            return list_functions(sweeper)
        return run(sweeper, options)


def list_functions(sweeper: Sweeper) -> int:
    """Print which scenario calls which functions; 1 if one is in none."""
    called: set[str] = set()
    for one in SCENARIOS.values():
        functions = sweeper.functions_called(one)
        called |= functions
        print(f"{one.name}: {', '.join(sorted(functions))}")
    missing = public_async_functions().keys() - called
    print(f"{len(SCENARIOS)} scenarios, {len(called)} public async functions; in none: {', '.join(missing) or 'none'}")
    return 1 if missing else 0


def run(sweeper: Sweeper, options: argparse.Namespace) -> int:
    """Sweep, and print what it came to."""
    name, _, step = (options.only or "").partition(":")
    chosen = [one for one in SCENARIOS.values() if name in ("", one.name)]
    if not chosen:
        print(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    runs: dict[str, int] = {}
    broken: list[str] = []
    began = time.perf_counter()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("scenarios", total=len(chosen))
        for one in chosen:
            for variant in variants(options.seed, short=options.short):
                for at, violations in _sweep(sweeper, one, variant, step, short=options.short):
                    runs[one.name] = runs.get(one.name, 0) + 1
                    broken += [f"{one.name}:{at} {variant}: {text}" for text in violations]
                if len(broken) >= ENOUGH:
                    break
            progress.advance(task)
    seconds = round(time.perf_counter() - began, 1)
    if options.json:
        figures = {"suite": "cancellation", "seed": options.seed, "runs": sum(runs.values()), "by_scenario": runs}
        print(json.dumps(figures | {"violations": broken, "seconds": seconds}, indent=2))
        return 1 if broken else 0
    for text in broken:
        print(f"BROKEN {text}")
    print("runs: " + ", ".join(f"{scenario} {count:,}" for scenario, count in runs.items()))
    print(
        f"cancellation, seed {options.seed}: {sum(runs.values()):,} runs of {len(runs)} scenarios, each cancelled at "
        f"another step; {len(broken)} promises broken; {seconds} s"
    )
    return 1 if broken else 0


def _sweep(
    sweeper: Sweeper, scenario: Scenario, variant: Variant, step: str, *, short: bool
) -> Iterator[tuple[int, list[str]]]:
    if step:
        yield int(step), sweeper.run(scenario, variant, int(step)).violations
        return
    # Another offset for each scenario and seed, so that the short form does not always look at the same moments.
    first = (variant.seed + sum(scenario.name.encode())) % STRIDE if short else 0
    for at, ran in sweeper.sweep(scenario, variant, first=first, stride=STRIDE if short else 1):
        yield at, ran.violations


if __name__ == "__main__":
    sys.exit(main())
