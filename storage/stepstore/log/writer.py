"""The one task that writes the log: natural group commit.

While one group is on its way to the medium, batches queue; the next group takes all that queued meanwhile. So a lone
waiter pays one write and one fdatasync, and a thousand writers share them. Nothing waits for a timer.

After an error of a write or an fdatasync nothing in that file is retried (its pages may be marked clean without being
on the medium). The log is cut at the last *acknowledged* record and goes on in one fresh segment that names the cut; if
that cannot be made either, the writer is lost and the log is failed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from stepstore.errors import (
    Closed,
    Fenced,
    InvalidInput,
    InvalidState,
    KeyDestroyed,
    LogFull,
    OutcomeUnknown,
    RecoveryFailed,
    StepwellError,
    TooLarge,
    Unavailable,
)
from stepstore.log.forking import watch_forks
from stepstore.log.frame import (
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    KIND_FLAGS,
    MAX_BATCH_BYTES,
    MAX_GROUP_BYTES,
    Batch,
    Encode,
    batch_cost,
)
from stepstore.log.latency import LatencyHistogram
from stepstore.log.live_index import STREAM_DELETED, STREAM_FORKED, LiveIndex
from stepstore.log.opening import OpenLog
from stepstore.log.segment import NO_ROOM, Cut, Frame, Segment
from stepstore.log.submission import Gate, Submission, listed
from stepstore.notices import Notices

T = TypeVar("T")

QUEUE_BYTES = 64 * 1024 * 1024
RETRY_FULL_SECONDS = 5.0
STREAM_ID_BYTES = 16
UNWRITABLE = STREAM_DELETED | STREAM_FORKED
MAX_PLAIN_FLAGS = 0xFFFF
"""Above it stands what kind of entry a batch is, unless it is an ordinary one."""
SLOW_SYNC_SECONDS = 1.0
SPARE_WHEN_USED = 0.5
"""From this share of a segment on, the caretaker sets the space of the next one aside."""

_logger = logging.getLogger("stepstore.log")


@dataclass(kw_only=True)
class WriterStats:
    """Counts since opening. `syncs` counts the fdatasyncs of commit groups; `largest_group` is in records; a slow sync
    took longer than a second. `scrubs` counts passes over all old segments, `scrub_problems` what was damaged there.
    `commit_latency`: for each group, from when the oldest batch in it was submitted until it was durable.
    `queued_bytes`: not since opening, but what waits for the writer, or is on its way to the medium, when this was
    asked for."""

    groups: int = 0
    syncs: int = 0
    records: int = 0
    bytes_written: int = 0
    largest_group: int = 0
    segments_begun: int = 0
    segments_sealed: int = 0
    marks: int = 0
    write_errors: int = 0
    slow_syncs: int = 0
    scrubs: int = 0
    scrubbed_bytes: int = 0
    scrub_problems: int = 0
    longest_sync_seconds: float = 0.0
    commit_latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    queued_bytes: int = 0


def _unwritable(stream: bytes, state: int) -> InvalidState:
    if state & STREAM_DELETED:
        return InvalidState(f"stream {stream.hex()} is deleted; nothing can be added to it, and its id stays taken")
    return InvalidState(
        f"stream {stream.hex()} is forked (row 11); it can be read up to there, and deleted, and takes no more writes"
    )


def check_kind(first_seq: int, before: int, payloads: Sequence[bytes], flags: int) -> None:
    """Check a batch that is no ordinary one, behind number `before` of its stream.

    Raises: `InvalidInput`, `InvalidState`.
    """
    kind = flags & KIND_FLAGS
    if kind not in (FLAG_SNAPSHOT, FLAG_TOMBSTONE) or flags & ~KIND_FLAGS > MAX_PLAIN_FLAGS or len(payloads) != 1:
        raise InvalidInput("a snapshot and a tombstone are batches of one record, and a batch is one thing only")
    if kind == FLAG_SNAPSHOT and not 1 <= first_seq <= before:
        raise InvalidState(f"a snapshot covers seq {first_seq}, and its stream ends with seq {before}")


class _Rotation:
    """Somebody waits for the segment to be left."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: OSError | StepwellError | None = None


