"""What agents program against: the memories of klieo as protocols, with `stepwell.testing` twins in plain memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol, runtime_checkable

from stepwell.model.ids import ThreadId
from stepwell.model.message import Message, Oversize
from stepwell.model.run_event import RunEvent
from stepwell.model.run_filter import RunFilter, RunSummary
from stepwell.model.run_record import RecordedEvent
from stepwell.runtime.receipt import Receipt


@runtime_checkable
class ShortTermMemory(Protocol):
    """Conversations. `memory.short_term` is one; see `ShortTermPort` for what each call promises."""

    async def append(self, thread: str, message: Message) -> Receipt:
        """Add a message at the end of a thread."""
        ...

    async def append_many(self, thread: str, messages: Sequence[Message]) -> Receipt:
        """Add messages, all or none."""
        ...

    async def load(
        self,
        thread: str,
        max_tokens: int,
        *,
        pin_system: bool = False,
        with_summary: bool = False,
        oversize: Oversize | None = None,
    ) -> list[Message]:
        """The newest messages that fit, oldest first."""
        ...

    async def summarise(self, thread: str, text: str, first_seq: int, last_seq: int) -> Receipt:
        """Store a summary of some messages."""
        ...

    async def clear(self, thread: str) -> None:
        """Delete every message of a thread."""

    async def threads(self) -> list[ThreadId]:
        """The threads that hold something."""
        ...


@runtime_checkable
class EpisodicMemory(Protocol):
    """The events of runs. `memory.episodic` is one; see `EpisodicPort` for what each call promises."""

    async def record(self, run: str, event: RunEvent) -> Receipt:
        """Record one event of a run."""
        ...

    async def record_many(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        """Record events, all or none."""
        ...

    async def replay(self, run: str) -> list[RunEvent]:
        """All events of a run, in order."""
        ...

    async def replay_many(self, runs: Iterable[str]) -> list[tuple[str, list[RunEvent]]]:
        """The events of several runs."""
        ...

    def iter_replay(self, run: str, after: int = 0) -> AsyncIterator[RecordedEvent]:
        """The events of a run behind one of them, with their numbers and times."""
        ...

    async def list_runs(self, filter: RunFilter | None = None) -> list[RunSummary]:
        """The runs a filter is met by, the latest started first."""
        ...
