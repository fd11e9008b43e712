"""How well `memory.retrieve_relevant_context` finds what is meant, on real tasks, beside what people would use instead.

Each peer gets the texts that the memory gets as tasks; the texts that a query must not find (itself) are left out of
every ranking in the same way, and ties are broken by the order of the texts.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.learning import data
from stepwell import MemoryConfig, Success, open_memory

Ranked = Sequence[str]
"""Names of documents, best first."""
Search = Callable[[str], Awaitable[Ranked]]
MOST_HITS = 100


@dataclass(frozen=True)
class Question:
    """A query, the documents that answer it, and those it must not find."""

    query: str
    relevant: frozenset[str]
    excluded: frozenset[str]


@dataclass(frozen=True)
class Collection:
    """Documents by name, and questions over them."""

    title: str
    documents: dict[str, str]
    questions: list[Question]


def sql_paraphrases() -> Collection:
    """Each distinct task of the SQL agents once; the question is another wording of a task."""
    texts = list(dict.fromkeys(start["task"] for start in data.starts("intercode-sql")))
    return Collection(
        "SQL paraphrases",
        {text: text for text in texts},
        [
            Question(it["query"], frozenset(it["relevant"]), frozenset([it["query"]]))
            for it in data.read("intercode-sql.retrieval")
        ],
    )


def airline_tasks() -> Collection:
    """What customers of an airline say first; the question is another customer with the same wish."""
    return Collection(
        "airline, same task",
        {start["episode"]: start["task"] for start in data.starts("tau-airline")},
        [
            Question(it["query"], frozenset(it["relevant_same_task"]), frozenset(it["exclude"]))
            for it in data.read("tau-airline.retrieval")
        ],
    )


@dataclass(frozen=True)
class Figures:
    """Shares of the questions, each with half the width of its 95 % interval (normal approximation for means)."""

    recall_1: float
    recall_10: float
    mrr: float
    mrr_half: float


async def judge(questions: Sequence[Question], search: Search) -> Figures:
    """Ask all questions."""
    first: list[float] = []
    ten: list[float] = []
    reciprocal: list[float] = []
    for question in questions:
        ranked = [name for name in await search(question.query) if name not in question.excluded]
        place = next((at for at, name in enumerate(ranked, 1) if name in question.relevant), 0)
        first.append(float(place == 1))
        ten.append(len(question.relevant & set(ranked[:10])) / len(question.relevant))
        reciprocal.append(1 / place if place else 0.0)
    count = len(questions)
    mean = sum(reciprocal) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in reciprocal) / max(1, count - 1))
    return Figures(sum(first) / count, sum(ten) / count, mean, 1.96 * deviation / math.sqrt(count))


async def of_stepwell(collection: Collection, config: MemoryConfig | None = None) -> tuple[Figures, str]:
    """A memory with one finished episode for each document, asked through its public interface. Gives how it ranked."""
    ranked_by = ""
    async with open_memory(":memory:", config=config) as memory:
        for number, (name, text) in enumerate(collection.documents.items()):
            handle = await memory.start_episode(text, episode_id=f"d{number}", metadata={"name": name})
            await handle.complete(Success())

        async def search(query: str) -> Ranked:
            nonlocal ranked_by
            found = await memory.retrieve_relevant_context(query, limit=MOST_HITS)
            ranked_by = found.ranked_by
            return [hit.episode.metadata["name"] for hit in found]

        return await judge(collection.questions, search), ranked_by
