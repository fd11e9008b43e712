"""The one timer of the runtime: sends the steps that nobody waits for once their interval is over."""

from __future__ import annotations

import heapq
import itertools

import msgspec
import trio

from stepwell.runtime.cell_mailbox import NEVER, CellMailbox


class _Due(msgspec.Struct, gc=False, order=True):
    """A cell, and when to look at it; the number keeps cells from being compared.

    The garbage collector need not know it: nothing refers to one but the heap, which is emptied when the task ends, so
    that none stays part of a cycle.
    """

    at: float
    number: int
    cell: CellMailbox


class IntervalFlusher:
    """Has each cell send once its first unsent step has waited for the interval.

    A cell is in the heap once at most, however many of its batches go before that: sending puts off `cell.flush_at`,
    and the cell is looked at when it was due at first. So there are as many entries as cells that were used within the
    last interval.
    """

    def __init__(self, interval_seconds: float):
        self._interval = interval_seconds
        self._heap: list[_Due] = []
        self._numbers = itertools.count()
        self._wake = trio.lowlevel.ParkingLot()
        self._is_over = False

    def __len__(self) -> int:
        """How many cells are in it."""
        return len(self._heap)

    @trio.lowlevel.enable_ki_protection
    def schedule(self, cell: CellMailbox) -> None:
        """Have `cell.flush_due` called after the interval, unless a batch of it goes before. Once the task has ended
        nobody does: closing has sent what there was."""
        cell.flush_at = at = trio.current_time() + self._interval
        if not (cell.is_timed or self._is_over):
            cell.is_timed = True
            heapq.heappush(self._heap, _Due(at, next(self._numbers), cell))
            if len(self._heap) == 1:
                self._wake.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The task; ends when cancelled."""
        try:
            while True:
                await self._look_at_first()
        finally:
            self._is_over = True
            self._heap.clear()

    @trio.lowlevel.enable_ki_protection
    async def _look_at_first(self) -> None:
        if not self._heap:
            await self._wake.park()
            return
        first, now = self._heap[0], trio.current_time()
        cell = first.cell
        if first.at > now:
            await trio.sleep_until(first.at)
        elif now < cell.flush_at < NEVER:  # it has sent since, and has other steps
            heapq.heapreplace(self._heap, _Due(cell.flush_at, next(self._numbers), cell))
        else:
            heapq.heappop(self._heap)
            cell.is_timed = False
            if cell.flush_at <= now:
                cell.flush_due()
