"""Run workloads, and judge what a crash may leave at every call of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import trio
from trio.testing import wait_all_tasks_blocked

from tests.crash.checker import Broken
from tests.crash.examining import Examined, examine
from tests.crash.fates import fates
from tests.crash.images import Image, after_power_cut, fingerprint
from tests.crash.lives import SETTINGS, Life, Setting
from tests.crash.repeatable import Dice, run
from tests.crash.watching import Call
from tests.crash.workloads import OPERATIONS, Workload


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


class CutAgain(NamedTuple):
    """How much of what crashes leave is recovered, appended to, and cut again meanwhile: one image in so many, of power
    cuts and of deaths of the process alone; at one point of its recovery in so many, with so many `fates` of what is
    not synced there, of which `images` are examined."""

    one_cut_in: int = 32
    one_death_in: int = 8
    one_point_in: int = 6
    fates: int = 1
    images: int = 3


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
        self._dice.throw_anew(int.from_bytes(key))  # what becomes of an image does not depend on those before it
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
        tally.seen["streams deleted"] += bool(examined.found.deleted)
        tally.seen["snapshots"] += any(examined.found.snapshots.values())
        tally.digest.update(key)
        tally.digest.update(repr(examined.found.records()).encode())

    async def _go_on(self, case: Case, image: Image, dice: Random) -> list[Image]:
        """Recover an image, append, and cut the power again meanwhile: what that leaves at some random points, and at
        the end if nothing unsynced survives."""
        images: list[Image] = []

        def collect(life: Life, where: str) -> None:
            if dice.randrange(self._cut_again.one_point_in):
                return
            items = life.disk.unsynced()
            possible = fates(items, in_order=case.setting.in_order)
            for fate in dice.sample(possible, min(self._cut_again.fates, len(possible))):
                images.append(after_power_cut(life.disk, items, fate, life.ledger.now(), where))

        async with trio.open_nursery() as nursery:
            watch = Watch(collect)
            disk = image.disk.page_cache_copy()
            life = watch.life = Life(nursery, case.setting, watch, disk=disk, promised=image.expected)
            watch.on = True
            await life.open()
            await life.sent(life.send((life.stream("behind it"), 1, 0, 0)))
            await watch.end()
            end = Image(life.disk.durable_copy(), life.ledger.now(), True, "at the end: power cut, all unsynced lost")
            await life.die()
        return [*dice.sample(images, min(self._cut_again.images, len(images))), end]


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
