"""The k-th call of the file layer fails, for k = 1, 2, 3 … until a workload completes untouched.

    python -m tests.crash.failing_calls [--short] [--seed N] [--only WORKLOAD:K] [--json]

Each call of whatever kind (open, read, write, fdatasync, stat, rename, unlink, fsync of a directory, fallocate, flock
…) fails in turn: with EIO and with ENOSPC; a write and a read also by being short, and a write by being short with no
room for the rest; once, or from then on for every call of that kind, or (EIO) from then on for every call at all. A
failed sync leaves the medium in either state: everything reached it, or nothing did and the pages count as clean.

The process goes on as it would: it is refused, leaves the segment, opens again. Then it dies, and the log is opened on
a healthy medium, as the page cache shows it, as the medium holds it, and as a power cut may leave it; the rule of
`checker` must hold, and every exception on the way must be one of Stepwell's own. Where it is a sync that fails, the
medium is also examined at the very moment of each acknowledgement. `--short` runs one workload, the default all six.
Exit status 1 if any promise is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import trio
from rich.console import Console
from rich.progress import Progress

from stepstore.errors import CorruptLog, Damaged
from tests.crash.checker import Broken, Wrong
from tests.crash.examining import examine
from tests.crash.faults import SYNCS, Fault, FaultyMedium, faults
from tests.crash.images import Image, fingerprint
from tests.crash.lives import SETTINGS, Life, Setting
from tests.crash.repeatable import Dice, deterministic, run
from tests.crash.watching import Call
from tests.crash.workloads import ALPHABET, LOOK, OPERATIONS, Workload

ENOUGH = 5
"""After so many broken promises the run ends."""


class Script(NamedTuple):
    """A workload in a setting, by name."""

    name: str
    setting: Setting
    workload: Workload


def script(name: str, setting: str, letters: str) -> Script:
    """Letters that the journal has no method for are left out."""
    known = {operation.name: operation for operation in (*OPERATIONS, LOOK)}
    names = {operation.name for operation in ALPHABET} | {LOOK.name}
    assert names.issuperset(letters.split())
    return Script(
        name,
        next(one for one in SETTINGS if one.name == setting),
        tuple(known[letter] for letter in letters.split() if letter in known),
    )


SCRIPTS = (
    script(
        "short",
        "tiny",
        "append several large snapshot look close delete kill compact cut append",
    ),
    script(
        "mixed",
        "tiny",
        "append several large look burst snapshot idle append close rotate append kill look several delete compact "
        "append cut append idle append purge look close append",
    ),
    script("rotating", "tiny", "append append several append rotate append large append burst append idle append look"),
    script("reopening", "sectors", "append close append close several kill burst close cut close kill cut append look"),
    script("large", "pages", "large large append large kill large idle large several cut large close append look"),
    script(
        "deleting",
        "roomy",
        "append several snapshot delete append large delete rotate compact append several kill delete close purge "
        "append look delete cut append",
    ),
)


@dataclass
class Tally:
    """What a suite has seen."""

    runs: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    operations: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    acknowledged_behind: int = 0
    acknowledged_behind_a_sync: int = 0
    examined: int = 0
    distinct: int = 0
    broken: list[str] = field(default_factory=list)


class PatientLife(Life):
    """A life on a medium that fails: being refused is what is expected."""

    def __init__(self, nursery: trio.Nursery, setting: Setting, medium: FaultyMedium, tally: Tally):
        super().__init__(nursery, setting, medium, on_stored=self._stored)
        self._medium, self._tally = medium, tally
        self.images: list[Image] = []
        medium.life = self

    def forgive(self, broken: Broken) -> None:
        """An error of the medium is to be called one: to call the log corrupt would be wrong, and so is any exception
        but Stepwell's own."""
        cause = broken.__cause__
        # A read that ends early is, by the contract of the layer, the end of the file; only opening doubts that.
        ends_early = self._medium.fault.how == "short" and isinstance(cause, Damaged)
        if (isinstance(cause, CorruptLog) and not ends_early) or any(
            violation.wrong in (Wrong.STUCK, Wrong.UNDECLARED) for violation in broken.violations
        ):
            raise broken
        self._tally.refusals[type(cause).__name__] += 1

    def _stored(self) -> None:
        if not self._medium.failed:
            return
        self._tally.acknowledged_behind += 1
        assert self._medium.first is not None
        if self._medium.first.operation in SYNCS or self._medium.fault.lasting == "for ever, all":
            self._tally.acknowledged_behind_a_sync += 1
            now = self.ledger.now()
            self.images.append(Image(self.disk.durable_copy(), now, True, "the medium at an acknowledgement"))

    def remember(self, when: str, dice: Random) -> None:
        """Note what would be left if the process died now."""
        now = self.ledger.now()
        for disk, power_cut, what in (
            (self.disk.page_cache_copy(), False, "the page cache"),
            (self.disk.durable_copy(), True, "the medium"),
            (self.disk.crash_copy(dice.randrange), True, "a power cut"),
        ):
            self.images.append(Image(disk, now, power_cut, f"{what} {when}"))


