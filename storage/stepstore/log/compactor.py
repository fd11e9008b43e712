"""When the log is compacted: by itself in the background, at a limited rate, and at once when somebody asks for it.

One rewriting runs at a time. An error in one is logged and counted and ends nothing: the files it was to replace are
still there. Only if it is not known which files are the log (an error while the new file was put in its place), nothing
more is compacted before the next opening.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar

import trio

from stepstore.errors import Damaged, StepwellError, Unavailable
from stepstore.log.admission import RETRY_FULL_SECONDS
from stepstore.log.archive import ArchiveReport, Archiving
from stepstore.log.compaction import CompactionReport as CompactionReport
from stepstore.log.compaction import HalfInPlace, OnDead, Rewriting, Weight, choose, put_in_place, remove
from stepstore.log.dead_records import Amount, DeadRecords
from stepstore.log.indexed_segment import IndexedSegment, SegmentIndex
from stepstore.log.opening import OpenLog
from stepstore.log.purge import (
    NOT_THE_LOGS,
    OF_A_SALVAGE,
    OUT_OF_REACH,
    DeletionReport,
    Proof,
    Samples,
    clean_quarantine,
    clean_salvaged,
)
from stepstore.log.segment import NO_ROOM
from stepstore.log.writer import LogWriter

T = TypeVar("T")

DEAD_SHARE = 0.5
"""A segment is rewritten when so much of its payload is dead."""
NEIGHBOURS, NEIGHBOURS_ON_REQUEST = 4, 2
"""So many small segments beside one another are made one."""
TAKE_UP_SECONDS = 0.05
"""Segments are taken up for so long at a time: closing the log waits for it, and each call into the worker thread comes
back only when a busy host's loop has got round to it."""
NO_ROOM_SECONDS = 60.0
"""How long a compaction for which there was no room waits for more."""

_logger = logging.getLogger("stepstore.log")


def is_dead_enough(index: SegmentIndex, dead: Amount) -> bool:
    """Whether a segment is worth being rewritten for what is dead in it."""
    return dead.size >= max(DEAD_SHARE * index.payload_bytes, 1)


class Blocking(Protocol):
    """Makes a blocking call in a worker thread. Started, it is finished, whatever is cancelled meanwhile."""

    def __call__(self, call: Callable[..., T], *args: Any) -> Awaitable[T]: ...


WaitSettled = Callable[[], Awaitable[None]]


def _has_more(steps: Generator[None, None, None]) -> bool:
    return next(steps, True) is None


