"""The laboratory of the log's tests: file layers that watch and fail, logs made to order, and knives to cut them."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import random
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import trio
import trio.testing
from hypothesis import settings

from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.files import File, FileStat, FileSystem
from stepstore.log.footer import TRAILER_BYTES, parse_head, parse_trailer
from stepstore.log.frame import Batch, DirectoryEntry, FrameHeader
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.memory_files import MemoryFile, MemoryFileSystem
from stepstore.log.opening import LogOptions, OpenLog, RecoveryReport, open_log
from stepstore.log.records import Gap, Record
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import Position, StreamReader
from stepstore.log.submission import Submission
from stepstore.log.writer import LogWriter

LOG = "/log"
SMALL = LogOptions(segment_bytes=16 * 1024)
"""Small segments: they still are preallocated, and a copy of a disk costs next to nothing."""

DICE = random.Random()
"""What log ids and segment tags are thrown with in the tests (see `conftest`)."""

throw_dice_anew = DICE.seed

steady = settings(derandomize=True, database=None, deadline=None, max_examples=150)
"""Hypothesis without chance: the same examples in every run."""

CHANGES = frozenset({"create", "write", "truncate", "allocate", "make_directory", "rename", "link", "unlink"})
"""Calls after which the disk is not what it was."""


# ---- file layers that watch, fail, stop and lie ----------------------------------------------------------------------


class Call(NamedTuple):
    """One call of the file layer; `number` counts from 1. `size`: bytes asked for."""

    number: int
    operation: str
    path: str
    offset: int = 0
    data: bytes = b""
    size: int = 0


class Stopped(BaseException):
    """The process died at this call: not an `Exception`, so that nobody survives it by accident."""


class WatchedFiles:
    """A `FileSystem` that notes every call and lets a test spoil it.

    `before` runs in front of each call and may raise. `spoil_read` may change what a read gives. A datasync of a file
    whose name ends with `lying` returns without having done anything.
    """

    def __init__(self, inner: FileSystem, before: Callable[[Call], None] | None = None):
        self.inner = inner
        self.needs_thread = inner.needs_thread
        self.calls: list[Call] = []
        self.open_files: list[WatchedFile] = []
        self.before = before
        self.spoil_read: Callable[[Call, bytes], bytes] | None = None
        self.lying: str | None = None

    def note(self, operation: str, path: str, offset: int = 0, data: bytes = b"", size: int = 0) -> Call:
        call = Call(len(self.calls) + 1, operation, path, offset, data, size)
        self.calls.append(call)
        if self.before is not None:
            self.before(call)
        return call

    def changes(self, *, but: Sequence[str] = ("LOCK",)) -> list[Call]:
        """The calls that changed the disk, other than of the named files."""
        return [c for c in self.calls if c.operation in CHANGES and posixpath.basename(c.path) not in but]

    def open(self, path: str, *, create: bool = False, write: bool = True) -> WatchedFile:
        self.note("create" if create else "open", path)
        file = WatchedFile(self, path, self.inner.open(path, create=create, write=write))
        self.open_files.append(file)
        return file

    def forget(self, file: WatchedFile) -> None:
        self.open_files = [other for other in self.open_files if other is not file]

    def stat(self, path: str) -> FileStat | None:
        self.note("stat", path)
        return self.inner.stat(path)

    def list_names(self, path: str) -> list[str]:
        self.note("list_names", path)
        return self.inner.list_names(path)

    def make_directory(self, path: str) -> None:
        self.note("make_directory", path)
        self.inner.make_directory(path)

    def rename(self, source: str, target: str) -> None:
        self.note("rename", target)
        self.inner.rename(source, target)
        for file in self.open_files:
            if file.path == source:
                file.path = target  # a segment is made as spare.tmp; what is written to it later is noted as its own

    def link(self, source: str, target: str) -> None:
        self.note("link", target)
        self.inner.link(source, target)

    def unlink(self, path: str) -> None:
        self.note("unlink", path)
        self.inner.unlink(path)

    def sync_directory(self, path: str) -> None:
        self.note("sync_directory", path)
        self.inner.sync_directory(path)


class WatchedFile:
    """A `File` of `WatchedFiles`."""

    def __init__(self, files: WatchedFiles, path: str, inner: File):
        self._files, self.path, self._inner = files, path, inner

    def read(self, offset: int, size: int) -> bytes:
        call = self._files.note("read", self.path, offset, size=size)
        data = self._inner.read(offset, size)
        return data if self._files.spoil_read is None else self._files.spoil_read(call, data)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        self._files.note("write", self.path, offset, bytes(data))
        return self._inner.write(offset, data)

    def datasync(self) -> None:
        self._files.note("datasync", self.path)
        if self._files.lying is None or not self.path.endswith(self._files.lying):
            self._inner.datasync()

    def truncate(self, size: int) -> None:
        self._files.note("truncate", self.path, size)
        self._inner.truncate(size)

    def allocate(self, size: int) -> None:
        self._files.note("allocate", self.path, size)
        self._inner.allocate(size)

    def will_need(self, offset: int, size: int) -> None:
        self._files.note("will_need", self.path, offset, size=size)

    def will_not_need(self, offset: int, size: int) -> None:
        self._files.note("will_not_need", self.path, offset, size=size)
        if isinstance(self._inner, MemoryFile):
            self._inner.will_not_need(offset, size)

    def size(self) -> int:
        self._files.note("size", self.path)
        return self._inner.size()

    def identity(self) -> tuple[int, int]:
        self._files.note("identity", self.path)
        return self._inner.identity()

    def lock(self) -> bool:
        self._files.note("lock", self.path)
        return self._inner.lock()

    def close(self) -> None:
        self._files.forget(self)
        self._inner.close()


def failing_at(number: int, error_number: int) -> Callable[[Call], None]:
    """Fail exactly the call with this number."""

    def before(call: Call) -> None:
        if call.number == number:
            raise OSError(error_number, os.strerror(error_number), call.path)

    return before


def stopping_at(number: int) -> Callable[[Call], None]:
    """The process dies in front of this call: no later one has an effect."""

    def before(call: Call) -> None:
        if call.number >= number:
            raise Stopped

    return before


class FailOnce:
    """Fails the next calls of an operation on segments, once per error number in `armed`."""

    def __init__(self, operation: str, *armed: int):
        self.operation, self.armed = operation, list(armed)
        self.failed: list[Call] = []

    def __call__(self, call: Call) -> None:
        if self.armed and call.operation == self.operation and call.path.endswith(".seg"):
            self.failed.append(call)
            number = self.armed.pop(0)
            raise OSError(number, os.strerror(number), call.path)


class FullDisk:
    """A disk of `room` bytes, as a `before` hook: what would make its files larger than that raises ENOSPC."""

    def __init__(self, disk: MemoryFileSystem, room: int):
        self._disk, self.room = disk, room

    def used(self) -> int:
        return sum(len(content) for content in tree(self._disk).values() if content is not None)

    def __call__(self, call: Call) -> None:
        if call.operation == "write":
            end = call.offset + len(call.data)
        elif call.operation == "allocate":
            end = call.offset
        else:
            return
        found = self._disk.stat(call.path)
        growth = end - (found.size if found else 0)
        if growth > 0 and self.used() + growth > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)


class Checkpoints(trio.abc.Instrument):
    """Counts the steps of the task that enters it, and cancels a scope in front of the n-th."""

    def __init__(self, scope: trio.CancelScope | None, number: int = 0):
        self._scope, self._number = scope, number
        self._task = trio.lowlevel.current_task()
        self.seen = 0

    def __enter__(self) -> Checkpoints:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.seen += 1
            if self._scope is not None and self.seen == self._number:
                self._scope.cancel()


# ---- disks -----------------------------------------------------------------------------------------------------------


def clone(disk: MemoryFileSystem) -> MemoryFileSystem:
    """The same disk again, all of it durable and nothing locked: what the death of the process alone leaves."""
    return disk.crash_copy(lambda choices: 1)


def tree(files: FileSystem, path: str = "/") -> dict[str, bytes | None]:
    """Everything below a path: the content of files, None for directories. What stands in LOCK is for people."""
    found: dict[str, bytes | None] = {}
    for name in files.list_names(path):
        full = posixpath.join(path, name)
        at = files.stat(full)
        assert at is not None
        if at.is_directory:
            found[full] = None
            found |= tree(files, full)
        else:
            found[full] = b"" if name == "LOCK" else content(files, full)
    return found


def content(files: FileSystem, path: str) -> bytes:
    file = files.open(path, write=False)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def put(
    files: FileSystem, path: str, data: bytes | bytearray, *, at: int | None = None, size: int | None = None
) -> None:
    """Overwrite a file at an offset, or (`at` None) wholly; cut or lengthen it to `size`. Durable."""
    file = files.open(path, create=files.stat(path) is None)
    try:
        if at is None:
            file.truncate(0)
        if data:
            file.write(at or 0, data)
        if size is not None:
            file.truncate(size)
        file.datasync()
    finally:
        file.close()
    files.sync_directory(posixpath.dirname(path))


def flip(files: FileSystem, path: str, offset: int, bit: int = 0) -> None:
    """Turn over one bit."""
    before = content(files, path)[offset]
    put(files, path, bytes([before ^ (1 << bit)]), at=offset)


def move(files: FileSystem, source: str, target: str) -> None:
    files.rename(source, target)
    files.sync_directory(posixpath.dirname(target))


def remove(files: FileSystem, path: str) -> None:
    files.unlink(path)
    files.sync_directory(posixpath.dirname(path))


def segments(files: FileSystem, path: str = LOG) -> list[str]:
    """The paths of the segments, in order."""
    return [posixpath.join(path, name) for name in files.list_names(path) if name.endswith(".seg")]


def header_of(files: FileSystem, segment: str) -> SegmentHeader:
    parsed = sh.parse_segment_header(content(files, segment)[: sh.HEADER_BYTES])
    assert parsed is not None
    return parsed[0]


class FoundFrame(NamedTuple):
    at: int
    head: FrameHeader

    @property
    def end(self) -> int:
        return self.at + self.head.frame_len


def frames_of(files: FileSystem, segment: str) -> list[FoundFrame]:
    """The frames of an undamaged segment, found by searching for headers and not by the code under test."""
    data = content(files, segment)
    tag = header_of(files, segment).segment_tag
    found: list[FoundFrame] = []
    something = _NOT_ZERO.search(data, sh.HEADER_BYTES)
    while something is not None:
        at = something.start()
        if at == len(data) - TRAILER_BYTES and parse_trailer(data[at:]) is not None:
            break
        head = fr.parse_header(data, at)
        assert head is not None, f"byte {data[at]:#x} between frames at {at}"
        assert head.segment_tag == tag
        found.append(FoundFrame(at, head))
        something = _NOT_ZERO.search(data, found[-1].end)
    return found


_NOT_ZERO = re.compile(rb"[^\0]")


# ---- indexes made by hand --------------------------------------------------------------------------------------------


def entry(stream: bytes, first_seq: int, first_lsn: int, count: int = 1, flags: int = 0, at: int = 0) -> DirectoryEntry:
    """A directory entry of a batch that lies nowhere."""
    return (stream, first_seq, first_lsn, count, count * 10, 0xC0FFEE, flags, at + 500, at + 100)


def a_segment(seq: int, first_lsn: int, index: LiveIndex | SealedIndex | None = None) -> IndexedSegment:
    """A segment that only an index knows, called /log/<seq>."""
    header = SegmentHeader._make([0] * 24)._replace(seq=seq, seq_last=seq, first_lsn=first_lsn)
    return IndexedSegment(f"{LOG}/{seq}", header, 0, LiveIndex() if index is None else index, 512, first_lsn - 1, 0)


def index_bytes(live: LiveIndex, open_streams: Iterable[bytes] = (), **head: Any) -> bytes:
    """An index as a footer holds it."""
    fields: dict[str, Any] = {
        "header_copy": bytes(sh.HEADER_BYTES),
        "first_lsn": 1,
        "end_lsn": 0,
        "end_offset": 512,
        "chain": 0,
        "first_ns": 0,
        "last_ns": 0,
        "digest": bytes(32),
    }
    return live.encode(**(fields | head), open_streams=open_streams)[0]


def sealed_copy(live: LiveIndex, open_streams: Iterable[bytes] = (), *, base: int = 0) -> SealedIndex:
    """The same index, read from its bytes, which begin at `base` of something."""
    data = bytes(base) + index_bytes(live, open_streams)
    return SealedIndex(lambda offset, size: data[offset : offset + size], base, parse_head(data[base:]))


class Forgetful:
    """An index whose table of frames lacks some; the checksums of a sealed one may be right all the same."""

    def __init__(self, index: LiveIndex | SealedIndex, frames: list[tuple[int, int]]):
        self._index, self._frames = index, frames
        self.frame_count = len(frames)

    def frame_place(self, number: int) -> tuple[int, int]:
        return self._frames[number]

    def __getattr__(self, name: str) -> object:
        return getattr(self._index, name)


# ---- logs ------------------------------------------------------------------------------------------------------------


def stream_id(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


A, B, C = stream_id("A"), stream_id("B"), stream_id("C")

Group = Sequence[tuple[bytes, Sequence[bytes]]]
"""What goes into one frame: (stream, payloads) per batch."""


def submit(writer: LogWriter, *batches: tuple[bytes, Sequence[bytes]], critical: bool = False) -> Submission:
    """Submit batches that continue their streams."""
    last: dict[bytes, int] = {}
    made: list[Batch] = []
    for stream, payloads in batches:
        first = last.get(stream, writer.queue.last_seq(stream)) + 1
        made.append(Batch(stream, first, payloads, 0))
        last[stream] = first + len(payloads) - 1
    return writer.submit(made, critical=critical)


async def store(writer: LogWriter, *batches: tuple[bytes, Sequence[bytes]], critical: bool = False) -> Submission:
    """Submit batches and wait until their fate is known; raise if they are not stored."""
    submission = submit(writer, *batches, critical=critical)
    await submission.wait()
    if submission.error is not None:
        raise submission.error
    return submission


def records_of(submission: Submission) -> list[Record]:
    """What a stored submission must look like when it is read."""
    records: list[Record] = []
    for batch in submission.batches:
        for n, payload in enumerate(batch.payloads):
            records.append(Record(batch.stream, batch.first_seq + n, submission.first_lsn + len(records), payload))
    return records


@asynccontextmanager
async def writing(log: OpenLog, *, close: bool = False) -> AsyncIterator[LogWriter]:
    """A running writer. Leaving the block is a crash, in which nothing is closed in order, unless `close` is set."""
    writer = LogWriter(log)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            yield writer
            writer.finish() if close else nursery.cancel_scope.cancel()
    finally:
        log.release()


@asynccontextmanager
async def tended(log: OpenLog, *, close: bool = False) -> AsyncIterator[tuple[LogWriter, LogCaretaker]]:
    """As `writing`, with a caretaker behind the writer, put together as the journal does it."""
    writer = LogWriter(log)
    caretaker = LogCaretaker(log, writer)

    async def run() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(caretaker.run)
            inner.start_soon(caretaker.compactor.run)
            await writer.run()
            inner.cancel_scope.cancel()
        await caretaker.finish()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield writer, caretaker
            writer.finish() if close else nursery.cancel_scope.cancel()
    finally:
        log.release()


def write_log(
    files: FileSystem,
    groups: Iterable[Group],
    *,
    path: str = LOG,
    close: bool = False,
    care: bool = False,
    options: LogOptions = SMALL,
) -> list[Record]:
    """Open a log, store each group as one frame, and crash, or `close` it in order. Gives what was acknowledged.

    `care`: a caretaker has done all its work in between, but for marks.
    """

    async def main() -> list[Record]:
        stored: list[Record] = []
        async with AsyncExitStack() as stack:
            log = open_log(files, path, options)
            caretaker: LogCaretaker | None = None
            if care:
                writer, caretaker = await stack.enter_async_context(tended(log, close=close))
            else:
                writer = await stack.enter_async_context(writing(log, close=close))
            for group in groups:
                stored += records_of(await store(writer, *group))
            if caretaker is not None:
                await trio.testing.wait_all_tasks_blocked()
                assert not caretaker.errors
        return stored

    return trio.run(main)


def follow_log(log: OpenLog, after: int = 0, slice_records: int = 256) -> list[Record | Gap]:
    """What a follower of all that was there at the opening is given."""
    reader = FrameReader(log.reading, log.index)
    found: list[Record | Gap] = []
    place = FramePosition(after)
    while True:
        items, place = reader.read_frames(place, log.end_lsn, slice_records)
        if not items:
            return found
        found += items


def read_log(log: OpenLog) -> list[Record]:
    """Every record in log order, read frame by frame and again stream by stream, which must agree."""
    reader = StreamReader(log.reading, log.index)
    found: list[Record] = []
    for item in follow_log(log):
        assert isinstance(item, Record), item
        found.append(item)
    by_stream: list[Record] = []
    for stream in streams_of(log.index):
        by_stream += read_stream(reader, stream)
    assert sorted(by_stream, key=lambda record: record.lsn) == found
    assert [record.lsn for record in found] == list(range(1, log.end_lsn + 1))
    return found


def read_stream(reader: StreamReader, stream: bytes, after: int = 0) -> list[Record]:
    """The records of one stream, slice by slice."""
    records: list[Record] = []
    position = Position(after)
    while True:
        found, position = reader.read_slice(stream, position, 2**63, 256, 1024 * 1024)
        if not found:
            return records
        records += found


def reopen(files: FileSystem, path: str = LOG, options: LogOptions = SMALL) -> tuple[list[Record], RecoveryReport]:
    """Open for writing, read everything, give the lock back."""
    log = open_log(files, path, options)
    try:
        return read_log(log), log.report
    finally:
        log.release()


def payload(size: int, seed: int = 1) -> bytes:
    """Bytes without structure and without zeros, always the same."""
    return hashlib.shake_256(seed.to_bytes(4, "big")).digest(size).replace(b"\0", b"\x55")


def with_nul_runs(size: int, seed: int = 1) -> bytes:
    """A payload of long runs of NUL with a few bytes between them, as real tool output has."""
    piece = b"\0" * 1500 + payload(7, seed)
    return (piece * (size // len(piece) + 1))[:size]
