"""What a transaction has staged for one episode."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from stepstore.journal import Batch
from stepstore.log.frame import batch_cost
from stepwell.errors import InvalidInput, StepwellError, TooLarge
from stepwell.model import validation as check
from stepwell.model.codec import UNSTAMPED_NS, encode_step, stamped
from stepwell.model.ids import EPISODE_STREAM, EpisodeId
from stepwell.model.limits import Limits
from stepwell.model.redaction import Redaction
from stepwell.model.step import ExecutionStep
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.keys import StagedStep, step_digest
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.supervisor import Supervisor


def staged_step(step: ExecutionStep, limits: Limits, redaction: Redaction | None) -> StagedStep:
    """A step checked and encoded, as it is now; its time comes later. Raises: `InvalidInput`, `TooLarge`."""
    payload = encode_step(step, UNSTAMPED_NS, limits)
    if redaction is not None:
        step = redaction.step(step)
        payload = encode_step(step, UNSTAMPED_NS, limits)
    return StagedStep(payload, step.key, b"" if step.key is None else step_digest(step))


class EpisodePart:
    """Steps for one episode; a `Part` of a transaction."""

    def __init__(self, supervisor: Supervisor, episode_id: EpisodeId):
        self._supervisor, self._episode_id = supervisor, episode_id
        self._staged: list[StagedStep] = []
        self._keys: set[str] = set()
        self._bytes = batch_cost(0, 0)
        self._expected_seq: int | None = None
        self._cell: EpisodeCell | None = None
        self._holds_lock = False
        self._batch: Batch | None = None
        self._time_ns = 0
        self.place = (EPISODE_STREAM, episode_id)
        self.receipt: Receipt | None = None

    def check(self, steps: Sequence[StagedStep], expected_seq: int | None) -> None:
        """Check that these can be staged behind those that are. Raises: `InvalidInput`, `TooLarge`."""
        keys = [step.key for step in steps if step.key is not None]
        if len(set(keys)) < len(keys) or not self._keys.isdisjoint(keys):
            raise InvalidInput(f"step.key: the same key stands at two steps for {self._episode_id!r}")
        if expected_seq is not None:
            check.check_number(expected_seq, "expected_seq", minimum=0, whole=True)
            if self._expected_seq not in (None, expected_seq):
                raise InvalidInput(
                    f"expected_seq: {expected_seq} and {self._expected_seq} for {self._episode_id!r}; it is the last "
                    "record before the transaction, one for all its steps"
                )
        size = self._bytes + self._cost(steps)
        most = self._supervisor.config.limits.record_bytes
        if size > most:
            raise TooLarge(f"{size:,} bytes for {self._episode_id!r} exceed the {most:,} of one batch; split it")

    def stage(self, steps: Sequence[StagedStep], expected_seq: int | None) -> None:
        """Stage steps that were checked."""
        self._staged += steps
        self._keys.update(step.key for step in steps if step.key is not None)
        self._bytes += self._cost(steps)
        if expected_seq is not None:
            self._expected_seq = expected_seq

    @staticmethod
    def _cost(steps: Sequence[StagedStep]) -> int:
        return batch_cost(sum(len(step.payload) for step in steps), len(steps)) - batch_cost(0, 0)

    async def wake(self) -> None:
        """See `Part`. Raises: as `Supervisor.accepting` and `EpisodeCell.check_accepting`."""
        (await self._supervisor.accepting(self._episode_id)).check_accepting()

    async def lock(self) -> None:
        """See `Part`."""
        self._take(await self._supervisor.accepting(self._episode_id))

    @trio.lowlevel.enable_ki_protection
    def _take(self, cell: EpisodeCell) -> None:
        cell.check_accepting()
        cell.lock()
        self._cell, self._holds_lock = cell, True

    @trio.lowlevel.enable_ki_protection
    def unlock(self) -> None:
        """See `Part`."""
        if self._holds_lock:
            self._holds_lock = False
            self._locked_cell.unlock()

    async def settle(self) -> None:
        """See `Part`."""
        await self._locked_cell.settle()

    def is_ready(self) -> bool:
        """See `Part`."""
        cell = self._locked_cell
        return (
            cell.accepting
            and cell.is_idle
            and cell.ending_request is None
            and self._supervisor.cells.get(self._episode_id) is cell
        )

    def prepare(self, now_ns: int) -> Batch | None:
        """See `Part`."""
        cell = self._locked_cell
        cell.check_accepting()
        self.receipt = cell.find_staged(self._staged, self._expected_seq)
        if self.receipt is not None:
            return None
        self._time_ns = cell.time_from(now_ns)
        self._batch = cell.batch_of(stamped(step.payload, self._time_ns) for step in self._staged)
        return self._batch

    def accept(self) -> None:
        """See `Part`."""
        assert self._batch is not None
        self.receipt = self._locked_cell.accept_submitted(self._batch, self._staged, self._time_ns)

    def finish(self, first_lsn: int, error: StepwellError | None) -> None:
        """See `Part`."""
        assert self.receipt is not None
        cell = self.receipt._commit.cell
        if cell is not None:  # else it was given up meanwhile: its episode was parked
            cell.on_result(first_lsn, error)

    @property
    def _locked_cell(self) -> EpisodeCell:
        assert self._cell is not None, "locked first"
        return self._cell
