"""What a transaction has staged for one stream that is no episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from stepstore.journal import Batch
from stepstore.log.frame import batch_cost
from stepwell.errors import InvalidState, StepwellError, TooLarge
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.stream_cell import StreamCell
from stepwell.runtime.stream_kind import StreamKind
from stepwell.runtime.supervisor import Supervisor


class StreamPart:
    """Drafts for one stream; a `Part` of a transaction. They become records at the commit."""

    def __init__(self, supervisor: Supervisor, kind: StreamKind, name: str):
        self._supervisor, self._kind, self._name = supervisor, kind, name
        self._drafts: list[Any] = []
        self._bytes = batch_cost(0, 0)
        self._only_in: bytes | None = None
        self._cell: StreamCell | None = None
        self._holds_lock = False
        self._batch: Batch | None = None
        self._time_ns = 0
        self.place = (kind.name, name)
        self.receipt: Receipt | None = None

    def check(self, sizes: Sequence[int]) -> None:
        """Check that drafts of these sizes can be staged behind those that are. Raises: `TooLarge`."""
        size = self._bytes + self._cost(sizes)
        most = self._supervisor.config.limits.record_bytes
        if size > most:
            raise TooLarge(f"{size:,} bytes for {self._kind.noun} {self._name!r} exceed the {most:,} of one batch")

    def stage(self, drafts: Sequence[Any], sizes: Sequence[int]) -> None:
        """Stage drafts that were checked."""
        self._drafts += drafts
        self._bytes += self._cost(sizes)

    def only_in(self, stream: bytes) -> None:
        """Commit only if the records go into this stream: that is another one once it was cleared."""
        self._only_in = stream

    @staticmethod
    def _cost(sizes: Sequence[int]) -> int:
        return batch_cost(sum(sizes), len(sizes)) - batch_cost(0, 0)

    async def wake(self) -> None:
        """See `Part`. Raises: as `Streams.accepting`."""
        await self._supervisor.streams.accepting(self._kind, self._name)

    async def lock(self) -> None:
        """See `Part`."""
        self._take(await self._supervisor.streams.accepting(self._kind, self._name))

    @trio.lowlevel.enable_ki_protection
    def _take(self, cell: StreamCell) -> None:
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
            and cell.contents is not None
            and not cell.deleting
            and self._supervisor.streams.cells.get(self.place) is cell
        )

    def prepare(self, now_ns: int) -> Batch | None:
        """See `Part`."""
        cell = self._locked_cell
        cell.check_accepting()
        if self._only_in not in (None, cell.stream):
            raise InvalidState(f"{self._kind.noun} {self._name!r} was cleared meanwhile; nothing was stored, ask again")
        self._time_ns = cell.time_from(now_ns)
        self._batch = cell.batch_of_drafts(self._drafts, self._time_ns)
        return self._batch

    def accept(self) -> None:
        """See `Part`."""
        assert self._batch is not None
        self.receipt = self._locked_cell.accept_batch(self._batch, self._drafts, self._time_ns)

    def finish(self, first_lsn: int, error: StepwellError | None) -> None:
        """See `Part`."""
        assert self.receipt is not None
        cell = self.receipt._commit.cell
        if cell is not None:  # else it was given up meanwhile: its stream was parked
            cell.on_result(first_lsn, error)

    @property
    def generation(self) -> int:
        """That of the stream in which the records are, once they are accepted."""
        return self._locked_cell.generation

    @property
    def numbers(self) -> range | None:
        """Those of the records, once they are accepted."""
        return None if self._batch is None else range(self._batch.first_seq, self._batch.first_seq + len(self._drafts))

    @property
    def _locked_cell(self) -> StreamCell:
        assert self._cell is not None, "locked first"
        return self._cell
