"""The words by which facts are found, and those that a query asks for.

As for episodes, with two things more: irregular forms, which a stemmer does not know and people talk in, and dates.
"""

from __future__ import annotations

from functools import lru_cache

from stepwell.learning.ranking.porter import stem
from stepwell.learning.ranking.stop_words import STOP_WORDS
from stepwell.learning.ranking.words import words
from stepwell.learning.recall.dates import with_plain_dates
from stepwell.learning.recall.word_forms import FORMS

SEARCHED_CHARACTERS = 20_000
"""How much of a text is searched."""
_PASSED_OVER = STOP_WORDS - {"may"}  # a month, too
_LONGEST_WORD = 64
_REMEMBERED_WORDS = 65_536


def document_words(text: str) -> list[str]:
    """The words of a text in order, as they are compared: folded, without stop words, as stems. A text of stop words
    alone keeps them."""
    found = words(text[:SEARCHED_CHARACTERS])
    return [_compared(word) for word in found if word not in _PASSED_OVER] or [_compared(word) for word in found]


def query_words(query: str) -> list[str]:
    """The words of a query, each once. Question words are stop words; dates are taken in any common form."""
    return list(dict.fromkeys(document_words(with_plain_dates(query))))


@lru_cache(maxsize=_REMEMBERED_WORDS)
def _compared(word: str) -> str:
    return stem(FORMS.get(word, word[:_LONGEST_WORD]))
