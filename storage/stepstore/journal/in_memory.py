"""The journal without a medium: for `:memory:`, and for tests that want no files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import trio

from stepstore.errors import Closed, InvalidInput, InvalidState, OutcomeUnknown, StepwellError, TooLarge
from stepstore.journal.contract import (
    SLICE_BYTES,
    SLICE_RECORDS,
    ArchiveReport,
    Batch,
    CompactionReport,
    DeletionReport,
    Gap,
    Gate,
    JournalReport,
    JournalStats,
    Record,
    Submission,
)
from stepstore.journal.following import FollowedSlices
from stepstore.journal.in_memory_streams import InMemoryStreams
from stepstore.log.cursor import Cursor, parse_cursor
from stepstore.log.frame import (
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    KIND_FLAGS,
    MAX_BATCH_BYTES,
    batch_cost,
)
from stepstore.log.submission import MAX_PLAIN_FLAGS, STREAM_ID_BYTES, check_kind, listed
from stepstore.notices import Notices
from stepstore.restarting import Service


class InMemoryJournal:
    """A `Journal` for the life of the process. "Durable" means: as durable as the process.

    It goes on with what `kept` holds, and stores there.
    """

    def __init__(self, kept: InMemoryStreams | None = None) -> None:
        self._kept = InMemoryStreams() if kept is None else kept
        self._deleting: set[bytes] = set()  # streams whose tombstone is queued
        self._pending_seq: dict[bytes, int] = {}
        self._queue: deque[Submission] = deque()
        self._wake = trio.lowlevel.ParkingLot()
        self._advanced = trio.lowlevel.ParkingLot()
        self._finishing = self._ended = self._released = False
        self.report = JournalReport(records=len(self._kept.order), open_streams=len(self._kept.open))
        self.stats = JournalStats()
        self.gate = Gate()
        self.notices = Notices()
        self.services: tuple[Service, ...] = ()

    @property
    def failed(self) -> BaseException | None:
        return None

    @property
    def durable_lsn(self) -> int:
        """The last LSN."""
        return len(self._kept.order)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        try:
            while True:
                if self._queue:
                    await trio.lowlevel.checkpoint()
                    await self._commit_queued()
                elif self._finishing:
                    await trio.lowlevel.checkpoint()
                    return
                else:
                    await self._wake.park()
        finally:
            self._finishing = self._ended = True
            self.gate.is_open = False
            left = list(self._queue)
            self._queue.clear()
            self._refuse(left, OutcomeUnknown("the memory was closed before this was stored"))
            self._advanced.unpark_all()

    async def _commit_queued(self) -> None:
        """Store what is queued. No checkpoint of its own: `run` has one before each call."""
        while self._queue:
            submission = self._queue.popleft()
            first_lsn = self._store(submission, submission.batches)
            submission.resolve(first_lsn)
        self._advanced.unpark_all()

    def _store(self, submission: Submission, batches: Sequence[Batch]) -> int:
        """Store `batches` as those of a submission, which is to be resolved next; gives its first LSN."""
        first_lsn = self._kept.store(batches)
        records = len(self._kept.order) + 1 - first_lsn
        self._forget(submission)
        self.stats.groups += 1
        self.stats.records += records
        self.stats.largest_group = max(self.stats.largest_group, records)
        return first_lsn

    def _forget(self, submission: Submission) -> None:
        """Drop what `submit` noted of a submission whose result is known."""
        for batch in submission.batches:
            stream, flags = batch.stream, batch.flags
            if flags & KIND_FLAGS == FLAG_SNAPSHOT:
                continue
            if flags & KIND_FLAGS == FLAG_TOMBSTONE:
                self._deleting.discard(stream)
            if self._pending_seq.get(stream) == batch.first_seq + len(batch.payloads) - 1:
                del self._pending_seq[stream]

    def _refuse(self, submissions: Sequence[Submission], error: StepwellError) -> None:
        for submission in submissions:  # all of them first: what `on_done` submits must not continue a failed batch
            self._forget(submission)
        for submission in submissions:
            submission.resolve(error=error)

    def finish(self) -> None:
        self._finishing = True
        self.gate.is_open = False
        self._wake.unpark_all()

    def release(self) -> None:
        self._released = True

    def check_open(self, *, critical: bool = False) -> None:
        if self._finishing:
            raise Closed("the memory is closed")

    @trio.lowlevel.enable_ki_protection
    def submit(
        self,
        batches: Batch | Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        self.check_open(critical=critical)
        cost = sum(batch_cost(sum(map(len, batch.payloads)), len(batch.payloads)) for batch in listed(batches))
        if cost > MAX_BATCH_BYTES:
            raise TooLarge(f"a batch of {cost:,} bytes exceeds the limit of {MAX_BATCH_BYTES:,}; split it")
        last: dict[bytes, int] = {}
        deleting: list[bytes] = []
        for batch in listed(batches):
            stream, first_seq, payloads, flags = batch.stream, batch.first_seq, batch.payloads, batch.flags
            if len(stream) != STREAM_ID_BYTES or not payloads:
                raise InvalidInput("a batch has a stream id of 16 bytes and at least one record")
            before = last.get(stream, self.last_seq(stream))
            if stream in self._kept.deleted or stream in self._deleting or stream in deleting:
                raise InvalidState(
                    f"stream {stream.hex()} is deleted; nothing can be added to it, and its id stays taken"
                )
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
        self._pending_seq.update(last)
        self._deleting.update(deleting)
        submission = Submission(batches, cost, critical, on_done)
        self._queue.append(submission)
        self._wake.unpark_all()
        return submission

    @property
    def has_room(self) -> bool:
        return True

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()

    def last_seq(self, stream: bytes) -> int:
        return self._pending_seq.get(stream) or self.durable_seq(stream)

    def durable_seq(self, stream: bytes) -> int:
        return self._kept.last_seq(stream)

    def is_deleted(self, stream: bytes) -> bool:
        return stream in self._kept.deleted

    async def catch_up(self) -> None:
        await trio.lowlevel.checkpoint()

    async def look_up(self, stream: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return self.durable_seq(stream)

    async def forget(self, stream: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if stream not in self._kept.deleted:
            raise InvalidState(f"stream {stream.hex()} is not deleted; its records would be lost with its key")

    async def read_snapshot(self, stream: bytes) -> Record | None:
        await trio.lowlevel.checkpoint()
        return self._kept.snapshots.get(stream)

    async def rotate(self) -> None:
        await trio.lowlevel.checkpoint()

    async def compact(self, *, purge: bool = False) -> CompactionReport:
        await trio.lowlevel.checkpoint()  # a deletion has given everything back
        return DeletionReport(streams_purged=len(self._kept.deleted), out_of_reach=()) if purge else CompactionReport()

    async def archive(self, target: str) -> ArchiveReport:
        await trio.lowlevel.checkpoint()
        raise InvalidInput("a memory that keeps nothing on disk cannot be archived; give open_memory a path")

    def cursor(self, lsn: int) -> str:
        return str(Cursor(self._kept.log_uuid, self._kept.log_uuid, int(lsn > 0), lsn))

    def check_cursor(self, text: str) -> int:
        cursor = parse_cursor(text)
        if cursor is None:
            raise InvalidInput(f"cursor: {text!r} is no cursor; take one from an event")
        if cursor.log_uuid != self._kept.log_uuid or cursor.lsn > len(self._kept.order):
            raise InvalidInput("cursor: it belongs to another memory than this one, which keeps nothing on disk")
        if cursor.branch_uuid != self._kept.log_uuid:
            raise InvalidState("cursor: it is of another branch; begin from the start, or from where you know of")
        return cursor.lsn

    def streams(self) -> Iterator[bytes]:
        return iter([stream for stream in self._kept.records if stream not in self._kept.deleted])

    def open_streams(self) -> Iterator[bytes]:
        return iter(list(self._kept.open))

    def read(self, stream: bytes, after: int = 0, *, catch_up: bool = False) -> InMemorySlices:
        return InMemorySlices(self, stream, after)

    def follow(self, after_lsn: int = 0) -> InMemoryFollower:
        return InMemoryFollower(self, after_lsn)


class InMemorySlices:
    """The records of one stream, slice by slice."""

    def __init__(self, journal: InMemoryJournal, stream: bytes, after: int):
        self._journal, self._stream, self._after = journal, stream, after
        is_deleted = journal.is_deleted(stream)
        self._records = [] if is_deleted else journal._kept.records.get(stream, [])
        self._end = 0 if is_deleted else journal.durable_seq(stream)

    async def next_slice(self) -> list[Record]:
        await trio.lowlevel.checkpoint()
        if self._journal._released:
            raise Closed("the memory is closed, and it kept nothing on disk")
        found: list[Record] = []
        size = 0
        for lsn, payload in self._records[self._after : min(self._after + SLICE_RECORDS, self._end)]:
            assert payload is not None, "only the list of a deleted stream lacks payloads"
            size += len(payload)
            if size > SLICE_BYTES and found:
                break
            self._after += 1
            found.append(Record(self._stream, self._after, lsn, payload))
        return found


class InMemoryFollower(FollowedSlices):
    """Everything behind an LSN in log order, slice by slice, as it is stored."""

    def __init__(self, journal: InMemoryJournal, after_lsn: int):
        super().__init__()
        self._journal, self._after = journal, after_lsn

    @property
    def position(self) -> int:
        return self._after

    async def wait_for_more(self) -> bool:
        journal = self._journal
        await trio.lowlevel.checkpoint()
        while self._after >= len(journal._kept.order):
            if journal._ended:
                return False
            await journal._advanced.park()
        return True

    async def next_slice(self) -> list[Record | Gap] | None:
        journal, start = self._journal, self._after
        if not await self.wait_for_more():
            return None
        end = self._after = min(start + SLICE_RECORDS, len(journal._kept.order))
        return [
            Record(stream, seq, start + n + 1, payload)
            for n, (stream, seq) in enumerate(journal._kept.order[start:end])
            if seq and (payload := journal._kept.records[stream][seq - 1][1]) is not None
        ]
