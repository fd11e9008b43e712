"""Relationships between episodes in their catalog: found from either end."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from stepstore.catalog import Change, Table
from stepstore.journal import Record
from stepwell.model.codec import DecodedRecord
from stepwell.model.event import utc
from stepwell.model.graph import find_path, reachable
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.organising import Related, Unrelated
from stepwell.model.relationship import ACYCLIC, Relationship

Direction: TypeAlias = Literal["out", "in", "both"]

EDGE = Table(
    name="edge",
    columns={
        "begin": "BLOB NOT NULL",  # the streams of both ends
        "kind": "TEXT NOT NULL",
        "end": "BLOB NOT NULL",
        "from_episode": "TEXT NOT NULL",
        "to_episode": "TEXT NOT NULL",
        "priority": "INTEGER NOT NULL",
        "reason": "TEXT NOT NULL",
        "metadata": "TEXT NOT NULL",  # JSON
        "actor": "TEXT NOT NULL",
        "created_ns": "INTEGER NOT NULL",
    },
    key=("begin", "kind", "end"),
    indexes=("(end)",),
)
_COLUMNS = ", ".join(EDGE.columns)
# A relationship may be told behind the deletion of the episode that it leads to: then that is not in the catalog.
_PUT = f"""
    INSERT OR REPLACE INTO edge
    WITH new ({_COLUMNS}) AS ({{values}})
    SELECT * FROM new WHERE EXISTS (SELECT 1 FROM episode WHERE stream = new.end)"""
_TAKE = "WITH gone (begin, kind, end) AS ({values}) DELETE FROM edge WHERE (begin, kind, end) IN gone"
_FORGET = (
    "WITH gone (stream) AS ({values}) DELETE FROM edge WHERE begin IN gone",
    "WITH gone (stream) AS ({values}) DELETE FROM edge WHERE end IN gone",
)


class EdgeFold:
    """What some records say of relationships. Part of the fold of episodes."""

    def __init__(self) -> None:
        self._said: dict[tuple[bytes, str, bytes], tuple[Related, int] | None] = {}

    def relate(self, record: Record, decoded: DecodedRecord) -> None:
        """Take up a record of the kind "related". Raises: `msgspec.ValidationError`."""
        related = msgspec.convert(decoded.data, Related)
        if stream_id(EPISODE_STREAM, related.from_episode) == record.stream:
            end = stream_id(EPISODE_STREAM, related.to_episode)
            self._said[record.stream, related.kind, end] = related, decoded.time_ns

    def unrelate(self, record: Record, decoded: DecodedRecord) -> None:
        """Take up a record of the kind "unrelated". Raises: `msgspec.ValidationError`."""
        unrelated = msgspec.convert(decoded.data, Unrelated)
        if stream_id(EPISODE_STREAM, unrelated.from_episode) == record.stream:
            self._said[record.stream, unrelated.kind, stream_id(EPISODE_STREAM, unrelated.to_episode)] = None

    def changes(self, deleted: list[tuple[bytes]]) -> list[Change]:
        """What to change for what was taken since; behind the changes of episodes."""
        put = [
            (
                begin,
                kind,
                end,
                it.from_episode,
                it.to_episode,
                it.priority,
                it.reason,
                json.dumps(it.metadata, ensure_ascii=False),
                it.actor,
                time_ns,
            )
            for (begin, kind, end), said in self._said.items()
            if said is not None
            for it, time_ns in (said,)
        ]
        taken = [key for key, said in self._said.items() if said is None]
        self._said = {}
        return [Change(_PUT, put), Change(_TAKE, taken), *(Change(statement, deleted) for statement in _FORGET)]


def related_episodes(
    connection: sqlite3.Connection, episode: str, kind: str | None, direction: Direction, depth: int
) -> list[Relationship]:
    """The relationships within `depth` steps that begin ("out") or end ("in") at an episode, the nearest first, then
    the most important, then the oldest; of one kind unless that is None."""
    ends = {"out": ("begin",), "in": ("end",), "both": ("begin", "end")}[direction]
    of_kind = "" if kind is None else " AND kind = ?"
    select = " UNION ".join(f"SELECT {_COLUMNS} FROM edge WHERE {end} = ?{of_kind}" for end in ends)

    def edges_of(name: str) -> list[Relationship]:
        arguments = [stream_id(EPISODE_STREAM, name)] + ([] if kind is None else [kind])
        found = connection.execute(f"{select} ORDER BY priority DESC, created_ns", arguments * len(ends))
        return [_relationship(*row[3:], kind=row[1]) for row in found]

    return reachable(episode, edges_of, depth)


def first_circle(
    connection: sqlite3.Connection, changes: Sequence[Related | Unrelated]
) -> tuple[str, list[str]] | None:
    """The kind and the circle that the first of these changes, made one behind the other, would close; None if none
    does, among the kinds that may not lead in one."""
    made: dict[tuple[str, str], dict[str, bool]] = {}
    for change in changes:
        kind, begin, end = change.kind, change.from_episode, change.to_episode
        is_related = isinstance(change, Related)
        if is_related and kind in ACYCLIC:
            path = find_path(end, begin, lambda name, kind=kind: _next_of(connection, made, kind, name))  # type: ignore[misc]
            if path is not None:
                return kind, [begin, *path]
        made.setdefault((kind, begin), {})[end] = is_related
    return None


def _next_of(
    connection: sqlite3.Connection, made: Mapping[tuple[str, str], Mapping[str, bool]], kind: str, name: str
) -> list[str]:
    """What an episode leads to, with what was `made` since: by kind and begin, the ends that it leads to or no longer
    does."""
    found = connection.execute(
        "SELECT to_episode FROM edge WHERE begin = ? AND kind = ?", (stream_id(EPISODE_STREAM, name), kind)
    )
    since = made.get((kind, name), {})
    return [end for (end,) in found if end not in since] + [end for end, leads in since.items() if leads]


def _relationship(
    from_episode: str,
    to_episode: str,
    priority: int,
    reason: str,
    metadata: str,
    actor: str,
    created_ns: int,
    *,
    kind: str,
) -> Relationship:
    return Relationship(
        from_episode=from_episode,
        to_episode=to_episode,
        kind=kind,  # type: ignore[arg-type]
        priority=priority,
        reason=reason,
        metadata=json.loads(metadata),
        actor=actor,
        created_at=utc(created_ns),
    )
