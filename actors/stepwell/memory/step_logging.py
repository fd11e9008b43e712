"""Logging steps, and waiting until they are durable."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from stepwell.errors import InvalidInput, StepwellError
from stepwell.memory.core import MemoryCore, checked_id_in_turn
from stepwell.memory.handle import EpisodeHandle
from stepwell.model.ids import EpisodeId
from stepwell.model.step import ExecutionStep
from stepwell.runtime.reading import not_found
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.right_loop import checkpoint, get_ident, wrong_loop


class StepLogging(MemoryCore):
    """The part of a memory that takes steps."""

    async def log_step(self, episode_id: str, step: ExecutionStep, *, expected_seq: int | None = None) -> Receipt:
        """Log one step of the episode; see `EpisodeHandle.log_step`. Raises: `InvalidInput` for a bad id as well."""
        if type(episode_id) is str and episode_id in self._cells:
            return await EpisodeHandle(self._whole, EpisodeId(episode_id)).log_step(step, expected_seq=expected_seq)
        known = await checked_id_in_turn(episode_id)
        return await EpisodeHandle(self._whole, known).log_step(step, expected_seq=expected_seq)

    async def log_steps(
        self, episode_id: str, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None
    ) -> Receipt:
        """Log steps as one atomic batch: all of them are stored or none. The receipt is that of the last one.

        `expected_seq` is the record that the first of them is to come behind. Otherwise it is cancelled, and raises, as
        `EpisodeHandle.log_step`; an `InvalidInput` names the step that is wrong.
        """
        if get_ident() != self._supervisor.thread:
            raise wrong_loop()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except RuntimeError:
            raise wrong_loop() from None
        try:
            if not isinstance(steps, list | tuple):
                raise InvalidInput(f"steps: must be a list of ExecutionStep, not {type(steps).__name__}")
            cell = self._cells.get(episode_id) if type(episode_id) is str else None
            if cell is None or not cell.accepting or cell.full:
                cell = await self._supervisor.accepting(await checked_id_in_turn(episode_id))
            receipt = cell.accept_steps(steps, expected_seq)
        except StepwellError as error:
            self._supervisor.oversight.note_refused(error)
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        if self._commit_durability:
            await receipt.reach_log()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return receipt

    async def flush_steps(self, episode_id: str) -> None:
        """Return once everything accepted for the episode is durable.

        A write that failed earlier, and of which nobody was told by a receipt, flush, checkpoint or completion, is
        raised here, once, with the number of records that it concerns. Cancelled, nothing is told.

        Raises: `InvalidInput`, `NotFound`, `OutcomeUnknown` (the log failed or was closed first), `LogFull` (nothing of
        it is stored).
        """
        known = await checked_id_in_turn(episode_id)
        self._supervisor.check_thread()
        await self._supervisor.flush(known)
        if known not in self._cells and not await self._supervisor.is_stored(known):
            raise not_found(known)

    async def flush(self) -> None:
        """Return once everything accepted for any episode, thread or scope is durable.

        A write that failed earlier, and of which nobody was told by a receipt, flush, checkpoint or completion, is
        raised here, once: one error for all, which names the episodes and how many records of each. Cancelled, nothing
        is told.

        Raises: `OutcomeUnknown` (the log failed or was closed first), `LogFull` (nothing of it is stored).
        """
        await checkpoint()
        self._supervisor.check_thread()
        await self._supervisor.flush()
