"""What the transactions of the other doors stage of organising episodes; plain functions, the same in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell.memory.atomic import AtomicScope
from stepwell.model.relationship import RelationshipKind


class OrganisingStaging:
    """The part of a transaction that organises episodes. See `stepwell.AtomicScope`."""

    _scope: AtomicScope

    def add_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Stage tags to add to an episode; see `stepwell.AtomicScope.add_tags`."""
        self._scope.add_tags(episode_id, tags, actor=actor)

    def remove_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Stage tags to take away from an episode; see `stepwell.AtomicScope.remove_tags`."""
        self._scope.remove_tags(episode_id, tags, actor=actor)

    def set_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Stage the tags that an episode is to have, and no others; see `stepwell.AtomicScope.set_tags`."""
        self._scope.set_tags(episode_id, tags, actor=actor)

    def update_episode(
        self,
        episode_id: str,
        *,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        remove_metadata: Sequence[str] = (),
        actor: str = "",
    ) -> None:
        """Stage another description or metadata for an episode; see `stepwell.AtomicScope.update_episode`."""
        self._scope.update_episode(
            episode_id, description=description, metadata=metadata, remove_metadata=remove_metadata, actor=actor
        )

    def archive(self, episode_id: str, *, actor: str = "") -> None:
        """Stage an episode to be put away; see `stepwell.AtomicScope.archive`."""
        self._scope.archive(episode_id, actor=actor)

    def restore(self, episode_id: str, *, actor: str = "") -> None:
        """Stage an episode to be taken out of the archive; see `stepwell.AtomicScope.restore`."""
        self._scope.restore(episode_id, actor=actor)

    def checkpoint(self, episode_id: str, reason: str, *, note: str = "", actor: str = "") -> None:
        """Stage a place to go on from; see `stepwell.AtomicScope.checkpoint`."""
        self._scope.checkpoint(episode_id, reason, note=note, actor=actor)

    def relate(
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
        """Stage a relationship; see `stepwell.AtomicScope.relate`."""
        self._scope.relate(
            from_episode, to_episode, kind, priority=priority, reason=reason, metadata=metadata, actor=actor
        )

    def unrelate(self, from_episode: str, to_episode: str, kind: RelationshipKind, *, actor: str = "") -> None:
        """Stage that two episodes are related no longer in this way; see `stepwell.AtomicScope.unrelate`."""
        self._scope.unrelate(from_episode, to_episode, kind, actor=actor)
