"""What a transaction has recorded for one run."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from stepstore.journal import Batch
from stepstore.log.frame import batch_cost
from stepwell.errors import NotFound, StepwellError, TooLarge
from stepwell.model.ids import EPISODE_STREAM, EpisodeId
from stepwell.model.run_event import RunEvent
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.run_recording import Recording, takes_events
from stepwell.runtime.supervisor import Supervisor

START_BYTES = 1_000
"""What the first record of a run may take beside its first event."""


class RunPart:
    """Events of one run; a `Part` of a transaction. A run that is unknown begins with the commit."""

    def __init__(self, supervisor: Supervisor, run_id: EpisodeId):
        self._supervisor, self._run_id = supervisor, run_id
        self._events: list[RunEvent] = []
        self._bytes = batch_cost(START_BYTES, 1)
        self._cell: EpisodeCell | None = None
        self._holds_lock = self._begins = False
        self._recording: Recording | None = None
        self._batch: Batch | None = None
        self.place = (EPISODE_STREAM, run_id)
        self.receipt: Receipt | None = None

    def check(self, sizes: Sequence[int]) -> None:
        """Check that events of these sizes can be staged behind those that are. Raises: `TooLarge`."""
        size = self._bytes + self._cost(sizes)
        most = self._supervisor.config.limits.record_bytes
        if size > most:
            raise TooLarge(f"{size:,} bytes for run {self._run_id!r} exceed the {most:,} of one batch; split it")

    def stage(self, events: Sequence[RunEvent], sizes: Sequence[int]) -> None:
        """Stage events that were checked."""
        self._events += events
        self._bytes += self._cost(sizes)

    @staticmethod
    def _cost(sizes: Sequence[int]) -> int:
        return batch_cost(sum(sizes), len(sizes)) - batch_cost(0, 0)

    async def wake(self) -> None:
        """See `Part`. Raises: as `run_recording.record`."""
        await self._find(lock=False)

    async def lock(self) -> None:
        """See `Part`."""
        await self._find(lock=True)

    async def _find(self, *, lock: bool) -> None:
        supervisor = self._supervisor
        while True:
            supervisor.check_open()
            await supervisor.check_not_deleted(self._run_id)
            if not supervisor.exists(self._run_id):
                if lock:
                    self._begin()
                return
            try:
                cell = await supervisor.found(self._run_id)
            except NotFound:
                continue  # its start, by another caller, did not reach the log
            cell.want()
            try:
                if await takes_events(supervisor, cell):
                    if lock:
                        self._take(cell)
                    return
            finally:
                cell.unwant()

    @trio.lowlevel.enable_ki_protection
    def _begin(self) -> None:
        """Hold the place of a run that begins with the commit: others wait until it has, or find that it has not."""
        self._take(self._supervisor.add_fresh(self._run_id))
        self._begins = True

    @trio.lowlevel.enable_ki_protection
    def _take(self, cell: EpisodeCell) -> None:
        cell.lock()
        cell.want()  # one that has ended would leave
        self._cell, self._holds_lock, self._begins = cell, True, False

    @trio.lowlevel.enable_ki_protection
    def unlock(self) -> None:
        """See `Part`."""
        if not self._holds_lock:
            return
        self._holds_lock = False
        cell = self._locked_cell
        if self._begins and self.receipt is None:
            cell.vanish()
        cell.unwant()
        cell.unlock()

    async def settle(self) -> None:
        """See `Part`."""
        await self._locked_cell.settle()

    def is_ready(self) -> bool:
        """See `Part`."""
        cell = self._locked_cell
        request = cell.ending_request
        return (
            cell.state.value in ("live", "draining", "ended")
            and cell.is_idle
            and not cell.deleting
            and (request is None or request.is_stored)
            and self._supervisor.cells.get(self._run_id) is cell
        )

    def prepare(self, now_ns: int) -> Batch | None:
        """See `Part`."""
        cell = self._locked_cell
        self._recording = recording = Recording(
            self._run_id,
            self._events,
            cell.time_from(now_ns),
            self._supervisor.config.limits,
            begins=self._begins,
            may_end=cell.ending_request is None,
        )
        cell.check_steps_allowed(recording.steps)
        self._batch = cell.batch_of(recording.payloads, recording.flags)
        return self._batch

    def accept(self) -> None:
        """See `Part`."""
        assert self._batch is not None
        assert self._recording is not None
        self.receipt = self._locked_cell.accept_submitted_events(
            self._batch, self._recording.steps, self._recording.time_ns, self._recording.request
        )

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
