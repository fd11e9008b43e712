"""How much two short texts say the same: the words they share."""

from __future__ import annotations

import re

from stepwell.learning.concepts import STOP_WORDS

WORDS_READ = 64
_WORD = re.compile(r"\w+")
_SHORT_WORDS = (
    "a an and are as at be but by can do for has how i if in is it its me my no not of on or so the to us we who why "
    "you all any each"
)
_SHORT = frozenset(_SHORT_WORDS.split())


def words_of(text: str) -> frozenset[str]:
    """The words of a text that tell something, in lower case and without a plural's s."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(text.lower()):
        word = match[0]
        if word in _SHORT or word in STOP_WORDS:
            continue
        found[word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word] = None
        if len(found) >= WORDS_READ:
            break
    return frozenset(found)


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Dice's coefficient of two sets of words: 0 for none in common, 1 for the same."""
    if not one or not other:
        return 0.0
    return 2 * len(one & other) / (len(one) + len(other))
