"""The journal on a segment log."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import trio

from stepstore.errors import (
    Closed,
    CorruptLog,
    Damaged,
    Forked,
    InvalidInput,
    InvalidState,
    RecoveryFailed,
    Unavailable,
)
from stepstore.journal.contract import SLICE_BYTES, SLICE_RECORDS, Batch, Gate, JournalReport, Record, Submission
from stepstore.journal.following import FollowedSlices
from stepstore.log.archive_report import ArchiveReport
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.compaction_report import CompactionReport
from stepstore.log.cursor import Cursor, epoch_of, judge_cursor, parse_cursor
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.live_index import STREAM_DELETED, STREAM_FORKED, STREAM_GAP
from stepstore.log.opening import LogOptions, OpenLog, open_log, open_log_read_only
from stepstore.log.records import Gap, Stored
from stepstore.log.refreshing import refresh
from stepstore.log.scrubber import LogScrubber
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import Position, StreamReader
from stepstore.log.writer import LogWriter
from stepstore.log.writer_stats import WriterStats
from stepstore.notices import Notices
from stepstore.restarting import RestartPolicy, Service

T = TypeVar("T")

AHEAD_RECORDS = 4 * SLICE_RECORDS
"""So many records of a stream are read in one turn of the reader's thread, from the second turn on: a turn costs what
reading two hundred steps does. Within SLICE_BYTES all the same. The first turn may be all that is asked for."""

_logger = logging.getLogger("stepstore.log")


class SegmentLogJournal:
    """A `Journal` in a directory. Make one with `open` or `open_read_only`, which block."""

    def __init__(self, log: OpenLog, restarts: RestartPolicy | None = None):
        self._log = log
        self._writer = LogWriter(log) if log.sequence is not None else None
        self._caretaker = None if self._writer is None else LogCaretaker(log, self._writer)
        self._stream_reader = StreamReader(log.reading, log.index, log.codec.decode)
        self._frame_reader = FrameReader(log.reading, log.index, log.codec.decode)
        self._read_limiter = trio.CapacityLimiter(1)
        self._released = False
        self.report: JournalReport = log.report
        self.notices = Notices() if self._writer is None else self._writer.notices
        self.services = self._services(restarts or RestartPolicy())
        self.gate = Gate() if self._writer is None else self._writer.admission.gate
        if self._writer is None:
            self.gate.is_open = False

    @classmethod
    def open(
        cls,
        path: str,
        options: LogOptions | None = None,
        files: FileSystem | None = None,
        restarts: RestartPolicy | None = None,
    ) -> SegmentLogJournal:
        """Open for writing; a log is made where there is none. `restarts`: of the services.

        Raises: `LogLocked`, `InvalidInput`, `CorruptLog`, `RecoveryFailed`.
        """
        log = open_log(files or OsFileSystem(), path, options)
        for note in log.report.notes:
            _logger.warning("opening the log in %s: %s", path, note)
        return cls(log, restarts)

    @classmethod
    def open_read_only(
        cls, path: str, options: LogOptions | None = None, files: FileSystem | None = None
    ) -> SegmentLogJournal:
        """Look at a log as it is now; nothing is locked or changed.

        Raises: `NotFound`, `InvalidInput`, `CorruptLog`, `RecoveryFailed`.
        """
        return cls(open_log_read_only(files or OsFileSystem(), path, options))

    @property
    def stats(self) -> WriterStats:
        """Counts of the writer since opening; all zero when opened for reading."""
        if self._writer is None:
            return WriterStats()
        self._writer.stats.queued_bytes = self._writer.queue.queued_bytes
        return self._writer.stats

    @property
    def durable_lsn(self) -> int:
        """Up to where everything is on the medium."""
        return self._log.end_lsn if self._writer is None else self._writer.watermark.lsn

    @property
    def failed(self) -> BaseException | None:
        return None if self._writer is None else self._writer.admission.failed

    def _services(self, restarts: RestartPolicy) -> tuple[Service, ...]:
        writer, caretaker, notices = self._writer, self._caretaker, self.notices
        if writer is None or caretaker is None:
            return ()
        compactor = caretaker.compactor
        return (
            Service(
                "log caretaker",
                caretaker.run,
                policy=restarts,
                notices=notices,
                progress=lambda: caretaker.settled,
                on_parked=caretaker.give_up,
            ),
            Service(
                "log compactor",
                compactor.run,
                policy=restarts,
                notices=notices,
                progress=lambda: compactor.files_rewritten,
            ),
            Service(
                "log scrubber",
                LogScrubber(self._log, writer.stats).run,
                # It sleeps most of the time, so having lived for long proves nothing.
                policy=replace(restarts, steady_seconds=math.inf),
                notices=notices,
                progress=lambda: writer.stats.scrubs,
            ),
        )

    async def run(self) -> None:
        if self._writer is None or self._caretaker is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            async with trio.open_nursery() as nursery:
                for service in self.services:
                    nursery.start_soon(service.run, name=f"stepwell {service.name}")
                await self._writer.run()
                nursery.cancel_scope.cancel()
        finally:
            try:
                await self._caretaker.finish()
            except Exception:
                _logger.exception("could not finish the files of the log in %s; the next opening does", self._log.path)
        await trio.lowlevel.checkpoint()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.finish()

    def release(self) -> None:
        self._released = True
        self._log.release()

    def _writing(self) -> LogWriter:
        if self._writer is None:
            raise Closed(f"the memory in {self._log.path!r} was opened with read_only=True and takes no writes")
        return self._writer

    def check_open(self, *, critical: bool = False) -> None:
        self._writing().admission.check_open(critical=critical)

    def submit(
        self,
        batches: Batch | Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        return self._writing().submit(batches, critical=critical, on_done=on_done)

    @property
    def has_room(self) -> bool:
        return self._writing().queue.has_room

    async def wait_room(self) -> None:
        if self._writer is None:
            await trio.lowlevel.checkpoint()
        await self._writing().queue.wait_room()

    def last_seq(self, stream: bytes) -> int:
        return self.durable_seq(stream) if self._writer is None else self._writer.queue.last_seq(stream)

    def durable_seq(self, stream: bytes) -> int:
        return self._log.index.last_seq(stream)

    def is_deleted(self, stream: bytes) -> bool:
        return bool(self._log.index.tail(stream)[1] & STREAM_DELETED)

    async def catch_up(self) -> None:
        if self._writer is None:
            await self._blocking(refresh, self._log)
        else:
            await trio.lowlevel.checkpoint()

    async def look_up(self, stream: bytes) -> int:
        if self._log.index.knows(stream):
            await trio.lowlevel.checkpoint()
            return self.durable_seq(stream)
        return (await self._blocking(self._log.index.tail, stream))[0]

    async def forget(self, stream: bytes) -> None:
        await self.look_up(stream)
        self._writing()
        if not self.is_deleted(stream):
            raise InvalidState(f"stream {stream.hex()} is not deleted; its records would be lost with its key")
        if self._log.keys is not None:
            await self._blocking(self._log.keys.destroy, [stream])

    async def read_snapshot(self, stream: bytes) -> Record | None:
        return await self._blocking(self._stream_reader.read_snapshot, stream)

    async def rotate(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            await self._writing().rotate()
        except OSError as error:
            raise Unavailable(f"the log in {self._log.path!r} cannot go on in another file now: {error}") from error
        assert self._caretaker is not None
        await self._caretaker.wait_sealed()

    async def compact(self, *, purge: bool = False) -> CompactionReport:
        self._writing().admission.check_open(critical=True)
        await self.rotate()
        assert self._caretaker is not None
        return await self._caretaker.compact(purge=purge)

    async def archive(self, target: str) -> ArchiveReport:
        self._writing().admission.check_open(critical=True)
        assert self._caretaker is not None
        return await self._caretaker.archive(target)

    def cursor(self, lsn: int) -> str:
        identity = self._log.identity
        return str(Cursor(identity.log_uuid, identity.branch_uuid, epoch_of(lsn, self._log.epoch_ends()), lsn))

    def check_cursor(self, text: str) -> int:
        cursor = parse_cursor(text)
        if cursor is None:
            raise InvalidInput(f"cursor: {text!r} is no cursor; take one from an event")
        verdict = judge_cursor(cursor, self._log.identity, self._log.epoch_ends(), self.durable_lsn)
        if verdict == "another log":
            raise InvalidInput(f"cursor: it belongs to another log than the one in {self._log.path!r}")
        if verdict == "beyond the end":
            raise CorruptLog(
                f"a cursor stands behind record {cursor.lsn}, and the log in {self._log.path!r} ends with "
                f"{self.durable_lsn}: records that were durable have vanished (row 2). Run `stepwell verify`.",
                file=self._log.path,
                first_lsn=self.durable_lsn + 1,
                last_lsn=cursor.lsn,
                row=2,
            )
        if verdict != "valid":
            raise InvalidState(f"cursor: it is of {verdict}; begin from the start, or from where you know of")
        return cursor.lsn

    def streams(self) -> Iterator[bytes]:
        return streams_of(self._log.index)

    def open_streams(self) -> Iterator[bytes]:
        return self._log.index.streams_still_open()

    def read(self, stream: bytes, after: int = 0, *, catch_up: bool = False) -> StreamSlices:
        return StreamSlices(self, stream, after, catch_up and self._writer is None)

    def follow(self, after_lsn: int = 0) -> SegmentLogFollower:
        return SegmentLogFollower(self, after_lsn)

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

    def __init__(self, journal: SegmentLogJournal, stream: bytes, after: int, must_catch_up: bool):
        self._journal, self._stream, self._position = journal, stream, Position(after)
        self._upto, self._must_catch_up = journal.durable_lsn, must_catch_up
        self._ahead: list[Record] = []
        self._at_once = SLICE_RECORDS

    async def next_slice(self) -> list[Record]:
        if self._ahead or self._position.is_at_end:
            await trio.lowlevel.checkpoint()
            found, position = self._ahead, self._position
        else:
            found, position = await self._journal._blocking(self._read)
        return self._hand_out(found, position) or self._nothing_more(position)

    @trio.lowlevel.enable_ki_protection
    def _hand_out(self, found: list[Record], position: Position) -> list[Record]:
        # Only now is the position another: cancelled or failed, the next call gives the same records.
        self._ahead, self._position, self._at_once = found[SLICE_RECORDS:], position, AHEAD_RECORDS
        return found[:SLICE_RECORDS]

    @trio.lowlevel.enable_ki_protection
    def _read(self) -> tuple[list[Record], Position]:
        if self._must_catch_up:  # in the same turn of the reader's thread: each turn costs what reading ten steps does
            refresh(self._journal._log)
            self._upto, self._must_catch_up = self._journal.durable_lsn, False
        return self._journal._stream_reader.read_slice(
            self._stream, self._position, self._upto, self._at_once, SLICE_BYTES
        )

    def _nothing_more(self, position: Position) -> list[Record]:
        if position.flags & STREAM_DELETED or not position.flags & (STREAM_FORKED | STREAM_GAP):
            return []
        path, seq = self._journal._log.path, min(position.after, position.last_seq)
        if position.flags & STREAM_FORKED:
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


class SegmentLogFollower(FollowedSlices):
    """Everything behind an LSN in log order, slice by slice, as it becomes durable."""

    def __init__(self, journal: SegmentLogJournal, after_lsn: int):
        super().__init__()
        self._journal, self._position = journal, FramePosition(after_lsn)
        self._ready: deque[list[Record | Gap]] = deque()

    @property
    def position(self) -> int:
        if not self._ready:
            return self._position.after
        first = self._ready[0][0]
        return (first.first_lsn if isinstance(first, Gap) else first.lsn) - 1

    async def next_slice(self) -> list[Record | Gap] | None:
        if self._ready:
            await trio.lowlevel.checkpoint()
            return self._ready.popleft()
        found = await self._read(self._journal._frame_reader.read_frames, SLICE_RECORDS)
        if not found:
            return found
        self._ready.extend(found[start : start + SLICE_RECORDS] for start in range(0, len(found), SLICE_RECORDS))
        return self._ready.popleft()

    async def next_digest(self, records: int, digest: Callable[[Sequence[Stored]], T]) -> T | None:
        def read(position: FramePosition, upto: int, records: int) -> tuple[T, FramePosition]:
            found, position = self._journal._frame_reader.read_stored(position, upto, records)
            return digest(found), position

        return await self._read(read, records)

    async def wait_for_more(self) -> bool:
        journal, position = self._journal, self.position
        if journal.durable_lsn > position or journal._writer is None:
            await trio.lowlevel.checkpoint()
            return journal.durable_lsn > position
        return await journal._writer.watermark.wait_beyond(position)

    async def _read(self, read: Callable[[FramePosition, int, int], tuple[T, FramePosition]], records: int) -> T | None:
        """Wait for something durable, and read it. A checkpoint; cancelled or failed, it is as if nothing was read."""
        journal = self._journal
        if self._position.after >= journal.durable_lsn and not await self.wait_for_more():
            return None
        try:
            found, self._position = await journal._blocking(read, self._position, journal.durable_lsn, records)
        except (Closed, RecoveryFailed):
            if journal._released:  # whoever lags behind when the journal ends goes on from a cursor next time
                return None
            raise
        return found
