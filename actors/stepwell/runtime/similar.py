"""Ended episodes whose task reads like a given one, out of the catalog of episodes."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from stepwell.learning.likeness import likeness, words_of

MOST_EPISODES = 60
LEAST_LIKENESS = 0.2
_QUERY_WORDS = 16


class SimilarTask(NamedTuple):
    """An episode, the last number of its stream, and how much its task is like the one that was asked for, 0 to 1."""

    stream: bytes
    episode_id: str
    task: str
    outcome: str
    last_seq: int
    likeness: float


def similar_tasks(connection: sqlite3.Connection, task: str) -> list[SimilarTask]:
    """The most similar first, the newest among equals; at most 60."""
    asked = words_of(task)
    if not asked:
        return []
    # A plural's s is cut off, so words are looked up by how they begin.
    query = " OR ".join(f'"{word}"*' for word in sorted(asked, key=len, reverse=True)[:_QUERY_WORDS])
    rows = connection.execute(
        "SELECT e.stream, e.episode_id, e.task, e.outcome, e.last_seq FROM episode_text f JOIN episode e "
        "ON e.id = f.rowid WHERE episode_text MATCH ? AND e.outcome IS NOT NULL AND e.outcome <> 'interrupted' "
        "AND e.archived = 0 ORDER BY f.rank, f.rowid DESC LIMIT ?",
        (query, 4 * MOST_EPISODES),
    )
    found = [
        SimilarTask(stream, name, text, outcome, last_seq, likeness(asked, words_of(text)))
        for stream, name, text, outcome, last_seq in rows
    ]
    found = [it for it in found if it.likeness >= LEAST_LIKENESS]
    return sorted(found, key=lambda it: -it.likeness)[:MOST_EPISODES]
