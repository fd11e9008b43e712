"""Rewrite the segments of an opened log, one rewriting at a time: what compacting in the background, compacting on
request and a purge have in common.

An error in a rewriting ends nothing: the files it was to replace are still there. Only if it is not known which files
are the log (an error while the new file was put in its place), nothing more is rewritten before the next opening.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager

import trio

from stepstore.errors import Damaged, StepwellError, Unavailable
from stepstore.log.compaction import OnDead, Rewriting
from stepstore.log.compaction_policy import NEIGHBOURS_ON_REQUEST, Weight, choose, is_dead_enough
from stepstore.log.compaction_report import Tally
from stepstore.log.dead_records import DeadRecords
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.opening import OpenLog
from stepstore.log.segment import NO_ROOM
from stepstore.log.segment_replacement import HalfInPlace, put_in_place, remove
from stepstore.log.worker_thread import Blocking
from stepstore.log.writer import LogWriter

TAKE_UP_SECONDS = 0.05
"""Segments are taken up for so long at a time: closing the log waits for it, and each call into the worker thread comes
back only when a busy host's loop has got round to it."""

_logger = logging.getLogger("stepstore.log")


class SegmentRewriter:
    """Rewrites segments of an opened log; knows what is dead in them.

    `turn` is held by whoever rewrites, `archiving` by whoever makes an archive, which holds on to old files, and by a
    purge, which wants them gone. `gone`: files that are still to be removed. `lost`: the error since which it is not
    known which files are the log. `bytes_read`: of input. `when_free` is called when a request is through.
    """

    def __init__(self, log: OpenLog, writer: LogWriter, blocking: Blocking, when_free: Callable[[], None]):
        self._log, self._writer, self._blocking, self._when_free = log, writer, blocking, when_free
        self.dead = DeadRecords(log.index)
        self.turn, self.archiving = trio.Lock(), trio.Lock()
        self._pause = trio.lowlevel.ParkingLot()
        self._waiting = 0
        self.gone: list[str] = []
        self.left_alone: dict[str, None] = {}
        self.lost: BaseException | None = None
        self.errors = self.bytes_read = 0

    # ---- which -------------------------------------------------------------------------------------------------------

    def choose(self, *, all_dead: bool, neighbours: int) -> list[IndexedSegment]:
        """What to rewrite next, see `compaction_policy`. `all_dead`: whatever holds a dead record. Empty if nothing."""
        weights: list[Weight | None] = []
        for segment in self._log.ended_segments():
            dead = self.dead[segment]
            enough = dead.batches > 0 if all_dead else is_dead_enough(segment.index, dead)
            weight = Weight(segment, segment.end_offset - dead.size, segment.index.size_so_far, enough)
            weights.append(None if segment.path in self.left_alone else weight)
        return choose(weights, self._log.options.segment_bytes, neighbours=neighbours)

    async def take_up_all(self) -> None:
        """Take up every segment that was not yet. Raises: `Closed`."""
        self._writer.admission.check_open(critical=True)
        while await self.take_up_some():
            pass

    async def take_up_some(self) -> bool:
        """Take up some of the segments that were not yet; False, and no checkpoint, if there are none."""
        ended = self._log.ended_segments()
        if self.dead.next_unseen(ended) is None:
            return False
        await self._blocking(self.dead.take_up_for, TAKE_UP_SECONDS, ended)
        return True

    # ---- one at a time -----------------------------------------------------------------------------------------------

    async def rewrite(
        self,
        sources: list[IndexedSegment],
        deleted: Collection[bytes],
        tally: Tally,
        *,
        rate: int = 0,
        on_dead: OnDead | None = None,
    ) -> bool:
        """Put one file in the place of these. False if it was given up because the disk is full, or the log closes.

        Raises: `OSError`, `StepwellError`; nothing has changed then.
        """
        log, blocking = self._log, self._blocking
        rewriting = Rewriting(log, sources, deleted, on_dead)
        try:
            began = trio.current_time()
            while not rewriting.is_copied:
                read = await blocking(rewriting.step)
                self.bytes_read += read
                if rate and not self._waiting:
                    with trio.move_on_at(began + read / rate):
                        await self._pause.park()
                began = trio.current_time()
                if not self._writer.admission.is_open or (rate and self._writer.admission.is_full):
                    await blocking(rewriting.discard)
                    return False
            await blocking(rewriting.seal)
            if not self._writer.admission.is_open:  # then what has ended cannot be told any more
                await blocking(rewriting.discard)
                return False
            done = await blocking(put_in_place, log, rewriting, log.ended_segments())
        except HalfInPlace as error:
            self.lost = error.__cause__
            raise self._lost_its_way() from error
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await blocking(rewriting.discard)
            if isinstance(error, Damaged):
                self.left_alone[error.file] = None
            elif isinstance(error, StepwellError) or (isinstance(error, OSError) and error.errno not in NO_ROOM):
                self.left_alone.update((source.path, None) for source in sources)
            raise
        # From here to the end of the block no checkpoint: the file counts, and readers must go there.
        log.index.replace(sources, done.segment)
        log.manifest = done.manifest
        self.dead.replaced(sources, done.segment)
        self.gone += done.gone
        tally.files_rewritten += len(sources)
        tally.files_written += 1
        tally.bytes_before += rewriting.bytes_before
        tally.bytes_after += rewriting.bytes_after
        tally.records_removed += rewriting.records_removed
        tally.streams |= rewriting.streams_removed
        _logger.info(
            "compacted %d files of %s into %s: %d records left out, %d bytes less",
            len(sources),
            log.path,
            rewriting.name,
            rewriting.records_removed,
            rewriting.bytes_before - rewriting.bytes_after,
        )
        await self.remove_gone()
        return True

    async def remove_gone(self) -> None:
        """Remove files that a rewritten one stands for. Raises: `OSError`."""
        if self.gone:
            gone = list(self.gone)
            await self._blocking(remove, self._log, gone)
            del self.gone[: len(gone)]

    def note_error(self, error: BaseException) -> None:
        """Count and tell an error that ends nothing."""
        self.errors += 1
        _logger.warning("could not compact %s (%s); nothing is lost", self._log.path, error)

    def _lost_its_way(self) -> Unavailable:
        return Unavailable(
            f"compacting the log in {self._log.path!r} failed half way ({self.lost}). Nothing is lost; close it and "
            "open it again before it is compacted any more."
        )

    # ---- on request --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def at_once(self) -> AsyncGenerator[None, None]:
        """For a request to compact."""
        self._writer.admission.check_open(critical=True)
        try:
            async with self.undisturbed():
                if self.lost is not None:
                    raise self._lost_its_way() from self.lost
                self.left_alone.clear()
                await self.remove_gone()  # what an earlier request, that was cancelled, has left
                yield
        except OSError as error:
            self.note_error(error)
            raise Unavailable(
                f"could not compact the log in {self._log.path!r} ({error}). Nothing is lost; try again once the cause "
                "is mended."
            ) from error

    @asynccontextmanager
    async def undisturbed(self) -> AsyncGenerator[None, None]:
        """Nobody else compacts meanwhile."""
        self._waiting += 1
        self._pause.unpark_all()  # what is being compacted in the background need not be slow now
        try:
            async with self.turn:
                self._writer.admission.check_open(critical=True)
                yield
        finally:
            self._waiting -= 1
            self._when_free()

    async def rewrite_all(self, tally: Tally, *, all_dead: bool, on_dead: OnDead | None = None) -> None:
        """Rewrite everything that is worth it on request. Raises: as `rewrite_one`."""
        await self.take_up_all()
        while sources := self.choose(all_dead=all_dead, neighbours=NEIGHBOURS_ON_REQUEST):
            await self.rewrite_one(sources, tally, on_dead)
            await self.take_up_all()

    async def rewrite_one(self, sources: list[IndexedSegment], tally: Tally, on_dead: OnDead | None) -> None:
        """As `rewrite`; what is damaged is left alone, and told of. Raises: `Closed`, `OSError`, `StepwellError`."""
        self._writer.admission.check_open(critical=True)
        try:
            await self.rewrite(sources, self.dead.deleted, tally, on_dead=on_dead)
        except Damaged as error:
            self.note_error(error)
            tally.left_alone.append(error.file)
