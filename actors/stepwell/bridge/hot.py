"""The calls of the hot path, made without waiting where that is possible. They run in the Trio thread."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.bridge.crossing import MustWait
from stepwell.errors import InvalidInput
from stepwell.memory.handle import EpisodeHandle
from stepwell.memory.memory import Memory
from stepwell.model.step import ExecutionStep
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.receipt import Receipt


def log_step(handle: EpisodeHandle, step: ExecutionStep) -> Receipt:
    """`EpisodeHandle.log_step`, if the step is accepted at once. Raises: `MustWait`, and what that raises."""
    return _cell_with_room(handle._memory, handle.id).accept_step(step)


def log_steps(handle: EpisodeHandle, steps: Sequence[ExecutionStep]) -> Receipt:
    """`EpisodeHandle.log_steps`, if the steps are accepted at once. Raises: `MustWait`, and what that raises."""
    if not isinstance(steps, list | tuple):
        raise InvalidInput(f"steps: must be a list of ExecutionStep, not {type(steps).__name__}")
    return _cell_with_room(handle._memory, handle.id).accept_steps(steps)


def memory_log_step(memory: Memory, episode_id: str, step: ExecutionStep) -> Receipt:
    """`Memory.log_step`, if the step is accepted at once. Raises: `MustWait`, and what that raises."""
    return _cell_with_room(memory, episode_id).accept_step(step)


def memory_log_steps(memory: Memory, episode_id: str, steps: Sequence[ExecutionStep]) -> Receipt:
    """`Memory.log_steps`, if the steps are accepted at once. Raises: `MustWait`, and what that raises."""
    if type(episode_id) is not str:
        raise MustWait
    return log_steps(EpisodeHandle(memory, memory.handle(episode_id).id), steps)


def _cell_with_room(memory: Memory, episode_id: object) -> EpisodeCell:
    if memory._commit_durability or type(episode_id) is not str:
        raise MustWait
    cell = memory._cells.get(episode_id)
    if cell is None or not cell.accepting or cell.full:
        raise MustWait
    return cell
