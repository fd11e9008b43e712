"""What is done when the medium refuses.

After an error of a write or an fdatasync nothing in that file is retried (its pages may be marked clean without being
on the medium). The log is cut at the last *acknowledged* record and goes on in one fresh segment that names the cut; if
that cannot be made either, the writer is lost and the log is failed. A medium without room is no failure: the log is
full until there is room again.
"""

from __future__ import annotations

import contextlib
import logging

import trio

from stepstore.errors import Fenced, LogFull, OutcomeUnknown, RecoveryFailed, StepwellError
from stepstore.log.active_segment import ActiveSegment
from stepstore.log.admission import Admission
from stepstore.log.commit_queue import CommitQueue
from stepstore.log.opening import OpenLog
from stepstore.log.segment import NO_ROOM
from stepstore.log.submission import Submission
from stepstore.log.watermark import DurableWatermark
from stepstore.log.worker_thread import WorkerThread
from stepstore.log.writer_stats import WriterStats

_logger = logging.getLogger("stepstore.log")


class WriteErrors:
    """Says of each group that was not written what became of it, and what the writer does next."""

    def __init__(
        self,
        log: OpenLog,
        admission: Admission,
        queue: CommitQueue,
        active: ActiveSegment,
        watermark: DurableWatermark,
        worker: WorkerThread,
        stats: WriterStats,
    ):
        self._log, self._worker, self._stats = log, worker, stats
        self._admission, self._queue, self._active, self._watermark = admission, queue, active, watermark

    async def leave_segment(self, group: list[Submission], error: OSError) -> None:
        """A write or its sync failed: cut the log at the last acknowledged record, go on in a fresh segment."""
        self._stats.write_errors += 1
        no_room = error.errno in NO_ROOM
        try:
            await self._active.abandon(no_room=no_room)
        except (OSError, Fenced) as second:
            second.__context__ = error
            self.fail(group, second)
            return
        cause: StepwellError
        if not no_room:
            _logger.warning("a write to the log in %s failed (%s); it goes on in a new file", self._log.path, error)
        if no_room:
            self._admission.set_full(error)
            cause = LogFull(f"the medium had no room for this write ({error.strerror}); it is not stored")
        else:
            cause = OutcomeUnknown(f"writing to the medium failed ({error}); whether it is stored cannot be told")
        cause.__cause__ = error
        if no_room:
            self._queue.refuse_for_room(group, cause)
        else:
            self._queue.fail_with_dependents(group, cause)

    async def no_segment(self, group: list[Submission], error: OSError) -> None:
        """No segment could be made, and nothing was written: without room that is `LogFull`, else the end.

        What is critical in the group is tried once more if the reserve can be spent for it.
        """
        if error.errno not in NO_ROOM:
            self.fail(group, error)
            return
        self._admission.set_full(error)
        cause = LogFull(f"the medium has no room for another segment ({error.strerror}); this is not stored")
        cause.__cause__ = error
        self._queue.put_back(group)  # before the checkpoint: a cancelled `run` resolves what is queued
        spent = False
        if self._log.reserve is not None and any(submission.critical for submission in group):
            with contextlib.suppress(OSError):
                spent = await self._worker.run(self._log.reserve.spend)
        self._queue.refuse_for_room([] if spent else self._queue.take_back(group), cause)

    @trio.lowlevel.enable_ki_protection
    def fail(self, group: list[Submission], error: BaseException) -> None:
        """The writer is lost, because of this: what became of the group cannot be told."""
        self._admission.fail(error)
        cause = OutcomeUnknown(f"the log failed ({error}); whether this is stored cannot be told")
        cause.__cause__ = error
        self._queue.fail_all(group, cause)
        self._watermark.end()

    async def look_for_room(self) -> None:
        """With the disk full: if the reserve can be set aside again, there is room; take writes again."""
        assert self._log.reserve is not None
        try:
            if self._log.pending_repair is not None:
                segment, _quarantined = await self._worker.run(self._log.pending_repair.carry_out)
                self._log.pending_repair = None
                if segment is not None:
                    self._active.go_on_in(segment)
                self._active.caretaker.unpark_all()
            found = await self._worker.run(self._log.reserve.set_aside)
        except (OSError, RecoveryFailed):
            return  # still no room; the next attempt is RETRY_FULL_SECONDS away
        except Fenced as error:
            self.fail([], error)
            return
        if found:
            self._admission.set_full(None)
