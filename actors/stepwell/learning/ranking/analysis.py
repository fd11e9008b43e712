"""Text to terms: what is indexed, and what is asked."""

from __future__ import annotations

from functools import lru_cache

from stepwell.learning.ranking.porter import stem
from stepwell.learning.ranking.stop_words import STOP_WORDS
from stepwell.learning.ranking.words import words

ANALYSIS_VERSION = 2
"""Changes whenever the same text may give other terms: what was indexed before must then be indexed anew."""
ANALYSED_CHARACTERS = 20_000
"""How much of a text is read."""
LONGEST_TERM = 64
"""Longer words (hashes, base64) are cut off: what is the same so far is taken to be the same."""
_REMEMBERED_WORDS = 65_536


def analyse(text: str) -> list[str]:
    """The terms of a text in order: words without stop words, as stems. The same text gives the same terms for ever,
    within one `ANALYSIS_VERSION`.

    A text of stop words alone keeps them: "who are they" is better found by its words than not at all.
    """
    return [_term(word) for word in _telling_words(text)]


def spelled(text: str) -> dict[str, str]:
    """The terms of a text, each with the first word that it stands for: to show them to a person."""
    found: dict[str, str] = {}
    for word in _telling_words(text):
        found.setdefault(_term(word), word)
    return found


def _telling_words(text: str) -> list[str]:
    found = words(text[:ANALYSED_CHARACTERS])
    return [word for word in found if word not in STOP_WORDS] or found


@lru_cache(maxsize=_REMEMBERED_WORDS)
def _term(word: str) -> str:
    return stem(word[:LONGEST_TERM])
