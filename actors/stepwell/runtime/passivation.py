"""Passivation: an episode that nobody uses leaves memory, and comes back from the log as if it had never left.

The handshake, so that no message is lost in any interleaving:

1. The passivator marks the cell *draining*, makes what it holds urgent and wakes its task. The door stays open.
2. The task finishes what is in hand. Once nothing is left, or the cell has been used, it calls `finish_drain`.
3. That is one synchronous section: if mailbox and hand are empty, nobody waits for the episode and nobody has used it
   since it was marked, the door closes, the cell leaves the supervisor's table and the task ends: *asleep*. Otherwise
   the drain is cancelled: *live*.

A message finds the cell in the table, and then it is accepted and cancels the drain; or it does not, and then
everything before it is durable and the episode is woken from the log. There is nothing in between.

Who was used last is known by one counter for all: a use writes its next number into the cell, and no more. A heap holds
each cell with a number that it had at some time. Numbers only rise, so if the lowest in the heap is still that of its
cell, no cell was used longer ago; otherwise it goes back with the one it has now. Time is known by noting the counter
at regular moments.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque

import trio

from stepwell.runtime.cell import EpisodeCell

LOOKS = 64
"""Cells that are looked at in one synchronous section."""
_LONGEST_PERIOD, _SHORTEST_PERIOD = 1.0, 0.01


class Place:
    """Where a cell stands in the order of use; without a cell once that has no task any more.

    `number`: that of a use, at most that of its last one, or of the moment at which it could not go to sleep.
    """

    __slots__ = ("cell", "number")

    def __init__(self, number: int, cell: EpisodeCell):
        self.number = number
        self.cell: EpisodeCell | None = cell

    def __lt__(self, other: Place) -> bool:
        return self.number < other.number


class Passivator:
    """Puts to sleep what was not used for `idle_seconds`, and the least recently used of more than `max_live`.

    `run` is the one timer. Every `idle_seconds` / 8, and at least every second, it looks only at cells that may be due,
    so an episode goes to sleep at most two such periods late.
    """

    def __init__(self, idle_seconds: float, max_live: int):
        self.uses = itertools.count(1)
        self.live = 0
        """Episodes that have a task."""
        self._idle_seconds, self._max_live = idle_seconds, max_live
        self._period = max(min(idle_seconds / 8, _LONGEST_PERIOD), _SHORTEST_PERIOD)
        self._heap: list[Place] = []
        self._draining: dict[EpisodeCell, None] = {}
        self._moments: deque[tuple[float, int]] = deque()
        """(time, number of the next use at that time), oldest first."""
        self._idle_below = 0
        """Who was last used with a lower number was not used for `idle_seconds`."""
        self._wake = trio.lowlevel.ParkingLot()

    @trio.lowlevel.enable_ki_protection
    def enter(self, cell: EpisodeCell) -> None:
        """The episode has a task from now on."""
        self.live += 1
        cell.touch()
        cell.place = Place(cell.used, cell)
        heapq.heappush(self._heap, cell.place)
        self.make_room()
        if self._wake:
            self._wake.unpark_all()

    @trio.lowlevel.enable_ki_protection
    def leave(self, cell: EpisodeCell) -> None:
        """The episode has no task any more."""
        self.live -= 1
        self._draining.pop(cell, None)
        if cell.place is not None:
            cell.place.cell = None
            cell.place = None
        if len(self._heap) > 2 * self.live + LOOKS:
            self._heap = [place for place in self._heap if place.cell is not None]
            heapq.heapify(self._heap)

    @property
    def has_room(self) -> bool:
        """Whether another episode may wake without another having to sleep."""
        return self.live - len(self._draining) < self._max_live

    @trio.lowlevel.enable_ki_protection
    def make_room(self) -> None:
        """Begin to drain the least recently used, as many as there are too many."""
        for _ in range(LOOKS):
            if self.live - len(self._draining) <= self._max_live or not self._heap:
                return
            self._look_at_first()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The task; ends when cancelled. Sleeps for good while no episode is awake."""
        while True:
            if self.live:
                await trio.sleep(self._period)
            else:
                self._moments.clear()
                self._heap.clear()
                await self._wake.park()
            self._note_moment()
            while self._drain_idle():
                await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    def _note_moment(self) -> None:
        now = trio.current_time()
        self._moments.append((now, next(self.uses)))
        while self._moments and self._moments[0][0] <= now - self._idle_seconds:
            self._idle_below = self._moments.popleft()[1]
        for cell in list(self._draining):
            # One that failed is rebuilt and no longer draining; one that was used must not wait for its task to see it.
            if cell.state.value != "draining":
                del self._draining[cell]
            elif cell.used != cell.drained_at:
                self.cancel_drain(cell)
        self.make_room()

    @trio.lowlevel.enable_ki_protection
    def _drain_idle(self) -> bool:
        """Begin to drain what was not used for too long. True if there may be more."""
        for _ in range(LOOKS):
            if not self._heap or self._heap[0].number >= self._idle_below:
                return False
            self._look_at_first()
        return True

    @trio.lowlevel.enable_ki_protection
    def _look_at_first(self) -> None:
        """Drain the cell at the head of the heap if it was not used since; otherwise put it where it belongs."""
        place = self._heap[0]
        cell = place.cell
        if cell is None:
            heapq.heappop(self._heap)
            return
        was_used = cell.used > place.number
        # What cannot go, or does not after all, is not looked at again before all the others.
        place.number = cell.used if was_used else next(self.uses)
        heapq.heapreplace(self._heap, place)
        if not was_used and cell.may_drain:
            self._begin_drain(cell)

    @trio.lowlevel.enable_ki_protection
    def _begin_drain(self, cell: EpisodeCell) -> None:
        self._draining[cell] = None
        cell.drained_at = cell.used
        cell.state.value = "draining"
        if cell.is_idle:
            cell.wake()
        else:
            cell.make_urgent()

    @trio.lowlevel.enable_ki_protection
    def cancel_drain(self, cell: EpisodeCell) -> None:
        """The episode is used: it stays."""
        self._draining.pop(cell, None)
        if cell.state.value == "draining":
            cell.state.value = "live"


@trio.lowlevel.enable_ki_protection
def finish_drain(cell: EpisodeCell) -> bool:
    """End the drain of a cell, in its task's turn: True if the episode is asleep from now on, False if it stays.

    Nothing may come between this and the end of the task but plain code.
    """
    if cell.is_idle and not cell.is_wanted and cell.used == cell.drained_at:
        cell.accepting = False
        cell.state.value = "asleep"
        return True
    cell.state.value = "live"
    return False