class LogWriter:
    """Commits batches to an opened log. One task runs `run`; anybody may `submit`."""

    def __init__(self, log: OpenLog):
        assert log.sequence is not None, "a log opened for reading has no writer"
        self._log = log
        self._sequence = log.sequence
        self._queue: deque[Submission] = deque()
        self._queued_bytes = 0
        self._queued_since = self._group_since = 0.0  # of the oldest submission in the queue, and in the group
        self._pending_seq: dict[bytes, int] = {}
        self._deleting: set[bytes] = set()  # streams whose tombstone is queued
        self._wake = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._advanced = trio.lowlevel.ParkingLot()
        self._limiter = trio.CapacityLimiter(1)  # the default limiter is shared with the host's own threads
        self._running = self._finishing = self._ended = False
        self._full_since_error: OSError | None = None
        self._failed: BaseException | None = None
        self._mark_wanted = False
        self._one_by_one = 0  # so many submissions go in groups of their own
        self._rotations: list[_Rotation] = []
        self.gate = Gate()
        self.durable_lsn = log.end_lsn
        self.stats = WriterStats()
        self.notices = Notices()
        self.last_commit = 0.0
        self.is_unmarked = False
        self.caretaker = trio.lowlevel.ParkingLot()
        self._encode: Encode | None = log.codec.encode if log.codec.changes_anything else None
        if log.pending_repair is not None:
            self._set_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        watch_forks(self)

    # ---- for everybody -----------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the medium had no room at the last attempt."""
        return self._full_since_error is not None

    @property
    def failed(self) -> BaseException | None:
        """Why the writer is lost for good, None while it works."""
        return self._failed

    @property
    def is_open(self) -> bool:
        """Whether the writer works and was not told to finish."""
        return self._failed is None and not self._finishing and not self._log.is_forked

    def check_open(self, *, critical: bool = False) -> None:
        """Raises: `Closed`, `LogFull` as `submit` would now."""
        if self._failed is not None:
            raise Closed(
                f"the log in {self._log.path!r} takes no more writes after an error ({self._failed}). What is on disk "
                "can be read; close the memory and open it again."
            ) from self._failed
        if self._log.is_forked:
            raise Closed(
                f"this process was forked from the one that opened the memory in {self._log.path!r}; only that one may "
                "write to it. Open memories after forking."
            )
        if self._finishing:
            raise Closed(f"the log in {self._log.path!r} is closed")
        if self._full_since_error is not None and (not critical or self._log.pending_repair is not None):
            raise LogFull(
                f"no room for the log in {self._log.path!r} ({self._full_since_error.strerror}). Make room; writing "
                f"goes on by itself within {RETRY_FULL_SECONDS:.0f} s."
            ) from self._full_since_error

    def last_seq(self, stream: bytes) -> int:
        """The last sequence number of a stream, what is queued included."""
        pending = self._pending_seq.get(stream)
        return self._log.index.last_seq(stream) if pending is None else pending

    @trio.lowlevel.enable_ki_protection
    def submit(
        self,
        batches: Batch | Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        """Queue batches to be stored together in one frame. Plain function; nothing is queued if it raises.

        Each batch must continue its stream; a snapshot covers a number that its stream has, and moves nothing. Nothing
        follows a tombstone. `critical` (endings) may use the reserve of a full disk.
        Raises: `Closed`, `LogFull`, `TooLarge`, `InvalidInput`, `InvalidState` (a batch does not continue its stream,
        or that is deleted or forked; a forked one can still be deleted).
        """
        self.check_open(critical=critical)
        cost = 0
        last: dict[bytes, int] = {}
        deleting: list[bytes] = []
        for batch in listed(batches):
            stream, first_seq, payloads, flags = batch.stream, batch.first_seq, batch.payloads, batch.flags
            if len(stream) != STREAM_ID_BYTES or not payloads:  # no reader would take such a frame for a sound one
                raise InvalidInput("a batch has a stream id of 16 bytes and at least one record")
            cost += batch_cost(sum(map(len, payloads)), len(payloads))
            before = last.get(stream)
            if before is None:
                before = self._pending_seq.get(stream)
                if before is None:
                    before, state = self._log.index.tail(stream)
                    if state & UNWRITABLE and (state & STREAM_DELETED or flags & KIND_FLAGS != FLAG_TOMBSTONE):
                        raise _unwritable(stream, state)
                elif self._deleting and stream in self._deleting:
                    raise _unwritable(stream, STREAM_DELETED)
            elif deleting and stream in deleting:
                raise _unwritable(stream, STREAM_DELETED)
            if flags > MAX_PLAIN_FLAGS:
                check_kind(first_seq, before, payloads, flags)
                if flags & KIND_FLAGS == FLAG_SNAPSHOT:
                    continue
                deleting.append(stream)
            if first_seq != before + 1:
                raise InvalidState(
                    f"stream {stream.hex()} ends with seq {before}, so seq {first_seq} does not continue it; read what "
                    "was written meanwhile"
                )
            last[stream] = before + len(payloads)
        if cost > MAX_BATCH_BYTES:
            raise TooLarge(f"a batch of {cost:,} bytes exceeds the limit of {MAX_BATCH_BYTES:,}; split it")
        self._pending_seq.update(last)
        self._deleting.update(deleting)
        submission = Submission(batches, cost, critical, on_done)
        if self._running and not self._queue:  # before that there may be no Trio run, and no clock
            self._queued_since = trio.current_time()
        self._queue.append(submission)
        self._queued_bytes += cost
        if self._wake:
            self._wake.unpark_all()
        return submission

    @property
    def queued_bytes(self) -> int:
        """Bytes that were submitted and have no result yet."""
        return self._queued_bytes

    @property
    def has_room(self) -> bool:
        """Whether the queue is below its bound."""
        return self._queued_bytes < QUEUE_BYTES

    async def wait_room(self) -> None:
        """Return once the queue is below its bound. A checkpoint on every path."""
        if self._queued_bytes < QUEUE_BYTES:
            await trio.lowlevel.checkpoint()
        while self._queued_bytes >= QUEUE_BYTES:
            await self._room.park()

    async def wait_durable_beyond(self, lsn: int) -> bool:
        """Return True once the log is durable beyond `lsn`, False once it will never be (the writer has ended)."""
        await trio.lowlevel.checkpoint()
        while self.durable_lsn <= lsn:
            if self._ended or self._failed is not None:
                return False
            await self._advanced.park()
        return True

    @trio.lowlevel.enable_ki_protection
    def want_mark(self) -> None:
        """Have a mark written, if nothing else is to be written: it proves the last group durable (rows 2 to 5)."""
        self._mark_wanted = True
        self._wake.unpark_all()

    async def rotate(self) -> None:
        """Return once whatever was written before lies in segments that nothing is added to any more.

        Raises: `Closed`, `OSError`, `Fenced`.
        """
        await trio.lowlevel.checkpoint()
        self.check_open(critical=True)
        rotation = _Rotation()
        self._rotations.append(rotation)
        self._wake.unpark_all()
        await rotation.done.wait()
        if rotation.error is not None:
            raise rotation.error

    def forked(self) -> None:
        """This is a child of the process that opened the log: take nothing."""
        self.gate.is_open = False

    @trio.lowlevel.enable_ki_protection
    def finish(self) -> None:
        """Take no more submissions; `run` returns when the queue is on the medium and the segment is closed."""
        self._finishing = True
        self.gate.is_open = False
        self._wake.unpark_all()

    # ---- the task ----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Commit groups until `finish`. If cancelled, what is queued is resolved as `OutcomeUnknown`."""
        self._queued_since, self._running = trio.current_time(), True
        try:
            while self._failed is None:
                if self._rotations:
                    await self._rotate()
                    continue
                if not self._queue:
                    if self._finishing:
                        break
                    if self._mark_wanted:
                        await self._mark()
                        continue
                    await self._park()
                    continue
                await self._commit(self._take_group())
            if self._failed is None:
                await self._close_segment()
        finally:
            self._finishing = self._ended = True
            self.gate.is_open = False
            error = OutcomeUnknown("the log was closed before the write had reached the medium")
            self._resolve_all(list(self._queue), error)
            self._queue.clear()
            for rotation in self._rotations:
                rotation.error = Closed(f"the log in {self._log.path!r} was closed")
                rotation.done.set()
            self._advanced.unpark_all()
            self._room.unpark_all()

    async def _park(self) -> None:
        if self._full_since_error is None:
            await self._wake.park()
            return
        with trio.move_on_after(RETRY_FULL_SECONDS):
            await self._wake.park()
            return
        await self._look_for_room()

    def _take_group(self) -> list[Submission]:
        self._group_since = self._queued_since
        group = [self._queue.popleft()]
        if self._one_by_one:
            self._one_by_one -= 1
            return group
        size = group[0].cost
        while self._queue and size + self._queue[0].cost <= MAX_GROUP_BYTES:
            size += self._queue[0].cost
            group.append(self._queue.popleft())
        return group

    async def _commit(self, group: list[Submission]) -> None:
        batches = [batch for submission in group for batch in submission.batches]
        try:
            segment = await self._segment_for(sum(submission.cost for submission in group))
            if self._encode is None:
                frame = segment.prepare(batches)
            else:
                frame = await self._blocking(self._prepare_encoded, segment, batches)
            began = time.perf_counter()
            try:
                await self._blocking(segment.write, frame)
            except OSError as error:
                await self._leave_segment(group, error)
                return
            if time.perf_counter() - began > SLOW_SYNC_SECONDS:
                self._note_slow_sync(time.perf_counter() - began)
        except OSError as error:  # no segment could be made
            await self._no_segment(group, error)
            return
        except Fenced as error:
            self._fail(group, error)
            return
        except (Unavailable, InvalidInput, KeyDestroyed) as error:  # of the keys; nothing was written
            if len(group) > 1:  # one stream whose key cannot be had must not cost the others their records
                self._queue.extendleft(reversed(group))
                self._one_by_one = len(group)
                return
            self._resolve_all(group + self._dependents(group), error)
            return
        except BaseException:
            self._resolve_all(group, OutcomeUnknown("the log was closed while the write was on its way to the medium"))
            raise
        # From here to the end no checkpoint: the group is on the medium, and everybody concerned must learn it.
        self._acknowledge(segment, frame, group)

    def _acknowledge(self, segment: Segment, frame: Frame, group: list[Submission]) -> None:
        segment.acknowledge(frame)
        self._log.index.add_frame(frame.at, frame.end, frame.first_lsn, frame.last_lsn, frame.header_crc, frame.entries)
        self.durable_lsn = frame.last_lsn
        stats, now = self.stats, trio.current_time()
        records = frame.last_lsn - frame.first_lsn + 1
        stats.groups += 1
        stats.syncs += 1
        stats.records += records
        stats.bytes_written += len(frame.data)
        stats.largest_group = max(stats.largest_group, records)
        stats.commit_latency.add(now - self._group_since)
        lsn = frame.first_lsn
        for submission in group:
            batches, first = submission.batches, lsn
            self._forget(submission.cost, batches)
            for batch in batches:
                lsn += len(batch.payloads)
            submission.resolve(first)
        self._advanced.unpark_all()
        self._room.unpark_all()
        self.last_commit = now
        if not self.is_unmarked:
            self.is_unmarked = True
            self.caretaker.unpark_all()
        elif segment.used > SPARE_WHEN_USED and not self._sequence.has_spare:
            self.caretaker.unpark_all()

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
        self.stats.slow_syncs += 1
        self.stats.longest_sync_seconds = max(self.stats.longest_sync_seconds, seconds)
        sentence = f"a write to the log in {self._log.path} took {seconds:.1f} s to reach the medium"
        _logger.warning("%s", sentence)
        self.notices.tell("slow_sync", sentence)

    async def _mark(self) -> None:
        wanted, self._mark_wanted, self.is_unmarked = self.is_unmarked, False, False
        segment = self._log.segment
        if segment is None or not wanted or self.is_full:  # what room is left is for endings
            return
        frame = segment.mark()
        try:
            await self._blocking(segment.write, frame)
        except OSError as error:
            await self._leave_segment([], error)
            return
        segment.acknowledge(frame)
        self._log.index.add_mark(frame.end, frame.header_crc)
        self.stats.marks += 1

    def _forget(self, cost: int, batches: Sequence[Batch]) -> None:
        """Drop what `submit` noted of a submission whose result is known."""
        self._queued_bytes -= cost
        for batch in batches:
            stream, flags = batch.stream, batch.flags
            if flags > MAX_PLAIN_FLAGS:
                if flags & KIND_FLAGS == FLAG_SNAPSHOT:
                    continue
                self._deleting.discard(stream)
            if self._pending_seq.get(stream) == batch.first_seq + len(batch.payloads) - 1:
                del self._pending_seq[stream]

    def _resolve_all(self, submissions: list[Submission], error: StepwellError) -> None:
        for submission in submissions:  # all of them first: what `on_done` submits must not continue a failed batch
            self._forget(submission.cost, submission.batches)
        for submission in submissions:
            submission.resolve(error=error)
        self._room.unpark_all()

    async def _segment_for(self, size: int) -> Segment:
        segment = self._log.segment
        if segment is None:
            self._go_on_in(await self._blocking(self._sequence.begin))
        elif not segment.has_room(size) or not self._log.index.newest_has_room:
            await self._leave_behind(segment)
        assert self._log.segment is not None
        return self._log.segment

    async def _rotate(self) -> None:
        """Go on in another segment, if anything was written to this one."""
        wanted, self._rotations = self._rotations, []
        segment = self._log.segment
        error: OSError | StepwellError | None = Closed(f"the log in {self._log.path!r} was closed")
        try:
            if segment is not None and segment.cut.end_lsn >= segment.header.first_lsn:
                await self._leave_behind(segment)
            error = None
        except (OSError, Fenced) as failure:
            error = failure
            if isinstance(failure, Fenced) or failure.errno not in NO_ROOM:
                self._fail([], failure)  # the next segment may be there, and names the end of this one
        finally:  # also when cancelled
            for rotation in wanted:
                rotation.error = error
                rotation.done.set()

    def _begin_next(self, cut: Cut) -> Segment:
        return self._sequence.begin(cut, new_epoch=False)

    async def _leave_behind(self, segment: Segment) -> None:
        new = await self._blocking(self._begin_next, segment.cut)
        # From here on the old segment is history; the caretaker gives it a footer.
        self._log.unsealed.append((segment, self._log.index.segments[-1], list(self._log.index.open_streams)))
        self.caretaker.unpark_all()
        self._go_on_in(new)

    def _go_on_in(self, new: Segment) -> None:
        self.stats.segments_begun += 1
        self.is_unmarked = False  # the header of the new segment proves what the mark would
        self._log.begin_segment(new)

    async def _leave_segment(self, group: list[Submission], error: OSError) -> None:
        """A write or its sync failed: cut the log at the last acknowledged record, go on in a fresh segment."""
        self.stats.write_errors += 1
        segment = self._log.segment
        assert segment is not None
        no_room = error.errno in NO_ROOM
        try:
            new = await self._blocking(self._begin_after_error, segment.cut, no_room)
        except (OSError, Fenced) as second:
            second.__context__ = error
            self._fail(group, second)
            return
        finally:
            segment.release()
            self._log.segment = None
        self._go_on_in(new)
        cause: StepwellError
        if not no_room:
            _logger.warning("a write to the log in %s failed (%s); it goes on in a new file", self._log.path, error)
        if no_room:
            self._set_full(error)
            cause = LogFull(f"the medium had no room for this write ({error.strerror}); it is not stored")
        else:
            cause = OutcomeUnknown(f"writing to the medium failed ({error}); whether it is stored cannot be told")
        cause.__cause__ = error
        if no_room:
            self._refuse_for_room(group, cause)
        else:
            self._resolve_all(group + self._dependents(group), cause)

    def _begin_after_error(self, cut: Cut, no_room: bool) -> Segment:
        if no_room and self._log.reserve is not None:
            self._log.reserve.spend()
        return self._sequence.begin(cut, preallocate=not no_room)

    async def _no_segment(self, group: list[Submission], error: OSError) -> None:
        """No segment could be made, and nothing was written: without room that is `LogFull`, else the end.

        What is critical in the group is tried once more if the reserve can be spent for it.
        """
        if error.errno not in NO_ROOM:
            self._fail(group, error)
            return
        self._set_full(error)
        cause = LogFull(f"the medium has no room for another segment ({error.strerror}); this is not stored")
        cause.__cause__ = error
        self._queue.extendleft(reversed(group))  # before the checkpoint: a cancelled `run` resolves what is queued
        spent = False
        if self._log.reserve is not None and any(submission.critical for submission in group):
            with contextlib.suppress(OSError):
                spent = await self._blocking(self._log.reserve.spend)
        self._refuse_for_room([] if spent else [self._queue.popleft() for _ in group], cause)

    @trio.lowlevel.enable_ki_protection
    def _set_full(self, error: OSError | None) -> None:
        was_full, self._full_since_error = self.is_full, error
        self.gate.is_open = error is None and self._failed is None and not self._finishing
        if error is not None and not was_full:
            sentence = (
                f"the log in {self._log.path} is full ({error.strerror}); only endings are taken until there is room"
            )
            _logger.error("%s", sentence)
            self.notices.tell("log_full", sentence)
        elif error is None and was_full:
            sentence = f"the log in {self._log.path} has room again, and takes writes"
            _logger.warning("%s", sentence)
            self.notices.tell("log_has_room", sentence)

    def _dependents(self, group: list[Submission]) -> list[Submission]:
        """Take from the queue what continues a stream of a failed group: its sequence numbers no longer fit."""
        streams = {batch.stream for submission in group for batch in submission.batches}
        kept: deque[Submission] = deque()
        taken: list[Submission] = []
        for submission in self._queue:
            if streams.isdisjoint(batch.stream for batch in submission.batches):
                kept.append(submission)
            else:
                taken.append(submission)
                streams.update(batch.stream for batch in submission.batches)
        self._queue = kept
        return taken

    def _refuse_for_room(self, refused: list[Submission], cause: StepwellError) -> None:
        """Refuse these, and of the queue all that is not critical or that continues a stream of what is refused."""
        streams = {batch.stream for submission in refused for batch in submission.batches}
        kept: deque[Submission] = deque()
        for submission in self._queue:
            if submission.critical and streams.isdisjoint(batch.stream for batch in submission.batches):
                kept.append(submission)
            else:
                refused.append(submission)
                streams.update(batch.stream for batch in submission.batches)
        self._queue = kept
        self._resolve_all(refused, cause)

    @trio.lowlevel.enable_ki_protection
    def _fail(self, group: list[Submission], error: BaseException) -> None:
        self._failed = error
        self.gate.is_open = False
        cause = OutcomeUnknown(f"the log failed ({error}); whether this is stored cannot be told")
        cause.__cause__ = error
        self._resolve_all(group + list(self._queue), cause)
        self._queue.clear()
        self._advanced.unpark_all()

    async def _look_for_room(self) -> None:
        """With the disk full: if the reserve can be set aside again, there is room; take writes again."""
        assert self._log.reserve is not None
        try:
            if self._log.pending_repair is not None:
                segment, _quarantined = await self._blocking(self._log.pending_repair.carry_out)
                self._log.pending_repair = None
                if segment is not None:
                    self._go_on_in(segment)
                self.caretaker.unpark_all()
            found = await self._blocking(self._log.reserve.set_aside)
        except (OSError, RecoveryFailed):
            return  # still no room; the next attempt is RETRY_FULL_SECONDS away
        except Fenced as error:
            self._fail([], error)
            return
        if found:
            self._set_full(None)

    async def _close_segment(self) -> None:
        segment = self._log.segment
        if segment is None:
            return
        newest = self._log.index.segments[-1]
        assert isinstance(newest.index, LiveIndex)
        try:
            # Cancelled, it has not begun, and the segment is released with the log.
            await self._blocking(segment.seal, newest.index, list(self._log.index.open_streams))
        except OSError as error:
            # Every acknowledged record is durable without the footer; the next open reads the frames instead.
            segment.release()
            self.stats.write_errors += 1
            if error.errno not in NO_ROOM:
                self._failed = error
        else:
            newest.sealed = True
            self.stats.segments_sealed += 1
        self._log.segment = None

    async def _blocking(self, call: Callable[..., T], *args: Any) -> T:
        """Make a blocking call of the file layer: in the writer's own worker thread if it can block at all.

        A call that has started is finished, whatever is cancelled meanwhile, and its result is returned.
        """
        self._log.check_process()
        if self._log.files.needs_thread:
            return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)
        await trio.lowlevel.checkpoint()
        return call(*args)
