"""The inverted index: which facts hold a word, and how often."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

_MOST = 255  # one byte per posting; BM25 tells 255 from more by less than it tells 1 from 2


class Postings:
    """Facts are numbers, added in rising order. What is removed leaves nothing behind.

    Adding only notes for each word which facts it stands in, once for each time; that is made into facts and counts
    when the word is first asked for. Most words never are, and a scope is searched after opening that much sooner.
    """

    def __init__(self) -> None:
        self._facts: dict[str, array[int]] = {}
        self._counts: dict[str, bytearray] = {}
        self._noted: defaultdict[str, array[int]] = defaultdict(_no_facts)
        self.lengths = array("I", [0])
        self.total_length = 0
        self.size = 0

    def add(self, number: int, words: Sequence[str]) -> None:
        """Add a fact with a number above all before."""
        noted = self._noted
        for word in words:
            noted[word].append(number)
        missing = number - len(self.lengths)
        if missing > 0:
            self.lengths.extend([0] * missing)
        length = len(words)
        self.lengths.append(length)
        self.total_length += length
        self.size += 1

    def _count(self, word: str) -> None:
        """Make facts and counts of what was noted for a word."""
        noted = self._noted.pop(word, None)
        if noted is None:
            return
        if word not in self._facts:
            self._facts[word], self._counts[word] = array("I"), bytearray()
        counted = Counter(noted)  # in the order of first appearance, which is a rising one
        if len(counted) == len(noted):
            self._facts[word].extend(noted)
            self._counts[word].extend(b"\x01" * len(noted))
        else:
            self._facts[word].extend(counted)
            self._counts[word].extend(count if count < _MOST else _MOST for count in counted.values())

    def remove(self, number: int, words: Sequence[str]) -> None:
        """Take a fact out again, which was added with these words."""
        for word in set(words):
            self._count(word)
            held = self._facts[word]
            if len(held) == 1:
                del self._facts[word], self._counts[word]
            else:
                place = bisect_left(held, number)
                del held[place], self._counts[word][place]
        self.total_length -= self.lengths[number]
        self.lengths[number] = 0
        self.size -= 1

    def frequency(self, word: str) -> int:
        """How many facts hold the word."""
        self._count(word)
        return len(self._facts.get(word, ()))

    def facts(self, word: str) -> array[int]:
        """Those that hold a word which some hold."""
        self._count(word)
        return self._facts[word]

    def counts(self, word: str) -> bytearray:
        """How often each of `facts` does."""
        self._count(word)
        return self._counts[word]

    def count(self, word: str, number: int) -> int:
        """How often one fact holds a word which some hold."""
        self._count(word)
        held = self._facts[word]
        place = bisect_left(held, number)
        return self._counts[word][place] if place < len(held) and held[place] == number else 0


def _no_facts() -> array[int]:
    return array("I")
