"""Starting, resuming and ending episodes."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from stepstore.errors import afresh
from stepwell.errors import InvalidState, NotFound, StepwellError
from stepwell.memory.completed import CompletedEpisode, completed
from stepwell.memory.core import MemoryCore, checked_id_in_turn
from stepwell.memory.handle import EpisodeHandle
from stepwell.memory.run_scope import RunScope
from stepwell.model import validation as check
from stepwell.model.context import TaskContext
from stepwell.model.ending import checked_outcome
from stepwell.model.ids import EpisodeId, checked_id, new_episode_id
from stepwell.model.outcome import Interrupted, TaskOutcome
from stepwell.model.start import EpisodeStart, checked_start, redacted_start
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.episode_task import being_deleted, ended_error
from stepwell.runtime.reading import fold_episode
from stepwell.runtime.receipt import Commit
from stepwell.runtime.right_loop import checkpoint
from stepwell.runtime.untold import called


class EpisodeLifecycle(MemoryCore):
    """The part of a memory that starts episodes and ends them."""

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
        actor: str = "",
        **context_fields: Any,
    ) -> EpisodeHandle:
        """Start an episode; it is durable on return. Fields of `TaskContext` may be given as keywords as well.

        `agent` runs it, and `actor` is who asked for it, which stands in its event.
        With the `episode_id` of an episode that exists and was started with the same arguments, gives a handle to it.
        If cancelled, whether it was started is unknown: call again with the same `episode_id`.
        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (the id exists, started otherwise), `Closed`, `LogFull`,
        `OutcomeUnknown`.
        """
        new_id, commit = await self._begin_episode(
            task,
            context=context,
            task_type=task_type,
            agent=agent,
            episode_id=episode_id,
            parent=parent,
            thread=thread,
            metadata=metadata,
            actor=actor,
            context_fields=context_fields,
        )
        if commit is not None:
            await commit.reach_log()
        return EpisodeHandle(self._whole, new_id)

    async def _begin_episode(
        self, task: str, *, episode_id: str | None, **arguments: Any
    ) -> tuple[EpisodeId, Commit | None]:
        """Have the start of an episode accepted; None if it was started before. A checkpoint; cancelled, nothing is."""
        try:
            start = checked_start(task, limits=self._config.limits, **arguments)
            if self._redaction is not None:
                start = redacted_start(start, self._redaction, self._config.limits)
            known = None if episode_id is None else checked_id(episode_id)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        self._supervisor.check_open()
        if known is not None:
            await self._supervisor.check_not_deleted(known)
            while self._supervisor.exists(known):
                if await self._was_started(known, start):
                    return known, None
                await self._supervisor.check_not_deleted(known)
        new_id = new_episode_id() if known is None else known
        cell = self._supervisor.start(new_id, start)
        return new_id, cell.pending_commits[0]

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
        assert fold.start is not None
        start = msgspec.structs.replace(start, actor=fold.start.actor)  # whoever asks again
        if fold.start != start:
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
        actor: str = "",
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
            "context_fields": context_fields,
            "actor": actor,
        }
        return RunScope(self._whole, task, arguments)

    async def resume(self, episode_id: str) -> EpisodeHandle:
        """Continue an episode that has no ending, for instance one of `open_episodes()`.

        Raises: `NotFound`, `InvalidState` (it has ended), `EpisodeUnavailable`, `Closed`.
        """
        known = await checked_id_in_turn(episode_id)
        cell = await self._supervisor.awake(known)
        if cell.state.value == "ended" or cell.ending_request is not None:
            raise ended_error(known)
        if cell.deleting:
            raise being_deleted(known)
        return EpisodeHandle(self._whole, known)

    async def abandon(self, episode_id: str, reason: str = "", *, actor: str = "") -> CompletedEpisode:
        """End an episode that nobody will continue, with `Interrupted(reason, cause="abandoned")`; durable on return.

        Raises as `complete_episode`.
        """
        return await self.complete_episode(episode_id, Interrupted(reason, cause="abandoned"), actor=actor)

    async def complete_episode(
        self, episode_id: str, outcome: TaskOutcome, *, metadata: dict[str, Any] | None = None, actor: str = ""
    ) -> CompletedEpisode:
        """End an episode: everything accepted for it, then its ending with reward, reflection and summary, durable.

        `metadata` is kept with the ending (`Episode.outcome_metadata`), and `actor`, who asked, in its event.
        Completing again with an equal outcome gives the same result. If cancelled the completion goes on; call again to
        learn how it went. Where records of the episode were lost, now or earlier, and nobody was told, this is raised
        once instead, and the episode stays open: called again it ends without them.
        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (it has another ending), `EpisodeUnavailable`,
        `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        request = await self._ended(episode_id, outcome, metadata=metadata, actor=actor)
        if request.error is not None:
            raise afresh(request.error)
        return completed(EpisodeId(episode_id), request)

    async def _ended(
        self, episode_id: str, outcome: TaskOutcome, *, metadata: dict[str, Any] | None = None, actor: str = ""
    ) -> EndingRequest:
        """As `complete_episode`, but if the ending alone was lost it stands in the request that is given back."""
        try:
            known = checked_id(episode_id)
            checked = checked_outcome(outcome, self._config.limits)
            check.check_object({} if metadata is None else metadata, "metadata")
            metadata = check.plain(metadata or {})  # encoded by the episode's task, when the caller may have changed it
            asked_by = check.check_actor(actor)
            if self._redaction is not None:
                checked = checked_outcome(self._redaction.outcome(checked), self._config.limits)
                metadata = self._redaction.value("metadata", metadata or {})
                check.check_object(metadata, "metadata")
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        while True:
            cell = await self._supervisor.awake(known)
            if cell.ending_request is None and cell.state.value != "live":
                continue  # it failed between waking and now; look again
            if cell.locked:
                await cell.wait_room()  # a transaction that holds the episode was there first
                continue
            request = self._request_ending(cell, checked, metadata or {}, asked_by)
            await request.done.wait()
            if request.error is not None and not request.is_sent:
                self._supervisor.untold.tell_with(called(known), request.error)
                raise afresh(request.error)
            return request

    @trio.lowlevel.enable_ki_protection
    def _request_ending(
        self, cell: EpisodeCell, outcome: TaskOutcome, metadata: dict[str, Any], actor: str
    ) -> EndingRequest:
        request = cell.ending_request
        if request is None:
            self._supervisor.check_open()
            self._journal.check_open(critical=True)
            if cell.deleting:
                raise being_deleted(cell.episode_id)
            self._supervisor.untold.tell(cell.called)
            request = cell.ending_request = EndingRequest(outcome, metadata, actor)
            cell.make_urgent()
        elif request.outcome != outcome:
            raise InvalidState(f"episode {cell.episode_id!r} ends with another outcome: {request.outcome!r}")
        return request

    # ---- run scopes ------------------------------------------------------------------------------------------------

    def _enter_scope(self, scope: RunScope) -> None:
        self._scopes[scope] = None

    def _leave_scope(self, scope: RunScope) -> None:
        self._scopes.pop(scope, None)

    @trio.lowlevel.enable_ki_protection
    def _end_scopes(self) -> None:
        """The memory is closing: a run scope that is still open ends now, so that no run looks alive for ever."""
        for scope in self._scopes:
            cell = None if scope.handle is None else self._supervisor.wake_to_end(scope.handle.id)
            if cell is not None:
                cell.ending_request = EndingRequest(
                    Interrupted("the memory was closed before the run had ended", cause="cancelled"), {}
                )
                cell.make_urgent()
