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
import hashlib
import itertools
import json
import posixpath
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import trio
from rich.console import Console
from rich.progress import Progress
from trio.testing import wait_all_tasks_blocked

from stepstore.log.memory_files import MemoryFileSystem, Unsynced
from tests.crash.checker import Broken, Examined, Expectation, examine
from tests.crash.fates import Fate, describe, fates, image_of
from tests.crash.watching import Call
from tests.crash.workloads import (
    MISSING,
    OPERATIONS,
    SETTINGS,
    Dice,
    Life,
    Operation,
    Setting,
    Workload,
    append,
    deterministic,
    run,
)

MOST_OPERATIONS = 4
SHORT, LONG = 20_000, 200_000
IMAGES_PER_WORKLOAD = 12
"""How many images of a workload are visited in a run that does not visit all of them."""
ENOUGH = 5
"""After so many broken promises the run ends."""


class Case(NamedTuple):
    """A workload in a setting. Its images are those of its last operation; without one, those of the first opening."""

    setting: Setting
    workload: Workload

    def __str__(self) -> str:
        return f"{self.setting.name}:{','.join(operation.name for operation in self.workload)}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """The case that `str` shows so."""
        name, _, letters = text.partition(":")
        setting = next(setting for setting in SETTINGS if setting.name == name)
        by_name = {operation.name: operation for operation in OPERATIONS}
        return cls(setting, tuple(by_name[letter] for letter in letters.split(",") if letter))


def all_cases(operations: Sequence[Operation] = OPERATIONS, most: int = MOST_OPERATIONS) -> list[Case]:
    """Every sequence of at most so many operations, in every setting."""
    return [
        Case(setting, workload)
        for length in range(most + 1)
        for workload in itertools.product(operations, repeat=length)
        for setting in SETTINGS
    ]


class CutAgain(NamedTuple):
    """How much of what crashes leave is recovered, appended to, and cut again meanwhile: one image in so many, of power
    cuts and of deaths of the process alone; at one point of its recovery in so many, but no more than `points`."""

    one_cut_in: int = 24
    one_death_in: int = 6
    one_point_in: int = 6
    points: int = 3


class Sampler:
    """Picks one image in `step`, at uneven distances so that no pattern in the images falls in with it."""

    def __init__(self, seed: int):
        self._dice = Random(seed)
        self.step = 1.0
        self._next = 0.0

    def pick(self, count: int) -> Sequence[int]:
        """Which of the next `count` images to visit."""
        if self.step <= 1:
            self._next = 0.0
            return range(count)
        picked: list[int] = []
        while self._next < count:
            picked.append(int(self._next))
            self._next += max(self.step * self._dice.uniform(0.5, 1.5), 1.0)
        self._next -= count
        return picked


@dataclass
class Tally:
    """What a run has seen. `possible`: the images of the workloads that were run; `digest`: of all that was found."""

    workloads: int = 0
    possible: int = 0
    images: int = 0
    distinct: int = 0
    cut_again: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    digest: hashlib.blake2b = field(default_factory=hashlib.blake2b)


class Image(NamedTuple):
    """What a crash left, what had been promised by then, and how it came about."""

    disk: MemoryFileSystem
    expected: Expectation
    power_cut: bool
    at: str


class Explorer:
    """Runs one case after the other and judges the images that the sampler picks."""

    def __init__(self, seed: int, dice: Dice, sampler: Sampler, most: int | None, cut_again: CutAgain):
        self._seed, self._dice, self._sampler, self._most, self._cut_again = seed, dice, sampler, most, cut_again
        self._opened: set[bytes] = set()
        self.tally = Tally()

    def explore(self, case: Case) -> None:
        """Run a case and judge its images; what is broken goes to the tally."""
        self._dice.throw_anew(self._seed)
        self.tally.workloads += 1
        at = "the workload itself"
        images: list[Image] = []

        async def main() -> None:
            nonlocal at
            await self._live(case, images)
            for image in images:
                at = image.at
                await self._judge(case, image)

        try:
            run(main)
        except Broken as broken:
            self.tally.broken.append(f"{case}: {at}: {broken}")

    async def _live(self, case: Case, images: list[Image]) -> None:
        """Run the workload; note what the sampler picks of what its last operation may leave."""

        def collect(life: Life, where: str) -> None:
            items = life.disk.unsynced()
            possible = fates(items, in_order=case.setting.in_order)
            self.tally.possible += len(possible) + 1
            expected = None
            for number in self._sampler.pick(len(possible) + 1):
                if self._most is not None and self.tally.images + len(images) >= self._most:
                    return
                expected = expected or life.ledger.now()
                if number < len(possible):
                    images.append(after_power_cut(life.disk, items, possible[number], expected, where))
                else:
                    images.append(Image(life.disk.page_cache_copy(), expected, False, f"{where}: the process died"))

        async with trio.open_nursery() as nursery:
            watch = Watch(collect)
            life = watch.life = Life(nursery, case.setting, watch)
            watch.on = not case.workload
            await life.open()
            for number, operation in enumerate(case.workload, 1):
                if number == len(case.workload):
                    watch.begin()
                await operation.act(life)
            await watch.end()
            await life.die()

    async def _judge(self, case: Case, image: Image) -> None:
        self.tally.images += 1
        key = fingerprint(image, case.setting)
        if key in self._opened:
            return
        self._opened.add(key)
        self.tally.distinct += 1
        every = self._cut_again.one_cut_in if image.power_cut else self._cut_again.one_death_in
        again = await self._go_on(case, image, Random(key)) if key[0] % every == 0 else []
        examined = await examine(image.disk, image.expected, case.setting.options)
        self._count(image, examined, key)
        for second in again:
            self.tally.cut_again += 1
            key = fingerprint(second, case.setting)
            if key not in self._opened:
                self._opened.add(key)
                try:
                    await examine(second.disk, second.expected, case.setting.options)
                except Broken as broken:
                    raise Broken(broken.violations, f"and behind that, {second.at}") from broken

    def _count(self, image: Image, examined: Examined, key: bytes) -> None:
        there = {record.payload for record in examined.found.records()}
        open_ones = [attempt for attempt, fate, _lsn in image.expected.attempts if fate.is_open]
        kept = sum(attempt.batches[0].payloads[0] in there for attempt in open_ones)
        tally = self.tally
        tally.seen["torn tails cut"] += bool(examined.report.bytes_cut)
        tally.seen["an unacknowledged submission kept"] += kept > 0
        tally.seen["an unacknowledged submission lost"] += kept < len(open_ones)
        tally.seen["several segments"] += examined.report.segments > 1
        tally.seen["deaths of the process alone"] += not image.power_cut
        tally.digest.update(key)
        tally.digest.update(repr(examined.found.records()).encode())

    async def _go_on(self, case: Case, image: Image, dice: Random) -> list[Image]:
        """Recover an image, append, and cut the power again meanwhile: what that leaves at some random points, and at
        the end if nothing unsynced survives."""
        points: list[Image] = []

        def collect(life: Life, where: str) -> None:
            if dice.randrange(self._cut_again.one_point_in):
                return
            items = life.disk.unsynced()
            fate = dice.choice(fates(items, in_order=case.setting.in_order))
            points.append(after_power_cut(life.disk, items, fate, life.ledger.now(), where))

        async with trio.open_nursery() as nursery:
            watch = Watch(collect)
            disk = image.disk.page_cache_copy()
            life = watch.life = Life(nursery, case.setting, watch, disk=disk, promised=image.expected)
            watch.on = True
            await life.open()
            await append(life)
            await watch.end()
            end = Image(life.disk.durable_copy(), life.ledger.now(), True, "at the end: power cut, all unsynced lost")
            await life.die()
        return [*dice.sample(points, min(self._cut_again.points, len(points))), end]


class Watch:
    """A hook for the calls of a life that calls `collect` in front of each one before which a power cut would leave
    something else than before the last one, or something else is promised."""

    def __init__(self, collect: Callable[[Life, str], None]):
        self._collect = collect
        self._last = (0, 0, 0)
        self.on = False
        self.life: Life | None = None

    def _state(self, life: Life) -> tuple[int, int, int]:
        return life.processes, life.files.changes, life.ledger.version

    def begin(self) -> None:
        """Collect from now on, but not what could have been collected before."""
        assert self.life is not None
        self._last, self.on = self._state(self.life), True

    def __call__(self, call: Call | str) -> None:
        if self.on and self.life is not None and (state := self._state(self.life)) != self._last:
            self._last = state
            self._collect(self.life, f"in front of {call} in process {self.life.processes}")

    async def end(self) -> None:
        """Let what goes on in the background come to rest, and collect no more."""
        await wait_all_tasks_blocked()
        self("the end")
        self.on = False


def after_power_cut(
    disk: MemoryFileSystem, items: Sequence[Unsynced], fate: Fate, expected: Expectation, where: str
) -> Image:
    """What a power cut leaves of a disk if this is the fate of what is not synced."""
    return Image(image_of(disk, items, fate), expected, True, f"{where}: power cut, {describe(items, fate)}")


_QUARANTINED_AT = re.compile(r"^\d{8}T[\d.]+Z")


def fingerprint(image: Image, setting: Setting) -> bytes:
    """The same for images that hold the same, seen and durable, with the same promises. When something went to
    quarantine, and what LOCK says of its holder, is left out."""
    known = hashlib.blake2b(image.expected.digest() + setting.name.encode(), digest_size=16)
    for disk in (image.disk,) if image.power_cut else (image.disk, image.disk.durable_copy()):
        for path, content in contents(disk, "/"):
            folder, name = posixpath.split(path)
            if name == "LOCK":
                content = content[:1]
            name = _QUARANTINED_AT.sub("", name)
            known.update(f"{folder}/{name} {len(content)}\n".encode())
            known.update(content)
        known.update(b"durable")
    return known.digest()


def contents(disk: MemoryFileSystem, folder: str) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder; a folder itself counts as an empty file."""
    for name in disk.list_names(folder):
        path = f"{folder}/{name}" if folder != "/" else f"/{name}"
        found = disk.stat(path)
        assert found is not None
        if found.is_directory:
            yield path, b""
            yield from contents(disk, path)
        else:
            yield path, disk.open(path, write=False).read(0, found.size)


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
            if len(tally.broken) >= ENOUGH:
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
