"""Runs that can be repeated: the same ids, times and order of tasks, on a clock that jumps."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest import mock
from uuid import UUID

import trio
from trio.testing import MockClock

from stepwell.testing.scheduling import reseed, seeded_scheduling
from tests.crash.checker import Broken, Violation, Wrong

ENDLESS = 1e6
"""Seconds of the clock that jumps which no run takes."""


class Dice:
    """Where ids, tags and times come from in a run that can be repeated."""

    def __init__(self) -> None:
        self._random = Random()

    def throw_anew(self, seed: int) -> None:
        self._random.seed(seed)
        reseed(seed)

    def randbits(self, bits: int) -> int:
        return self._random.getrandbits(bits)

    def uuid4(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)


@contextmanager
def deterministic() -> Iterator[Dice]:
    """The same ids, times and order of tasks in every run, and a small reserve, since disks are copied by the hundred
    thousand."""
    dice = Dice()
    with ExitStack() as stack:
        stack.enter_context(seeded_scheduling(0))
        for target, value in (
            ("secrets.randbits", dice.randbits),
            ("uuid.uuid4", dice.uuid4),
            ("time.time_ns", lambda: 1_709_164_800_000_000_000),
            ("stepstore.log.reserve.RESERVE_BYTES", 2048),
        ):
            stack.enter_context(mock.patch(target, value))
        stack.enter_context(mock.patch.object(logging.getLogger("stepstore.log"), "disabled", True))
        yield dice


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run on a clock that jumps ahead when nothing else can happen.

    Raises: the `Broken` that came out of it, freed of the groups of its nurseries; one of its own if it comes to rest
    without having come to its end.
    """

    async def until_stuck() -> None:
        with trio.move_on_after(ENDLESS) as scope:
            await main()
        if scope.cancelled_caught:
            raise Broken([Violation(Wrong.STUCK, "the whole run")])

    try:
        trio.run(until_stuck, clock=MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        broken, others = group.split(Broken)
        if broken is None or others is not None:
            raise
        raise _first(broken) from None


def _first(group: BaseExceptionGroup[Broken]) -> Broken:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
