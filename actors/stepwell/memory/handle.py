"""A handle to one episode."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from stepwell.errors import Busy, InvalidInput, StepwellError
from stepwell.memory.completed import CompletedEpisode
from stepwell.model.episode import Episode
from stepwell.model.ids import EpisodeId
from stepwell.model.outcome import TaskOutcome
from stepwell.model.run_event import RunEvent
from stepwell.model.step import ExecutionStep, StepError, StepInterrupted, StepResult, StepSuccess, StepTimeout
from stepwell.runtime.episode_task import being_deleted
from stepwell.runtime.reading import EpisodeEvents
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.right_loop import checkpoint, get_ident, wrong_loop

if TYPE_CHECKING:
    from stepwell.memory.memory import Memory
    from stepwell.runtime.cell import EpisodeCell
    from stepwell.runtime.supervisor import Supervisor


class EpisodeHandle:
    """What an agent holds of an episode it runs. Cheap; any number of them may exist for one episode.

    The calls are those of `Memory` of the same meaning, with the id filled in.
    """

    __slots__ = ("_memory", "id")

    id: EpisodeId

    def __init__(self, memory: Memory, episode_id: EpisodeId):
        self._memory, self.id = memory, episode_id

    @property
    def episode_id(self) -> EpisodeId:
        """The same as `id`."""
        return self.id

    def __repr__(self) -> str:
        return f"<EpisodeHandle {self.id!r}>"

    async def log_step(self, step: ExecutionStep, *, expected_seq: int | None = None) -> Receipt:
        """Log one step: accepted on return (durable with `durability="commit"`); the receipt tells when it is durable.

        Waits while the mailbox of the episode is full; cancelled there, nothing is accepted. Cancelled in
        `durability="commit"` after that, the step will be stored unless the log fails.
        `expected_seq`: accept it only behind that record, the last one of the episode that the caller knows of (its
        receipt's `seq`; 1 right after the start). A step whose key is known gets its first receipt all the same.
        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (the episode has ended, the key was used for
        another step, or the episode is not at `expected_seq`), `EpisodeUnavailable`, `Closed`, `LogFull`.
        """
        memory = self._memory
        if get_ident() != memory._supervisor.thread:
            raise wrong_loop()
        try:
            await checkpoint_if_cancelled()
        except RuntimeError:
            raise wrong_loop() from None
        cell = memory._cells.get(self.id)
        try:
            if cell is None or not cell.accepting or cell.full:
                cell = await memory._supervisor.accepting(self.id)
            receipt = cell.accept_step(step, expected_seq)
        except StepwellError as error:
            memory._supervisor.oversight.note_refused(error)
            await cancel_shielded_checkpoint()
            raise
        del step  # else thousands of them would live until their callers have their turns again
        if memory._commit_durability:
            await receipt.reach_log()
        else:
            await cancel_shielded_checkpoint()
        return receipt

    async def log_steps(self, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None) -> Receipt:
        """Log several steps as one atomic batch; see `Memory.log_steps`."""
        return await self._memory.log_steps(self.id, steps, expected_seq=expected_seq)

    def log_step_nowait(self, step: ExecutionStep, *, expected_seq: int | None = None) -> Receipt:
        """Log one step without waiting: accepted on return. A plain function; let the loop run between many of them.

        Raises: `Busy` when it would have to wait (the mailbox is full, a transaction is being committed, or the episode
        is asleep or being rebuilt), and all that `log_step` raises.
        """
        supervisor = self._memory._supervisor
        cell = supervisor.cells.get(self.id)
        try:
            if (
                cell is None
                or not cell.accepting
                or cell.full
                or supervisor.closing
                or get_ident() != supervisor.thread
            ):
                cell = self._ready(supervisor)
            receipt = cell.accept_step(step, expected_seq)
        except StepwellError as error:
            supervisor.oversight.note_refused(error)
            raise
        if self._memory._commit_durability:
            cell.make_urgent(receipt._commit)  # it cannot wait for the medium, but it goes there at once
        return receipt

    def _ready(self, supervisor: Supervisor) -> EpisodeCell:
        """The cell, if it is awake and has room or says itself what is wrong. Raises: `Busy`, as `log_step_nowait`."""
        supervisor.check_open()
        cell = supervisor.cells.get(self.id)
        if cell is None:
            supervisor.check_is_stored(self.id)
            raise Busy(f"episode {self.id!r} is not awake; use log_step, which wakes it")
        if cell.ending_request is None:
            if cell.deleting:
                raise being_deleted(self.id)
            if not cell.accepting:
                raise Busy(f"episode {self.id!r} is being rebuilt from the log; use log_step, which waits")
            if cell.locked:
                raise Busy(f"a transaction on episode {self.id!r} is being committed; use log_step, which waits for it")
            if cell.full:
                cell.wake()
                raise Busy(f"the mailbox of episode {self.id!r} is full; use log_step, which waits for room")
        return cell

    async def record(self, *events: RunEvent) -> Receipt:
        """Record events of the run that this episode is, several of them as one batch; see `EpisodicPort.record`.
        Unlike logging, it begins a run that is unknown, and adds to one that has ended."""
        episodic = self._memory.episodic
        return await (
            episodic.record(self.id, events[0]) if len(events) == 1 else episodic.record_many(self.id, events)
        )

    def step(self, tool: str, action: str = "", parameters: dict[str, Any] | None = None) -> StepScope:
        """An async context manager that logs what its body does as one step, with the latency measured."""
        return StepScope(self, tool, action, {} if parameters is None else parameters)

    async def flush(self) -> None:
        """Return once everything accepted for this episode is durable; see `Memory.flush_steps`."""
        await self._memory.flush_steps(self.id)

    async def complete(
        self, outcome: TaskOutcome, *, metadata: dict[str, Any] | None = None, actor: str = ""
    ) -> CompletedEpisode:
        """End the episode; see `Memory.complete_episode`."""
        return await self._memory.complete_episode(self.id, outcome, metadata=metadata, actor=actor)

    async def get(self) -> Episode:
        """The episode so far; see `Memory.get_episode`."""
        return await self._memory.get_episode(self.id)

    def events(self, after: int = 0) -> EpisodeEvents:
        """The events of the episode; see `Memory.events`."""
        return self._memory.events(self.id, after)


class StepScope:
    """One step while it runs. Set `output` to what the tool answered; it is logged when the body ends.

    An exception is logged as `StepError` (`TooSlowError`, `TimeoutError`, and with Trio 0.31 or later the cancellation
    by a deadline around the step, as `StepTimeout`; any other cancellation as `StepInterrupted`) and leaves unchanged.
    The step is accepted even while the task is being cancelled: what the tool did has happened. If there is no room for
    it then, that takes `grace_seconds` at most.
    """

    def __init__(self, handle: EpisodeHandle, tool: str, action: str, parameters: dict[str, Any]):
        self._handle, self._tool, self._action, self._parameters = handle, tool, action, parameters
        self._began = 0.0
        self.output: Any = ""
        self.tokens_used: int | None = None
        self.reward: float | None = None
        self.thought: str | None = None
        self.metadata: dict[str, Any] = {}
        self.receipt: Receipt | None = None

    async def __aenter__(self) -> StepScope:
        if not isinstance(self._tool, str) or not self._tool.strip():
            await checkpoint()
            raise InvalidInput("step.tool: must be text and not empty")
        await checkpoint()
        self._handle._memory._supervisor.check_thread()
        self._began = time.perf_counter()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        latency_ms = round((time.perf_counter() - self._began) * 1000, 3)
        step = ExecutionStep(
            tool=self._tool,
            action=self._action,
            parameters=self._parameters,
            result=StepSuccess(self.output) if error is None else _result_of(error),
            latency_ms=latency_ms,
            tokens_used=self.tokens_used,
            reward=self.reward,
            thought=self.thought,
            metadata=self.metadata,
        )
        if error is not None:
            await self._log_in_time(step, error)
            return
        try:
            self.receipt = await self._accept(step)
        except (trio.Cancelled, KeyboardInterrupt) as interruption:
            await self._log_in_time(step, interruption)  # it was not accepted so far
            raise
        if self._handle._memory._commit_durability:
            await self.receipt.reach_log()

    async def _accept(self, step: ExecutionStep) -> Receipt:
        """Have the step accepted. A checkpoint; cancelled, it is not accepted."""
        cell = await self._handle._memory._supervisor.accepting(self._handle.id)
        return cell.accept_step(step)

    async def _log_in_time(self, step: ExecutionStep, error: BaseException) -> None:
        """Log the step of a body that is being left with `error`, within the grace; what goes wrong is a note to it."""
        try:
            with trio.move_on_after(self._handle._memory._config.grace_seconds, shield=True) as scope:
                try:
                    self.receipt = await self._accept(step)
                except KeyboardInterrupt:  # it was not accepted so far; another Ctrl-C gives it up
                    self.receipt = await self._accept(step)
                    raise
                if self._handle._memory._commit_durability:
                    await self.receipt.reach_log()
            if scope.cancelled_caught:
                error.add_note(f"stepwell: the step {self._tool!r} could not be logged in time")
        except Exception as logging_error:
            error.add_note(f"stepwell: the step {self._tool!r} could not be logged: {logging_error}")


def _result_of(error: BaseException) -> StepResult:
    if isinstance(error, trio.TooSlowError | TimeoutError):
        return StepTimeout(str(error))
    if isinstance(error, trio.Cancelled) and getattr(error, "source", None) == "deadline":  # Trio 0.31 and later tell
        return StepTimeout("the deadline around the step has expired")
    if not isinstance(error, Exception):
        return StepInterrupted(type(error).__name__)
    return StepError(f"{type(error).__name__}: {error}"[:10_000].encode("utf-8", "replace").decode())
