"""A child commits transactions beside plain logging and is killed with SIGKILL at a random moment.

    python -m tests.crash.atomic_kill9 [--short] [--rounds N] [--seed N] [--json] [--dir DIR] [--broken torn|early]

Its transactions run over 2 to 5 of 10 episodes that all its tasks share, and most of them organise some of these as
well (tags, description, checkpoints). Some rounds share a log: the next child first
hands in again, under the same keys, what the ones before it were not told the result of. After most rounds, not all,
the parent opens the log and compares: of each transaction all parts are there or none, in one frame; the acknowledged
ones are there exactly once, where the receipt says.

With --broken torn the child logs the parts one by one, with --broken early it takes a transaction for durable before it
is committed, and the suite must object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from stepwell import Event
from stepwell.memory.opening import OpenMemory
from tests.crash import suite
from tests.crash.atomic_child import LOGGING, TRANSACTING, live
from tests.crash.atomic_ledger import AtomicLedger
from tests.crash.kill9 import ROUNDS_PER_LOG, place_for_logs, run_round
from tests.crash.ledger import read_back
from tests.crash.reopening import InlineFiles
from tests.crash.suite import Result

WRITERS_PER_ROUND = TRANSACTING + LOGGING + 1


async def _recover(directory: Path) -> dict[str, Sequence[Event]]:
    async with OpenMemory(directory, None, False, InlineFiles()) as memory:
        return dict(await read_back(memory))


def _compare(directory: Path, ledger: AtomicLedger, result: Result, what: str, *, last: bool) -> None:
    open_before = sum(sent.fate == "sent" and len(sent.parts) > 1 for sent in ledger.sent.values())
    verdict = ledger.check(trio.run(_recover, directory))
    if not verdict.sound:
        result.violate(f"{what}: {verdict}")
    gone = sum(sent.fate == "gone" and len(sent.parts) > 1 for sent in ledger.sent.values())
    result.count("transactions_killed_under_way", open_before)
    if last:
        transactions = [sent for sent in ledger.sent.values() if len(sent.parts) > 1]
        result.count("transactions", len(transactions))
        result.count("transactions_stored", len(transactions) - gone)
        result.count("handed_in_again", ledger.resubmitted)
        result.count("records_acknowledged", verdict.acknowledged)
        result.count("records_recovered", verdict.recovered)


def kill_children(options: argparse.Namespace, result: Result) -> None:
    """Run the rounds, log after log."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.crash.atomic_child"])
    with place_for_logs(options.dir) as place, suite.Steps("atomic kill -9", options.count) as steps:
        for first in range(0, options.count, ROUNDS_PER_LOG):
            directory, ledger = place / f"log-{first}", AtomicLedger()
            last = min(first + ROUNDS_PER_LOG, options.count) - 1
            for number in range(first, last + 1):
                rng = suite.seeded(options, number)
                unsettled = json.dumps(ledger.unsettled())
                seed, writers = f"s{options.seed}-r{number}", number * WRITERS_PER_ROUND
                output = run_round(rng, live, str(directory), seed, writers, unsettled, options.broken)
                ledger.note_lines(output)
                if number == last or rng.random() < 0.7:
                    _compare(directory, ledger, result, f"round {number}", last=number == last)
                steps.advance()
            if options.dir is None:
                shutil.rmtree(directory)


def main(arguments: suite.Arguments = None) -> int:
    """Run the rounds; the exit status is 1 if a transaction was torn, lost, doubled, displaced, changed or invented."""
    parser = suite.parser("atomic_kill9", __doc__ or "", unit="rounds", short=30, long=200)
    parser.add_argument("--dir", default=None, help="keep the logs here (default: a temporary directory)")
    parser.add_argument("--broken", choices=("torn", "early"), default=None, help="a child that must be objected to")
    return suite.run("atomic_kill9", parser.parse_args(arguments), kill_children)


if __name__ == "__main__":
    sys.exit(main())
