"""Archive the log when somebody asks for it, while it is written to."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from stepstore.errors import Unavailable
from stepstore.log.archive import Archiving
from stepstore.log.archive_report import ArchiveReport
from stepstore.log.compactor import WaitSettled
from stepstore.log.opening import OpenLog
from stepstore.log.segment_rewriter import SegmentRewriter
from stepstore.log.worker_thread import Blocking, has_more
from stepstore.log.writer import LogWriter


class LogArchiver:
    """Archives an opened log, on request. `rewriter`: what must not take files away meanwhile."""

    def __init__(self, log: OpenLog, writer: LogWriter, rewriter: SegmentRewriter, blocking: Blocking):
        self._log, self._writer, self._rewriter, self._blocking = log, writer, rewriter, blocking

    @trio.lowlevel.enable_ki_protection
    async def archive(self, target: str, wait_settled: WaitSettled) -> ArchiveReport:
        """Copy everything that is stored so far into an archive, while reading, writing and compacting go on.

        Raises: `Closed`, `InvalidInput` (the target is not empty), `CorruptLog` (a file of the log is damaged),
        `Unavailable` (an I/O error). What is left of one that failed is no archive; archiving there again begins anew.
        """
        self._writer.admission.check_open(critical=True)
        try:
            async with self._rewriter.archiving:
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
                await undisturbed.enter_async_context(self._rewriter.undisturbed())
                if await self._blocking(archiving.pin, self._log.ended_segments()):
                    await undisturbed.aclose()  # what is pinned stays, whatever is compacted
                copying = archiving.copy()
                try:
                    while await self._blocking(has_more, copying):
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
            self._rewriter.note_error(error)  # the next opening removes what is left
