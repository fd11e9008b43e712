"""The run scope: an episode that ends with the block that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio

from stepstore.errors import afresh
from stepwell.errors import Closed, InvalidState, LogFull, NotFound, OutcomeUnknown, StepwellError
from stepwell.memory.completed import CompletedEpisode, completed
from stepwell.memory.handle import EpisodeHandle
from stepwell.model.ending import checked_outcome
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome

if TYPE_CHECKING:
    from stepwell.memory.memory import Memory

_REASON_CHARACTERS = 2_000


class RunningEpisode(EpisodeHandle):
    """A handle inside a run scope: `succeed`, `partially`, `fail` and `abstain` say how the run is to end.

    They are plain setters; the last one counts, and an exception that leaves the block beats them all.
    """

    __slots__ = ("_outcome",)

    def __init__(self, memory: Memory, handle: EpisodeHandle):
        super().__init__(memory, handle.id)
        self._outcome: TaskOutcome | None = None

    def succeed(self, verdict: str = "", artifacts: list[str] | None = None) -> None:
        """The task was done. Raises: `InvalidInput`."""
        self._set(Success(verdict, artifacts or []))

    def partially(self, verdict: str = "", completed: list[str] | None = None, failed: list[str] | None = None) -> None:
        """Some of the task was done. Raises: `InvalidInput`."""
        self._set(PartialSuccess(verdict, completed or [], failed or []))

    def fail(self, reason: str = "", error_details: str | None = None) -> None:
        """The task was not done. Raises: `InvalidInput`."""
        self._set(Failure(reason, error_details))

    def abstain(
        self, reason: str = "", stopped_at_step: int = 0, infeasibility_signals: list[str] | None = None
    ) -> None:
        """The task was judged infeasible. Raises: `InvalidInput`."""
        self._set(Abstained(reason, stopped_at_step, infeasibility_signals or []))

    def _set(self, outcome: TaskOutcome) -> None:
        self._outcome = checked_outcome(outcome, self._memory._config.limits)


class RunScope:
    """`async with memory.episode(task) as episode:` — starts an episode, and writes its ending when the block is left.

    The ending: any ordinary exception (groups flattened) → `Failure` with its type and message; only `Cancelled`,
    `GeneratorExit`, `KeyboardInterrupt` or `SystemExit` → `Interrupted(cause="cancelled")`; otherwise what was set, or
    `Success("")`. It is durable when the block has been left, written inside a shield with `grace_seconds`; a Ctrl-C
    meanwhile leaves behind it, and a second one gives it up. What the body raised leaves unchanged; if the ending, or
    steps before it, could not be written it carries a note that says so. A body that ended well then raises the reason
    (`Closed`, `LogFull`, `OutcomeUnknown`). If steps were lost, at any time, and nobody was told, a run that believed
    in success ends as a `Failure` that says so; an ending that alone was lost is written again. The block may complete
    the episode. One that is deleted meanwhile needs no ending: the block is left as if there were none.

    Cancelled or interrupted while it is being entered, an episode whose id was generated ends as well; one with an id
    of the caller's is left as `start_episode` leaves it: enter again with the same id.

    The scope opens no nursery and no cancel scope around the body. `completed` is the result once the block is left.
    """

    def __init__(self, memory: Memory, task: str, arguments: dict[str, Any]):
        self._memory, self._task, self._arguments = memory, task, arguments
        self.handle: RunningEpisode | None = None
        self.completed: CompletedEpisode | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> RunningEpisode:
        if self.handle is not None:
            await trio.lowlevel.checkpoint()
            raise InvalidState("a run scope can be entered once; call memory.episode(...) again")
        episode_id, commit = await self._memory._begin_episode(self._task, **self._arguments)
        handle = self.handle = RunningEpisode(self._memory, EpisodeHandle(self._memory, episode_id))
        try:
            if commit is not None:
                await commit.reach_log()
        except (trio.Cancelled, KeyboardInterrupt) as error:
            await self._leave_unentered(error)
            raise
        self._memory._enter_scope(self)
        return handle

    async def _leave_unentered(self, error: BaseException) -> None:
        """The caller was cancelled, or interrupted, by `error` as the scope was entered: its block is never run."""
        handle = self.handle
        assert handle is not None
        try:
            if self._arguments["episode_id"] is None:  # accepted, and nobody can know its id
                await self._end(handle, error)
        finally:
            self._memory._leave_scope(self)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        handle = self.handle
        assert handle is not None
        try:
            await self._end(handle, error)
        finally:
            self._memory._leave_scope(self)

    async def _end(self, handle: RunningEpisode, error: BaseException | None) -> None:
        outcome = decide_ending(error, handle._outcome)
        try:
            try:
                await self._write(handle, outcome)
            except KeyboardInterrupt:  # the ending is written all the same; another Ctrl-C gives it up
                await self._write(handle, outcome)
                raise
        except StepwellError as problem:
            if error is None:
                raise
            what = "the ending" if self.completed is None else "records"
            error.add_note(f"stepwell: {what} of episode {handle.id!r} could not be written: {problem}")

    async def _write(self, handle: RunningEpisode, outcome: TaskOutcome) -> None:
        with trio.move_on_after(self._memory._config.grace_seconds, shield=True):
            with suppress(NotFound):  # it was deleted
                await self._complete(handle, outcome)
            return
        raise OutcomeUnknown(f"the ending of episode {handle.id!r} was not durable within the grace; reopen and look")

    async def _complete(self, handle: RunningEpisode, outcome: TaskOutcome) -> None:
        """Write the ending. Raises: what was lost before it; then the ending does not say that all went well."""
        steps_lost: StepwellError | None = None
        ending_lost: BaseException | None = None
        while True:
            try:
                request = await self._memory._ended(handle.id, outcome)
            except InvalidState:
                await self._take_ending_of_the_body(handle, outcome)
                break
            except (LogFull, OutcomeUnknown) as lost:
                # Steps accepted in the block did not reach the log: the run did not end as it believes.
                if steps_lost is not None:
                    raise
                steps_lost = lost
                if not isinstance(outcome, Failure | Interrupted):
                    outcome = Failure(_describe(lost))
                continue
            except Closed:
                if ending_lost is not None:
                    raise afresh(ending_lost) from None  # nobody can tell any more whether it is there
                raise
            if request.error is None:
                self.completed = completed(handle.id, request)
                break
            # It alone was lost. Once the episode is rebuilt from the log, that says whether it is there.
            ending_lost = request.error
        if steps_lost is not None:
            raise steps_lost

    async def _take_ending_of_the_body(self, handle: RunningEpisode, outcome: TaskOutcome) -> None:
        """The episode has an ending already. One the body wrote itself counts; one forced by closing does not."""
        episode = await handle.get()
        if isinstance(episode.outcome, Interrupted) and not isinstance(outcome, Interrupted):
            raise InvalidState(
                f"episode {handle.id!r} was ended before its run scope was left: {episode.outcome.reason}"
            )


def decide_ending(error: BaseException | None, chosen: TaskOutcome | None) -> TaskOutcome:
    """How a run ends whose body was left with `error`, having set `chosen`. Exception groups are flattened."""
    if error is None:
        return chosen or Success("")
    leaves = list(_leaves(error))
    ordinary = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if len(ordinary) == 1:
        return Failure(_describe(ordinary[0]))
    if ordinary:
        listed = "; ".join(_describe(leaf) for leaf in ordinary)
        return Failure(_shorten(f"{len(ordinary)} errors: {listed}"))
    reason = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves))
    return Interrupted(f"the run was interrupted ({reason})", cause="cancelled")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    return _shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _shorten(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= _REASON_CHARACTERS else clean[: _REASON_CHARACTERS - 1] + "…"
