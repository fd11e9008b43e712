"""The journal that keeps nothing: for `:memory:`, and for tests that want no files."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import trio

from stepstore.errors import Closed, InvalidInput, InvalidState, OutcomeUnknown, TooLarge
from stepstore.journal.contract import (
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
from stepstore.log.cursor import Cursor, parse_cursor
from stepstore.log.frame import (
    FLAG_CLOSES,
    FLAG_OPENS,
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    KIND_FLAGS,
    MAX_BATCH_BYTES,
    batch_cost,
)
from stepstore.log.writer import MAX_PLAIN_FLAGS, STREAM_ID_BYTES, check_kind
from stepstore.notices import Notices
from stepstore.restarting import Service


class InMemoryJournal:
    """A `Journal` for the life of the process. "Durable" means: as durable as the process."""

    def __init__(self) -> None:
        # Per stream (lsn, payload), seq is the position; the payloads of a deleted stream but its last are None.
        self._streams: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self._order: list[tuple[bytes, int]] = []  # (stream, seq) by LSN; seq 0 stands for a snapshot
        self._snapshots: dict[bytes, Record] = {}
        self._deleted: set[bytes] = set()
        self._deleting: set[bytes] = set()  # streams whose tombstone is queued
        self._log_uuid = uuid.uuid4()
        self._open: dict[bytes, None] = {}
        self._pending_seq: dict[bytes, int] = {}
        self._queue: deque[Submission] = deque()
        self._wake = trio.lowlevel.ParkingLot()
        self._advanced = trio.lowlevel.ParkingLot()
        self._finishing = self._ended = self._released = False
        self.report = JournalReport()
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
        return len(self._order)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        try:
            while True:
                if self._queue:
                    await trio.lowlevel.checkpoint()
                    while self._queue:
                        self._store(self._queue.popleft())
                    self._advanced.unpark_all()
                elif self._finishing:
                    await trio.lowlevel.checkpoint()
                    return
                else:
                    await self._wake.park()
        finally:
            self._finishing = self._ended = True
            self.gate.is_open = False
            while self._queue:
                self._queue.popleft().resolve(error=OutcomeUnknown("the memory was closed before this was stored"))
            self._advanced.unpark_all()

    def _store(self, submission: Submission) -> None:
        first_lsn = len(self._order) + 1
        for stream, first_seq, payloads, flags in submission.batches:
            if flags & KIND_FLAGS == FLAG_SNAPSHOT:
                self._order.append((stream, 0))
                self._snapshots[stream] = Record(stream, first_seq, len(self._order), payloads[0])
                continue
            records = self._streams.setdefault(stream, [])
            if flags & KIND_FLAGS == FLAG_TOMBSTONE:
                # Another list: a reader that has begun goes on in the old one, as it would in a file.
                records = self._streams[stream] = [(lsn, None) for lsn, _payload in records]
                self._snapshots.pop(stream, None)
                self._deleted.add(stream)
                self._deleting.discard(stream)
            for payload in payloads:
                self._order.append((stream, len(records) + 1))
                records.append((len(self._order), payload))
            if self._pending_seq.get(stream) == first_seq + len(payloads) - 1:
                del self._pending_seq[stream]
            if flags & FLAG_CLOSES:
                self._open.pop(stream, None)
            elif flags & FLAG_OPENS:
                self._open[stream] = None
        self.stats.groups += 1
        self.stats.records = len(self._order)
        self.stats.largest_group = max(self.stats.largest_group, len(self._order) + 1 - first_lsn)
        submission.resolve(first_lsn)

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
        batches: Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        self.check_open(critical=critical)
        cost = sum(batch_cost(sum(map(len, batch.payloads)), len(batch.payloads)) for batch in batches)
        if cost > MAX_BATCH_BYTES:
            raise TooLarge(f"a batch of {cost:,} bytes exceeds the limit of {MAX_BATCH_BYTES:,}; split it")
        last: dict[bytes, int] = {}
        deleting: list[bytes] = []
        for stream, first_seq, payloads, flags in batches:
            if len(stream) != STREAM_ID_BYTES or not payloads:
                raise InvalidInput("a batch has a stream id of 16 bytes and at least one record")
            before = last.get(stream, self.last_seq(stream))
            if stream in self._deleted or stream in self._deleting or stream in deleting:
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
        return len(self._streams.get(stream, ()))

    def is_deleted(self, stream: bytes) -> bool:
        return stream in self._deleted

    async def catch_up(self) -> None:
        await trio.lowlevel.checkpoint()

    async def look_up(self, stream: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return self.durable_seq(stream)

    async def forget(self, stream: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if stream not in self._deleted:
            raise InvalidState(f"stream {stream.hex()} is not deleted; its records would be lost with its key")

    async def read_snapshot(self, stream: bytes) -> Record | None:
        await trio.lowlevel.checkpoint()
        return self._snapshots.get(stream)

    async def rotate(self) -> None:
        await trio.lowlevel.checkpoint()

    async def compact(self, *, purge: bool = False) -> CompactionReport:
        await trio.lowlevel.checkpoint()  # a deletion has given everything back
        return DeletionReport(streams_purged=len(self._deleted), out_of_reach=()) if purge else CompactionReport()

    async def archive(self, target: str) -> ArchiveReport:
        await trio.lowlevel.checkpoint()
        raise InvalidInput("a memory that keeps nothing on disk cannot be archived; give open_memory a path")

    def cursor(self, lsn: int) -> str:
        return str(Cursor(self._log_uuid, self._log_uuid, int(lsn > 0), lsn))

    def check_cursor(self, text: str) -> int:
        cursor = parse_cursor(text)
        if cursor is None:
            raise InvalidInput(f"cursor: {text!r} is no cursor; take one from an event")
        if cursor.log_uuid != self._log_uuid or cursor.lsn > len(self._order):
            raise InvalidInput("cursor: it belongs to another memory than this one, which keeps nothing")
        return cursor.lsn

    def streams(self) -> Iterator[bytes]:
        return iter([stream for stream in self._streams if stream not in self._deleted])

    def open_streams(self) -> Iterator[bytes]:
        return iter(list(self._open))

    def read(self, stream: bytes, after: int = 0) -> InMemorySlices:
        return InMemorySlices(self, stream, after)

    def follow(self, after_lsn: int = 0) -> InMemoryFollower:
        return InMemoryFollower(self, after_lsn)


class InMemorySlices:
    """The records of one stream, slice by slice."""

    def __init__(self, journal: InMemoryJournal, stream: bytes, after: int):
        self._journal, self._stream, self._after = journal, stream, after
        is_deleted = stream in journal._deleted
        self._records = [] if is_deleted else journal._streams.get(stream, [])
        self._end = 0 if is_deleted else journal.durable_seq(stream)

    async def next_slice(self) -> list[Record]:
        await trio.lowlevel.checkpoint()
        if self._journal._released:
            raise Closed("the memory is closed, and it kept nothing")
        start, self._after = self._after, min(self._after + SLICE_RECORDS, self._end)
        return [
            Record(self._stream, start + n + 1, lsn, payload)
            for n, (lsn, payload) in enumerate(self._records[start : self._after])
            if payload is not None  # which only the list of a deleted stream holds
        ]


class InMemoryFollower(FollowedSlices):
    """Everything behind an LSN in log order, slice by slice, as it is stored."""

    def __init__(self, journal: InMemoryJournal, after_lsn: int):
        super().__init__()
        self._journal, self._after = journal, after_lsn

    async def next_slice(self) -> list[Record | Gap] | None:
        journal, start = self._journal, self._after
        await trio.lowlevel.checkpoint()
        while start >= len(journal._order):
            if journal._ended:
                return None
            await journal._advanced.park()
        end = self._after = min(start + SLICE_RECORDS, len(journal._order))
        return [
            Record(stream, seq, start + n + 1, payload)
            for n, (stream, seq) in enumerate(journal._order[start:end])
            if seq and (payload := journal._streams[stream][seq - 1][1]) is not None
        ]