class Suite:
    """Runs scripts with faults and judges what is left."""

    def __init__(self, seed: int, dice: Dice):
        self._seed, self._dice = seed, dice
        self._opened: set[bytes] = set()
        self.tally = Tally()

    def run(self, script: Script, fault: Fault) -> Call | None:
        """One run with a fault. Gives the call that failed, None if the run was over before."""
        return self.run_on(script, FaultyMedium(fault))

    def run_on(self, script: Script, medium: FaultyMedium) -> Call | None:
        """As `run`, on this medium."""
        self._dice.throw_anew(self._seed)
        fault = medium.fault
        at = "the workload itself"

        async def main() -> None:
            nonlocal at
            async with trio.open_nursery() as nursery:
                life = PatientLife(nursery, script.setting, medium, self.tally)
                await self._live(life, script)
            for image in life.images:
                at = image.at
                await self._judge(script, image)

        try:
            run(main)
        except Broken as broken:
            self.tally.broken.append(f"{script.name}:{fault.at} ({medium.first}) {fault}: {at}: {broken}")
        self.tally.runs += 1
        if medium.first is not None:
            self.tally.operations[medium.first.operation] += 1
        return medium.first

    async def _live(self, life: PatientLife, script: Script) -> None:
        for operation in script.workload:
            if await life.open():
                await operation.act(life)
        dice = Random(self._seed)
        life.remember("at the end", dice)
        await life.close()
        life.remember("behind a stop in order", dice)
        await life.die()

    async def _judge(self, script: Script, image: Image) -> None:
        self.tally.examined += 1
        key = fingerprint(image, script.setting)
        if key not in self._opened:
            self._opened.add(key)
            self.tally.distinct += 1
            await examine(image.disk, image.expected, script.setting.options)


def fail_every_call(suite: Suite, script: Script, *, only: int | None = None, enough: int = ENOUGH) -> Iterator[int]:
    """Every fault at every call of a script, until it completes untouched or enough promises are broken. Yields the
    number of each call."""
    at = only or 1
    while (first := suite.run(script, Fault(at, "EIO", "once"))) is not None:
        for fault in list(faults(at, first.operation))[1:]:
            suite.run(script, fault)
        suite.tally.calls[script.name] = at
        yield at
        at += 1
        if only or len(suite.tally.broken) >= enough:
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 if any promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.failing_calls", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--short", action="store_true", help="one workload instead of all")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--only", metavar="WORKLOAD:K", help="only the faults at this call of this workload")
    parser.add_argument("--keep-going", action="store_true", help=f"also after {ENOUGH} broken promises")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    options = parser.parse_args(arguments)
    scripts: Sequence[Script] = SCRIPTS[:1] if options.short else SCRIPTS
    only = None
    if options.only:
        name, _, number = options.only.partition(":")
        scripts, only = tuple(one for one in SCRIPTS if one.name == name), int(number)
    enough = sys.maxsize if options.keep_going else ENOUGH
    began = time.perf_counter()
    console = Console(stderr=True)
    with (
        deterministic() as dice,
        Progress("{task.description} {task.completed}", console=console, disable=not console.is_terminal) as progress,
    ):
        suite = Suite(options.seed, dice)
        for one in scripts:
            task = progress.add_task(f"calls of {one.name} failed", total=None)
            for number in fail_every_call(suite, one, only=only, enough=enough):
                progress.update(task, completed=number)
            if len(suite.tally.broken) >= enough:
                break
    report(suite.tally, options.seed, time.perf_counter() - began, as_json=options.json)
    return 1 if suite.tally.broken else 0


def report(tally: Tally, seed: int, seconds: float, *, as_json: bool) -> None:
    """Print what a suite has seen."""
    if as_json:
        figures = {
            "suite": "failing calls",
            "seed": seed,
            "runs": tally.runs,
            "calls": tally.calls,
            "runs_by_operation": dict(tally.operations),
            "refusals": dict(tally.refusals),
            "acknowledged_behind_a_fault": tally.acknowledged_behind,
            "acknowledged_behind_a_failed_sync": tally.acknowledged_behind_a_sync,
            "images": tally.examined,
            "distinct": tally.distinct,
            "violations": tally.broken,
            "seconds": round(seconds, 2),
        }
        print(json.dumps(figures, indent=2))
        return
    calls = ", ".join(f"{name} {count}" for name, count in tally.calls.items())
    print(f"failing calls, seed {seed}: {tally.runs:,} runs; every call of {len(tally.calls)} workloads ({calls})")
    print("runs by the call that failed: " + ", ".join(f"{what} {n:,}" for what, n in tally.operations.most_common()))
    print("refused with: " + ", ".join(f"{what} {count:,}" for what, count in tally.refusals.most_common()))
    print(
        f"{tally.acknowledged_behind:,} acknowledgements behind a fault, {tally.acknowledged_behind_a_sync:,} of them "
        f"behind a failed sync and looked up on the medium; {tally.examined:,} images, {tally.distinct:,} distinct"
    )
    for text in tally.broken:
        print(f"BROKEN {text}")
    print(f"{len(tally.broken)} promises broken; {seconds:.1f} s, {seconds / max(tally.runs, 1) * 1000:.1f} ms a run")


if __name__ == "__main__":
    sys.exit(main())