class Tally:
    """A report that is being added up."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.files_rewritten = self.files_written = self.bytes_before = self.bytes_after = self.records_removed = 0
        self.streams: set[bytes] = set()
        self.left_alone: list[str] = []

    def fields(self) -> dict[str, Any]:
        """What a `CompactionReport` is made of."""
        return {
            "files_rewritten": self.files_rewritten,
            "files_written": self.files_written,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "streams_removed": len(self.streams),
            "records_removed": self.records_removed,
            "left_alone": tuple(self.left_alone),
            "seconds": time.perf_counter() - self.began,
        }


class LogCompactor:
    """Compacts an opened log. One task runs `run` until it is cancelled; anybody may ask for more.

    `files_rewritten`, `bytes_saved`: by itself since the log was opened. `bytes_read`: of input, on request as well.
    """

    def __init__(self, log: OpenLog, writer: LogWriter, blocking: Blocking):
        self._log, self._writer, self._blocking = log, writer, blocking
        self._dead = DeadRecords(log.index)
        self._lock, self._archiving = trio.Lock(), trio.Lock()
        self._pause = trio.lowlevel.ParkingLot()
        self._news = trio.lowlevel.ParkingLot()
        self._has_news = True
        self._waiting = 0
        self._gone: list[str] = []
        self._left_alone: dict[str, None] = {}
        self._lost: BaseException | None = None
        self._no_room = False
        self.errors = 0
        self.files_rewritten = self.bytes_saved = self.bytes_read = 0

    # ---- in the background -------------------------------------------------------------------------------------------

    def notice(self) -> None:
        """Something has changed: a segment was sealed, or there is room again."""
        self._has_news = True
        self._news.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Compact whenever it is worth it. Returns only by being cancelled."""
        while True:
            self._has_news = False
            async with self._lock:
                worked = await self._work()
            if not worked and not self._has_news:
                is_full = self._writer.admission.is_full
                wait = RETRY_FULL_SECONDS if is_full else NO_ROOM_SECONDS if self._no_room else math.inf
                with trio.move_on_after(wait):
                    await self._news.park()

    async def _work(self) -> bool:
        """One piece of work in the background; False if there is none."""
        rate = self._log.options.compaction_bytes_per_second
        if not rate or self._lost is not None or not self._may_work or not self._is_settled:
            return False
        try:
            if self._gone:
                await self._remove_gone()
                return True
            if await self._take_up_some():
                return True
            sources = self._choose(all_dead=False, neighbours=NEIGHBOURS)
            if not sources:
                return False
            self._no_room = False
            tally = Tally()
            worked = await self._rewrite(sources, self._dead.deleted, tally, rate=rate)
            self.files_rewritten += tally.files_rewritten
            self.bytes_saved += tally.bytes_before - tally.bytes_after
            return worked
        except (OSError, StepwellError) as error:
            self._note_error(error)
            self._no_room = isinstance(error, OSError) and error.errno in NO_ROOM
            return False

    @property
    def _may_work(self) -> bool:
        return self._writer.admission.is_open and not self._writer.admission.is_full

    @property
    def _is_settled(self) -> bool:
        """Whether every segment that has ended has the footer or the sidecar it will get."""
        return not self._log.unsealed and not self._log.unindexed

    def _choose(self, *, all_dead: bool, neighbours: int) -> list[IndexedSegment]:
        weights: list[Weight | None] = []
        for segment in self._log.ended_segments():
            dead = self._dead[segment]
            enough = dead.batches > 0 if all_dead else is_dead_enough(segment.index, dead)
            weight = Weight(segment, segment.end_offset - dead.size, segment.index.size_so_far, enough)
            weights.append(None if segment.path in self._left_alone else weight)
        return choose(weights, self._log.options.segment_bytes, neighbours=neighbours)

    async def _rewrite(
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
            self._lost = error.__cause__
            raise self._lost_its_way() from error
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await blocking(rewriting.discard)
            if isinstance(error, Damaged):
                self._left_alone[error.file] = None
            elif isinstance(error, StepwellError) or (isinstance(error, OSError) and error.errno not in NO_ROOM):
                self._left_alone.update((source.path, None) for source in sources)
            raise
        # From here to the end of the block no checkpoint: the file counts, and readers must go there.
        log.index.replace(sources, done.segment)
        log.manifest = done.manifest
        self._dead.replaced(sources, done.segment)
        self._gone += done.gone
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
        await self._remove_gone()
        return True

    async def _remove_gone(self) -> None:
        if self._gone:
            gone = list(self._gone)
            await self._blocking(remove, self._log, gone)
            del self._gone[: len(gone)]

    def _note_error(self, error: BaseException) -> None:
        self.errors += 1
        _logger.warning("could not compact %s (%s); nothing is lost", self._log.path, error)

    async def finish(self) -> None:
        """The writer has ended: wait until whoever compacts or archives on request has given up, since nothing of this
        log may be touched once its LOCK is given back. Then remove what is still to be removed; what fails is left to
        the next opening."""
        with trio.CancelScope(shield=True):
            async with self._archiving, self._lock:
                pass
        try:
            await self._remove_gone()
        except OSError as error:
            self._note_error(error)

    # ---- on request --------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def compact(self, wait_settled: WaitSettled) -> CompactionReport:
        """Compact everything that is worth it now, at full speed. `wait_settled` returns once all footers are written.

        Raises: `Closed`, `Unavailable` (an I/O error; nothing is lost, and it may be repeated).
        """
        tally = Tally()
        async with self._at_once():
            if self._log.segment is not None and self._log.index.deleted_in(self._log.index.segments[-1]):
                await self._writer.rotate()  # what a segment makes dead is not counted before it ends
            await wait_settled()
            await self._rewrite_all(tally, all_dead=False)
        return CompactionReport(**tally.fields())

    @trio.lowlevel.enable_ki_protection
    async def purge(self, wait_settled: WaitSettled) -> DeletionReport:
        """Rewrite every file that holds anything dead, and prove that nothing of deleted streams is left.

        If it is cancelled or fails, or the process dies, what is done stays done; calling it again does the rest.
        Raises: as `compact`.
        """
        tally = Tally()
        async with self._archiving, self._at_once():  # an archive being made holds on to old files
            await self._writer.rotate()
            await wait_settled()
            await self._take_up_all()
            deleted = dict(self._dead.deleted)
            samples = Samples(deleted)
            await self._rewrite_all(tally, all_dead=True, on_dead=samples.take)
            removed = await self._blocking(clean_quarantine, self._log, deleted, samples.pieces)
            set_aside = await self._blocking(clean_salvaged, self._log, deleted)
            proof = await self._prove_or_rewrite(deleted, samples, tally)
        out_of_reach = [*OUT_OF_REACH]
        if proof.has_salvaged:
            out_of_reach.append(OF_A_SALVAGE)
        if proof.others:
            out_of_reach.append(NOT_THE_LOGS + ", ".join(proof.others))
        return DeletionReport(
            **tally.fields(),
            streams_purged=len(deleted),
            files_checked=proof.files_checked,
            frames_checked=proof.frames_checked,
            batches_checked=proof.batches_checked,
            bytes_searched=proof.bytes_searched,
            samples=len(samples.pieces),
            quarantine_removed=tuple(removed),
            salvaged_removed=tuple(set_aside),
            found=tuple(proof.found),
            unreadable=tuple(proof.unreadable),
            shared=tuple(proof.shared),
            out_of_reach=tuple(out_of_reach),
        )

    @trio.lowlevel.enable_ki_protection
    async def archive(self, target: str, wait_settled: WaitSettled) -> ArchiveReport:
        """Copy everything that is stored so far into an archive, while reading, writing and compacting go on.

        Raises: `Closed`, `InvalidInput` (the target is not empty), `CorruptLog` (a file of the log is damaged),
        `Unavailable` (an I/O error). What is left of one that failed is no archive; archiving there again begins anew.
        """
        self._writer.admission.check_open(critical=True)
        try:
            async with self._archiving:
                return await self._archive(Archiving(self._log, target), wait_settled)
        except OSError as error:
            raise Unavailable(
                f"could not archive the log in {self._log.path!r} to {target!r} ({error}). What is there now is no "
                "archive; archive to it again once the cause is mended, or remove it."
            ) from error

    async def _archive(self, archiving: Archiving, wait_settled: WaitSettled) -> ArchiveReport:
        await self._blocking(archiving.check_target)
        await self._writer.rotate()
        await wait_settled()
        try:
            async with AsyncExitStack() as undisturbed:
                await undisturbed.enter_async_context(self._undisturbed())
                if await self._blocking(archiving.pin, self._log.ended_segments()):
                    await undisturbed.aclose()  # what is pinned stays, whatever is compacted
                copying = archiving.copy()
                try:
                    while await self._blocking(_has_more, copying):
                        self._writer.admission.check_open(critical=True)
                finally:
                    copying.close()
                return await self._blocking(archiving.finish)
        finally:
            with trio.CancelScope(shield=True):
                await self._unpin(archiving)

    async def _unpin(self, archiving: Archiving) -> None:
        try:
            await self._blocking(archiving.unpin)
        except OSError as error:
            self._note_error(error)  # the next opening removes what is left

    async def _prove_or_rewrite(self, deleted: Collection[bytes], samples: Samples, tally: Tally) -> Proof:
        """Prove it; where the frames hold what an index had not told of, rewrite those files and prove it again."""
        proof = await self._prove(deleted, samples)
        found = {*proof.segments_found} - {*self._left_alone}
        again = [segment for segment in self._log.ended_segments() if segment.path in found]
        if not again:
            return proof
        for segment in again:
            await self._rewrite_one([segment], tally, samples.take)
        return await self._prove(deleted, samples)

    async def _prove(self, deleted: Collection[bytes], samples: Samples) -> Proof:
        proof = Proof(self._log, deleted, samples.pieces)
        steps = proof.run()
        try:
            while await self._blocking(_has_more, steps):
                self._writer.admission.check_open(critical=True)
        finally:
            steps.close()
        return proof

    @asynccontextmanager
    async def _at_once(self) -> AsyncGenerator[None, None]:
        """For a request to compact."""
        self._writer.admission.check_open(critical=True)
        try:
            async with self._undisturbed():
                if self._lost is not None:
                    raise self._lost_its_way() from self._lost
                self._left_alone.clear()
                await self._remove_gone()  # what an earlier request, that was cancelled, has left
                yield
        except OSError as error:
            self._note_error(error)
            raise Unavailable(
                f"could not compact the log in {self._log.path!r} ({error}). Nothing is lost; try again once the cause "
                "is mended."
            ) from error

    @asynccontextmanager
    async def _undisturbed(self) -> AsyncGenerator[None, None]:
        """Nobody else compacts meanwhile."""
        self._waiting += 1
        self._pause.unpark_all()  # what is being compacted in the background need not be slow now
        try:
            async with self._lock:
                self._writer.admission.check_open(critical=True)
                yield
        finally:
            self._waiting -= 1
            self.notice()

    async def _rewrite_all(self, tally: Tally, *, all_dead: bool, on_dead: OnDead | None = None) -> None:
        await self._take_up_all()
        while sources := self._choose(all_dead=all_dead, neighbours=NEIGHBOURS_ON_REQUEST):
            await self._rewrite_one(sources, tally, on_dead)
            await self._take_up_all()

    async def _rewrite_one(self, sources: list[IndexedSegment], tally: Tally, on_dead: OnDead | None) -> None:
        self._writer.admission.check_open(critical=True)
        try:
            await self._rewrite(sources, self._dead.deleted, tally, on_dead=on_dead)
        except Damaged as error:
            self._note_error(error)
            tally.left_alone.append(error.file)

    def _lost_its_way(self) -> Unavailable:
        return Unavailable(
            f"compacting the log in {self._log.path!r} failed half way ({self._lost}). Nothing is lost; close it and "
            "open it again before it is compacted any more."
        )

    async def _take_up_all(self) -> None:
        self._writer.admission.check_open(critical=True)
        while await self._take_up_some():
            pass

    async def _take_up_some(self) -> bool:
        """Take up some of the segments that were not yet; False, and no checkpoint, if there are none."""
        ended = self._log.ended_segments()
        if self._dead.next_unseen(ended) is None:
            return False
        await self._blocking(self._dead.take_up_for, TAKE_UP_SECONDS, ended)
        return True
