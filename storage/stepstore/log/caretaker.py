"""The one task that looks after the log behind the writer: footers for segments that were left, sidecars for those an
earlier incarnation left, the space of the next segment, and a mark when the log falls idle.

Nothing here is needed for a record to be safe, so an error is logged and counted and never ends anything. What is no
error of the medium or of ours ends `run`; whoever runs it runs it again, or calls `give_up`.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Literal, overload

import trio

from stepstore.errors import StepwellError, Unavailable
from stepstore.log.active_segment import SPARE_WHEN_USED
from stepstore.log.archive_report import ArchiveReport
from stepstore.log.archiver import LogArchiver
from stepstore.log.compaction_report import CompactionReport
from stepstore.log.compactor import LogCompactor
from stepstore.log.footer import Trailer
from stepstore.log.index_building import rebuild_index
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.open_streams import open_streams_after
from stepstore.log.opening import OpenLog
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.purge import DeletionReport
from stepstore.log.purger import LogPurger
from stepstore.log.sealing import open_index, write_sidecar
from stepstore.log.segment import Segment
from stepstore.log.worker_thread import WorkerThread
from stepstore.log.writer import LogWriter

IDLE_SECONDS = 1.0
"""A mark is written once nothing was committed for so long."""

_logger = logging.getLogger("stepstore.log")


class LogCaretaker:
    """Looks after an opened log. One task runs `run`, until it is cancelled, and one `compactor.run`; then `finish`
    does what is left. `settled` counts the segments that got a footer or a sidecar, or failed to."""

    def __init__(self, log: OpenLog, writer: LogWriter):
        self._log, self._writer = log, writer
        self._blocking = WorkerThread(log).run
        self._no_spare_beside: Segment | None = None
        self._ended = False
        self._given_up: Exception | None = None
        self.sealed = trio.lowlevel.ParkingLot()
        self.errors = self.settled = 0
        self.compactor = LogCompactor(log, writer, self._blocking)
        self._purger = LogPurger(log, writer, self.compactor.rewriter, self._blocking)
        self._archiver = LogArchiver(log, writer, self.compactor.rewriter, self._blocking)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Work whenever there is something to do. Returns only by being cancelled."""
        while True:
            if await self._work():
                continue
            if self._writer.active.is_unmarked:
                idle_at = self._writer.active.last_commit + IDLE_SECONDS
                if trio.current_time() < idle_at:
                    with trio.move_on_at(idle_at):
                        await self._writer.active.caretaker.park()
                    continue
                self._writer.want_mark()
            await self._writer.active.caretaker.park()

    @overload
    async def compact(self, *, purge: Literal[True]) -> DeletionReport: ...
    @overload
    async def compact(self, *, purge: bool = False) -> CompactionReport: ...
    async def compact(self, *, purge: bool = False) -> CompactionReport:
        """Compact everything that is worth it now, while `run` runs; or (`purge`) everything that holds a dead record,
        and prove that nothing of deleted streams is left. See `LogCompactor.compact`, `LogPurger.purge`."""
        if purge:
            return await self._purger.purge(self.wait_settled)
        return await self.compactor.compact(self.wait_settled)

    async def archive(self, target: str) -> ArchiveReport:
        """Copy the log into an archive, while `run` runs. See `LogArchiver.archive`."""
        return await self._archiver.archive(target, self.wait_settled)

    @trio.lowlevel.enable_ki_protection
    def give_up(self, error: Exception) -> None:
        """`run` will not be run any more, because of this: whoever waits for what it does is told."""
        self._given_up = error
        self.sealed.unpark_all()

    def _check_not_given_up(self) -> None:
        if self._given_up is not None:
            raise Unavailable(
                f"the task that finishes files of the log in {self._log.path!r} is parked ({self._given_up!r}), so "
                "this cannot be done. Nothing is lost, and writing goes on; close the memory and open it again."
            ) from self._given_up

    async def finish(self) -> None:
        """Seal what the writer has left. A cancel in between leaves the rest to the next opening."""
        try:
            while self._log.unsealed:
                await self._seal_next()
        finally:
            self._ended = True
            self.sealed.unpark_all()
            await self.compactor.finish()

    async def _work(self) -> bool:
        """One piece of work; False if there is none."""
        if self._log.unsealed:
            await self._seal_next()
            return True
        if self._spare_is_due():
            await self._prepare_spare()
            return True
        if self._log.unindexed and self._log.pending_repair is None:  # a sidecar says that what it names is durable
            await self._index_next()
            return True
        return False

    async def _seal_next(self) -> None:
        segment, indexed, open_streams = self._log.unsealed[0]
        index = indexed.index
        assert isinstance(index, LiveIndex)
        try:
            # Cancelled, it has not begun, and stays first in the queue.
            trailer = await self._blocking(segment.seal, index, open_streams)
        except OSError as error:
            # Its successor names where it ends, so nothing depends on the footer; the index stays in memory.
            segment.release()
            self._settle(self._log.unsealed)
            self._note_error("seal", segment.path, error)
            return
        indexed.sealed = True
        self._writer.stats.segments_sealed += 1
        self._settle(self._log.unsealed)
        try:
            indexed.index = await self._blocking(open_index, self._log.reading, segment.path, trailer)
        except (OSError, UnsoundIndex, StepwellError) as error:
            self._note_error("read the footer of", segment.path, error)
        else:
            indexed.index_path = segment.path

    def _settle(self, queue: deque[Any]) -> None:
        """The first of the queue has got its footer or its sidecar, or failed to."""
        queue.popleft()
        self.settled += 1
        self.sealed.unpark_all()
        self.compactor.notice()

    async def wait_sealed(self) -> None:
        """Return once every segment that was left has a footer, or failed to get one, or will not get one any more. A
        checkpoint. Raises: `Unavailable` (after `give_up`)."""
        await trio.lowlevel.checkpoint()
        while self._log.unsealed and not self._ended:
            self._check_not_given_up()
            await self.sealed.park()

    async def wait_settled(self) -> None:
        """Return once every segment that was left has a footer or a sidecar, or failed to get one. A checkpoint.
        Raises: `Unavailable` (after `give_up`)."""
        await trio.lowlevel.checkpoint()
        while (self._log.unsealed or self._log.unindexed) and not self._ended:
            self._check_not_given_up()
            await self.sealed.park()

    def _spare_is_due(self) -> bool:
        segment = self._log.segment
        sequence = self._log.sequence
        if segment is None or sequence is None or sequence.has_spare or self._writer.admission.is_full:
            return False
        return segment.used > SPARE_WHEN_USED and segment is not self._no_spare_beside

    async def _prepare_spare(self) -> None:
        assert self._log.sequence is not None
        try:
            await self._blocking(self._log.sequence.prepare_spare)
        except OSError as error:
            self._no_spare_beside = self._log.segment  # not again; beginning the next one tries by itself
            self._note_error("set aside the space behind", self._log.path, error)

    async def _index_next(self) -> None:
        segment = self._log.unindexed[0]  # nothing is compacted before all of these have an index
        try:
            trailer = await self._blocking(self._write_index, segment)  # cancelled, it has not begun
        except (OSError, StepwellError) as error:
            self._note_error("write the index of", segment.path, error)
        else:
            _logger.debug("wrote the index of %s, %d bytes", segment.path, trailer.index_bytes)
        self._settle(self._log.unindexed)

    def _write_index(self, segment: IndexedSegment) -> Trailer:
        files, segments = self._log.files, self._log.index.segments
        upto = segments[: segments.index(segment) + 1]
        return write_sidecar(files, segment, open_streams_after(upto, lambda other: rebuild_index(files, other)))

    def _note_error(self, doing: str, path: str, error: BaseException) -> None:
        self.errors += 1
        _logger.warning("could not %s %s (%s); nothing is lost", doing, path, error)
