"""The calls of the hot path, made without waiting where that is possible. They run in the Trio thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell.bridge.crossing import MustWait
from stepwell.errors import InvalidInput, StepwellError
from stepwell.memory.handle import EpisodeHandle
from stepwell.memory.memory import Memory
from stepwell.model.step import ExecutionStep
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.receipt import Receipt


def log_step(handle: EpisodeHandle, step: ExecutionStep, *, expected_seq: int | None = None) -> Receipt:
    """`EpisodeHandle.log_step`, if the step is accepted at once. Raises: `MustWait`, and what that raises."""
    return _accept(handle._memory, handle.id, lambda cell: cell.accept_step(step, expected_seq))


def log_steps(handle: EpisodeHandle, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None) -> Receipt:
    """`EpisodeHandle.log_steps`, if the steps are accepted at once. Raises: `MustWait`, and what that raises."""
    if not isinstance(steps, list | tuple):
        raise InvalidInput(f"steps: must be a list of ExecutionStep, not {type(steps).__name__}")
    return _accept(handle._memory, handle.id, lambda cell: cell.accept_steps(steps, expected_seq))


def memory_log_step(
    memory: Memory, episode_id: str, step: ExecutionStep, *, expected_seq: int | None = None
) -> Receipt:
    """`Memory.log_step`, if the step is accepted at once. Raises: `MustWait`, and what that raises."""
    return _accept(memory, episode_id, lambda cell: cell.accept_step(step, expected_seq))


def memory_log_steps(
    memory: Memory, episode_id: str, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None
) -> Receipt:
    """`Memory.log_steps`, if the steps are accepted at once. Raises: `MustWait`, and what that raises."""
    if type(episode_id) is not str:
        raise MustWait
    return log_steps(memory.handle(episode_id), steps, expected_seq=expected_seq)


def _accept(memory: Memory, episode_id: object, accept: Callable[[EpisodeCell], Receipt]) -> Receipt:
    if memory._commit_durability or type(episode_id) is not str:
        raise MustWait
    cell = memory._cells.get(episode_id)
    if cell is None or not cell.accepting or cell.full:
        raise MustWait
    try:
        return accept(cell)
    except StepwellError as error:
        memory._supervisor.oversight.note_refused(error)
        raise
