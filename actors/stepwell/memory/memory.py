"""The memory an agent holds."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

import trio

from stepstore.journal import ArchiveReport, CompactionReport, DeletionReport, Journal
from stepwell.errors import InvalidInput, InvalidState, NotFound, OutcomeUnknown, StepwellError
from stepwell.memory.completed import CompletedEpisode
from stepwell.memory.figures import MemoryRecovery, MemoryStats
from stepwell.memory.following import START, Following, Place
from stepwell.memory.handle import EpisodeHandle
from stepwell.memory.run_scope import RunScope
from stepwell.model import validation as check
from stepwell.model.context import TaskContext
from stepwell.model.ending import checked_outcome
from stepwell.model.episode import Episode
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, checked_id, new_episode_id, stream_id
from stepwell.model.outcome import Interrupted, TaskOutcome
from stepwell.model.start import EpisodeStart, checked_start
from stepwell.model.step import ExecutionStep
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.episode_task import being_deleted, ended_error
from stepwell.runtime.reading import (
    UNREADABLE,
    EpisodeEvents,
    OpenEpisode,
    first_record,
    fold_episode,
    not_found,
    read_open_episode,
)
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.runtime import Runtime


class Memory:
    """An opened memory. Get one from `open_memory`; use it from the Trio run that opened it.

    Every async function is a checkpoint on every path. Arguments are checked before anything is accepted; a `Rejected`
    error means that nothing is stored.
    """

    def __init__(self, journal: Journal, config: MemoryConfig, runtime: Runtime):
        self._journal, self._config, self._runtime = journal, config, runtime
        self._supervisor = runtime.supervisor
        self._cells: dict[str, EpisodeCell] = runtime.supervisor.cells
        self._commit_durability = config.durability == "commit"
        self._was_open = frozenset(journal.open_streams())
        self._scopes: dict[RunScope, None] = {}
        report = journal.report
        self._recovery = MemoryRecovery(
            segments=report.segments,
            records=report.records,
            bytes_cut=report.bytes_cut,
            quarantined=list(report.quarantined),
            open_episodes=report.open_streams,
            seconds=report.seconds,
            notes=list(report.notes),
        )

    @property
    def recovery(self) -> MemoryRecovery:
        """What opening this memory found and did."""
        return self._recovery

    def stats(self) -> MemoryStats:
        """Counts since opening."""
        stats = self._journal.stats
        return MemoryStats(
            groups=stats.groups,
            syncs=stats.syncs,
            records=stats.records,
            bytes_written=stats.bytes_written,
            largest_group=stats.largest_group,
            live_episodes=len(self._supervisor.cells),
        )

    # ---- starting and ending -----------------------------------------------------------------------------------------

    def handle(self, episode_id: str) -> EpisodeHandle:
        """A handle to an episode by id. Free: an unknown id is `NotFound` at first use. Raises: `InvalidInput`."""
        return EpisodeHandle(self, checked_id(episode_id))

    async def start_episode(
        self,
        task: str,
        *,
        context: TaskContext | None = None,
        task_type: str = "other",
        agent: str = "",
        episode_id: str | None = None,
        parent: str | None = None,
        thread: str | None = None,
        metadata: dict[str, Any] | None = None,
        **context_fields: Any,
    ) -> EpisodeHandle:
        """Start an episode; it is durable on return. Fields of `TaskContext` may be given as keywords as well.

        With the `episode_id` of an episode that exists and was started with the same arguments, gives a handle to it.
        If cancelled, whether it was started is unknown: call again with the same `episode_id`.
        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (the id exists, started otherwise), `Closed`, `LogFull`,
        `OutcomeUnknown`.
        """
        try:
            start = checked_start(
                task,
                context=context,
                context_fields=context_fields,
                task_type=task_type,
                agent=agent,
                parent=parent,
                thread=thread,
                metadata=metadata,
                limits=self._config.limits,
            )
            known = None if episode_id is None else checked_id(episode_id)
        except StepwellError:
            await trio.lowlevel.checkpoint()
            raise
        await trio.lowlevel.checkpoint()
        self._supervisor.check_open()
        if known is not None:
            await self._supervisor.check_not_deleted(known)
            while self._supervisor.exists(known):
                if await self._was_started(known, start):
                    return EpisodeHandle(self, known)
                await self._supervisor.check_not_deleted(known)
        new_id = new_episode_id() if known is None else known
        cell = self._supervisor.start(new_id, start)
        await cell.pending_commits[0].reach_log()
        return EpisodeHandle(self, new_id)

    async def _was_started(self, episode_id: EpisodeId, start: EpisodeStart) -> bool:
        """Whether the episode is there; False if its start, by another caller, did not reach the log.

        Raises: `InvalidState` if it was started with other arguments.
        """
        await self._supervisor.settle(episode_id)
        try:
            fold, _keyed = await fold_episode(self._journal, episode_id)
        except NotFound:
            await self._supervisor.look_again(episode_id)
            return False
        if fold.start != start:
            assert fold.start is not None
            differs = [name for name in start.__struct_fields__ if getattr(start, name) != getattr(fold.start, name)]
            raise InvalidState(
                f"episode {episode_id!r} exists and was started with another {', '.join(differs)}; use another id"
            )
        return True

    def episode(
        self,
        task: str,
        *,
        context: TaskContext | None = None,
        task_type: str = "other",
        agent: str = "",
        episode_id: str | None = None,
        parent: str | None = None,
        thread: str | None = None,
        metadata: dict[str, Any] | None = None,
        **context_fields: Any,
    ) -> RunScope:
        """The run scope: an async context manager that starts an episode and writes its ending by itself.

        See `RunScope` for how the ending is decided. Arguments and errors are those of `start_episode`.
        """
        arguments = {
            "context": context,
            "task_type": task_type,
            "agent": agent,
            "episode_id": episode_id,
            "parent": parent,
            "thread": thread,
            "metadata": metadata,
        }
        return RunScope(self, task, arguments | context_fields)

    async def resume(self, episode_id: str) -> EpisodeHandle:
        """Continue an episode that has no ending, for instance one of `open_episodes()`.

        Raises: `NotFound`, `InvalidState` (it has ended), `EpisodeUnavailable`, `Closed`.
        """
        known = await _checked_id(episode_id)
        cell = await self._supervisor.awake(known)
        if cell.state.value == "ended" or cell.ending_request is not None:
            raise ended_error(known)
        if cell.deleting:
            raise being_deleted(known)
        return EpisodeHandle(self, known)

    async def abandon(self, episode_id: str, reason: str = "") -> CompletedEpisode:
        """End an episode that nobody will continue, with `Interrupted(reason, cause="abandoned")`; durable on return.

        Raises as `complete_episode`.
        """
        return await self.complete_episode(episode_id, Interrupted(reason, cause="abandoned"))

    async def complete_episode(
        self, episode_id: str, outcome: TaskOutcome, *, metadata: dict[str, Any] | None = None
    ) -> CompletedEpisode:
        """End an episode: everything accepted for it, then its ending with reward, reflection and summary, durable.

        `metadata` is kept with the ending (`Episode.outcome_metadata`). Completing again with an equal outcome gives
        the same result. If cancelled the completion goes on; call again to learn how it went.
        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (it has another ending), `EpisodeUnavailable`,
        `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        try:
            known = checked_id(episode_id)
            checked = checked_outcome(outcome, self._config.limits)
            check.check_object({} if metadata is None else metadata, "metadata")
        except StepwellError:
            await trio.lowlevel.checkpoint()
            raise
        await trio.lowlevel.checkpoint()
        while True:
            cell = await self._supervisor.awake(known)
            if cell.ending_request is None and cell.state.value != "live":
                continue  # it failed between waking and now; look again
            request = self._request_ending(cell, checked, metadata or {})
            await request.done.wait()
            if request.error is not None:
                raise request.error
            return _completed(known, request)

    @trio.lowlevel.enable_ki_protection
    def _request_ending(self, cell: EpisodeCell, outcome: TaskOutcome, metadata: dict[str, Any]) -> EndingRequest:
        request = cell.ending_request
        if request is None:
            self._supervisor.check_open()
            self._journal.check_open(critical=True)
            if cell.deleting:
                raise being_deleted(cell.episode_id)
            request = cell.ending_request = EndingRequest(outcome, metadata)
            cell.make_urgent()
        elif request.outcome != outcome:
            raise InvalidState(f"episode {cell.episode_id!r} ends with another outcome: {request.outcome!r}")
        return request

    # ---- deleting ----------------------------------------------------------------------------------------------------

    async def delete_episode(self, episode_id: str, *, purge: bool = False) -> DeletionReport | None:
        """Delete an episode: nothing reads it from now on, and its id is never used again; durable on return. With
        `purge` its bytes are removed from every file at once, and the report gives the proof; see `compact`.

        Works for one that is damaged or cannot be read as well. Its task stores what was accepted and ends first; steps
        and endings that come meanwhile are `InvalidState`. Its bytes stay in the log until they are compacted away; if
        they are encrypted, its key is destroyed at once. Deleting it again does nothing more. If cancelled the deletion
        goes on; call again to learn how it went.
        Raises: `InvalidInput`, `NotFound`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        await self._supervisor.delete(await _checked_id(episode_id))
        if not purge:
            return None
        report = await self.compact(purge=True)
        assert isinstance(report, DeletionReport)
        return report

    async def compact(self, *, purge: bool = False) -> CompactionReport:
        """Give back the space of deleted episodes and merge small files of the log, now; by itself it happens in the
        background when enough is dead. Reading and writing go on meanwhile.

        With `purge` every file that holds something of a deleted episode is rewritten, whatever it costs, and the whole
        directory is searched for what may be left of it; the report is a `DeletionReport` that says what was looked at
        and what is out of reach (archives and other copies).
        If cancelled, what is under way is thrown away; nothing is lost. Raises: `Closed`, `OSError`.
        """
        await trio.lowlevel.checkpoint()
        self._supervisor.check_open()
        return await self._journal.compact(purge=purge)

    async def backup(self, target: str | os.PathLike[str]) -> ArchiveReport:
        """Copy the memory into an archive, a new directory, while logging and reading go on.

        The archive holds everything that is durable when this is called, and every byte of it is read back and
        compared. `stepwell restore`, or `stepstore.log.archive.restore_archive`, makes a memory of it again. Keys of
        encrypted episodes are not in it; keep the directory `keys` as well.
        If this is cancelled or fails, what is left at the target is no archive; backing up to it again begins anew.
        Raises: `Closed`, `InvalidInput` (the target is neither absent nor empty, or lies inside the memory; a memory
        without a path), `CorruptLog` (a file of the log is damaged), `Unavailable` (an I/O error).
        """
        await trio.lowlevel.checkpoint()
        self._supervisor.check_open()
        return await self._journal.archive(_checked_directory(target))

    # ---- logging -----------------------------------------------------------------------------------------------------

    async def log_step(self, episode_id: str, step: ExecutionStep) -> Receipt:
        """Log one step of the episode; see `EpisodeHandle.log_step`. Raises: `InvalidInput` for a bad id as well."""
        if type(episode_id) is str and episode_id in self._cells:
            return await EpisodeHandle(self, EpisodeId(episode_id)).log_step(step)
        return await EpisodeHandle(self, await _checked_id(episode_id)).log_step(step)

    async def log_steps(self, episode_id: str, steps: Sequence[ExecutionStep]) -> Receipt:
        """Log steps as one atomic batch: all of them are stored or none. The receipt is that of the last one.

        Otherwise as `EpisodeHandle.log_step`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if not isinstance(steps, list | tuple):
                raise InvalidInput(f"steps: must be a list of ExecutionStep, not {type(steps).__name__}")
            cell = await self._supervisor.accepting(await _checked_id(episode_id))
            receipt = cell.accept_steps(steps)
        except StepwellError:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        if self._commit_durability:
            await receipt.reach_log()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return receipt

    async def flush_steps(self, episode_id: str) -> None:
        """Return once everything accepted for the episode before this call is durable.

        Raises: `NotFound`, `OutcomeUnknown` (the log failed or was closed first).
        """
        known = await _checked_id(episode_id)
        cell = self._supervisor.cells.get(known)
        if cell is None:
            if not await self._supervisor.is_stored(known):
                raise not_found(known)
            return
        for commit in cell.pending_commits:
            await commit.reach_log()

    async def flush(self) -> None:
        """Return once everything accepted before this call, for all episodes, is durable.

        Raises: `OutcomeUnknown` (the log failed or was closed first).
        """
        await trio.lowlevel.checkpoint()
        pending = [(cell, commit) for cell in self._supervisor.cells.values() for commit in cell.pending_commits]
        for cell, commit in pending:
            cell.make_urgent(commit)
        for _cell, commit in pending:
            await commit.reach_log()

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def get_episode(self, episode_id: str, *, partial: bool = False) -> Episode:
        """The episode with everything accepted for it before this call. With `partial`, what is sound of a damaged one.

        Raises: `NotFound`, `EpisodeUnavailable`.
        """
        known = await _checked_id(episode_id)
        await self._supervisor.settle(known)
        fold, _keyed = await fold_episode(self._journal, known, partial=partial)
        return fold.episode()

    async def get_episodes(self, episode_ids: Iterable[str]) -> list[Episode]:
        """Several episodes, in the order asked for. Raises: `NotFound` naming the first that is unknown."""
        await trio.lowlevel.checkpoint()
        if isinstance(episode_ids, str) or not isinstance(episode_ids, Iterable):
            raise InvalidInput(f"episode_ids: must be several ids, not {type(episode_ids).__name__}")
        return [await self.get_episode(episode_id) for episode_id in episode_ids]

    def events(self, episode_id: str, after: int = 0) -> EpisodeEvents:
        """The events of an episode behind seq `after`, oldest first, in bounded memory: `async for event in …`.

        It sees everything accepted before its first item is asked for. Nothing has to be closed.
        Raises: `InvalidInput`; the iteration raises `NotFound`, `EpisodeUnavailable`.
        """
        known = checked_id(episode_id)
        check.check_number(after, "after", minimum=0, whole=True)
        return EpisodeEvents(self._journal, known, after, lambda: self._supervisor.settle(known))

    def follow(self, cursor: str | Place = START, *, kinds: Collection[str] | None = None) -> Following:
        """Follow the durable events of all episodes in log order, then those to come:
        `async with memory.follow(cursor) as events: async for event in events: …`.

        `cursor`: START, NOW, or the `cursor` of an event, behind which it goes on, also after a restart. `kinds`: only
        events of these kinds. Records whose bytes are damaged or cannot be decoded come as a `Gap`. A deleted episode
        comes as its "deleted" event alone, whose `stream` is "" for a follower that has seen nothing else of it. A slow
        reader lags behind; nothing waits for it and nothing is dropped. Closing the memory ends it. A checkpoint once
        per slice of at most 256 events.
        Raises: `InvalidInput`; entering raises `InvalidInput` (no cursor, or one of another memory), `InvalidState`
        (the cursor's record was lost after a crash), `CorruptLog` (records that were durable have vanished), `Closed`.
        """
        return Following(self._journal, self._supervisor.check_open, cursor, kinds)

    async def open_episodes(self) -> list[OpenEpisode]:
        """The episodes that were still open when the memory was last closed or its process died, and still are."""
        await self._journal.catch_up()
        found = [
            await read_open_episode(self._journal, stream)
            for stream in self._journal.open_streams()
            if stream in self._was_open
        ]
        return [episode for episode in found if episode is not None]

    async def episode_ids(self) -> AsyncIterator[EpisodeId]:
        """Every stored episode's id, in the order in which they were started.

        Left out is one whose first record cannot be read, since only that tells the id.
        """
        await self._supervisor.settle_all()
        for stream in self._journal.streams():
            try:
                found = await first_record(self._journal, stream)
            except UNREADABLE:
                continue
            if found is not None and found[0] == EPISODE_STREAM and stream_id(EPISODE_STREAM, found[1]) == stream:
                yield EpisodeId(found[1])

    # ---- for the run scope and for closing ---------------------------------------------------------------------------

    def _enter_scope(self, scope: RunScope) -> None:
        self._scopes[scope] = None

    def _leave_scope(self, scope: RunScope) -> None:
        self._scopes.pop(scope, None)

    @trio.lowlevel.enable_ki_protection
    def _end_scopes(self) -> None:
        """The memory is closing: a run scope that is still open ends now, so that no run looks alive for ever."""
        for scope in self._scopes:
            cell = None if scope.handle is None else self._supervisor.cells.get(scope.handle.id)
            if cell is not None and cell.ending_request is None and cell.state.value == "live" and not cell.deleting:
                cell.ending_request = EndingRequest(
                    Interrupted("the memory was closed before the run had ended", cause="cancelled"), {}
                )
                cell.make_urgent()


def _checked_directory(target: str | os.PathLike[str]) -> str:
    if not isinstance(target, str | os.PathLike):
        raise InvalidInput(f"target: must be the path of a directory, not {type(target).__name__}")
    path = os.fspath(target)
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidInput("target: must be the path of a directory")
    return os.path.abspath(path)


async def _checked_id(episode_id: object) -> EpisodeId:
    try:
        return checked_id(episode_id)
    finally:
        await trio.lowlevel.checkpoint()


def _completed(episode_id: EpisodeId, request: EndingRequest) -> CompletedEpisode:
    ending = request.ending
    if ending is None or request.receipt is None:
        raise OutcomeUnknown(f"episode {episode_id!r} was completed, but its ending is not known")
    return CompletedEpisode(
        episode_id=episode_id,
        outcome=ending.outcome,
        reward=ending.reward,
        reflection=ending.reflection,
        summary=ending.summary,
        receipt=request.receipt,
    )
