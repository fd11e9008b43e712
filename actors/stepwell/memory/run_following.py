"""Follow one run: its events so far, then those to come."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import trio

from stepstore.journal import Gap
from stepwell.errors import EpisodeUnavailable, InvalidState
from stepwell.memory.following import NOW, EventChannel, Following
from stepwell.memory.run_reading import RunEvents, recorded_of
from stepwell.model.event import DELETED
from stepwell.model.ids import EpisodeId
from stepwell.model.run_record import RecordedEvent

if TYPE_CHECKING:
    from stepwell.memory.core import MemoryCore


class RunFollowing:
    """The async context manager that `EpisodicPort.follow` returns; entering gives the channel of events."""

    def __init__(self, memory: MemoryCore, run: EpisodeId, after: int):
        self._memory, self._run, self._after = memory, run, after
        self._following: Following | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> RunChannel:
        if self._following is not None:
            await trio.lowlevel.checkpoint()
            raise InvalidState("this follow(...) was entered before; call memory.episodic.follow again")
        memory = self._memory
        following = Following(memory._journal, memory._supervisor.check_open, NOW, None)
        live = await following.__aenter__()
        self._following = following
        # What is durable now is read from the stream, what becomes durable later comes from the log.
        stored = memory._whole.episodic.iter_replay(self._run, self._after)
        return RunChannel(self._run, stored, live, self._after)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._following is not None
        return await self._following.__aexit__(kind, error, traceback)


class RunChannel(trio.abc.ReceiveChannel[RecordedEvent]):
    """The events of one run in order; ends when the memory is closed or the run is deleted. For one task at a time."""

    def __init__(self, run: EpisodeId, stored: RunEvents, live: EventChannel, after: int):
        self._run, self._live, self._last = run, live, after
        self._stored: RunEvents | None = stored

    async def receive(self) -> RecordedEvent:
        """The next event. A checkpoint unless one is ready; cancelled, none is skipped.

        Raises: `trio.EndOfChannel`, `trio.ClosedResourceError`, `trio.BusyResourceError` (another task is receiving),
        `EpisodeUnavailable`, `RecoveryFailed`.
        """
        if self._stored is not None:
            try:
                return self._take(await self._stored.__anext__())
            except StopAsyncIteration:
                self._stored = None
        while True:
            found = await self._live.receive()
            if isinstance(found, Gap):
                raise EpisodeUnavailable(
                    f"records {found.first_lsn} to {found.last_lsn} of the log cannot be read, and may be of run "
                    f"{self._run!r}",
                    reason="damaged",
                )
            if found.stream != self._run:
                continue
            if found.kind == DELETED:
                raise trio.EndOfChannel
            if found.seq > self._last and (recorded := recorded_of(found, self._run)) is not None:
                return self._take(recorded)

    def _take(self, recorded: RecordedEvent) -> RecordedEvent:
        self._last = recorded.seq
        return recorded

    async def aclose(self) -> None:
        """Stop following. A checkpoint."""
        await self._live.aclose()
