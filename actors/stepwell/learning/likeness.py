"""How much two short texts say the same: the terms they share."""

from __future__ import annotations

from itertools import islice

from stepwell.learning.ranking import analyse

TERMS_READ = 64
CHARACTERS_READ = 4_000


def terms_of(text: str) -> frozenset[str]:
    """The terms of a text that tell something: words without their endings, and without stop words."""
    return frozenset(islice(analyse(text[:CHARACTERS_READ]), TERMS_READ))


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Dice's coefficient of two sets of terms: 0 for none in common, 1 for the same."""
    if not one or not other:
        return 0.0
    return 2 * len(one & other) / (len(one) + len(other))
