"""Run Trio deterministically: the order in which tasks run follows from a seed.

Trio shuffles the tasks that are ready on purpose, so that nobody relies on their order. It can be told to shuffle from
a seed, but only through two private names. This is the one module that touches them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

import trio

T = TypeVar("T")

TRIO_VERSIONS = ("0.30", "0.31", "0.32", "0.33", "0.34", "0.35")
"""The releases in which the private names were seen to do what this module needs."""
_SWITCH, _SHUFFLER = "_ALLOW_DETERMINISTIC_SCHEDULING", "_r"


class UnknownTrioError(RuntimeError):
    """This Trio cannot be told to schedule from a seed in the way this module knows."""


def check_trio() -> None:
    """Look whether the private names are there. Raises: `UnknownTrioError`."""
    run = trio._core._run
    if not isinstance(getattr(run, _SWITCH, None), bool) or not isinstance(getattr(run, _SHUFFLER, None), Random):
        raise UnknownTrioError(
            f"Trio {trio.__version__} has no {_SWITCH} and {_SHUFFLER} in trio._core._run; deterministic runs are "
            f"known to work with Trio {TRIO_VERSIONS[0]} to {TRIO_VERSIONS[-1]}. Look at how its scheduler shuffles "
            "(trio/_core/_run.py), mend stepwell.testing.scheduling, and add the release to TRIO_VERSIONS."
        )


def reseed(seed: int) -> None:
    """Have the order of tasks follow from `seed` from now on. To be called inside `seeded_scheduling`."""
    trio._core._run._r.seed(seed)


@contextmanager
def seeded_scheduling(seed: int) -> Iterator[None]:
    """In this block every `trio.run` orders its tasks as the seed says. Outside it nothing has changed.

    Raises: `UnknownTrioError`.
    """
    check_trio()
    run: Any = trio._core._run
    switch, state = getattr(run, _SWITCH), run._r.getstate()
    setattr(run, _SWITCH, True)
    reseed(seed)
    try:
        yield
    finally:
        setattr(run, _SWITCH, switch)
        run._r.setstate(state)


def run_deterministically(
    main: Callable[..., Awaitable[T]],
    *args: Any,
    seed: int,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """As `trio.run`, with the tasks in an order that follows from `seed`.

    With the same seed, the same `main` and nothing else that varies (give a `trio.testing.MockClock`, and use no
    threads and no sockets), every run is the same. `Simulation` takes care of more: times, ids and worker threads.
    Raises: `UnknownTrioError`, and whatever `main` does.
    """
    with seeded_scheduling(seed):
        return trio.run(main, *args, clock=clock, instruments=instruments)
