"""Group commit: what is submitted together or waits together is one frame, one write and one fdatasync."""

from __future__ import annotations

import logging
import time

import trio

from stepstore.errors import Fenced, InvalidInput, KeyDestroyed, OutcomeUnknown, Unavailable
from stepstore.log.active_segment import ActiveSegment
from stepstore.log.commit_queue import CommitQueue
from stepstore.log.frame import FLAG_TOMBSTONE, Batch, Encode
from stepstore.log.opening import OpenLog
from stepstore.log.segment import Frame, Segment
from stepstore.log.submission import Submission
from stepstore.log.watermark import DurableWatermark
from stepstore.log.worker_thread import WorkerThread
from stepstore.log.write_errors import WriteErrors
from stepstore.log.writer_stats import WriterStats
from stepstore.notices import Notices

SLOW_SYNC_SECONDS = 1.0

_logger = logging.getLogger("stepstore.log")


class GroupCommit:
    """Commits groups to the active segment, one after the other."""

    def __init__(
        self,
        log: OpenLog,
        queue: CommitQueue,
        active: ActiveSegment,
        watermark: DurableWatermark,
        errors: WriteErrors,
        worker: WorkerThread,
        stats: WriterStats,
        notices: Notices,
    ):
        self._log, self._worker, self._stats, self._notices = log, worker, stats, notices
        self._queue, self._active, self._watermark, self._errors = queue, active, watermark, errors
        self._encode: Encode | None = log.codec.encode if log.codec.changes_anything else None

    async def commit(self, group: list[Submission]) -> None:
        """Commit a group that was taken from the queue. Each submission of it has its result on return, or waits again.

        If cancelled, they are resolved as `OutcomeUnknown`, unless the write has begun: that is finished.
        """
        batches = [batch for submission in group for batch in submission.batches]
        try:
            segment = await self._active.with_room(sum(submission.cost for submission in group))
            if self._encode is None:
                frame = segment.prepare(batches)
            else:
                frame = await self._worker.run(self._prepare_encoded, segment, batches)
            began = time.perf_counter()
            try:
                await self._worker.run(segment.write, frame)
            except OSError as error:
                await self._errors.leave_segment(group, error)
                return
            if time.perf_counter() - began > SLOW_SYNC_SECONDS:
                self._note_slow_sync(time.perf_counter() - began)
        except OSError as error:  # no segment could be made
            await self._errors.no_segment(group, error)
            return
        except Fenced as error:
            self._errors.fail(group, error)
            return
        except (Unavailable, InvalidInput, KeyDestroyed) as error:  # of the keys; nothing was written
            if len(group) > 1:  # one stream whose key cannot be had must not cost the others their records
                self._queue.split(group)
                return
            self._queue.fail_with_dependents(group, error)
            return
        except BaseException:
            self._queue.fail(group, OutcomeUnknown("the log was closed while the write was on its way to the medium"))
            raise
        # From here to the end no checkpoint: the group is on the medium, and everybody concerned must learn it.
        self._acknowledge(segment, frame, group)

    def _acknowledge(self, segment: Segment, frame: Frame, group: list[Submission]) -> None:
        segment.acknowledge(frame)
        self._log.index.add_frame(frame.at, frame.end, frame.first_lsn, frame.last_lsn, frame.header_crc, frame.entries)
        self._watermark.lsn = frame.last_lsn
        stats, now = self._stats, trio.current_time()
        records = frame.last_lsn - frame.first_lsn + 1
        stats.groups += 1
        stats.syncs += 1
        stats.records += records
        stats.bytes_written += len(frame.data)
        stats.largest_group = max(stats.largest_group, records)
        stats.commit_latency.add(now - self._queue.group_since)
        self._queue.acknowledge(group, frame.first_lsn)
        self._watermark.tell()
        self._active.note_commit(segment, now)

    def _prepare_encoded(self, segment: Segment, batches: list[Batch]) -> Frame:
        """The frame of batches that are compressed or encrypted first. Their keys are durable before it is written."""
        keys = self._log.keys
        if keys is not None and keys.makes_keys:
            streams = {batch.stream for batch in batches if not batch.flags & FLAG_TOMBSTONE}
            try:
                keys.add(streams)
            except OSError:
                keys.add(streams)  # it has left the file that failed, and begins another
        return segment.prepare(batches, self._encode)

    @trio.lowlevel.enable_ki_protection
    def _note_slow_sync(self, seconds: float) -> None:
        self._stats.slow_syncs += 1
        self._stats.longest_sync_seconds = max(self._stats.longest_sync_seconds, seconds)
        sentence = f"a write to the log in {self._log.path} took {seconds:.1f} s to reach the medium"
        _logger.warning("%s", sentence)
        self._notices.tell("slow_sync", sentence)
