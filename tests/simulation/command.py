"""The whole runtime in a simulated world, from seeds: each seed is run twice and must be the same both times.

    python -m tests.simulation [--short] [--seeds N] [--first SEED] [--jobs N] [--json]
    python -m tests.simulation --replay SEED

In a world (`world`) a memory goes through several processes: closed in order, cancelled, left by an exception, killed,
or cut off from power at any call of the file layer, with any part of what was not synced lost. Several callers do at
random what callers do (`agents`), followers go on behind each restart (`follower`), the medium is slow at times and
fails at times. Order of tasks, clock, worker threads, ids and medium follow from the seed (`stepwell.testing`).
Judged by a plain-dict model of what the callers were told (`model`), and by the checker of the crash suites. Exit
status 1 if a promise was broken, if a run did not come to its end, or if two runs of one seed differ.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence

from tests.crash.sweep import Tally, conclude, sweep
from tests.simulation.world import Result, World

SHORT, LONG = 100, 1_000
CHUNK = 10
SHOWN = 40
"""Lines of the trace that are shown of a run that failed."""


def run_twice(seed: int) -> Result:
    """One world, and the same again. What is wrong is in the result; so is a difference between the two."""
    first, second = (World(seed).run() for _ in range(2))
    if first.digest != second.digest:
        first.wrong.append(f"two runs of this seed differ: {difference(first, second)}")
    return first


def difference(first: Result, second: Result) -> str:
    """Where two runs of one seed part."""
    for number, (here, there) in enumerate(zip(first.trace, second.trace, strict=False), 1):
        if here != there:
            return f"line {number} of the trace is {here.strip()!r} and {there.strip()!r}"
    return f"{first.steps:,} and {second.steps:,} steps, {len(first.trace):,} and {len(second.trace):,} lines of trace"


def work(seeds: Sequence[int]) -> Tally:
    """Run these seeds."""
    tally = Tally()
    for seed in seeds:
        tally.cases += 1
        try:
            result = run_twice(seed)
        except Exception as error:
            tally.violation(f"seed {seed}", f"an exception: {traceback.format_exception_only(error)[0].strip()}")
            continue
        tally.seen.update(result.counts)
        tally.seen["scheduler steps"] += result.steps
        for text in result.wrong:
            tally.violation(f"seed {seed}", text)
    return tally


def replay(seed: int) -> int:
    """Tell what happens in one world."""
    world = World(seed)
    try:
        result = world.run()
    except Exception:
        print(*world.simulation.trace, sep="\n")
        raise
    print(*result.trace, sep="\n")
    print(f"seed {seed}: {result.steps:,} steps, digest {result.digest}, {len(result.wrong)} promises broken")
    return 1 if result.wrong else 0


def show_end(seed: int) -> None:
    """Tell how a run that failed ended."""
    world = World(seed)
    try:
        world.run()
    except Exception:
        traceback.print_exc()
    trace = world.simulation.trace
    wrong = next((n for n, line in enumerate(trace) if "WRONG" in line), len(trace))
    print(
        f"\nseed {seed}, up to the first broken promise:",
        *trace[max(wrong - SHOWN, 0) : wrong + 1],
        sep="\n",
        file=sys.stderr,
    )
    print(f"All of it: python -m tests.simulation --replay {seed}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help=f"{SHORT} seeds instead of {LONG:,}")
    parser.add_argument("--seeds", type=int, default=None, help="that many seeds")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them (default: %(default)s)")
    parser.add_argument("--replay", type=int, default=None, metavar="SEED", help="print what happens with this seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON object")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        return replay(options.replay)
    count = options.seeds if options.seeds is not None else SHORT if options.short else LONG
    if not options.json:
        print(f"simulation: {count:,} seeds from {options.first}, each run twice", flush=True)
    began = time.monotonic()
    tally = sweep(range(options.first, options.first + count), work, jobs=options.jobs, chunk=CHUNK)
    status = conclude("simulation", tally, began, as_json=options.json, first=options.first)
    for places in list(tally.places.values())[:1]:
        show_end(int(places[0].split()[-1]))
    return status
