"""How episodes stand to each other."""

from __future__ import annotations

from typing import Any, Literal

from stepwell.errors import InvalidInput, StepwellError
from stepwell.memory.core import MemoryCore
from stepwell.memory.organising_checks import checked_kind
from stepwell.model import validation as check
from stepwell.model.ids import checked_id
from stepwell.model.relationship import Relationship, RelationshipKind
from stepwell.runtime.right_loop import checkpoint


class Relationships(MemoryCore):
    """The part of a memory that relates episodes to each other.

    A relationship is an event of the episode that it begins at, which may have ended; deleting either end removes it.
    """

    async def relate(
        self,
        from_episode: str,
        to_episode: str,
        kind: RelationshipKind,
        *,
        priority: int = 5,
        reason: str = "",
        metadata: dict[str, Any] | None = None,
        actor: str = "",
    ) -> None:
        """Relate one episode to another: it is the parent of ("parent_child"), depends on, follows, is related to,
        blocks, duplicates, or references it. Durable on return; repeating it changes nothing.

        `priority`: 1 (lowest) to 10. If cancelled, whether they are related is unknown.
        Raises: `InvalidInput` (an unknown kind, an episode and itself), `TooLarge`, `NotFound`, `InvalidState` (they
        are related so already, with another priority, reason or metadata; or "parent_child", "depends_on" or "blocks"
        would lead in a circle, which is named; or the first one is being deleted), `EpisodeUnavailable`, `Unavailable`,
        `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        try:
            wanted = self._checks.related(from_episode, to_episode, kind, priority, reason, metadata, actor)
        except StepwellError:
            await checkpoint()
            raise
        await self._relating.relate(wanted)

    async def unrelate(self, from_episode: str, to_episode: str, kind: RelationshipKind, *, actor: str = "") -> None:
        """Relate two episodes no longer in this way; durable on return. Nothing if they are not; the second one may be
        gone.

        Raises: as `relate`.
        """
        try:
            wanted = self._checks.unrelated(from_episode, to_episode, kind, actor)
        except StepwellError:
            await checkpoint()
            raise
        await self._relating.unrelate(wanted)

    async def related(
        self,
        episode_id: str,
        kind: RelationshipKind | None = None,
        *,
        direction: Literal["out", "in", "both"] = "out",
        depth: int = 1,
    ) -> list[Relationship]:
        """The relationships that lead from an episode ("out"), to it ("in"), or either, within `depth` steps, each
        once, the nearest first, then by priority and age; of one kind, or of all. `stepwell.graph` sorts and exports
        them.

        They are looked up in the catalog, which has everything that is durable at this call; where that is encrypted,
        the first call reads the whole log.
        Raises: `InvalidInput`, `NotFound`, `Closed`, `RecoveryFailed`, `Unavailable` (an I/O error, the key of an
        encrypted episode cannot be had, or the catalog is not kept up to date any more, see `health`).
        """
        try:
            known = checked_id(episode_id)
            if kind is not None:
                checked_kind(kind)
            if not check.is_one_of(direction, ("out", "in", "both")):
                raise InvalidInput(f"direction: must be 'out', 'in' or 'both', not {check.shown(direction)}")
            check.check_number(depth, "depth", minimum=1, whole=True)
        except StepwellError:
            await checkpoint()
            raise
        return await self._relating.related(known, kind, direction, depth)
