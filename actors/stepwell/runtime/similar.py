"""Ended episodes whose task reads like a given one, out of the catalog of episodes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from stepwell.learning.likeness import likeness, terms_of
from stepwell.model.tags import tag_key

MOST_EPISODES = 60
LEAST_LIKENESS = 0.2
_QUERY_TERMS = 16


def _beginning(term: str) -> str:
    """How the words begin that this is the term of: the index holds them whole (`countri` is that of `country`)."""
    return term.rstrip("iy") or term


def _looked_for(term: str) -> str:
    words = f'"{_beginning(term)}"*'
    # `tune` is the term of `tuning` too, which does not begin so.
    return f'{words} OR "{term[:-1]}ing"*' if term.endswith("e") else words


class SimilarTask(NamedTuple):
    """An episode, the last number of its stream, and how much its task is like the one that was asked for, 0 to 1."""

    stream: bytes
    episode_id: str
    task: str
    outcome: str
    last_seq: int
    likeness: float


def similar_tasks(connection: sqlite3.Connection, task: str, tags: Sequence[str]) -> list[SimilarTask]:
    """The most similar first, the newest among equals; at most 60. Of the likeness of its words an episode without any
    of the `tags` keeps half, and one with all of them keeps all."""
    asked = terms_of(task)
    if not asked:
        return []
    query = " OR ".join(_looked_for(term) for term in sorted(asked, key=len, reverse=True)[:_QUERY_TERMS])
    rows = connection.execute(
        "SELECT e.stream, e.episode_id, e.task, e.outcome, e.last_seq, e.tags FROM episode_text f JOIN episode e "
        "ON e.id = f.rowid WHERE episode_text MATCH ? AND e.outcome IS NOT NULL AND e.outcome <> 'interrupted' "
        "AND e.archived = 0 ORDER BY f.rank, f.rowid DESC LIMIT ?",
        (query, 4 * MOST_EPISODES),
    )
    wanted = {tag_key(tag) for tag in tags}
    found: list[SimilarTask] = []
    for stream, name, text, outcome, last_seq, has in rows:
        alike = likeness(asked, terms_of(text))
        if alike >= LEAST_LIKENESS:
            shared = len(wanted & {tag_key(tag) for tag in json.loads(has)}) / len(wanted) if wanted else 1.0
            found.append(SimilarTask(stream, name, text, outcome, last_seq, alike * (0.5 + 0.5 * shared)))
    return sorted(found, key=lambda it: -it.likeness)[:MOST_EPISODES]
