"""The active segment, the one that is written to: it is left for the next one when it is full, or after an error, and
sealed at the end."""

from __future__ import annotations

import trio

from stepstore.log.live_index import LiveIndex
from stepstore.log.opening import OpenLog
from stepstore.log.segment import NO_ROOM, Cut, Segment
from stepstore.log.worker_thread import WorkerThread
from stepstore.log.writer_stats import WriterStats

SPARE_WHEN_USED = 0.5
"""From this share of a segment on, the caretaker sets the space of the next one aside."""


class ActiveSegment:
    """The segment that the writer of an opened log writes to, None before the first append.

    `is_unmarked`: whether something was committed there that no mark proves durable yet; `last_commit`: when, on Trio's
    clock. `caretaker`: where the caretaker parks, and is woken when there is work for it.
    """

    def __init__(self, log: OpenLog, worker: WorkerThread, stats: WriterStats):
        assert log.sequence is not None, "a log opened for reading has no writer"
        self._log, self._worker, self._stats = log, worker, stats
        self._sequence = log.sequence
        self.last_commit = 0.0
        self.is_unmarked = False
        self.caretaker = trio.lowlevel.ParkingLot()

    async def with_room(self, size: int) -> Segment:
        """The segment that takes a group of so many bytes; another one is begun if it must be.

        Raises: `OSError`, `Fenced`.
        """
        segment = self._log.segment
        if segment is None:
            self.go_on_in(await self._worker.run(self._sequence.begin))
        elif not segment.has_room(size) or not self._log.index.newest_has_room:
            await self._leave_behind(segment)
        assert self._log.segment is not None
        return self._log.segment

    def note_commit(self, segment: Segment, now: float) -> None:
        """A group was committed to the segment."""
        self.last_commit = now
        if not self.is_unmarked:
            self.is_unmarked = True
            self.caretaker.unpark_all()
        elif segment.used > SPARE_WHEN_USED and not self._sequence.has_spare:
            self.caretaker.unpark_all()

    async def mark(self) -> None:
        """Write a mark, which proves the last group durable. Raises: `OSError`."""
        segment = self._log.segment
        assert segment is not None, "nothing was committed that a mark could prove"
        frame = segment.mark()
        await self._worker.run(segment.write, frame)
        segment.acknowledge(frame)
        self._log.index.add_mark(frame.end, frame.header_crc)
        self._stats.marks += 1

    async def rotate(self) -> None:
        """Go on in another segment, if anything was written to this one. Raises: `OSError`, `Fenced`."""
        segment = self._log.segment
        if segment is not None and segment.cut.end_lsn >= segment.header.first_lsn:
            await self._leave_behind(segment)

    async def _leave_behind(self, segment: Segment) -> None:
        new = await self._worker.run(self._begin_next, segment.cut)
        # From here on the old segment is history; the caretaker gives it a footer.
        self._log.unsealed.append((segment, self._log.index.segments[-1], list(self._log.index.open_streams)))
        self.caretaker.unpark_all()
        self.go_on_in(new)

    def _begin_next(self, cut: Cut) -> Segment:
        return self._sequence.begin(cut, new_epoch=False)

    async def abandon(self, *, no_room: bool) -> None:
        """A write or its sync failed: cut the log at the last acknowledged record, go on in a fresh segment.

        Whatever happens, nothing is written to this one any more. Raises: `OSError`, `Fenced`.
        """
        segment = self._log.segment
        assert segment is not None
        try:
            new = await self._worker.run(self._begin_after_error, segment.cut, no_room)
        finally:
            segment.release()
            self._log.segment = None
        self.go_on_in(new)

    def _begin_after_error(self, cut: Cut, no_room: bool) -> Segment:
        if no_room and self._log.reserve is not None:
            self._log.reserve.spend()
        return self._sequence.begin(cut, preallocate=not no_room)

    def go_on_in(self, new: Segment) -> None:
        """What is written from now on goes there."""
        self._stats.segments_begun += 1
        self.is_unmarked = False  # the header of the new segment proves what the mark would
        self._log.begin_segment(new)

    async def seal(self) -> None:
        """Give the segment its footer; nothing more is written. No record needs the footer, so a medium without room
        is no error. Raises: `OSError`."""
        segment = self._log.segment
        if segment is None:
            return
        newest = self._log.index.segments[-1]
        assert isinstance(newest.index, LiveIndex)
        try:
            # Cancelled, it has not begun, and the segment is released with the log.
            await self._worker.run(segment.seal, newest.index, list(self._log.index.open_streams))
        except OSError as error:
            # Every acknowledged record is durable without the footer; the next open reads the frames instead.
            self._log.segment = None
            segment.release()
            self._stats.write_errors += 1
            if error.errno not in NO_ROOM:
                raise
        else:
            self._log.segment = None
            newest.sealed = True
            self._stats.segments_sealed += 1
