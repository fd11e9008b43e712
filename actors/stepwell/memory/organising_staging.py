"""What a transaction stages of organising episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cbor2
import trio

from stepwell.errors import InvalidInput
from stepwell.model import organising as changes
from stepwell.model import validation as check
from stepwell.model.ids import EpisodeId, checked_id
from stepwell.model.organising import Change, Related, Unrelated
from stepwell.model.relationship import RelationshipKind
from stepwell.runtime.episode_part import Staged, StagedChange
from stepwell.runtime.organising import PLACE_TO_GO_ON_FROM

if TYPE_CHECKING:
    from stepwell.memory.core import MemoryCore
    from stepwell.runtime.run_part import RunPart


class OrganisingStaging:
    """The part of a transaction that organises episodes. See `AtomicScope`."""

    _memory: MemoryCore
    _runs: dict[str, RunPart]

    def __init__(self) -> None:
        self._relationships: list[Related | Unrelated] = []

    def _check_staging(self) -> None:
        raise NotImplementedError

    def _add(self, known: EpisodeId, staged: Sequence[Staged], expected_seq: int | None) -> None:
        raise NotImplementedError

    def add_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Stage tags to add to an episode; see `Memory.add_tags`. A plain function.

        Raises, like all that organise: `InvalidInput` (also for a run of which events are recorded here), `TooLarge`,
        `InvalidState` (not inside the block); then it is not staged.
        """
        self._stage_change(episode_id, self._memory._checks.tags(tags, actor, changes.adding_tags), tags)

    def remove_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Stage tags to take away from an episode; see `Memory.remove_tags`. A plain function."""
        self._stage_change(episode_id, self._memory._checks.tags(tags, actor, changes.removing_tags), tags)

    def set_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Stage the tags that an episode is to have, and no others; see `Memory.set_tags`. A plain function."""
        self._stage_change(episode_id, self._memory._checks.tags(tags, actor, changes.setting_tags), tags)

    def update_episode(
        self,
        episode_id: str,
        *,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        remove_metadata: Sequence[str] = (),
        actor: str = "",
    ) -> None:
        """Stage another description or metadata for an episode; see `Memory.update_episode`. A plain function."""
        change = self._memory._checks.update(description, metadata, remove_metadata, actor)
        self._stage_change(episode_id, change, [description, metadata, list(remove_metadata)])

    def archive(self, episode_id: str, *, actor: str = "") -> None:
        """Stage an episode to be put away; see `Memory.archive`. A plain function."""
        self._stage_change(episode_id, changes.archiving(check.check_actor(actor)))

    def restore(self, episode_id: str, *, actor: str = "") -> None:
        """Stage an episode to be taken out of the archive; see `Memory.restore`. A plain function."""
        self._stage_change(episode_id, changes.restoring(check.check_actor(actor)))

    def checkpoint(self, episode_id: str, reason: str, *, note: str = "", actor: str = "") -> None:
        """Stage a place to go on from, behind what is staged for the episode so far; see `Memory.checkpoint`.
        `Episode.checkpoints` has it behind the commit. A plain function."""
        change = self._memory._checks.checkpoint(reason, note, actor)
        self._stage_change(episode_id, change, [reason, note], only_open=PLACE_TO_GO_ON_FROM)

    @trio.lowlevel.enable_ki_protection
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
        """Stage a relationship; see `Memory.relate`. That both ends exist and no circle is closed, also with what is
        staged before, shows at the commit. A plain function."""
        wanted = self._memory._checks.related(from_episode, to_episode, kind, priority, reason, metadata, actor)
        self._stage_change(wanted.from_episode, changes.relating(wanted), [reason, wanted.metadata])
        self._relationships.append(wanted)

    @trio.lowlevel.enable_ki_protection
    def unrelate(self, from_episode: str, to_episode: str, kind: RelationshipKind, *, actor: str = "") -> None:
        """Stage that two episodes are related no longer in this way; see `Memory.unrelate`. A plain function."""
        wanted = self._memory._checks.unrelated(from_episode, to_episode, kind, actor)
        self._stage_change(wanted.from_episode, changes.unrelating(wanted))
        self._relationships.append(wanted)

    def _stage_change(self, episode_id: str, change: Change, said: object = None, *, only_open: str = "") -> None:
        """Stage a change of which the caller `said` this."""
        self._check_staging()
        known = checked_id(episode_id)
        if known in self._runs:
            raise InvalidInput(f"events were recorded for {known!r} in this transaction; organise it behind the commit")
        self._add(known, [StagedChange(change, len(cbor2.dumps(check.plain(said))), only_open)], None)
