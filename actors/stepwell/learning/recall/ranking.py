"""The score of a fact: BM25 of its words, a share of the scores of its neighbours, and one of its conversation."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from stepwell.learning.recall.conversations import NONE, Conversations
from stepwell.learning.recall.postings import Postings
from stepwell.learning.recall.settings import RecallSettings


class Ranked(NamedTuple):
    """A fact and what its score is made of."""

    number: int
    score: float
    words: dict[str, float]
    neighbours: float
    conversation: float


def rarity(size: int, frequency: int) -> float:
    """How much a word says that so many of so many have (Robertson and Spärck Jones, as Lucene has it)."""
    return math.log(1 + (size - frequency + 0.5) / (frequency + 0.5))


class Ranking:
    """The ranking of one query."""

    def __init__(
        self, postings: Postings, conversations: Conversations, settings: RecallSettings, words: Iterable[str]
    ):
        self._postings, self._conversations, self._settings = postings, conversations, settings
        known = {word: postings.frequency(word) for word in words}
        self._weight = {
            word: rarity(postings.size, frequency) * (settings.k1 + 1) for word, frequency in known.items() if frequency
        }
        # The length of a fact counts against the mean of all.
        mean = postings.total_length / postings.size if postings.size else 1
        self._base = settings.k1 * (1 - settings.b)
        self._slope = settings.k1 * settings.b / (mean or 1)
        self._read, self._late = self._divided(sorted(self._weight, key=lambda word: (known[word], word)))
        self._found: dict[int, float] = {}
        self._talk: dict[int, float] = {}
        self._own_known: dict[int, float] = {}

    def _divided(self, rarest_first: Sequence[str]) -> tuple[list[str], list[str]]:
        """The words whose postings are read, and those that only add to what the others found."""
        left, read = self._settings.most_postings, 0
        for word in rarest_first:
            left -= self._postings.frequency(word)
            if left < 0 and read:
                break
            read += 1
        return list(rarest_first[:read]), list(rarest_first[read:])

    def best(self, k: int, accepts: Callable[[int], bool] | None = None) -> list[Ranked]:
        """The best `k` facts that are accepted, the best first, of equal ones the newest."""
        if not self._read or k <= 0:
            return []
        self._read_postings()
        scored: dict[int, float] = {}
        for number in self._candidates(max(self._settings.candidates, 2 * k), accepts):
            for near in self._near(number):
                if near not in scored and (near == number or accepts is None or accepts(near)):
                    scored[near] = self._own(near) + self._neighbours(near) + self._conversation(near)
        best = heapq.nsmallest(k, scored.items(), key=lambda item: (-item[1], -item[0]))
        return [self._explained(number, score) for number, score in best]

    def _read_postings(self) -> None:
        base, slope, lengths = self._base, self._slope, self._postings.lengths
        found = self._found
        so_far = found.get
        for word in self._read:
            weight = self._weight[word]
            facts, counts = self._postings.facts(word), self._postings.counts(word)
            for number, count in zip(facts, counts, strict=True):
                found[number] = so_far(number, 0.0) + weight * count / (count + base + slope * lengths[number])
            self._add_talk(facts)

    def _add_talk(self, facts: Iterable[int]) -> None:
        """BM25 again, of whole conversations: in how many facts of each the word stands."""
        conversations, settings = self._conversations, self._settings
        if not (conversations.count and settings.conversation):
            return
        counted = Counter(map(conversations.of.__getitem__, facts))
        counted.pop(NONE, None)
        weight = rarity(conversations.count, len(counted)) * (settings.k1 + 1)
        slope = settings.k1 * settings.b * conversations.count / conversations.facts
        living, talk = conversations.living, self._talk
        for conversation, count in counted.items():
            norm = self._base + slope * living[conversation]
            talk[conversation] = talk.get(conversation, 0.0) + weight * count / (count + norm)

    def _candidates(self, wanted: int, accepts: Callable[[int], bool] | None) -> list[int]:
        found = self._found
        if len(found) <= wanted:
            return list(found) if accepts is None else self._accepted_around(found, accepts, wanted)
        if accepts is None:
            return heapq.nlargest(wanted, reversed(found), key=found.__getitem__)
        first = heapq.nlargest(20 * wanted, reversed(found), key=found.__getitem__)
        kept = self._accepted_around(first, accepts, wanted)
        if len(kept) < wanted and len(first) < len(found):
            newest_first = reversed(found)  # and so they stay where scores are equal
            ranked = sorted(newest_first, key=found.__getitem__, reverse=True)
            kept = self._accepted_around(ranked, accepts, wanted)
        return kept

    @staticmethod
    def _accepted_around(numbers: Iterable[int], accepts: Callable[[int], bool], wanted: int) -> list[int]:
        kept = []
        for number in numbers:
            if accepts(number):
                kept.append(number)
                if len(kept) == wanted:
                    break
        return kept

    def _near(self, number: int) -> list[int]:
        near = [number]
        for distance in range(1, max(len(self._settings.before), len(self._settings.after)) + 1):
            near += [other for other in self._conversations.around(number, distance) if other]
        return near

    def _own(self, number: int) -> float:
        if not self._late:
            return self._found.get(number, 0.0)
        known = self._own_known.get(number)
        if known is None:
            known = self._found.get(number, 0.0) + sum(self._share(word, number) for word in self._late)
            self._own_known[number] = known
        return known

    def _share(self, word: str, number: int) -> float:
        count = self._postings.count(word, number)
        norm = self._base + self._slope * self._postings.lengths[number]
        return self._weight[word] * count / (count + norm) if count else 0.0

    def _neighbours(self, number: int) -> float:
        total = 0.0
        settings = self._settings
        for distance, (before, after) in enumerate(zip(settings.before, settings.after, strict=True), 1):
            earlier, later = self._conversations.around(number, distance)
            if earlier:
                total += before * self._own(earlier)
            if later:
                total += after * self._own(later)
        return total

    def _conversation(self, number: int) -> float:
        return self._settings.conversation * self._talk.get(self._conversations.of[number], 0.0)

    def _explained(self, number: int, score: float) -> Ranked:
        shares = {word: self._share(word, number) for word in (*self._read, *self._late)}
        words = {word: share for word, share in shares.items() if share}
        return Ranked(number, score, words, self._neighbours(number), self._conversation(number))
