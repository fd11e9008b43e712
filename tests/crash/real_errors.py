"""Errors of the operating system while agents log: EIO and its like from system calls, and a file system that is full.

    python -m tests.crash.real_errors [--short] [--rounds N] [--seed N] [--json] [--broken]

In seven rounds of ten the agents run under `strace`, which has the n-th fdatasync, fsync, pwrite64, fallocate or
ftruncate of a thread fail, once or from then on; a call that failed has not been made, and the next may well succeed,
which is the trap. Several rounds share a memory, so that openings and recoveries meet errors too. In the other rounds
the memory is on a tmpfs of 2 MiB with a filler beside it: the agents log until they are refused, then the filler is
removed, and writing must go on by itself; or they give up, or are killed, and the memory is opened on the full disk.

After each round the memory is opened without strace: what was acknowledged is there, what was rejected is not, and what
is unknown is there once or not at all.

With --broken the agents' file layer takes a write that failed for one that went well, and the suite must object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import trio

from stepstore.log.files import OsFile, OsFileSystem
from stepwell import MemoryConfig, RecoveryFailed, StepwellError
from stepwell.memory.opening import OpenMemory
from tests.crash import suite
from tests.crash.children import ChildFailedError, child_command, report_to_parent, run_child, start_child
from tests.crash.ledger import Ledger, numbers_of
from tests.crash.media import Bench, Skipped, die_with_parent, mounted_tmpfs, need_command
from tests.crash.reopening import SMALL_SEGMENT, reopen
from tests.crash.suite import Result
from tests.crash.workload import HUNG, PATIENCE, Work, work_out

WORK = Work(agents=6, episodes=2, steps=16)
ENDLESS = Work(agents=6, episodes=100_000, steps=30)
ROUNDS_PER_MEMORY = 5
MEMORY = "memory"

STRACE = ("strace", "-D", "-f", "-qq", "--seccomp-bpf")
"""With -D the child is ours and strace its companion, so that both are gone when we are."""
CALLS = ("fdatasync", "pwrite64", "fdatasync", "fsync", "fdatasync", "pwrite64", "fallocate", "ftruncate")
"""Which call is made to fail, one round after another."""
FAILURES: dict[str, tuple[int, tuple[str, ...]]] = {
    "fdatasync": (30, ("EIO", "EIO", "ENOSPC", "EDQUOT")),
    "pwrite64": (30, ("EIO", "EIO", "ENOSPC", "EDQUOT")),
    "fsync": (8, ("EIO", "ENOSPC")),
    "fallocate": (4, ("ENOSPC", "EOPNOTSUPP", "EIO")),
    "ftruncate": (4, ("EIO",)),
}
"""How they fail: the n-th of them at most, and with what."""

FULL_BYTES = 2 * 1024 * 1024
FULL_AT_ONCE = 6
REFUSALS = 20
RECOVERED = 40


# ---- the child -------------------------------------------------------------------------------------------------------


class CarelessFile(OsFile):
    """A file that does not look whether a write went well."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        with contextlib.suppress(OSError):
            return super().write(offset, data)
        return len(data)


