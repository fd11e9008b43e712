"""When the log is compacted: by itself in the background, at a limited rate, and at once when somebody asks for it.

An error in a rewriting is logged and counted and ends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from stepstore.errors import StepwellError
from stepstore.log.admission import RETRY_FULL_SECONDS
from stepstore.log.compaction_policy import NEIGHBOURS
from stepstore.log.compaction_report import CompactionReport, Tally
from stepstore.log.opening import OpenLog
from stepstore.log.segment import NO_ROOM
from stepstore.log.segment_rewriter import SegmentRewriter
from stepstore.log.worker_thread import Blocking
from stepstore.log.writer import LogWriter

NO_ROOM_SECONDS = 60.0
"""How long a compaction for which there was no room waits for more."""

WaitSettled = Callable[[], Awaitable[None]]
"""Returns once every segment that has ended has the footer or the sidecar it will get."""


class LogCompactor:
    """Compacts an opened log. One task runs `run` until it is cancelled; anybody may ask for more.

    `files_rewritten`, `bytes_saved`: by itself since the log was opened.
    """

    def __init__(self, log: OpenLog, writer: LogWriter, blocking: Blocking):
        self._log, self._writer = log, writer
        self.rewriter = SegmentRewriter(log, writer, blocking, self.notice)
        self._news = trio.lowlevel.ParkingLot()
        self._has_news = True
        self._no_room = False
        self.files_rewritten = self.bytes_saved = 0

    @property
    def errors(self) -> int:
        """Errors that were logged."""
        return self.rewriter.errors

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
            async with self.rewriter.turn:
                worked = await self._work()
            if not worked and not self._has_news:
                is_full = self._writer.admission.is_full
                wait = RETRY_FULL_SECONDS if is_full else NO_ROOM_SECONDS if self._no_room else math.inf
                with trio.move_on_after(wait):
                    await self._news.park()

    async def _work(self) -> bool:
        """One piece of work in the background; False if there is none."""
        rate = self._log.options.compaction_bytes_per_second
        if not rate or self.rewriter.lost is not None or not self._may_work or not self._is_settled:
            return False
        try:
            if self.rewriter.gone:
                await self.rewriter.remove_gone()
                return True
            if await self.rewriter.take_up_some():
                return True
            sources = self.rewriter.choose(all_dead=False, neighbours=NEIGHBOURS)
            if not sources:
                return False
            self._no_room = False
            tally = Tally()
            worked = await self.rewriter.rewrite(sources, self.rewriter.dead.deleted, tally, rate=rate)
            self.files_rewritten += tally.files_rewritten
            self.bytes_saved += tally.bytes_before - tally.bytes_after
            return worked
        except (OSError, StepwellError) as error:
            self.rewriter.note_error(error)
            self._no_room = isinstance(error, OSError) and error.errno in NO_ROOM
            return False

    @property
    def _may_work(self) -> bool:
        return self._writer.admission.is_open and not self._writer.admission.is_full

    @property
    def _is_settled(self) -> bool:
        """Whether every segment that has ended has the footer or the sidecar it will get."""
        return not self._log.unsealed and not self._log.unindexed

    async def finish(self) -> None:
        """The writer has ended: wait until whoever compacts or archives on request has given up, since nothing of this
        log may be touched once its LOCK is given back. Then remove what is still to be removed; what fails is left to
        the next opening."""
        with trio.CancelScope(shield=True):
            async with self.rewriter.archiving, self.rewriter.turn:
                pass
        try:
            await self.rewriter.remove_gone()
        except OSError as error:
            self.rewriter.note_error(error)

    # ---- on request --------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def compact(self, wait_settled: WaitSettled) -> CompactionReport:
        """Compact everything that is worth it now, at full speed. `wait_settled` returns once all footers are written.

        Raises: `Closed`, `Unavailable` (an I/O error; nothing is lost, and it may be repeated).
        """
        tally = Tally()
        async with self.rewriter.at_once():
            if self._log.segment is not None and self._log.index.deleted_in(self._log.index.segments[-1]):
                await self._writer.rotate()  # what a segment makes dead is not counted before it ends
            await wait_settled()
            await self.rewriter.rewrite_all(tally, all_dead=False)
        return CompactionReport(**tally.fields())
