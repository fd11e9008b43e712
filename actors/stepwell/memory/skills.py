"""Procedural skills: steps that somebody wrote down under a name, found again by what they are for and how they did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from stepstore.journal.contract import append, delete
from stepwell.errors import InvalidInput, InvalidState, NotFound, StepwellError
from stepwell.learning.skill_ranking import ranked_skills
from stepwell.model import validation as check
from stepwell.model.codec import encode_deleted, encode_record
from stepwell.model.context import TaskContext
from stepwell.model.ending import checked_outcome
from stepwell.model.ids import new_episode_id, stream_id
from stepwell.model.outcome import TaskOutcome
from stepwell.model.skill import SKILL_STORED, SKILL_STREAM, SKILL_USED, Skill, SkillMatch
from stepwell.model.start import checked_context
from stepwell.runtime import learned_advice
from stepwell.runtime.recommending import append_next
from stepwell.runtime.right_loop import checkpoint

if TYPE_CHECKING:
    from stepwell.memory.core import MemoryCore

NAME_BYTES = 200
MOST_STEPS = 1_000
MOST_FOUND = 1_000


class Skills:
    """`memory.skills`. Writing calls are durable on return; reading ones see everything that was stored before."""

    def __init__(self, memory: MemoryCore):
        self._memory = memory
        self._storing = trio.Lock()
        """Two who store one name at once store one skill, and who stores behind a deletion stores a new one."""
        self._given_up: set[str] = set()
        """Skills whose deletion was cancelled, and goes on if it was queued: they may be there and take nothing."""

    async def store(
        self,
        name: str,
        description: str = "",
        *,
        steps: Sequence[str] = (),
        context: TaskContext | None = None,
        sources: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
    ) -> Skill:
        """Store a skill under a name; one that is there under that name is replaced, and keeps its record of use.

        `steps`: what to do, in order. `sources`: ids of the episodes or patterns that it comes from. If cancelled,
        whether it was stored is unknown: store it again.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        memory, limits = self._memory, self._memory._config.limits
        try:
            check.check_text(name, "name", NAME_BYTES, empty=False)
            check.check_text(description, "description", limits.text_bytes)
            for field, texts in (("steps", steps), ("sources", sources)):
                if not isinstance(texts, list | tuple):
                    raise InvalidInput(f"{field}: must be a list of texts, not {type(texts).__name__}")
                check.check_text_list(list(texts), field, limits.text_bytes)
                if len(texts) > MOST_STEPS:
                    raise InvalidInput(f"{field}: {len(texts):,} are above {MOST_STEPS:,}")
            if metadata is not None:
                check.check_object(metadata, "metadata")
            data = {
                "name": name,
                "description": description,
                "steps": list(steps),
                "context": msgspec.to_builtins(checked_context(context, {}, limits)),
                "sources": list(sources),
                "metadata": metadata or {},
            }
            if memory._redaction is not None:
                data = {**memory._redaction.value("skill", data), "name": name}
            if (bad := check.find_bad_text(data, "skill")) is not None:
                raise InvalidInput(bad)
            data = check.plain(data)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        memory._supervisor.check_thread()
        async with self._storing:
            return await self.get(await self._store(name, data))

    async def _store(self, name: str, data: dict[str, Any]) -> str:
        """Append a skill to the stream of that name, or to a new one; gives its id."""
        memory = self._memory
        earlier = next(iter(await self._read(name=name)), None)
        memory._supervisor.check_open()
        memory._journal.check_open()
        if earlier is not None:
            payload = self._encode(earlier.skill_id, data, None)
            try:
                await append_next(memory._journal, stream_id(SKILL_STREAM, earlier.skill_id), payload)
                return earlier.skill_id
            except InvalidState:
                if earlier.skill_id not in self._given_up:
                    raise
        skill_id = new_episode_id()
        payload = self._encode(skill_id, data, {"stream": SKILL_STREAM, "id": skill_id})
        await append(memory._journal, stream_id(SKILL_STREAM, skill_id), [payload], expected_seq=0)
        return skill_id

    def _encode(self, skill_id: str, data: dict[str, Any], meta: dict[str, Any] | None) -> bytes:
        limit, data = self._memory._config.limits.record_bytes, {"skill_id": skill_id, **data}
        return encode_record(SKILL_STORED, time.time_ns(), data, meta, path="skill", limit=limit)

    async def get(self, skill_id: str) -> Skill:
        """The skill with an id. Raises: `InvalidInput`, `NotFound`, `Unavailable`, `Closed`."""
        await self._checked(skill_id)
        found = await self._read(skill_id=skill_id)
        if not found:
            raise _no_skill(skill_id)
        return found[0]

    async def find(self, task: str = "", context: TaskContext | None = None, *, limit: int = 5) -> list[SkillMatch]:
        """Skills for a task, best first: by the words that name, description and steps share with it, by context, and
        by how they did when they were used. Without a task and a context, all skills by how they did.

        `limit`: 1 to 1,000. Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`.
        """
        limits = self._memory._config.limits
        try:
            check.check_text(task, "task", limits.task_bytes)
            checked = None if context is None else checked_context(context, {}, limits)
            check.check_number(limit, "limit", minimum=1, whole=True)
            if limit > MOST_FOUND:
                raise InvalidInput(f"limit: {limit} is above {MOST_FOUND:,}")
        except StepwellError:
            await checkpoint()
            raise
        return ranked_skills(await self._read(), task, checked)[:limit]

    async def used(self, skill_id: str, outcome: TaskOutcome | None = None) -> Skill:
        """Note that a skill was used, and how the task ended; durable on return. Gives the skill as it is known then.

        Without an outcome, or if the task was abstained from or interrupted, the use counts neither for nor against it.
        If cancelled, whether it was noted is unknown. Raises: `InvalidInput`, `NotFound`, `InvalidState` (it is being
        deleted), `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        memory = self._memory
        try:
            ending = None if outcome is None else checked_outcome(outcome, memory._config.limits)
        except StepwellError:
            await checkpoint()
            raise
        await self.get(skill_id)
        data = {"outcome": msgspec.to_builtins(ending)}
        limit = memory._config.limits.record_bytes
        payload = encode_record(SKILL_USED, time.time_ns(), data, None, path="outcome", limit=limit)
        memory._supervisor.check_open()
        memory._journal.check_open()
        await append_next(memory._journal, stream_id(SKILL_STREAM, skill_id), payload)
        return await self.get(skill_id)

    async def delete(self, skill_id: str) -> None:
        """Delete a skill with what is known of its use; durable on return. Its name may be used again, its id is not.

        If cancelled the deletion goes on once it is queued. Raises: `InvalidInput`, `NotFound`, `Unavailable`,
        `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        await self._checked(skill_id)
        self._memory._supervisor.check_thread()
        async with self._storing:
            await self.get(skill_id)
            self._memory._supervisor.check_open()
            try:
                await delete(self._memory._journal, stream_id(SKILL_STREAM, skill_id), encode_deleted(time.time_ns()))
            except trio.Cancelled:
                self._given_up.add(skill_id)
                raise

    async def _checked(self, skill_id: object) -> None:
        try:
            check.check_text(skill_id, "skill_id", NAME_BYTES, empty=False)
            if (bad := check.find_bad_text(skill_id, "skill_id")) is not None:
                raise InvalidInput(bad)
        finally:
            await checkpoint()

    async def _read(self, *, skill_id: str | None = None, name: str | None = None) -> list[Skill]:
        learning = self._memory._runtime.projections.learning
        await checkpoint()
        self._memory._supervisor.check_thread()
        return await learning.read_now(
            lambda connection: learned_advice.skills(connection, skill_id=skill_id, name=name)
        )


def _no_skill(skill_id: str) -> NotFound:
    return NotFound(f"there is no skill {skill_id!r} in this memory; `memory.skills.find()` shows those there are")
