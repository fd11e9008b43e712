"""What a transaction has staged for one episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import trio

from stepstore.journal import Batch
from stepstore.log.frame import batch_cost
from stepwell.errors import InvalidInput, StepwellError, TooLarge
from stepwell.model import validation as check
from stepwell.model.codec import UNSTAMPED_NS, encode_step, stamped
from stepwell.model.ids import EPISODE_STREAM, EpisodeId
from stepwell.model.limits import Limits
from stepwell.model.organising import Change, OrganisingRecord, encode_organising
from stepwell.model.redaction import Redaction
from stepwell.model.step import ExecutionStep
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.episode_task import ended_error
from stepwell.runtime.keys import StagedStep, step_digest
from stepwell.runtime.organising import check_open, takes_changes
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.supervisor import Supervisor


def staged_step(step: ExecutionStep, limits: Limits, redaction: Redaction | None) -> StagedStep:
    """A step checked and encoded, as it is now; its time comes later. Raises: `InvalidInput`, `TooLarge`."""
    payload = encode_step(step, UNSTAMPED_NS, limits)
    if redaction is not None:
        step = redaction.step(step)
        payload = encode_step(step, UNSTAMPED_NS, limits)
    return StagedStep(payload, step.key, b"" if step.key is None else step_digest(step))


class StagedChange(NamedTuple):
    """A change of how the episode is organised. It becomes a record, or nothing, at the commit.

    `least_bytes`: what the record has at least; `only_open`: what is made, if it is made in open episodes only.
    """

    change: Change
    least_bytes: int
    only_open: str = ""


Staged: TypeAlias = StagedStep | StagedChange


def staged_bytes(staged: Staged) -> int:
    """What it adds to the batch of its episode, as far as that is known when it is staged."""
    return len(staged.payload) if isinstance(staged, StagedStep) else staged.least_bytes


class EpisodePart:
    """Steps and changes of one episode; a `Part` of a transaction. Changes alone may be of one that has ended."""

    def __init__(self, supervisor: Supervisor, episode_id: EpisodeId):
        self._supervisor, self._episode_id = supervisor, episode_id
        self._staged: list[Staged] = []
        self._has_steps = self._has_changes = False
        self._only_open = ""
        self._keys: set[str] = set()
        self._bytes = batch_cost(0, 0)
        self._expected_seq: int | None = None
        self._cell: EpisodeCell | None = None
        self._holds_lock = False
        self._prepared: list[StagedStep | OrganisingRecord] = []
        self._batch: Batch | None = None
        self._time_ns = 0
        self.place = (EPISODE_STREAM, episode_id)
        self.receipt: Receipt | None = None

    def check(self, staged: Sequence[Staged], expected_seq: int | None) -> None:
        """Check that these can be staged behind those that are. Raises: `InvalidInput`, `TooLarge`."""
        keys = [it.key for it in staged if isinstance(it, StagedStep) and it.key is not None]
        if len(set(keys)) < len(keys) or not self._keys.isdisjoint(keys):
            raise InvalidInput(f"step.key: the same key stands at two steps for {self._episode_id!r}")
        if expected_seq is not None:
            check.check_number(expected_seq, "expected_seq", minimum=0, whole=True)
            if self._expected_seq not in (None, expected_seq):
                raise InvalidInput(
                    f"expected_seq: {expected_seq} and {self._expected_seq} for {self._episode_id!r}; it is the last "
                    "record before the transaction, one for all its steps"
                )
        self._check_size(self._bytes + self._cost(staged))

    def _check_size(self, size: int) -> None:
        most = self._supervisor.config.limits.record_bytes
        if size > most:
            raise TooLarge(f"{size:,} bytes for {self._episode_id!r} exceed the {most:,} of one batch; split it")

    def stage(self, staged: Sequence[Staged], expected_seq: int | None) -> None:
        """Stage what was checked."""
        self._staged += staged
        for it in staged:
            if isinstance(it, StagedStep):
                self._has_steps = True
                if it.key is not None:
                    self._keys.add(it.key)
            else:
                self._has_changes = True
                self._only_open = self._only_open or it.only_open
        self._bytes += self._cost(staged)
        if expected_seq is not None:
            self._expected_seq = expected_seq

    @staticmethod
    def _cost(staged: Sequence[Staged]) -> int:
        return batch_cost(sum(map(staged_bytes, staged)), len(staged)) - batch_cost(0, 0)

    async def wake(self) -> None:
        """See `Part`. Raises: as `Supervisor.accepting` and `EpisodeCell.check_accepting`, `organise`; and, before a
        checkpoint of the episode is noted, what failed of it and nobody was told of."""
        if self._only_open:
            await self._supervisor.flush(self._episode_id)
        await self._find(lock=False)

    async def lock(self) -> None:
        """See `Part`."""
        await self._find(lock=True)

    async def _find(self, *, lock: bool) -> None:
        supervisor = self._supervisor
        if not self._has_changes:
            cell = await supervisor.accepting(self._episode_id)
            self._check_takes_steps(cell)
            if lock:
                self._take(cell)
            return
        while True:
            cell = await supervisor.found(self._episode_id)
            cell.want()
            try:
                if await takes_changes(supervisor, cell):
                    check_open(cell, self._only_open)
                    self._check_takes_steps(cell)
                    if lock:
                        self._take(cell)
                    return
            finally:
                cell.unwant()

    def _check_takes_steps(self, cell: EpisodeCell) -> None:
        if self._has_steps:
            if cell.state.value == "ended":
                raise ended_error(self._episode_id)
            cell.check_accepting()

    @trio.lowlevel.enable_ki_protection
    def _take(self, cell: EpisodeCell) -> None:
        cell.lock()
        cell.want()  # one that has ended would leave
        self._cell, self._holds_lock = cell, True

    @trio.lowlevel.enable_ki_protection
    def unlock(self) -> None:
        """See `Part`."""
        if self._holds_lock:
            self._holds_lock = False
            self._locked_cell.unwant()
            self._locked_cell.unlock()

    async def settle(self) -> None:
        """See `Part`."""
        await self._locked_cell.settle()

    def is_ready(self) -> bool:
        """See `Part`."""
        cell = self._locked_cell
        if not cell.is_idle or cell.deleting or self._supervisor.cells.get(self._episode_id) is not cell:
            return False
        if self._has_changes and cell.organisation is None:
            return False
        if self._has_steps or self._only_open:
            return cell.accepting and cell.ending_request is None
        request = cell.ending_request
        return cell.state.value in ("live", "draining", "ended") and (request is None or request.is_stored)

    def prepare(self, now_ns: int) -> Batch | None:
        """See `Part`."""
        cell = self._locked_cell
        if self._has_steps:
            cell.check_accepting()
        else:
            self._supervisor.journal.check_open()
        steps = [it for it in self._staged if isinstance(it, StagedStep)]
        self.receipt = cell.find_staged(steps, self._expected_seq)
        self._time_ns = cell.time_from(now_ns)
        self._prepared = self._records(cell, are_stored=self.receipt is not None)
        if not self._prepared:
            return None
        payloads = [self._payload(it) for it in self._prepared]
        self._check_size(batch_cost(sum(map(len, payloads)), len(payloads)))
        self._batch = cell.batch_of(payloads)
        return self._batch

    def _records(self, cell: EpisodeCell, *, are_stored: bool) -> list[StagedStep | OrganisingRecord]:
        """What is to be stored: the steps, unless they are, and of the changes those that change something."""
        records: list[StagedStep | OrganisingRecord] = []
        organisation = None if cell.organisation is None else cell.organisation.copy()
        count = cell.steps
        for it in self._staged:
            if isinstance(it, StagedStep):
                if not are_stored:
                    records.append(it)
                    count += 1
                continue
            assert organisation is not None
            record = it.change(organisation, count)
            if record is not None:
                organisation.apply(record, 0, self._time_ns)
                records.append(record)
        return records

    def _payload(self, it: StagedStep | OrganisingRecord) -> bytes:
        if isinstance(it, StagedStep):
            return stamped(it.payload, self._time_ns)
        return encode_organising(it, self._time_ns, self._supervisor.config.limits)

    def accept(self) -> None:
        """See `Part`."""
        assert self._batch is not None
        self.receipt = self._locked_cell.accept_submitted(self._batch, self._prepared, self._time_ns)

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
