"""A child logs under load and is killed with SIGKILL at a random moment; every acknowledged step must survive it.

    python -m tests.crash.kill9 [--short] [--rounds N] [--seed N] [--json] [--dir DIR] [--broken]

Some rounds share a log: each child goes on with the episodes that the killed ones before it left open, and begins new
ones. After most rounds, not all, the parent opens the log, so that a child also finds what several killed ones before
it left; it compares what that round's agents were told with what is there, and when a log has had all its rounds, all
of it. One child of five is killed while it is still opening.

With --broken the agents take what is accepted for durable, and the suite must object.

SIGKILL cannot see a missing fsync; `power_cuts`, and the tests on the in-memory file layer, do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from stepwell import Event
from stepwell.memory.opening import OpenMemory
from tests.crash import suite
from tests.crash.killed_child import live
from tests.crash.ledger import Ledger, numbers_of, read_back
from tests.crash.media import scratch_directory
from tests.crash.reopening import InlineFiles
from tests.crash.suite import Result

ROUNDS_PER_LOG = 20
OPENING_SECONDS, LOGGING_SECONDS = 0.06, 0.25
"""How long a child lives at most that is killed while it opens, and one that has begun to log."""


class ChildEndedError(Exception):
    """A child ended by itself instead of logging until it was killed."""


def run_round(
    rng: random.Random, life: Callable[..., None], *arguments: object, seconds: float = LOGGING_SECONDS
) -> bytes:
    """Start a child, let it live for a random time, and kill it; gives what it reported. Its life is a function of a
    module that the children preload; it gets the connection to report through, and the arguments."""
    # Children are forked by a server that has everything imported: starting an interpreter takes longer than a round.
    context = multiprocessing.get_context("forkserver")
    reading, writing = context.Pipe(duplex=False)
    child = context.Process(target=life, args=(writing, *arguments), daemon=True)
    child.start()
    writing.close()
    with reading:
        pipe = reading.fileno()
        output = bytearray()
        try:
            if rng.random() < 0.2:
                _read_until(pipe, output, time.monotonic() + rng.uniform(0, OPENING_SECONDS))
            else:
                select.select([pipe], [], [])
                _read_until(pipe, output, time.monotonic() + rng.uniform(0.002, seconds))
        finally:
            child.kill()
            child.join()
        while part := os.read(pipe, 1 << 20):
            output += part
    if child.exitcode != -signal.SIGKILL:
        raise ChildEndedError(f"a child ended by itself with status {child.exitcode}")
    return bytes(output)


def _read_until(pipe: int, output: bytearray, moment: float) -> None:
    while (left := moment - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            part = os.read(pipe, 1 << 20)
            if not part:
                return
            output += part


class Log:
    """One log, and what the agents of its rounds were told."""

    def __init__(self, directory: Path, result: Result):
        self._directory, self._result = directory, result
        self._ledger = Ledger()
        self._touched: set[str] = set()

    def take(self, output: bytes) -> None:
        """Take in what a child reported."""
        lines = output.split(b"\n")[:-1]
        self._touched.update(json.loads(line)[1] for line in lines)
        self._ledger.note_lines(output)

    def compare(self, what: str, *, everything: bool) -> None:
        """Open the log and compare: with all of it, or with the episodes touched since the last comparison."""
        found, seconds, cut = trio.run(self._recover, None if everything else self._touched)
        verdict = self._ledger.check(found, episodes=None if everything else self._touched)
        if not verdict.sound:
            self._result.violate(f"{what}: {verdict}")
        for name, events in found.items():
            self._ledger.note(["resumed", name, numbers_of(events)])
        self._touched.clear()
        self._result.count("torn_tails_cut", int(cut > 0))
        slowest = self._result.figures.get("slowest_recovery_ms", 0)
        assert isinstance(slowest, int)
        self._result.figures["slowest_recovery_ms"] = max(slowest, round(seconds * 1000))
        if everything:
            self._result.count("episodes", len(found))
            self._result.count("records_acknowledged", verdict.acknowledged)
            self._result.count("records_recovered", verdict.recovered)

    async def _recover(self, wanted: Collection[str] | None) -> tuple[dict[str, list[Event]], float, int]:
        async with OpenMemory(self._directory, None, False, InlineFiles()) as memory:
            if wanted is None:
                found = await read_back(memory)
            else:
                there = {name async for name in memory.episode_ids()}
                found = {name: [event async for event in memory.events(name)] for name in wanted if name in there}
            return found, memory.recovery.seconds, memory.recovery.bytes_cut


@contextmanager
def place_for_logs(wanted: str | None) -> Iterator[Path]:
    """A directory for logs: the one asked for, which is kept, or one for the time being."""
    if wanted is not None:
        Path(wanted).mkdir(parents=True, exist_ok=True)
        yield Path(wanted)
        return
    with scratch_directory() as made:
        yield made


def kill_children(options: argparse.Namespace, result: Result) -> None:
    """Run the rounds, log after log."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.crash.killed_child"])
    with place_for_logs(options.dir) as place, suite.Steps("kill -9", options.count) as steps:
        for first in range(0, options.count, ROUNDS_PER_LOG):
            directory = place / f"log-{first}"
            log = Log(directory, result)
            last = min(first + ROUNDS_PER_LOG, options.count) - 1
            for number in range(first, last + 1):
                rng = suite.seeded(options, number)
                log.take(run_round(rng, live, str(directory), f"s{options.seed}-r{number}", options.broken))
                if number == last or rng.random() < 0.7:
                    log.compare(f"round {number}", everything=number == last)
                steps.advance()
            if options.dir is None:
                shutil.rmtree(directory)


def main(arguments: suite.Arguments = None) -> int:
    """Run the rounds; the exit status is 1 if any step was lost, doubled, displaced, changed or invented."""
    parser = suite.parser("kill9", __doc__ or "", unit="rounds", short=100, long=1_000)
    parser.add_argument("--dir", default=None, help="keep the logs here (default: a temporary directory)")
    parser.add_argument("--broken", action="store_true", help="agents take accepted for durable: must object")
    return suite.run("kill9", parser.parse_args(arguments), kill_children)


if __name__ == "__main__":
    sys.exit(main())
