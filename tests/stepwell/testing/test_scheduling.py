"""Trio runs tasks in an order that follows from a seed, and this Trio is one that is known to."""

from __future__ import annotations

from random import Random

import pytest
import trio

from stepwell.testing import UnknownTrioError, run_deterministically
from stepwell.testing.scheduling import TRIO_VERSIONS, check_trio


async def order_of_tasks() -> list[int]:
    order: list[int] = []

    async def task(number: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(task, number)
    return order


def test_this_trio_is_one_of_those_that_the_private_switch_is_known_in() -> None:
    release = ".".join(trio.__version__.split(".")[:2])
    assert release in TRIO_VERSIONS, (
        f"Trio {trio.__version__} is new here. If the other tests of this module pass with it, and "
        "`python -m tests.simulation --short` does, add its release to TRIO_VERSIONS in stepwell/testing/scheduling.py."
    )


def test_one_seed_is_one_order_and_other_seeds_are_others() -> None:
    orders = [run_deterministically(order_of_tasks, seed=seed) for seed in (1, 2, 3, 1, 2, 3)]
    assert orders[:3] == orders[3:]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trio._core._run
    monkeypatch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", False)  # Hypothesis has Trio switch it on
    run._r.seed(5)
    state = run._r.getstate()
    run_deterministically(order_of_tasks, seed=1)
    assert run._ALLOW_DETERMINISTIC_SCHEDULING is False
    assert run._r.getstate() == state


@pytest.mark.parametrize("name", ["_ALLOW_DETERMINISTIC_SCHEDULING", "_r"])
def test_a_trio_without_the_private_names_is_refused_and_the_error_says_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_trio()
    monkeypatch.delattr(trio._core._run, name)
    with pytest.raises(UnknownTrioError, match=r"TRIO_VERSIONS"):
        run_deterministically(order_of_tasks, seed=1)


def test_a_shuffler_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio._core._run, "_r", Random)
    with pytest.raises(UnknownTrioError):
        check_trio()
