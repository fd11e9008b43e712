"""Storing the events of one episode, or finding that they are stored already."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from stepwell import Memory
from stepwell.cli.episode_history import history_of
from stepwell.cli.importing.report import FileReport
from stepwell.cli.neutral_form import (
    BadLine,
    JsonObject,
    NeutralChange,
    NeutralComplete,
    NeutralEvent,
    NeutralStart,
    NeutralStep,
    same,
    with_step_count,
    write_episode,
)
from stepwell.cli.output import count_text
from stepwell.errors import Busy
from stepwell.events import Started
from stepwell.model.codec import encode_step
from stepwell.model.limits import DEFAULT_LIMITS
from stepwell.model.organising import (
    Archived,
    Checkpointed,
    OrganisingRecord,
    Related,
    Restored,
    Tagged,
    Unrelated,
    Updated,
)
from stepwell.model.step import ExecutionStep
from stepwell.model.tags import with_tags, without_tags


class Item(msgspec.Struct, frozen=True):
    """One event of a file."""

    line: int
    event: JsonObject
    parsed: NeutralEvent


class Place:
    """How far an episode has got: `comparing` with what is stored, `appending` to it, `ended` or `refused`."""

    __slots__ = ("changes", "phase", "steps")

    def __init__(self, phase: Literal["comparing", "appending", "ended", "refused"]):
        self.phase = phase
        self.steps = 0
        self.changes: Counter[bytes] = Counter()
        """Of an episode that was there before: how often the file has told each change."""


class Places:
    """What is known of the episodes of an import: the ids in the memory, and how far each has got.

    A few words for each, so that a file of any size can be read.
    """

    def __init__(self, known: set[str]):
        self.known = known
        self.known_before = frozenset(known)
        self.relationships: list[tuple[int, FileReport, Related | Unrelated]] = []
        """Made at the end of all files, once both ends are there: line, report, and what is to be made."""
        self.of: dict[str, Place] = {}


class EpisodeWriting:
    """One run of events of one episode on its way into the memory."""

    def __init__(self, memory: Memory, places: Places, episode_id: str, report: FileReport):
        self.memory = memory
        self.places = places
        self.episode_id = episode_id
        self.report = report
        self.stored: list[JsonObject] | None = None
        self.changes: list[JsonObject] = []
        self.position = 0
        self.unsettled = False

    async def take(self, item: Item) -> None:
        """Store one event, or find that it is stored already.

        Raises:
            BadLine: it contradicts what is stored, or comes without a start.
            Rejected, InvalidState: the memory refuses it.
        """
        parsed = item.parsed
        if isinstance(parsed, NeutralStart):
            await self._start(item.event, parsed)
            return
        place = self.places.of.get(self.episode_id)
        if isinstance(parsed, NeutralChange) and place is not None and place.phase != "refused":
            await self._organise(item, parsed.record, place)
            return
        if place is None:
            raise BadLine(f"no start line of episode {self.episode_id!r} before this one")
        if place.phase == "refused":
            raise BadLine(f"the start line of its episode {self.episode_id!r} was refused")
        if place.phase == "ended":
            raise BadLine(f"its episode {self.episode_id!r} has ended before this line")
        if place.phase == "comparing" and await self._is_stored(item, place):
            place.steps += isinstance(parsed, NeutralStep)
            self.report.present += 1
        elif isinstance(parsed, NeutralStep):
            await self._append_step(parsed.step, place)
        else:
            assert isinstance(parsed, NeutralComplete), "changes are dealt with above"
            parsed = with_step_count(item.event, parsed, place.steps)
            await self.memory.complete_episode(self.episode_id, parsed.outcome, metadata=parsed.metadata)
            place.phase = "ended"
            self.report.endings += 1
            self.unsettled = False

    async def _organise(self, item: Item, record: OrganisingRecord, place: Place) -> None:
        if self.episode_id in self.places.known_before:
            await self._look()
            # What is told for the second time (archived, restored, archived) is there if it is stored twice.
            said = msgspec.json.encode(item.event, order="sorted")
            place.changes[said] += 1
            if place.changes[said] <= sum(same(stored, item.event) for stored in self.changes):
                self.report.present += 1
                return
        if isinstance(record, Related | Unrelated):
            self.places.relationships.append((item.line, self.report, record))
        else:
            await _make(self.memory, self.episode_id, record)
            self.report.changes += 1

    async def _look(self) -> None:
        """Find out what is stored of an episode that was there before."""
        if self.stored is None:
            episode = await self.memory.get_episode(self.episode_id)
            lines = list(write_episode(episode, await history_of(self.memory, episode)))
            self.stored = [line for line in lines if line["event"] != "organise"][1:]
            self.changes = [line for line in lines if line["event"] == "organise"]
            self.position = self.places.of[self.episode_id].steps

    async def _append_step(self, step: ExecutionStep, place: Place) -> None:
        handle = self.memory.handle(self.episode_id)
        try:
            handle.log_step_nowait(step)
        except Busy:
            await handle.log_step(step)
        place.steps += 1
        self.report.steps += 1
        self.unsettled = True

    async def settle(self) -> None:
        """Wait until everything that was stored is durable."""
        if self.unsettled:
            await self.memory.handle(self.episode_id).flush()

    async def _start(self, event: JsonObject, parsed: NeutralStart) -> None:
        place = self.places.of[self.episode_id] = Place("refused")
        self.stored = None
        if self.episode_id in self.places.known:
            episode = await self.memory.get_episode(self.episode_id)
            if not same(next(write_episode(episode, await history_of(self.memory, episode))), event):
                raise BadLine(
                    f"episode {self.episode_id!r} is in the memory already and began differently; "
                    "delete it there, or import into another directory"
                )
            place.phase = "comparing"
            self.report.present += 1
            return
        if not parsed.task:
            started = await self.memory.episodic.record(parsed.episode, Started(agent=parsed.agent))
            await started.wait_durable()
        else:
            await self.memory.start_episode(
                parsed.task,
                context=parsed.context,
                task_type=parsed.task_type,
                agent=parsed.agent,
                episode_id=parsed.episode,
                parent=parsed.parent,
                thread=parsed.thread,
                metadata=parsed.metadata,
            )
        self.places.known.add(self.episode_id)
        place.phase = "appending"
        self.report.episodes += 1

    async def _is_stored(self, item: Item, place: Place) -> bool:
        """Whether the event is the next stored one; False once there are no more of them."""
        await self._look()
        assert self.stored is not None
        if self.position >= len(self.stored):
            place.phase = "appending"
            return False
        if not same(self.stored[self.position], item.event):
            if isinstance(item.parsed, NeutralStep):
                encode_step(item.parsed.step, 0, DEFAULT_LIMITS)  # a line that was refused before is so again
            raise BadLine(
                f"episode {self.episode_id!r} is in the memory already and goes on differently there "
                f"(after {count_text(place.steps, 'step')}); this line cannot be put between"
            )
        self.position += 1
        if not isinstance(item.parsed, NeutralStep):
            place.phase = "ended"
        return True


async def _make(memory: Memory, episode_id: str, record: OrganisingRecord) -> None:
    """Make a change of an episode, no relationship, anew."""
    actor = record.actor
    if isinstance(record, Tagged):
        if not record.removed:
            await memory.add_tags(episode_id, record.added, actor=actor)
        elif not record.added:
            await memory.remove_tags(episode_id, record.removed, actor=actor)
        else:
            tags = (await memory.get_episode(episode_id)).context.tags
            await memory.set_tags(episode_id, with_tags(without_tags(tags, record.removed), record.added), actor=actor)
    elif isinstance(record, Updated):
        await memory.update_episode(
            episode_id,
            description=record.description,
            metadata=record.metadata,
            remove_metadata=record.removed_metadata,
            actor=actor,
        )
    elif isinstance(record, Archived):
        await memory.archive(episode_id, actor=actor)
    elif isinstance(record, Restored):
        await memory.restore(episode_id, actor=actor)
    elif isinstance(record, Checkpointed):
        await memory.checkpoint(episode_id, record.reason, note=record.note, actor=actor)


async def make_relationship(memory: Memory, record: Related | Unrelated) -> None:
    """Make a relationship, or take it away."""
    if isinstance(record, Unrelated):
        await memory.unrelate(record.from_episode, record.to_episode, record.kind, actor=record.actor)
        return
    await memory.relate(
        record.from_episode,
        record.to_episode,
        record.kind,
        priority=record.priority,
        reason=record.reason,
        metadata=record.metadata,
        actor=record.actor,
    )
