"""The numbers of the ranking. docs/recall.md has the formula, and what was measured with other numbers."""

from __future__ import annotations

import msgspec


class RecallSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How facts are ranked.

    `k1`, `b`: of BM25; facts are short, so a word that is repeated says little more, and length says little.
    `before`, `after`: the share that a fact takes of the score of the facts one and two places before and after it in
    its conversation. An answer stands behind its question more often than before it.
    `conversation`: the share of the score of the conversation as a whole.
    `most_postings`: how much of the index one query reads; the rarest words come first, and those that no longer fit
    only add to what the others have found. `candidates`: how many facts are scored in full.
    `similarity`: the weight of the vectors beside the words, from 0 to 1.
    """

    k1: float = 0.9
    b: float = 0.3
    before: tuple[float, ...] = (0.5, 0.25)
    after: tuple[float, ...] = (0.3, 0.15)
    conversation: float = 0.5
    most_postings: int = 20_000
    candidates: int = 150
    similarity: float = 0.2


DEFAULT_SETTINGS = RecallSettings()
