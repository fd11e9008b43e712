"""The episodic port: the events of agent runs. A run is an episode, seen as events instead of as steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from stepwell.errors import InvalidInput, Rejected, StepwellError
from stepwell.memory.run_following import RunFollowing
from stepwell.memory.run_reading import RunEvents
from stepwell.model import validation as check
from stepwell.model.ids import checked_id
from stepwell.model.run_event import RunEvent
from stepwell.model.run_filter import RunFilter, RunSummary, checked_filter, select
from stepwell.model.run_record import RecordedEvent, checked_event, is_ending
from stepwell.model.usage import Price, UsageReport, project_usage
from stepwell.runtime.reading import EpisodeEvents
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.right_loop import checkpoint, get_ident, wrong_loop
from stepwell.runtime.run_recording import accept_one, record

if TYPE_CHECKING:
    from stepwell.memory.core import MemoryCore


class EpisodicPort:
    """`memory.episodic`: what happens in the runs of agents, in klieo's vocabulary (`stepwell.events`).

    A run is an episode: `memory.get_episode(run)` shows its tool calls as steps, and what is logged there is replayed
    here. Recording is lenient: a run begins with its first event, whatever that is, and what comes behind a `Completed`
    or `Failed` is kept and counted. Nothing is analysed; only `complete` and the run scope do that.
    """

    def __init__(self, memory: MemoryCore):
        self._memory = memory

    async def record(self, run: str, event: RunEvent) -> Receipt:
        """Record one event of a run: accepted on return (durable with `durability="commit"`). Waits while the mailbox
        of the run is full.

        If cancelled before it is accepted nothing is stored; in `durability="commit"`, behind that, it will be.
        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (the run was deleted), `EpisodeUnavailable`, `Closed`,
        `LogFull`.
        """
        memory = self._memory
        supervisor = memory._supervisor
        if get_ident() != supervisor.thread:
            raise wrong_loop()
        try:
            await checkpoint_if_cancelled()
        except RuntimeError:
            raise wrong_loop() from None
        try:
            limits = memory._config.limits
            cell = memory._cells.get(run) if isinstance(run, str) else None
            if cell is None or not cell.accepting or cell.full or cell.ending_request is not None or is_ending(event):
                event = checked_event(event, limits, memory._redaction)
                receipt = await record(supervisor, checked_id(run, "run"), [event])
            else:
                receipt = accept_one(cell, event, limits, memory._redaction)
        except StepwellError as error:
            supervisor.oversight.note_refused(error)
            await cancel_shielded_checkpoint()
            raise
        if memory._commit_durability:
            await receipt.reach_log()
        else:
            await cancel_shielded_checkpoint()
        return receipt

    async def record_many(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        """Record events that are stored together or not at all. The receipt is that of the last one; see `record`."""
        memory = self._memory
        await checkpoint()
        try:
            known, checked = checked_id(run, "run"), self._checked(events)
            receipt = await record(memory._supervisor, known, checked)
        except StepwellError as error:
            memory._supervisor.oversight.note_refused(error)
            await cancel_shielded_checkpoint()
            raise
        if memory._commit_durability:
            await receipt.reach_log()
        else:
            await cancel_shielded_checkpoint()
        return receipt

    def _checked(self, events: Sequence[RunEvent]) -> list[RunEvent]:
        if not isinstance(events, list | tuple):
            raise InvalidInput(f"events: must be a list of events, not {type(events).__name__}")
        if not events:
            raise InvalidInput("events: must hold at least one event")
        checked = []
        for place, event in enumerate(events):
            try:
                checked.append(checked_event(event, self._memory._config.limits, self._memory._redaction))
            except Rejected as error:
                raise type(error)(f"events[{place}]: {error}") from error
        return checked

    async def replay(self, run: str) -> list[RunEvent]:
        """All events of a run, in order, as they were recorded; none if the run is unknown. For a long run use
        `iter_replay`. It sees everything accepted before the call.

        Raises: `InvalidInput`, `EpisodeUnavailable`, `Unavailable`, `Closed`.
        """
        return [item.event for item in await self._all_of(run)]

    async def replay_many(self, runs: Iterable[str]) -> list[tuple[str, list[RunEvent]]]:
        """The events of several runs, in the order asked for; see `replay`."""
        await checkpoint()
        if isinstance(runs, str) or not isinstance(runs, Iterable):
            raise InvalidInput(f"runs: must be several ids, not {type(runs).__name__}")
        return [(run, await self.replay(run)) for run in runs]

    def iter_replay(self, run: str, after: int = 0) -> RunEvents:
        """The events of a run behind record `after`, oldest first, each with its number and time, in bounded memory:
        `async for recorded in …`. An unknown run has none. It sees everything accepted before its first item is asked
        for; nothing has to be closed.

        Raises: `InvalidInput`; the iteration raises as `replay`.
        """
        known = checked_id(run, "run")
        check.check_number(after, "after", minimum=0, whole=True)
        settle = self._memory._supervisor.settle
        return RunEvents(EpisodeEvents(self._memory._journal, known, after, lambda: settle(known)), known)

    async def _all_of(self, run: str) -> list[RecordedEvent]:
        try:
            events = self.iter_replay(run)
        except StepwellError:
            await checkpoint()
            raise
        return [item async for item in events]

    def follow(self, run: str, after: int = 0) -> RunFollowing:
        """The events of a run behind record `after`, then those to come, as they become durable:
        `async with memory.episodic.follow(run) as events: async for recorded in events: …`. The run may be unknown yet.
        A slow reader lags behind; nothing waits for it. It ends when the memory is closed or the run is deleted.

        Raises: `InvalidInput`; entering raises `Closed`, receiving as `replay`.
        """
        known = checked_id(run, "run")
        check.check_number(after, "after", minimum=0, whole=True)
        return RunFollowing(self._memory, known, after)

    async def list_runs(self, filter: RunFilter | None = None) -> list[RunSummary]:
        """The runs that a filter is met by: the latest started first, and of equal times the greater id first. It sees
        everything accepted before the call. The first call after opening reads the log.

        Raises: `InvalidInput`, `Closed`, `RecoveryFailed`, `Unavailable` (the key of something encrypted cannot be
        had).
        """
        try:
            checked = checked_filter(filter)
        except StepwellError:
            await checkpoint()
            raise
        await self._memory._supervisor.settle_all()
        index = self._memory._stream_index
        await index.catch_up()
        return select(index.runs(), checked)

    async def usage(self, runs: Iterable[str], prices: Mapping[tuple[str, str], Price] | None = None) -> UsageReport:
        """What runs have used: calls, tokens, latency and, with `prices` by (provider, model), cost; per run, per agent
        and per model. Works on runs that have not ended. See `stepwell.model.usage`.

        Raises: `InvalidInput`, and as `replay`.
        """
        return project_usage(await self.replay_many(runs), prices or {})
