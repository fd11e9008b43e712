"""What waits to be committed: batches are checked against the end of their streams as they are submitted, and taken as
groups."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from stepstore.errors import InvalidInput, InvalidState, StepwellError, TooLarge
from stepstore.log.admission import Admission
from stepstore.log.frame import (
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    KIND_FLAGS,
    MAX_BATCH_BYTES,
    MAX_GROUP_BYTES,
    Batch,
    batch_cost,
)
from stepstore.log.index import LogIndex
from stepstore.log.live_index import STREAM_DELETED, STREAM_FORKED
from stepstore.log.submission import MAX_PLAIN_FLAGS, STREAM_ID_BYTES, Submission, check_kind

QUEUE_BYTES = 64 * 1024 * 1024
UNWRITABLE = STREAM_DELETED | STREAM_FORKED


def _unwritable(stream: bytes, state: int) -> InvalidState:
    if state & STREAM_DELETED:
        return InvalidState(f"stream {stream.hex()} is deleted; nothing can be added to it, and its id stays taken")
    return InvalidState(
        f"stream {stream.hex()} is forked (row 11); it can be read up to there, and deleted, and takes no more writes"
    )


class CommitQueue:
    """Submissions on their way to the medium. `wake`: the writer's task parks here while there is nothing to do.

    `group_since`: when the oldest submission of the group that was taken last was submitted, on Trio's clock.
    """

    def __init__(self, index: LogIndex, admission: Admission):
        self._index, self._admission = index, admission
        self._queue: deque[Submission] = deque()
        self._queued_bytes = 0
        self._queued_since = self.group_since = 0.0  # of the oldest submission in the queue, and in the group
        self._has_clock = False
        self._pending_seq: dict[bytes, int] = {}
        self._deleting: set[bytes] = set()  # streams whose tombstone is queued
        self._one_by_one = 0  # so many submissions go in groups of their own
        self._room = trio.lowlevel.ParkingLot()
        self.wake = trio.lowlevel.ParkingLot()

    # ---- for everybody -----------------------------------------------------------------------------------------------

    def last_seq(self, stream: bytes) -> int:
        """The last sequence number of a stream, what is queued included."""
        pending = self._pending_seq.get(stream)
        return self._index.last_seq(stream) if pending is None else pending

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
        self._admission.check_open(critical=critical)
        cost = 0
        last: dict[bytes, int] = {}
        deleting: list[bytes] = []
        for batch in (batches,) if isinstance(batches, Batch) else batches:
            stream, first_seq, payloads, flags = batch.stream, batch.first_seq, batch.payloads, batch.flags
            if len(stream) != STREAM_ID_BYTES or not payloads:  # no reader would take such a frame for a sound one
                raise InvalidInput("a batch has a stream id of 16 bytes and at least one record")
            cost += batch_cost(sum(map(len, payloads)), len(payloads))
            before = last.get(stream)
            if before is None:
                before = self._pending_seq.get(stream)
                if before is None:
                    before, state = self._index.tail(stream)
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
        if self._has_clock and not self._queue:
            self._queued_since = trio.current_time()
        self._queue.append(submission)
        self._queued_bytes += cost
        if self.wake:
            self.wake.unpark_all()
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

    # ---- for the writer ----------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def start_clock(self) -> None:
        """The writer runs; before that there may be no Trio run, and no clock."""
        self._queued_since, self._has_clock = trio.current_time(), True

    def take_group(self) -> list[Submission]:
        """Take what is committed together next: all that waits, up to the bound of a group."""
        if not self._queue:
            return []
        self.group_since = self._queued_since
        group = [self._queue.popleft()]
        if self._one_by_one:
            self._one_by_one -= 1
            return group
        size = group[0].cost
        while self._queue and size + self._queue[0].cost <= MAX_GROUP_BYTES:
            size += self._queue[0].cost
            group.append(self._queue.popleft())
        return group

    def put_back(self, group: list[Submission]) -> None:
        """A group that was taken waits again, before all others."""
        self._queue.extendleft(reversed(group))

    def take_back(self, group: list[Submission]) -> list[Submission]:
        """Take what was put back."""
        return [self._queue.popleft() for _ in group]

    def split(self, group: list[Submission]) -> None:
        """A group that was taken waits again, and each submission of it goes in a group of its own."""
        self.put_back(group)
        self._one_by_one = len(group)

    def acknowledge(self, group: list[Submission], first_lsn: int) -> None:
        """A group is on the medium, from this record on: tell everybody concerned."""
        lsn = first_lsn
        for submission in group:
            batches, first = submission.batches, lsn
            self._forget(submission.cost, batches)
            for batch in batches:
                lsn += len(batch.payloads)
            submission.resolve(first)
        self._room.unpark_all()

    def fail(self, group: list[Submission], error: StepwellError) -> None:
        """Resolve a group with an error."""
        for submission in group:  # all of them first: what `on_done` submits must not continue a failed batch
            self._forget(submission.cost, submission.batches)
        for submission in group:
            submission.resolve(error=error)
        self._room.unpark_all()

    def fail_with_dependents(self, group: list[Submission], error: StepwellError) -> None:
        """Resolve a group with an error, and with it what continues a stream of it."""
        self.fail(group + self._take_dependents(group), error)

    @trio.lowlevel.enable_ki_protection
    def fail_all(self, group: list[Submission], error: StepwellError) -> None:
        """Resolve a group and all that waits with an error."""
        self.fail(group + list(self._queue), error)
        self._queue.clear()

    def refuse_for_room(self, refused: list[Submission], cause: StepwellError) -> None:
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
        self.fail(refused, cause)

    def _take_dependents(self, group: list[Submission]) -> list[Submission]:
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
