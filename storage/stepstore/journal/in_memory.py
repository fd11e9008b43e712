"""The journal that keeps nothing: for `:memory:`, and for tests that want no files."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import trio

from stepstore.errors import Closed, InvalidInput, InvalidState, OutcomeUnknown, TooLarge
from stepstore.journal.contract import SLICE_RECORDS, Batch, Gate, JournalReport, JournalStats, Record, Submission
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, MAX_BATCH_BYTES, batch_cost
from stepstore.log.writer import STREAM_ID_BYTES


class InMemoryJournal:
    """A `Journal` for the life of the process. "Durable" means: as durable as the process."""

    def __init__(self) -> None:
        self._streams: dict[bytes, list[tuple[int, bytes]]] = {}  # per stream (lsn, payload), seq is the position
        self._order: list[tuple[bytes, int]] = []  # (stream, seq) by LSN
        self._open: dict[bytes, None] = {}
        self._pending_seq: dict[bytes, int] = {}
        self._queue: deque[Submission] = deque()
        self._wake = trio.lowlevel.ParkingLot()
        self._advanced = trio.lowlevel.ParkingLot()
        self._finishing = self._ended = self._released = False
        self.report = JournalReport()
        self.stats = JournalStats()
        self.gate = Gate()

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
            records = self._streams.setdefault(stream, [])
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
        for stream, first_seq, payloads, _flags in batches:
            if len(stream) != STREAM_ID_BYTES or not payloads:
                raise InvalidInput("a batch has a stream id of 16 bytes and at least one record")
            before = last.get(stream, self.last_seq(stream))
            if first_seq != before + 1:
                raise InvalidState(
                    f"stream {stream.hex()} ends with seq {before}, so seq {first_seq} does not continue it; read what "
                    "was written meanwhile"
                )
            last[stream] = before + len(payloads)
        self._pending_seq.update(last)
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

    def streams(self) -> Iterator[bytes]:
        return iter(list(self._streams))

    def open_streams(self) -> Iterator[bytes]:
        return iter(list(self._open))

    def read(self, stream: bytes, after: int = 0) -> InMemorySlices:
        return InMemorySlices(self, stream, after)

    @trio.as_safe_channel
    async def follow(self, after_lsn: int = 0) -> AsyncGenerator[list[Record], None]:
        while True:
            while after_lsn < len(self._order):
                end = min(after_lsn + SLICE_RECORDS, len(self._order))
                yield [
                    Record(stream, seq, after_lsn + n + 1, self._streams[stream][seq - 1][1])
                    for n, (stream, seq) in enumerate(self._order[after_lsn:end])
                ]
                after_lsn = end
            if self._ended:
                return
            await self._advanced.park()


class InMemorySlices:
    """The records of one stream, slice by slice."""

    def __init__(self, journal: InMemoryJournal, stream: bytes, after: int):
        self._journal, self._stream, self._after = journal, stream, after
        self._records, self._end = journal._streams.get(stream, []), journal.durable_seq(stream)

    async def next_slice(self) -> list[Record]:
        await trio.lowlevel.checkpoint()
        if self._journal._released:
            raise Closed("the memory is closed, and it kept nothing")
        start, self._after = self._after, min(self._after + SLICE_RECORDS, self._end)
        return [
            Record(self._stream, start + n + 1, lsn, payload)
            for n, (lsn, payload) in enumerate(self._records[start : self._after])
        ]
