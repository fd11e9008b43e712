"""The one timer of the runtime: sends the steps that nobody waits for once their interval is over."""

from __future__ import annotations

from collections import deque

import trio

from stepwell.runtime.cell_mailbox import CellMailbox


class IntervalFlusher:
    """Wakes cells in the order in which their first unsent step came. The interval is one for all, so a queue does."""

    def __init__(self, interval_seconds: float):
        self._interval = interval_seconds
        self._queue: deque[tuple[float, CellMailbox, int]] = deque()
        self._wake = trio.lowlevel.ParkingLot()

    @trio.lowlevel.enable_ki_protection
    def schedule(self, cell: CellMailbox) -> None:
        """Have `cell.flush_due` called after the interval, unless a batch of it goes before."""
        self._queue.append((trio.current_time() + self._interval, cell, cell.batches_sent))
        if len(self._queue) == 1:
            self._wake.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The task; ends when cancelled."""
        while True:
            if not self._queue:
                await self._wake.park()
                continue
            deadline, cell, batches_sent = self._queue[0]
            if cell.batches_sent != batches_sent:
                self._queue.popleft()
            elif deadline > trio.current_time():
                await trio.sleep_until(deadline)
            else:
                self._queue.popleft()
                cell.flush_due()
