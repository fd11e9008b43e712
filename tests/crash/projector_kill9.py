"""A child makes, changes and deletes episodes and is killed with SIGKILL; then its catalogs are judged: that of
episodes, and that of retrieval.

    python -m tests.crash.projector_kill9 [--short] [--rounds N] [--seed N] [--json] [--dir DIR] [--broken early|late]

Rounds share logs, so what one of them spoils, later ones still show. After most rounds, not all, the parent opens the
memory, lets each catalog catch up from where the child left it, and compares it, row by row and word by word, with one
that is folded anew from the whole log.

With --broken early the child stores the cursor before the rows that belong to it, with --broken late behind them, and
the suite must object.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
from pathlib import Path
from typing import Any

import trio

from stepwell import open_memory
from stepwell.runtime import episode_catalog, retrieval_catalog
from tests.catalog_contents import catalog_contents, retrieval_contents
from tests.crash import suite
from tests.crash.kill9 import ROUNDS_PER_LOG, place_for_logs, run_round
from tests.crash.projector_child import live
from tests.crash.suite import Result

SECONDS = 0.6
"""A child lives so long at most once it has opened the memory."""
FILES = (episode_catalog.FILE, retrieval_catalog.FILE)
Contents = dict[str, list[tuple[Any, ...]]]


def caught_up(directory: Path, result: Result) -> Contents:
    """What the catalogs hold once they have caught up with the log."""

    async def main() -> None:
        async with open_memory(directory) as memory:
            for projection in (memory._runtime.projections.episodes, memory._runtime.projections.retrieval):
                await projection.wait_for(memory._journal.durable_lsn)
                result.count("transactions_to_catch_up", projection.projector.transactions)

    trio.run(main)
    retrieved = {f"{what} of retrieval": rows for what, rows in retrieval_contents(directory).items()}
    return {**catalog_contents(directory), **retrieved}


def _files(directory: Path) -> list[Path]:
    return [path for file in FILES for path in directory.glob(f"{file}*")]


def anew(directory: Path) -> Contents:
    """What catalogs that are folded from the whole log hold. They take the place of the others."""
    for path in _files(directory):
        path.unlink()
    return caught_up(directory, Result())


def _compare(directory: Path, result: Result, what: str) -> None:
    if not all((directory / file).exists() for file in FILES):
        return  # killed before the first byte of one
    before = caught_up(directory, result)
    kept = {path.name: path.read_bytes() for path in _files(directory)}
    right = anew(directory)
    for path in _files(directory):
        path.unlink()
    for name, data in kept.items():  # the next child goes on with the catalog that was judged
        (directory / name).write_bytes(data)
    for table, rows in right.items():
        found = before[table]
        if found != rows:
            wrong = set(found) ^ set(rows)
            result.violate(f"{what}: {len(wrong)} {table} differ from a fresh folding, such as {min(wrong, key=repr)}")
    result.count("comparisons")
    result.figures["episodes"] = max(int(result.figures.get("episodes", 0)), len(right["episodes"]))


def kill_children(options: argparse.Namespace, result: Result) -> None:
    """Run the rounds, log after log."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.crash.projector_child"])
    with place_for_logs(options.dir) as place, suite.Steps("projector kill -9", options.count) as steps:
        for first in range(0, options.count, ROUNDS_PER_LOG):
            directory = place / f"log-{first}"
            last = min(first + ROUNDS_PER_LOG, options.count) - 1
            for number in range(first, last + 1):
                rng = suite.seeded(options, number)
                run_round(rng, live, str(directory), f"s{options.seed}-r{number}", options.broken, seconds=SECONDS)
                if directory.exists() and (number == last or rng.random() < 0.7):
                    _compare(directory, result, f"round {number}")
                steps.advance()
            if options.dir is None:
                shutil.rmtree(directory, ignore_errors=True)


def main(arguments: suite.Arguments = None) -> int:
    """Run the rounds; the exit status is 1 if a catalog differs from what its log says."""
    parser = suite.parser("projector_kill9", __doc__ or "", unit="rounds", short=12, long=50)
    parser.add_argument("--dir", default=None, help="keep the logs here (default: a temporary directory)")
    parser.add_argument("--broken", choices=("early", "late"), default=None, help="a child that must be objected to")
    return suite.run("projector_kill9", parser.parse_args(arguments), kill_children)


if __name__ == "__main__":
    sys.exit(main())
