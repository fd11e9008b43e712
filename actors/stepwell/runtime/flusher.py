"""The one timer of the runtime: sends the steps that nobody waits for once their interval is over."""

from __future__ import annotations

from collections import deque

import msgspec
import trio

from stepwell.runtime.cell_mailbox import CellMailbox


class _Due(msgspec.Struct, gc=False, eq=False):
    """A cell, when its first unsent step is to go, and how many batches it had sent before.

    There may be one for every step. The garbage collector need not know them: nothing refers to one but the queue,
    which is emptied when the task ends, so that none stays part of a cycle.
    """

    deadline: float
    cell: CellMailbox
    batches_sent: int


class IntervalFlusher:
    """Wakes cells in the order in which their first unsent step came. The interval is one for all, so a queue does."""

    def __init__(self, interval_seconds: float):
        self._interval = interval_seconds
        self._queue: deque[_Due] = deque()
        self._wake = trio.lowlevel.ParkingLot()
        self._is_over = False

    @trio.lowlevel.enable_ki_protection
    def schedule(self, cell: CellMailbox) -> None:
        """Have `cell.flush_due` called after the interval, unless a batch of it goes before. Once the task has ended
        nobody does: closing has sent what there was."""
        if self._is_over:
            return
        self._queue.append(_Due(trio.current_time() + self._interval, cell, cell.batches_sent))
        if len(self._queue) == 1:
            self._wake.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The task; ends when cancelled."""
        try:
            while True:
                await self._flush_next()
        finally:
            self._is_over = True
            self._queue.clear()

    @trio.lowlevel.enable_ki_protection
    async def _flush_next(self) -> None:
        if not self._queue:
            await self._wake.park()
            return
        due = self._queue[0]
        if due.cell.batches_sent != due.batches_sent:
            self._queue.popleft()
        elif due.deadline > trio.current_time():
            await trio.sleep_until(due.deadline)
        else:
            self._queue.popleft()
            due.cell.flush_due()
