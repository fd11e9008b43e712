"""Relating episodes: each relationship is a record of the episode that it begins at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from stepstore.catalog import Projection
from stepwell.model.graph import cycle_error
from stepwell.model.ids import EpisodeId
from stepwell.model.organising import Related, Unrelated, relating, unrelating
from stepwell.model.relationship import ACYCLIC, Relationship
from stepwell.runtime.edges import Direction, first_circle, related_episodes
from stepwell.runtime.organising import organise
from stepwell.runtime.reading import not_found
from stepwell.runtime.supervisor import Supervisor


class Relating:
    """Relates episodes one after the other, so that no two together close a circle that neither closes alone."""

    def __init__(self, supervisor: Supervisor, episodes: Projection):
        self._supervisor, self._episodes = supervisor, episodes
        self._lock = trio.Lock()
        self._unsettled: dict[EpisodeId, None] = {}
        """Episodes with a relationship that may be accepted and not be durable: its caller was cancelled."""

    async def _settle(self) -> None:
        for episode_id in list(self._unsettled):
            await self._supervisor.settle(episode_id)

    async def _check_exists(self, episode_id: EpisodeId) -> None:
        self._supervisor.check_thread()
        await self._supervisor.journal.catch_up()
        if not await self._supervisor.is_stored(episode_id) and episode_id not in self._supervisor.cells:
            raise not_found(episode_id)

    async def relate(self, wanted: Related) -> None:
        """Relate two episodes; durable on return. A checkpoint.

        Raises: as `organise`; `NotFound` for either end, `InvalidState` for a circle.
        """
        async with self.allowed([wanted]):
            await organise(self._supervisor, EpisodeId(wanted.from_episode), relating(wanted))

    @asynccontextmanager
    async def allowed(self, changes: Sequence[Related | Unrelated]) -> AsyncIterator[None]:
        """While these changes, one behind the other, are made in the block, nobody else relates anything.

        Raises: `NotFound` (an episode that is led to), `InvalidState` (a circle), and as `Projection.read_now`.
        """
        for end in dict.fromkeys(change.to_episode for change in changes if isinstance(change, Related)):
            await self._check_exists(EpisodeId(end))
        async with self._lock:
            await self._settle()
            self._unsettled.clear()
            if any(isinstance(change, Related) and change.kind in ACYCLIC for change in changes):
                circle = await self._episodes.read_now(lambda known: first_circle(known, changes))
                if circle is not None:
                    raise cycle_error(*circle)
            begins = dict.fromkeys(EpisodeId(change.from_episode) for change in changes)
            self._unsettled.update(begins)
            yield
            for begin in begins:
                del self._unsettled[begin]

    async def unrelate(self, wanted: Unrelated) -> None:
        """Relate two episodes no longer; durable on return. A checkpoint. Raises: as `organise`."""
        await organise(self._supervisor, EpisodeId(wanted.from_episode), unrelating(wanted))

    async def related(
        self, episode_id: EpisodeId, kind: str | None, direction: Direction, depth: int
    ) -> list[Relationship]:
        """The relationships within `depth` steps, the nearest first. A checkpoint.

        Raises: `NotFound`, and as `Projection.read_now`.
        """
        await self._check_exists(episode_id)
        await self._settle()
        return await self._episodes.read_now(lambda known: related_episodes(known, episode_id, kind, direction, depth))
