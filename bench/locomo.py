"""Recall on LoCoMo: real conversations over many sessions, and questions whose answers stand in some of their turns.

The data is not part of the project (CC BY-NC 4.0): it is read from `shared/data` beside the repository, or from the
directory that STEPWELL_DATA names. One list is ranked per conversation; what is found of the turns that hold the
answer (the share of them among the first 5 and 10, and one over the rank of the first) is averaged over all questions.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from stepwell import Fact, LongTermMemory, Scope

DATA = Path(os.environ.get("STEPWELL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DEEPEST = 50
"""How far down the lists are looked at."""


class Turn(NamedTuple):
    """One turn of a conversation."""

    id: str
    session: int
    date: str
    speaker: str
    text: str

    @property
    def document(self) -> str:
        """What a search engine is given of it."""
        return f"{self.speaker}: {self.text}"


class Question(NamedTuple):
    """A question, and the turns that hold its answer."""

    text: str
    evidence: frozenset[str]


class Conversation(NamedTuple):
    """Turns in order, and what is asked of them."""

    name: str
    turns: list[Turn]
    questions: list[Question]


class Scores(NamedTuple):
    """Of all questions together."""

    recall_5: float
    recall_10: float
    reciprocal: float


Rank: TypeAlias = Callable[[str], Awaitable[Sequence[int]]]
"""Gives the places of turns for a question, the best first."""
Prepare: TypeAlias = Callable[[Conversation], Awaitable[Rank]]
"""Makes a ranking of one conversation."""


def load() -> list[Conversation]:
    """All conversations, with the questions that have an answer in them."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    for item in _lines("locomo.items.jsonl.gz"):
        caption = f" [image: {item['image_caption']}]" if item["image_caption"] else ""
        turns[item["conversation"]].append(
            Turn(item["id"], item["session"], item["session_date"], item["speaker"], item["text"] + caption)
        )
    questions: dict[str, list[Question]] = defaultdict(list)
    for item in _lines("locomo.queries.jsonl.gz"):
        if item["evidence"]:
            questions[item["conversation"]].append(Question(item["question"], frozenset(item["evidence"])))
    return [Conversation(name, found, questions[name]) for name, found in turns.items()]


def _lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


async def measure(conversations: Sequence[Conversation], prepare: Prepare) -> Scores:
    """The scores of one way of ranking."""
    found: list[tuple[float, float, float]] = []
    for conversation in conversations:
        rank = await prepare(conversation)
        for question in conversation.questions:
            ids = [conversation.turns[place].id for place in (await rank(question.text))[:DEEPEST]]
            evidence = question.evidence
            first = next((1 / rank for rank, turn in enumerate(ids, 1) if turn in evidence), 0.0)
            shares = [len(evidence.intersection(ids[:k])) / len(evidence) for k in (5, 10)]
            found.append((shares[0], shares[1], first))
    return Scores(*(sum(column) / len(found) for column in zip(*found, strict=True)))


def fact_of(turn: Turn) -> Fact:
    """A turn as an agent would remember it."""
    return Fact(turn.document, {"turn": turn.id, "session": turn.session, "session_date": turn.date})


async def recalled(
    memory: LongTermMemory, conversations: Sequence[Conversation], fact_of: Callable[[Turn], Fact] = fact_of
) -> Scores:
    """The scores of a long-term memory, through `remember_many` and `search`; a scope for each conversation."""

    async def prepare(conversation: Conversation) -> Rank:
        scope = Scope.workspace(conversation.name)
        ids = await memory.remember_many(scope, [fact_of(turn) for turn in conversation.turns])
        places = {fact_id: place for place, fact_id in enumerate(ids)}

        async def rank(question: str) -> list[int]:
            return [places[hit.id] for hit in await memory.search(scope, question, DEEPEST)]

        return rank

    return await measure(conversations, prepare)
