"""A real SIGINT before every line of Stepwell that runs in an event loop, one run each.

    python -m tests.interrupts [--short] [--only SCENARIO:FILE:LINE[:NTH]] [--unprotected] [--json]

The scenarios are those of `tests/cancellation`. Lines are those of the runtime, of what users hold, of the journal and
of the log's tasks, whether protected from Ctrl-C or not: where they are not, KeyboardInterrupt is raised right there;
where they are, at the next checkpoint of the main task. Behind each run: KeyboardInterrupt has left to the caller, and
nothing else; cells, mailboxes, the writer's queue and the tasks agree; receipts are resolved; runs have their ending;
the memory can be opened again and holds every accepted step exactly once and in order. `--short` interrupts every line
of protected functions, and every second one of the others, the first time it runs in the first scenario that runs it;
the default takes every line in every scenario, and the second and the last time too. `--unprotected` lists plain
functions that change more than one thing and run unprotected. Exit status 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import Progress

from tests.cancellation.scenarios import SCENARIOS, Scenario
from tests.crash.repeatable import deterministic
from tests.interrupts.interrupting import Interrupter
from tests.interrupts.lines import Line, functions
from tests.interrupts.shared_state import REASONS, run_unprotected

ENOUGH = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 if any promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.interrupts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--short", action="store_true", help="once, in the first scenario; of unprotected functions every second line"
    )
    parser.add_argument("--only", metavar="SCENARIO:FILE:LINE[:NTH]", help="only this interruption, or this scenario")
    parser.add_argument("--unprotected", action="store_true", help="list plain functions that could be torn")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    options = parser.parse_args(arguments)
    logging.getLogger("stepwell.runtime").disabled = True
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # inherited by a background job of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with deterministic() as dice:
        interrupter = Interrupter(dice)
        if options.unprotected:
            found = run_unprotected(interrupter)
            for name, changed in sorted(found.items()):
                print(f"{name} changes {', '.join(sorted(changed))}: {REASONS.get(name, 'why is it not protected?')}")
            print(f"{len(found)} plain functions change more than one thing and run unprotected")
            return 1 if found.keys() - REASONS.keys() else 0
        return run(interrupter, options)


def run(interrupter: Interrupter, options: argparse.Namespace) -> int:
    """Interrupt, and print what it came to."""
    name, *place = (options.only or "").split(":")
    scenarios = [one for one in SCENARIOS.values() if name in ("", one.name)]
    if not scenarios:
        print(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    protected = {(function.path, function.name) for function in functions() if function.is_protected}
    reached: Counter[Line] = Counter()
    broken: list[str] = []
    began = time.perf_counter()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("scenarios", total=len(scenarios))
        for one in scenarios:
            chosen = list(_chosen(interrupter, one, place))
            if options.short:
                chosen = [
                    (line, 1)
                    for line in dict.fromkeys(line for line, _ in chosen)
                    if not reached[line] and ((line.path, line.function) in protected or line.number % 2)
                ]
            for line, nth in chosen:
                ran = interrupter.interrupt(one, line, nth)
                reached[line] += ran.reached
                broken += [f"{one.name}:{line.path}:{line.number}:{nth} ({line.function}): {t}" for t in ran.violations]
                if len(broken) >= ENOUGH:
                    break
            progress.advance(task)
    entered = {(line.path, line.function) for line in reached}
    figures = {
        "suite": "interrupts",
        "runs": reached.total(),
        "lines": len(reached),
        "functions": len(entered),
        "protected_functions": len(protected & entered),
        "protected_functions_not_reached": sorted(map(" ".join, protected - entered)),
        "violations": broken,
        "seconds": round(time.perf_counter() - began, 1),
    }
    if options.json:
        print(json.dumps(figures, indent=2))
        return 1 if broken else 0
    for text in broken:
        print(f"BROKEN {text}")
    print(
        f"interrupts: {reached.total():,} runs of {len(scenarios)} scenarios, SIGINT before {len(reached):,} lines of "
        f"{len(entered)} functions, {len(protected & entered)} of the {len(protected)} protected ones among them; "
        f"{len(broken)} promises broken; {figures['seconds']} s"
    )
    return 1 if broken else 0


def _chosen(interrupter: Interrupter, scenario: Scenario, place: Sequence[str]) -> Iterator[tuple[Line, int]]:
    for line, times in interrupter.lines_of(scenario).items():
        if place:
            if line.path == place[0] and str(line.number) == place[1]:
                yield line, int(place[2]) if len(place) > 2 else 1
        else:
            for nth in sorted({1, min(2, times), times}):
                yield line, nth


if __name__ == "__main__":
    sys.exit(main())
