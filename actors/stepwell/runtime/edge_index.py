"""All relationships between episodes, from either end.

A fold of the log, brought up to date when somebody asks; nothing of it is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
import trio

from stepstore.journal import Gap, Journal, Record
from stepwell.errors import Closed, EpisodeUnavailable
from stepwell.model.codec import decode_record, kind_head
from stepwell.model.event import DELETED, RELATED, UNRELATED, utc
from stepwell.model.graph import find_path
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.organising import Related, Unrelated, decode_organising
from stepwell.model.relationship import Relationship

Direction: TypeAlias = Literal["out", "in", "both"]
Edges: TypeAlias = dict[str, dict[tuple[str, str], Relationship]]

_CHANGES = (kind_head(RELATED), kind_head(UNRELATED))
_DELETED = kind_head(DELETED)


class EdgeIndex:
    """See the module. Knows what was durable at the last `catch_up`; an episode that was deleted is not in it."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self._slices = journal.follow()
        self._lock = trio.Lock()
        self._out: Edges = {}
        self._in: Edges = {}
        self._ends: dict[bytes, str] = {}
        """The episodes that have a relationship, by stream."""

    @trio.lowlevel.enable_ki_protection
    async def catch_up(self) -> None:
        """Take up everything that is durable now. A checkpoint; cancelled, the next call goes on where it was.

        Raises: `Closed`, `RecoveryFailed`, `Unavailable` or `InvalidInput` (the key of an encrypted episode cannot be
        had).
        """
        await self._journal.catch_up()
        upto = self._journal.durable_lsn
        async with self._lock:
            while self._slices.position < upto:
                found = await self._slices.next_slice()
                if found is None:
                    raise Closed("the memory is closed; open it again to read")
                for item in found:
                    self._take(item)

    def _take(self, item: Record | Gap) -> None:
        if isinstance(item, Gap):
            return
        if item.payload.startswith(_DELETED):
            self._forget(item.stream)
        elif item.payload.startswith(_CHANGES):
            try:
                decoded = decode_record(item.payload, "a relationship")
                record = decode_organising(decoded.kind, decoded.data)
            except (EpisodeUnavailable, msgspec.ValidationError):
                return  # it hurts its own episode only, and reading that tells
            if isinstance(record, Related | Unrelated):
                self._change(item.stream, record, decoded.time_ns)

    @trio.lowlevel.enable_ki_protection
    def _change(self, stream: bytes, record: Related | Unrelated, time_ns: int) -> None:
        begin, end = record.from_episode, record.to_episode
        if stream != stream_id(EPISODE_STREAM, begin):
            return
        if isinstance(record, Unrelated):
            self._out.get(begin, {}).pop((record.kind, end), None)
            self._in.get(end, {}).pop((record.kind, begin), None)
        elif not self._journal.is_deleted(other := stream_id(EPISODE_STREAM, end)):
            edge = Relationship(created_at=utc(time_ns), **msgspec.structs.asdict(record))
            self._out.setdefault(begin, {})[record.kind, end] = edge
            self._in.setdefault(end, {})[record.kind, begin] = edge
            self._ends[stream], self._ends[other] = begin, end

    @trio.lowlevel.enable_ki_protection
    def _forget(self, stream: bytes) -> None:
        episode = self._ends.pop(stream, None)
        if episode is None:
            return
        for kind, end in self._out.pop(episode, {}):
            self._in[end].pop((kind, episode), None)
        for kind, begin in self._in.pop(episode, {}):
            self._out[begin].pop((kind, episode), None)

    def edges_of(self, episode: str, kind: str | None, direction: Direction) -> list[Relationship]:
        """The relationships that begin ("out") or end ("in") at an episode, the most important first, then the oldest;
        of one kind unless that is None."""
        found: list[Relationship] = []
        if direction != "in":
            found += self._out.get(episode, {}).values()
        if direction != "out":
            found += self._in.get(episode, {}).values()
        wanted = (edge for edge in found if kind is None or edge.kind == kind)
        return sorted(wanted, key=lambda edge: (-edge.priority, edge.created_at))

    def path(self, kind: str, begin: str, end: str) -> list[str] | None:
        """A shortest path along relationships of one kind, both ends included; None if there is none."""
        return find_path(begin, end, self._following(kind))

    def _following(self, kind: str) -> Callable[[str], list[str]]:
        return lambda episode: [end for of_kind, end in self._out.get(episode, ()) if of_kind == kind]
