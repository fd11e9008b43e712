"""Checkpoints, and going on from them in another episode."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from stepwell.errors import NotFound, StepwellError, Unavailable
from stepwell.learning.handoff import LEARNED, handoff_pack, says_what_to_do
from stepwell.memory.episode_reading import EpisodeReading
from stepwell.memory.handle import EpisodeHandle
from stepwell.memory.lifecycle import EpisodeLifecycle
from stepwell.memory.relationships import Relationships
from stepwell.model import validation as check
from stepwell.model.checkpoint import Checkpoint, checked_checkpoint_id
from stepwell.model.episode import Episode
from stepwell.model.handoff import HandoffPack, checked_pack
from stepwell.model.ids import checked_id
from stepwell.model.pattern import Pattern
from stepwell.runtime.organising import PLACE_TO_GO_ON_FROM, organise
from stepwell.runtime.right_loop import checkpoint

LOOKED_AT = 200
"""So many patterns, and heuristics, of the domain are looked at for those that go into a pack."""
CONTINUED_FROM = "continued_from"
"""The name in the metadata of an episode under which stands the id of the checkpoint that it goes on from."""


class HandingOver(EpisodeLifecycle, EpisodeReading, Relationships):
    """The part of a memory that hands an episode from one agent to another."""

    async def checkpoint(self, episode_id: str, reason: str, *, note: str = "", actor: str = "") -> Checkpoint:
        """Note a place in an open episode to go on from, behind everything accepted for it, all of which is durable on
        return. If cancelled, whether it was noted is unknown; `Episode.checkpoints` tells. A write that failed earlier
        and of which nobody was told is raised, once, as by `flush_steps`; then nothing is noted.

        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (it has ended, or is being deleted),
        `EpisodeUnavailable`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        try:
            known = checked_id(episode_id)
            change = self._checks.checkpoint(reason, note, actor)
        except StepwellError:
            await checkpoint()
            raise
        await self._supervisor.flush(known)
        receipt = await organise(self._supervisor, known, change, only_open=PLACE_TO_GO_ON_FROM)
        assert receipt is not None
        episode = await self.get_episode(known)
        return next(item for item in reversed(episode.checkpoints) if item.seq == receipt.seq)

    async def handoff(self, checkpoint_id: str) -> HandoffPack:
        """What another agent needs to go on from a checkpoint: the task as it is now, the steps up to there, and what
        other episodes of its domain have taught. If the learner was parked the pack says so, and has the rest.

        Raises: `InvalidInput`, `NotFound` (no such checkpoint, or its episode was deleted), `EpisodeUnavailable`,
        `Unavailable`.
        """
        try:
            episode_id, seq = checked_checkpoint_id(checkpoint_id)
        except StepwellError:
            await checkpoint()
            raise
        episode = await self.get_episode(episode_id)
        found = next((item for item in episode.checkpoints if item.seq == seq), None)
        if found is None:
            raise NotFound(f"there is no checkpoint {checkpoint_id!r}; Episode.checkpoints names those there are")
        try:
            patterns = await self._taught_by_others(episode)
            heuristics = await self._whole.heuristics(episode.context, limit=LOOKED_AT)
        except Unavailable as error:
            return handoff_pack(episode, found, not_learned=str(error))
        return handoff_pack(episode, found, patterns, heuristics)

    async def _taught_by_others(self, episode: Episode) -> list[Pattern]:
        """Patterns of the episode's domain that say what to do, and that another episode shows."""
        memory = self._whole
        found: list[Pattern] = []
        for pattern in await memory.patterns(domain=episode.context.domain, limit=LOOKED_AT):
            if len(found) == LEARNED:
                break
            if not says_what_to_do(pattern):
                continue
            if pattern.episodes == 1:
                with suppress(NotFound):  # deleted meanwhile; another may show it by now
                    evidence = (await memory.explain(pattern.pattern_id)).evidence
                    if any(shown.episode_id != episode.episode_id for shown in evidence):
                        found.append(pattern)
            else:
                found.append(pattern)
        return found

    async def continue_from(
        self,
        pack: HandoffPack,
        *,
        agent: str | None = None,
        episode_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        actor: str = "",
    ) -> EpisodeHandle:
        """Start an episode that goes on from a checkpoint: the same task, context, type and thread, by the same agent
        unless `agent` says another. Its `parent` is the episode of the checkpoint, which it "follows" if that is in
        this memory. `metadata` and the checkpoint's id, as `continued_from`, are its metadata. The old episode stays as
        it is.

        Durable on return. With an `episode_id` it may be repeated. If cancelled, whether it was started, and whether it
        is related already, is unknown: call again with the same `episode_id`.
        Raises: as `start_episode` and `relate`.
        """
        try:
            old = checked_pack(pack).checkpoint
            check.check_object({} if metadata is None else metadata, "metadata")
            asked_by = check.check_actor(actor)
        except StepwellError:
            await checkpoint()
            raise
        handle = await self.start_episode(
            pack.task_description,
            context=pack.context,
            task_type=pack.task_type,
            agent=pack.agent if agent is None else agent,
            episode_id=episode_id,
            parent=old.episode_id,
            thread=pack.thread,
            metadata={**(metadata or {}), CONTINUED_FROM: old.checkpoint_id},
            actor=asked_by,
        )
        with suppress(NotFound):  # the pack is of another memory, or the episode was deleted; `parent` still names it
            await self.relate(handle.id, old.episode_id, "follows", reason=old.reason, actor=asked_by)
        return handle
