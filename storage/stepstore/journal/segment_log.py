"""The journal on a segment log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import trio

from stepstore.errors import Closed, Damaged, Forked
from stepstore.journal.contract import SLICE_BYTES, SLICE_RECORDS, Batch, Gate, JournalReport, Record, Submission
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.index import STREAM_FORKED, STREAM_GAP
from stepstore.log.opening import LogOptions, OpenLog, open_log, open_log_read_only
from stepstore.log.reading import SegmentReader
from stepstore.log.writer import LogWriter, WriterStats

T = TypeVar("T")


class SegmentLogJournal:
    """A `Journal` in a directory. Make one with `open` or `open_read_only`, which block."""

    def __init__(self, log: OpenLog):
        self._log = log
        self._writer = LogWriter(log) if log.sequence is not None else None
        self._reader = SegmentReader(log.files, log.paths)
        self._read_limiter = trio.CapacityLimiter(1)
        self._released = False
        self.report: JournalReport = log.report
        self.gate = Gate() if self._writer is None else self._writer.gate
        self.gate.is_open = self._writer is not None

    @classmethod
    def open(cls, path: str, options: LogOptions | None = None, files: FileSystem | None = None) -> SegmentLogJournal:
        """Open for writing; a log is made where there is none.

        Raises: `LogLocked`, `InvalidInput`, `CorruptLog`, `RecoveryFailed`.
        """
        return cls(open_log(files or OsFileSystem(), path, options))

    @classmethod
    def open_read_only(cls, path: str, files: FileSystem | None = None) -> SegmentLogJournal:
        """Look at a log as it is now; nothing is locked or changed.

        Raises: `NotFound`, `InvalidInput`, `CorruptLog`, `RecoveryFailed`.
        """
        return cls(open_log_read_only(files or OsFileSystem(), path))

    @property
    def stats(self) -> WriterStats:
        """Counts of the writer since opening; all zero when opened for reading."""
        return WriterStats() if self._writer is None else self._writer.stats

    @property
    def durable_lsn(self) -> int:
        """Up to where everything is on the medium."""
        return self._log.end_lsn if self._writer is None else self._writer.durable_lsn

    @property
    def failed(self) -> BaseException | None:
        return None if self._writer is None else self._writer.failed

    async def run(self) -> None:
        if self._writer is not None:
            await self._writer.run()
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.finish()

    def release(self) -> None:
        self._released = True
        self._reader.close()
        self._log.release()

    def _writing(self) -> LogWriter:
        if self._writer is None:
            raise Closed(f"the memory in {self._log.path!r} was opened with read_only=True and takes no writes")
        return self._writer

    def check_open(self, *, critical: bool = False) -> None:
        self._writing().check_open(critical=critical)

    def submit(
        self,
        batches: Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        return self._writing().submit(batches, critical=critical, on_done=on_done)

    @property
    def has_room(self) -> bool:
        return self._writing().has_room

    async def wait_room(self) -> None:
        if self._writer is None:
            await trio.lowlevel.checkpoint()
        await self._writing().wait_room()

    def last_seq(self, stream: bytes) -> int:
        return self.durable_seq(stream) if self._writer is None else self._writer.last_seq(stream)

    def durable_seq(self, stream: bytes) -> int:
        return self._log.index.last_seq(stream)

    def streams(self) -> Iterator[bytes]:
        return self._log.index.streams()

    def open_streams(self) -> Iterator[bytes]:
        return self._log.index.streams_still_open()

    def read(self, stream: bytes, after: int = 0) -> StreamSlices:
        return StreamSlices(self, stream, after)

    @trio.as_safe_channel
    async def follow(self, after_lsn: int = 0) -> AsyncGenerator[list[Record], None]:
        index = self._log.index
        number = index.frame_at_lsn(after_lsn + 1)
        while True:
            while number < index.frame_count:
                segment, offset = index.frame_place(number)
                found = await self._blocking(self._reader.read_frame, segment, offset)
                found = [record for record in found if record.lsn > after_lsn]
                for start in range(0, len(found), SLICE_RECORDS):
                    yield found[start : start + SLICE_RECORDS]
                if found:
                    after_lsn = found[-1].lsn
                number += 1
            if self._writer is None or not await self._writer.wait_durable_beyond(after_lsn):
                return

    async def _blocking(self, call: Callable[..., T], *args: Any) -> T:
        """Make a blocking call of the file layer in the reader's own thread, if it can block at all.

        Raises: `Closed` after `release`, when nobody would close the file again.
        """
        if self._released:
            await trio.lowlevel.checkpoint()
            raise Closed(f"the memory in {self._log.path!r} is closed; open it again to read")
        if self._log.files.needs_thread:
            return await trio.to_thread.run_sync(call, *args, limiter=self._read_limiter)
        await trio.lowlevel.checkpoint()
        return call(*args)


class StreamSlices:
    """The records of one stream, slice by slice."""

    def __init__(self, journal: SegmentLogJournal, stream: bytes, after: int):
        self._journal, self._stream, self._after = journal, stream, after
        self._runs = journal._log.index.run_numbers_after(stream, after)
        self._next = 0

    async def next_slice(self) -> list[Record]:
        journal, index = self._journal, self._journal._log.index
        unsound = index.flags(self._stream) & (STREAM_FORKED | STREAM_GAP)
        if self._next >= len(self._runs):
            await trio.lowlevel.checkpoint()
            if unsound:
                self._raise_unsound(unsound)
            return []
        records = size = 0
        start = end = self._next
        while end < len(self._runs):
            run = index.run(self._runs[end])
            if end > start and (records + run.records > SLICE_RECORDS or size + run.size > SLICE_BYTES):
                break
            records, size = records + run.records, size + run.size
            end += 1
        found: list[Record] = await journal._blocking(self._fetch, start, end)
        self._next = end  # only now: cancelled or failed, the next call gives the same records
        return [record for record in found if record.seq > self._after] if start == 0 else found

    def _fetch(self, start: int, end: int) -> list[Record]:
        found: list[Record] = []
        for number in self._runs[start:end]:
            found += self._journal._reader.read_run(self._stream, self._journal._log.index.run(number))
        return found

    def _raise_unsound(self, flags: int) -> None:
        path, seq = self._journal._log.path, self._journal.durable_seq(self._stream)
        if flags & STREAM_FORKED:
            raise Forked(
                f"two different records carry one number in a stream of {path!r}; it is readable up to seq {seq}",
                file=path,
                streams=(self._stream,),
                row=11,
            )
        raise Damaged(
            f"a record behind seq {seq} is missing from one stream of {path!r}",
            file=path,
            streams=(self._stream,),
            row=8,
        )
