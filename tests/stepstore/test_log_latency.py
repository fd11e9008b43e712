"""Durations counted in fixed buckets, and the quantiles that can be told of them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from stepstore.log.latency import BOUNDS, LatencyHistogram


def test_nothing_counted_has_no_quantile() -> None:
    histogram = LatencyHistogram()
    assert (histogram.count, histogram.quantile(0.5), histogram.longest) == (0, 0.0, 0.0)


def test_a_bound_belongs_to_its_own_bucket_and_what_is_longer_than_all_to_the_last() -> None:
    histogram = LatencyHistogram()
    for seconds in (0.0, 0.0005, 0.00051, 30.0, 31.0):
        histogram.add(seconds)
    assert histogram.counts == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert histogram.longest == 31.0
    assert histogram.quantile(1.0) == 31.0


def test_quantiles_are_bounds_of_the_bucket_in_which_they_lie() -> None:
    histogram = LatencyHistogram()
    for _ in range(98):
        histogram.add(0.0015)
    histogram.add(0.3)
    histogram.add(0.4)
    assert histogram.quantile(0.5) == 0.002
    assert histogram.quantile(0.98) == 0.002
    assert histogram.quantile(0.99) == 0.4, "the longest is a better bound than that of its bucket"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_never_below_the_exact_one_and_in_its_bucket(durations: list[float], share: float) -> None:
    histogram = LatencyHistogram()
    for seconds in random.Random(1).sample(durations, len(durations)):
        histogram.add(seconds)
    exact = next(d for n, d in enumerate(sorted(durations), 1) if n >= share * len(durations))
    told = histogram.quantile(share)
    assert exact <= told
    assert not any(exact <= bound < told for bound in BOUNDS)
