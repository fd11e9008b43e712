"""How sure a share is, what feedback adds, and how a pattern fades: worked by hand, and in bounds for any counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.intervals import advice_boost, recency, success_interval, wilson

DAY_NS = 86_400 * 10**9
counts = st.integers(0, 10_000).flatmap(lambda trials: st.tuples(st.floats(0, trials), st.just(trials)))


def test_the_interval_of_eight_in_ten_is_that_of_the_textbook() -> None:
    found = wilson(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert success_interval(8_000, 10) == found


def test_what_was_never_tried_may_be_anything() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@given(counts)
def test_an_interval_holds_its_share(found: tuple[float, int]) -> None:
    wins, trials = found
    interval = wilson(wins, trials)
    assert 0 <= interval.low <= interval.high <= 1
    if trials:
        assert interval.low - 1e-12 <= wins / trials <= interval.high + 1e-12


@given(st.integers(0, 500), st.integers(0, 500))
def test_advice_that_helped_rises_and_advice_that_did_not_falls(helped: int, failed: int) -> None:
    before = advice_boost(helped, helped + failed)
    assert advice_boost(helped + 1, helped + failed + 1) > before > advice_boost(helped, helped + failed + 1)
    assert -0.25 < before < 0.25


def test_advice_that_nobody_has_judged_neither_rises_nor_falls() -> None:
    assert advice_boost(0, 0) == 0
    assert advice_boost(1, 1) == pytest.approx(0.25 * 0.2065, abs=1e-4)
    assert advice_boost(0, 1) == -advice_boost(1, 1)


def test_a_pattern_fades_by_half_in_thirty_days() -> None:
    assert recency(0, 30 * DAY_NS) == pytest.approx(0.5)
    assert recency(5 * DAY_NS, 5 * DAY_NS) == recency(5 * DAY_NS, 0) == 1.0
    assert recency(None, 0) == 0.0
