"""Organising episodes: tags, description and metadata, the archive. Each change is an event of the episode, never a
rewrite, and may come behind its ending."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stepwell.errors import StepwellError
from stepwell.memory.core import MemoryCore, checked_id_in_turn
from stepwell.model import organising as changes
from stepwell.model import validation as check
from stepwell.model.organising import Change
from stepwell.runtime.organising import organise
from stepwell.runtime.right_loop import checkpoint


class Organising(MemoryCore):
    """The part of a memory that organises episodes.

    All of these calls take an episode that is open, asleep or ended, and are durable on return. Where nothing has to be
    changed nothing is recorded, so each may be repeated. If one is cancelled, whether it was done is unknown. `actor`
    says who asked; it stands in the event. Each raises, beside what it names itself: `InvalidInput`, `TooLarge`,
    `NotFound`, `InvalidState` (the episode is being deleted), `EpisodeUnavailable`, `Unavailable`, `Closed`, `LogFull`,
    `OutcomeUnknown`.
    """

    async def add_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Add tags to an episode, behind those it has. One that it has already, in whatever case, stays as it is.

        A tag has 1 to 100 bytes (`Limits.tag_bytes`) once blanks around it are gone, and no control characters; an
        episode has at most 1,000. Durable on return; cancelled, whether it was done is unknown: call again.
        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (the episode is being deleted),
        `EpisodeUnavailable`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        await self._retag(episode_id, tags, actor, changes.adding_tags)

    async def remove_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Take tags away from an episode, in whatever case they are given. Those it does not have change nothing.

        Durable on return; is cancelled and raises as `add_tags`.
        """
        await self._retag(episode_id, tags, actor, changes.removing_tags)

    async def set_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Give an episode these tags and no others, in this order and spelling.

        Durable on return; is cancelled and raises as `add_tags`.
        """
        await self._retag(episode_id, tags, actor, changes.setting_tags)

    async def _retag(
        self, episode_id: str, tags: object, actor: object, change: Callable[[list[str], str], Change]
    ) -> None:
        try:
            made = self._checks.tags(tags, actor, change)
        except StepwellError:
            await checkpoint()
            raise
        await self._organise(episode_id, made)

    async def update_episode(
        self,
        episode_id: str,
        *,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        remove_metadata: Sequence[str] = (),
        actor: str = "",
    ) -> None:
        """Replace the description of an episode (unless None), and lay `metadata` over its metadata, key by key, after
        taking the keys in `remove_metadata` away. The event `started` still says what it was started with.

        Durable on return; cancelled, whether it was done is unknown: call again.
        Raises: `InvalidInput`, `TooLarge` for a description or metadata that `start_episode` would refuse, otherwise as
        `add_tags`.
        """
        try:
            change = self._checks.update(description, metadata, remove_metadata, actor)
        except StepwellError:
            await checkpoint()
            raise
        await self._organise(episode_id, change)

    async def archive(self, episode_id: str, *, actor: str = "") -> None:
        """Put an episode away. It stays readable, and open if it is; `Episode.archived_at` says since when.

        Durable on return; is cancelled and raises as `add_tags`.
        """
        await self._organise(episode_id, changes.archiving(await _checked_actor_in_turn(actor)))

    async def restore(self, episode_id: str, *, actor: str = "") -> None:
        """Take an episode out of the archive. Durable on return; is cancelled and raises as `add_tags`."""
        await self._organise(episode_id, changes.restoring(await _checked_actor_in_turn(actor)))

    async def _organise(self, episode_id: object, change: Change) -> None:
        await organise(self._supervisor, await checked_id_in_turn(episode_id), change)


async def _checked_actor_in_turn(actor: object) -> str:
    try:
        return check.check_actor(actor)
    finally:
        await checkpoint()
