"""How long things took, counted in fixed buckets: a count costs the same however many there are."""

from __future__ import annotations

import math
from bisect import bisect_left

BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The upper bounds of the buckets, in seconds; one more bucket takes what took longer."""


class LatencyHistogram:
    """Durations in seconds. `counts` has one number per bucket, `longest` the longest of all."""

    __slots__ = ("counts", "longest")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        if seconds > self.longest:
            self.longest = seconds

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """A duration that this share of them did not exceed: the upper bound of the bucket in which the share is
        reached, or the longest of all where that is shorter; 0 if nothing was counted."""
        assert 0 < share <= 1
        due, counted = math.ceil(share * self.count), 0
        for bound, count in zip((*BOUNDS, math.inf), self.counts, strict=True):
            counted += count
            if counted and counted >= due:
                return min(bound, self.longest)
        return 0.0
