"""One score of several kinds of score."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def fuse(lists: Mapping[str, Mapping[K, float]], weights: Mapping[str, float]) -> dict[K, float]:
    """The weighted mean of scores from 0 to 1: `lists` gives the scores of each kind, `weights` what each counts.

    What one list has not counts 0 there. Scores are added, not ranks: ranks forget by how much the first is better,
    and equal weights of ranks hurt where one list is weak.

    Raises: `ValueError` (a list without a weight, a negative one, or none above 0).
    """
    if any(name not in weights or weights[name] < 0 for name in lists):
        raise ValueError("every list needs a weight of at least 0")
    whole = sum(weights[name] for name in lists)
    if whole <= 0:
        raise ValueError("some weight must be above 0")
    fused: dict[K, float] = {}
    for name, scores in lists.items():
        share = weights[name] / whole
        for key, score in scores.items():
            fused[key] = fused.get(key, 0.0) + share * score
    return fused
