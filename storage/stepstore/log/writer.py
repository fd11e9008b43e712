"""The one task that writes the log: natural group commit.

While one group is on its way to the medium, batches queue; the next group takes all that queued meanwhile. So a lone
waiter pays one write and one fdatasync, and a thousand writers share them. Nothing waits for a timer.

`commit_queue` holds what waits, `group_commit` commits it to the `active_segment`, and `write_errors` says what is done
when that fails.
"""

from __future__ import annotations

import errno
import os

import trio

from stepstore.errors import Closed, Fenced, OutcomeUnknown, StepwellError
from stepstore.log.active_segment import ActiveSegment
from stepstore.log.admission import RETRY_FULL_SECONDS, Admission
from stepstore.log.commit_queue import CommitQueue
from stepstore.log.forking import watch_forks
from stepstore.log.group_commit import GroupCommit
from stepstore.log.opening import OpenLog
from stepstore.log.segment import NO_ROOM
from stepstore.log.watermark import DurableWatermark
from stepstore.log.worker_thread import WorkerThread
from stepstore.log.write_errors import WriteErrors
from stepstore.log.writer_stats import WriterStats
from stepstore.notices import Notices


class _Rotation:
    """Somebody waits for the segment to be left."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: OSError | StepwellError | None = None


class LogWriter:
    """Commits batches to an opened log. One task runs `run`; anybody may `submit`, which is `queue.submit`."""

    def __init__(self, log: OpenLog):
        self._log = log
        self.stats = WriterStats()
        self.notices = Notices()
        self.watermark = DurableWatermark(log.end_lsn)
        self.admission = Admission(log, self.notices)
        self.queue = CommitQueue(log.index, self.admission)
        self.submit = self.queue.submit  # as it is: another call for each submission would be felt
        worker = self._worker = WorkerThread(log)
        self.active = ActiveSegment(log, worker, self.stats)
        self._errors = WriteErrors(log, self.admission, self.queue, self.active, self.watermark, worker, self.stats)
        self._group_commit = GroupCommit(
            log, self.queue, self.active, self.watermark, self._errors, worker, self.stats, self.notices
        )
        self._mark_wanted = False
        self._rotations: list[_Rotation] = []
        if log.pending_repair is not None:
            self.admission.set_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        watch_forks(self)

    # ---- for everybody -----------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def want_mark(self) -> None:
        """Have a mark written, if nothing else is to be written: it proves the last group durable (rows 2 to 5)."""
        self._mark_wanted = True
        self.queue.wake.unpark_all()

    async def rotate(self) -> None:
        """Return once whatever was written before lies in segments that nothing is added to any more.

        Raises: `Closed`, `OSError`, `Fenced`.
        """
        await trio.lowlevel.checkpoint()
        self.admission.check_open(critical=True)
        rotation = _Rotation()
        self._rotations.append(rotation)
        self.queue.wake.unpark_all()
        await rotation.done.wait()
        if rotation.error is not None:
            raise rotation.error

    def forked(self) -> None:
        """This is a child of the process that opened the log: take nothing."""
        self.admission.gate.is_open = False

    @trio.lowlevel.enable_ki_protection
    def finish(self) -> None:
        """Take no more submissions; `run` returns when the queue is on the medium and the segment is closed."""
        self.admission.finish()
        self.queue.wake.unpark_all()

    # ---- the task ----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Commit groups until `finish`. If cancelled, what is queued is resolved as `OutcomeUnknown`."""
        self.queue.start_clock()
        try:
            while self.admission.failed is None:
                if self._rotations:
                    await self._rotate()
                    continue
                group = self.queue.take_group()
                if group:
                    await self._group_commit.commit(group)
                elif self.admission.is_finishing:
                    break
                elif self._mark_wanted:
                    await self._mark()
                else:
                    await self._park()
            if self.admission.failed is None:
                await self._close_segment()
        finally:
            self.admission.finish()
            self.queue.fail_all([], OutcomeUnknown("the log was closed before the write had reached the medium"))
            for rotation in self._rotations:
                rotation.error = Closed(f"the log in {self._log.path!r} was closed")
                rotation.done.set()
            self.watermark.end()

    async def _close_segment(self) -> None:
        try:
            await self.active.seal()
        except OSError as error:
            self.admission.fail(error)

    async def _park(self) -> None:
        if not self.admission.is_full:
            await self.queue.wake.park()
            return
        with trio.move_on_after(RETRY_FULL_SECONDS):
            await self.queue.wake.park()
            return
        await self._errors.look_for_room()

    async def _mark(self) -> None:
        wanted, self._mark_wanted, self.active.is_unmarked = self.active.is_unmarked, False, False
        if not wanted or self.admission.is_full:  # what room is left is for endings
            return
        try:
            await self.active.mark()
        except OSError as error:
            await self._errors.leave_segment([], error)

    async def _rotate(self) -> None:
        wanted, self._rotations = self._rotations, []
        error: OSError | StepwellError | None = Closed(f"the log in {self._log.path!r} was closed")
        try:
            await self.active.rotate()
            error = None
        except (OSError, Fenced) as failure:
            error = failure
            if isinstance(failure, Fenced) or failure.errno not in NO_ROOM:
                self._errors.fail([], failure)  # the next segment may be there, and names the end of this one
        finally:  # also when cancelled
            for rotation in wanted:
                rotation.error = error
                rotation.done.set()