class CarelessFiles(OsFileSystem):
    """The file layer of --broken."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> OsFile:
        flags = os.O_RDWR if write else os.O_RDONLY
        return CarelessFile(path, flags | (os.O_CREAT | os.O_EXCL if create else 0))


async def _log(directory: str, seed: str, *, broken: bool) -> None:
    rng = random.Random(seed)
    config = MemoryConfig(segment_bytes=SMALL_SEGMENT, durability=rng.choice(("receipt", "receipt", "commit")))
    async with OpenMemory(directory, config, False, CarelessFiles() if broken else None) as memory:
        await work_out(memory, report_to_parent, seed=seed, work=WORK)


async def _log_until_full(directory: str, seed: str, ending: str) -> None:
    """Log until refused often enough; then give up, die, or log until enough was acknowledged again."""
    refused = durable = 0

    def report(text: Sequence[Any]) -> None:
        nonlocal refused, durable
        report_to_parent(text)
        if text[0] == "rejected":
            refused += 1
            durable = 0
        elif text[0] == "durable":
            durable += 1
        if ending == "dies" and refused >= REFUSALS:
            os.kill(os.getpid(), signal.SIGKILL)

    def enough() -> bool:
        return refused >= REFUSALS and (durable >= RECOVERED or ending == "gives up")

    async with OpenMemory(directory, MemoryConfig(segment_bytes=SMALL_SEGMENT), False, None) as memory:
        await work_out(memory, report, seed=seed, work=ENDLESS, enough=enough)


def _child(directory: str, seed: str, until_full: str | None, broken: bool) -> None:
    die_with_parent()
    try:
        if until_full is None:
            trio.run(lambda: _log(directory, seed, broken=broken))
        else:
            trio.run(_log_until_full, directory, seed, until_full)
    except (StepwellError, OSError) as error:
        report_to_parent(["left", f"{type(error).__name__}: {error}"])


# ---- errors of system calls ------------------------------------------------------------------------------------------


def need_strace() -> None:
    """Have `strace`, and the right to use it. Raises: `Skipped`."""
    need_command("strace", "strace")
    tried = subprocess.run([*STRACE, "-e", "trace=fsync", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise Skipped(f"strace cannot trace here: {tried.stderr.strip()}")


def choose_injection(call: str, rng: random.Random, attempt: int) -> str:
    """An argument of `strace -e inject=`; the more attempts have met no call, the sooner it fails."""
    limit, errors = FAILURES[call]
    number = rng.randrange(limit // (attempt + 1) + 1) + 1
    return f"{call}:error={rng.choice(errors)}:when={number}{rng.choice(('', '', '+'))}"


class Injected:
    """Rounds under strace, several of them on one memory."""

    def __init__(self, directory: Path, options: argparse.Namespace, result: Result):
        self._directory, self._options, self._result = directory, options, result
        self._memory, self._ledger = directory, Ledger()

    def round(self, number: int) -> None:
        """Run one life of the agents in which at least one call fails, and look at what it leaves."""
        rng = suite.seeded(self._options, "injected", number)
        if number % ROUNDS_PER_MEMORY == 0:
            self._memory, self._ledger = self._directory / f"{MEMORY}-{number}", Ledger()
        call = "pwrite64" if self._options.broken else CALLS[number % len(CALLS)]
        for attempt in range(20):
            injection = choose_injection(call, rng, attempt)
            what = f"round {number}, {injection}"
            failed = self._live(f"s{self._options.seed}-{number}-{attempt}", call, injection, what)
            compare(what, self._memory, self._ledger, self._result)
            if failed:
                self._result.count(f"{call}_rounds")
                self._result.count("calls_failed", failed)
                return
        raise RuntimeError("none of twenty injections was met")

    def _live(self, name: str, call: str, injection: str, what: str) -> int:
        """How many calls failed."""
        trace = self._directory / "trace"
        traced = [*STRACE, "-o", str(trace), "-e", f"trace={call}", "-e", f"inject={injection}"]
        child = child_command("real_errors", str(self._memory), name, None, self._options.broken)
        try:
            reported = run_child([*traced, *child])
        except ChildFailedError as error:
            raise ChildFailedError(f"{what}: {error}") from error
        self._ledger.note_lines(reported)
        return len(re.findall(r"\(INJECTED\)", trace.read_text()))


def compare(what: str, memory: Path, ledger: Ledger, result: Result) -> None:
    """Open what a round left, and compare it with what was reported."""
    try:
        served = reopen(memory).served
    except StepwellError as error:
        result.violate(f"{what}: it does not open: {type(error).__name__}: {error}")
        return
    if HUNG in ledger.left:
        result.violate(f"{what}: agents still waited after {PATIENCE:.0f} s")
    result.count("memories_lost_while_open", len(ledger.left))
    ledger.left.clear()
    verdict = ledger.check(served)
    fates = [fate for account in ledger.accounts.values() for fate in account.fates.values()]
    result.count("acknowledged_records_compared", verdict.acknowledged)
    result.count("rejected_records", fates.count("rejected"))
    result.count("unknown_records", fates.count("unknown"))
    if not verdict.sound:
        result.violate(f"{what}: {verdict}")
    ledger.note(["reopened", {name: numbers_of(events) for name, events in served.items()}])


# ---- a full disk -----------------------------------------------------------------------------------------------------


class FullDisks:
    """Rounds on small tmpfs, to be run in threads."""

    def __init__(self, directory: Path, options: argparse.Namespace):
        self._directory, self._options = directory, options
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def stop(self) -> None:
        """End all rounds where they are."""
        self._stopped = True
        for child in self._children:
            child.kill()

    def round(self, number: int) -> Result:
        """One round, on a tmpfs of its own."""
        result, ledger = Result(), Ledger()
        ending = ("recovers", "gives up", "dies")[number % 3]
        what = f"full disk {number}, the child {ending}"
        with mounted_tmpfs(self._directory / f"full-{number}", FULL_BYTES) as mounted:
            memory, filler = mounted / MEMORY, mounted / "filler"
            with open(filler, "wb") as file:
                size = suite.seeded(self._options, "full", number).randrange(200, 700) * 1024
                os.posix_fallocate(file.fileno(), 0, size)
            refused, status, said = self._fill_up(number, ending, memory, filler, ledger)
            if self._stopped:
                return result
            if status != (-signal.SIGKILL if ending == "dies" else 0):
                result.violate(f"{what}: it ended with status {status}: {said}")
            if filler.exists():
                try:
                    reopen(memory)
                except RecoveryFailed:
                    result.count("openings_refused_on_the_full_disk")
                else:
                    compare(f"{what}, still full", memory, ledger, result)
                    result.count("openings_on_the_full_disk")
                filler.unlink()
            compare(what, memory, ledger, result)
        result.count("refusals_on_full_disks", refused)
        result.count(f"full_disk_rounds_where_it_{ending.replace(' ', '_')}")
        return result

    def _fill_up(self, number: int, ending: str, memory: Path, filler: Path, ledger: Ledger) -> tuple[int, int, str]:
        """Run the child; make room when it was refused often enough. Gives the refusals, its status, what it said."""
        name = f"s{self._options.seed}-full-{number}"
        command = child_command("real_errors", str(memory), name, ending, False)
        refused = 0
        with (
            open(self._directory / f"said-{number}", "w+b") as errors,
            start_child(command, errors) as child,
        ):
            self._children.append(child)
            assert child.stdout is not None
            for line in child.stdout:
                ledger.note_lines(line)
                refused += line.startswith(b'["rejected"')
                if refused >= REFUSALS and ending == "recovers":
                    filler.unlink(missing_ok=True)
            status = child.wait()
            errors.seek(0)
            return refused, status, errors.read().decode(errors="replace")


# ---- the suite -------------------------------------------------------------------------------------------------------


def meet_errors(options: argparse.Namespace, result: Result) -> None:
    """Three rounds of ten on full disks, several at a time since they mostly wait; the others under strace."""
    need_strace()
    full = options.count * 3 // 10
    with Bench() as bench, suite.Steps("rounds", options.count) as steps, ThreadPoolExecutor(FULL_AT_ONCE) as pool:
        directory = bench.enter(mounted_tmpfs(bench.path / "room", 512 * 1024 * 1024))
        disks = FullDisks(bench.path, options)
        waiting = [pool.submit(disks.round, number) for number in range(full)]
        try:
            injected = Injected(directory, options, result)
            for number in range(options.count - full):
                injected.round(number)
                steps.advance()
            for done in waiting:
                result.add(done.result())
                steps.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            disks.stop()
            raise


def main(arguments: suite.Arguments = None) -> int:
    """Run the suite."""
    parser = suite.parser("real_errors", __doc__ or "", unit="rounds", short=20, long=200)
    parser.add_argument("--broken", action="store_true", help="failed writes are taken for good ones: must object")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _child(*json.loads(options.child))
        return 0
    return suite.run("real_errors", options, meet_errors)


if __name__ == "__main__":
    sys.exit(main())
