"""Okapi BM25: how well a text answers a query, by the terms they share.

    score(q, d) = Σ over terms t of q:  qtf(t) · idf(t) · tf(t, d) · (k1 + 1) / (tf(t, d) + norm(d))
    norm(d) = k1 · (1 − b + b · |d| / average)
    idf(t) = ln(1 + (N − n(t) + ½) / (n(t) + ½))

S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the idf with the 1 inside the
logarithm is Lucene's, which is never negative. With several fields, tf and |d| are sums over the fields by weight
(the simple BM25F of section 3.6 there), so that a term saturates once, not once per field.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stepwell.learning.ranking.analysis import analyse


class TermScore(NamedTuple):
    """What one term of the query adds to a score."""

    term: str
    score: float


class CorpusStatistics(NamedTuple):
    """What BM25 knows of all texts: how many there are, their mean length in terms, in how many each term occurs."""

    documents: int
    average_length: float
    document_frequency: Mapping[str, int]

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> CorpusStatistics:
        """Counted over texts that are terms already."""
        lengths = sum(len(terms) for terms in texts)
        frequencies = Counter(term for terms in texts for term in set(terms))
        return cls(len(texts), lengths / len(texts) if texts else 0.0, frequencies)

    def idf(self, term: str) -> float:
        """How much it says that a text has the term: above 0, at most ln(1 + 2N + 1)."""
        # A count that is older than `documents` must not make the logarithm fail.
        found = min(self.document_frequency.get(term, 0), self.documents)
        return math.log(1 + (self.documents - found + 0.5) / (found + 0.5))


class Bm25:
    """The scores of one query (its terms) against any texts. `k1`: how fast repetitions of a term stop counting (0: at
    once). `b`: how much a long text is held against it (0: not at all, 1: in full)."""

    def __init__(self, query: Sequence[str], corpus: CorpusStatistics, *, k1: float = 1.5, b: float = 0.75):
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 must be at least 0 and b from 0 to 1, not {k1} and {b}")
        self._k1, self._b = k1, b
        self._average = corpus.average_length or 1.0
        # Sorted, so that the sum does not depend on the order of the words in the last bit.
        self.weights = {term: count * corpus.idf(term) for term, count in sorted(Counter(query).items())}
        """What each term is worth, before the text is looked at."""

    def explain(self, frequencies: Mapping[str, float], length: float) -> list[TermScore]:
        """What each term adds for a text with these frequencies of terms and this length, largest first. Only terms
        that it has are listed; the scores add up to `score`."""
        norm = self._k1 * (1 - self._b + self._b * length / self._average)
        found = [
            TermScore(term, weight * _saturated(frequencies[term], self._k1, norm))
            for term, weight in self.weights.items()
            if frequencies.get(term, 0) > 0
        ]
        return sorted(found, key=lambda part: (-part.score, part.term))

    def score(self, frequencies: Mapping[str, float], length: float) -> float:
        """The score of a text: at least 0, 0 only if it shares no term with the query."""
        norm = self._k1 * (1 - self._b + self._b * length / self._average)
        total = 0.0
        for term, weight in self.weights.items():
            if (frequency := frequencies.get(term, 0)) > 0:
                total += weight * _saturated(frequency, self._k1, norm)
        return total

    @property
    def ideal(self) -> float:
        """The score of a text of average length that has each term once: what a good match gets. A short text with all
        of them, or one that repeats them, gets more."""
        return sum(self.weights.values())


def _saturated(frequency: float, k1: float, norm: float) -> float:
    return frequency * (k1 + 1) / (frequency + norm)


def rank_texts(query: str, texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> list[tuple[int, float]]:
    """The places of the texts that share a term with the query, best first, with their scores; equals in their order.

    For a few thousand texts at hand; what is indexed once and asked often keeps its terms and a `CorpusStatistics`.
    """
    analysed = [analyse(text) for text in texts]
    bm25 = Bm25(analyse(query), CorpusStatistics.of(analysed), k1=k1, b=b)
    scores = [bm25.score(Counter(terms), len(terms)) for terms in analysed]
    return sorted(((at, score) for at, score in enumerate(scores) if score > 0), key=lambda found: -found[1])
