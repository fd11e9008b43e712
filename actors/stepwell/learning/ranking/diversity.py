"""Results that do not repeat each other."""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol, TypeVar


class Scored(Protocol):
    """Something with a score and the terms it is made of."""

    @property
    def score(self) -> float: ...
    @property
    def terms(self) -> Set[str]: ...


S = TypeVar("S", bound=Scored)


def overlap(left: Set[str], right: Set[str]) -> float:
    """Jaccard's index: the share of all terms of both that both have; 1 for two without any."""
    if not left and not right:
        return 1.0
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def diversify(ranked: list[S], limit: int, penalty: float) -> list[S]:
    """Up to `limit` of `ranked`, which is sorted best first: each time the one with the largest

        score · (1 − penalty · largest overlap with one that was picked)

    (maximal marginal relevance, J. Carbonell and J. Goldstein, 1998, with the redundancy as a share of the score, so
    that what is bad is never picked for being different). The first is always the best; `penalty` 0 changes nothing.
    Equals stay in their order. Raises: `ValueError` (a penalty outside 0 to 1).
    """
    if not 0 <= penalty <= 1:
        raise ValueError(f"penalty must be from 0 to 1, not {penalty}")
    left = list(ranked)
    redundancy = [0.0] * len(left)
    picked: list[S] = []
    while left and len(picked) < limit:
        at = max(range(len(left)), key=lambda place: left[place].score * (1 - penalty * redundancy[place]))
        best = left.pop(at)
        redundancy.pop(at)
        picked.append(best)
        for place, other in enumerate(left):
            redundancy[place] = max(redundancy[place], overlap(best.terms, other.terms))
    return picked
