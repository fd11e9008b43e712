"""Words and vectors together: the weighted mean of the two scores, each as a share of its best."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

from stepwell.learning.recall.conversations import Conversations
from stepwell.learning.recall.ranking import Ranked
from stepwell.learning.recall.settings import RecallSettings


class Fused(NamedTuple):
    """A fact found by words, by its vector, or by both. `ranked`: what the words gave, as shares of its score;
    `similarity`: what the vectors gave, None if they were not asked."""

    ranked: Ranked
    similarity: float | None


def fuse(
    by_words: list[Ranked],
    similar: dict[int, float],
    conversations: Conversations,
    settings: RecallSettings,
    k: int,
    accepts: Callable[[int], bool] | None,
) -> list[Fused]:
    """The best `k` by `(1 - w) · words / best words + w · vectors / best vectors`, of equal ones the newest.

    The similarity of a fact has its neighbours' in it, as its words have: `w` is `settings.similarity`.
    """
    found = {item.number: item for item in by_words}
    nearest = heapq.nlargest(max(settings.candidates, 2 * k), similar, key=similar.__getitem__)
    candidates = found.keys() | {number for number in nearest if accepts is None or accepts(number)}
    spread = {number: _spread(number, similar, conversations, settings) for number in candidates}
    best_words = max((item.score for item in by_words), default=0.0) or 1.0
    best_spread = max(spread.values(), default=0.0) or 1.0
    of_words, of_vectors = (1 - settings.similarity) / best_words, settings.similarity / best_spread
    scored = {
        number: of_words * (found[number].score if number in found else 0.0) + of_vectors * spread[number]
        for number in candidates
    }
    best = heapq.nsmallest(k, scored.items(), key=lambda item: (-item[1], -item[0]))
    return [
        Fused(_scaled(found.get(number), number, score, of_words), of_vectors * spread[number])
        for number, score in best
        if score > 0
    ]


def _spread(number: int, similar: dict[int, float], conversations: Conversations, settings: RecallSettings) -> float:
    total = similar.get(number, 0.0)
    for distance, (before, after) in enumerate(zip(settings.before, settings.after, strict=True), 1):
        earlier, later = conversations.around(number, distance)
        total += before * similar.get(earlier, 0.0) + after * similar.get(later, 0.0)
    return total


def _scaled(item: Ranked | None, number: int, score: float, share: float) -> Ranked:
    if item is None:
        return Ranked(number, score, {}, 0.0, 0.0)
    words = {word: share * value for word, value in item.words.items()}
    return Ranked(number, score, words, share * item.neighbours, share * item.conversation)
