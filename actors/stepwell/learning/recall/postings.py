"""The inverted index: which facts hold a word, and how often."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

_MOST = 255  # one byte per posting; BM25 tells 255 from more by less than it tells 1 from 2


class Postings:
    """Facts are numbers, added in rising order. What is removed leaves nothing behind."""

    def __init__(self) -> None:
        self._facts: dict[str, array[int]] = {}
        self._counts: dict[str, bytearray] = {}
        self.lengths = array("I", [0])
        self.total_length = 0
        self.size = 0

    def add(self, number: int, words: Iterable[str]) -> None:
        """Add a fact with a number above all before."""
        counted = Counter(words)
        facts, counts = self._facts, self._counts
        for word, count in counted.items():
            held = facts.get(word)
            if held is None:
                facts[word] = array("I", (number,))
                counts[word] = bytearray((min(count, _MOST),))
            else:
                held.append(number)
                counts[word].append(count if count < _MOST else _MOST)
        missing = number - len(self.lengths)
        if missing > 0:
            self.lengths.extend([0] * missing)
        length = counted.total()
        self.lengths.append(length)
        self.total_length += length
        self.size += 1

    def remove(self, number: int, words: Iterable[str]) -> None:
        """Take a fact out again, which was added with these words."""
        for word in set(words):
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
        return len(self._facts.get(word, ()))

    def facts(self, word: str) -> array[int]:
        """Those that hold a word which some hold."""
        return self._facts[word]

    def counts(self, word: str) -> bytearray:
        """How often each of `facts` does."""
        return self._counts[word]

    def count(self, word: str, number: int) -> int:
        """How often one fact holds a word which some hold."""
        held = self._facts[word]
        place = bisect_left(held, number)
        return self._counts[word][place] if place < len(held) and held[place] == number else 0
