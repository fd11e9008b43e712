"""Logs with dead records in them, what must be left of them, and how to see that it is."""

from __future__ import annotations

import posixpath
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from stepstore.log.caretaker import LogCaretaker
from stepstore.log.compaction_report import CompactionReport
from stepstore.log.files import FileSystem
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS, Batch
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.manifest import Manifest, read_manifest
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, OpenLog, open_log
from stepstore.log.records import Gap, Record
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import StreamReader
from stepstore.log.submission import Submission
from stepstore.log.verify import verify_log
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import CHANGES, LOG, A, B, C, Call, clone, payload, read_stream, tended

QUIET = LogOptions(segment_bytes=16 * 1024, compaction_bytes_per_second=0)
"""Small segments, and nothing is compacted unless a test asks for it."""


def _follow(log: OpenLog) -> list[Record | Gap]:
    """What a follower is given of all that is there now."""
    reader = FrameReader(log.reading, log.index)
    found: list[Record | Gap] = []
    place = FramePosition(0)
    while True:
        items, place = reader.read_frames(place, log.index.segments[-1].end_lsn, 50)
        if not items:
            return found
        found += items


@dataclass
class Kept:
    """What was acknowledged, and what of it must be left."""

    stored: list[Record] = field(default_factory=list)
    snapshots: dict[bytes, Record] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    tombstones: list[Record] = field(default_factory=list)
    open_streams: dict[bytes, None] = field(default_factory=dict)
    epoch_ends: list[tuple[int, int]] = field(default_factory=list)

    def take(self, submission: Submission) -> None:
        """Note a submission that was stored."""
        assert submission.done
        assert submission.error is None
        lsn = submission.first_lsn
        for batch in submission.batches:
            stream, first_seq, payloads, flags = batch.stream, batch.first_seq, batch.payloads, batch.flags
            kind = flags & KIND_FLAGS
            for n, one in enumerate(payloads):
                record = Record(stream, first_seq + n, lsn, one)
                lsn += 1
                if kind == FLAG_SNAPSHOT:
                    self.snapshots[stream] = record
                    continue
                self.stored.append(record)
                if kind == FLAG_TOMBSTONE:
                    self.deleted.add(stream)
                    self.tombstones.append(record)
            if kind == FLAG_TOMBSTONE or flags & FLAG_CLOSES:
                self.open_streams.pop(stream, None)
            elif flags & FLAG_OPENS:
                self.open_streams[stream] = None

    @property
    def alive(self) -> list[Record]:
        """What a follower must see however much was compacted: the records of what is left, and every tombstone."""
        return [record for record in self.stored if record.stream not in self.deleted or record in self.tombstones]

    @property
    def dead(self) -> list[Record]:
        return [record for record in self.stored if record.stream in self.deleted and record not in self.tombstones]

    def check(self, log: OpenLog, after: object = "", *, compacted: bool = False) -> None:
        """The log has everything that must be left, each once, in order, with its numbers; and `compacted`, nothing
        else."""
        found = _follow(log)
        assert not [item for item in found if isinstance(item, Gap)], after
        followed = [item for item in found if isinstance(item, Record)]
        assert [item.lsn for item in followed] == sorted({item.lsn for item in followed}), after
        gone = {record.lsn: record for record in self.dead}
        assert [item for item in followed if item.lsn not in gone] == self.alive, after
        assert all(gone[item.lsn] == item for item in followed if item.lsn in gone), after
        if compacted:
            assert not [item for item in followed if item.lsn in gone], after
        reader = StreamReader(log.reading, log.index)
        by_stream = [record for stream in streams_of(log.index) for record in read_stream(reader, stream)]
        assert sorted(by_stream, key=lambda record: record.lsn) == [
            record for record in self.alive if record.stream not in self.deleted
        ], after
        for stream in self.deleted:
            assert read_stream(reader, stream) == [], after
            assert reader.read_snapshot(stream) is None, after
            assert log.index.last_seq(stream) == max(r.seq for r in self.tombstones if r.stream == stream), after
        for stream, snapshot in self.snapshots.items():
            if stream not in self.deleted:
                assert reader.read_snapshot(stream) == snapshot, after
        assert set(log.index.deleted_streams()) == self.deleted, after
        assert list(log.index.streams_still_open()) == list(self.open_streams), after

    def check_reopened(
        self, disk: FileSystem, after: object = "", *, options: LogOptions = QUIET, compacted: bool = False
    ) -> None:
        """As `check`, of the log as an opening for writing finds it; which leaves nothing to verify either."""
        log = open_log(disk, LOG, options)
        try:
            self.check(log, after, compacted=compacted)
            ends = log.epoch_ends()
            assert ends[: len(self.epoch_ends)] == self.epoch_ends, after
        finally:
            log.release()
        left = [name for name in disk.list_names(LOG) if name.endswith(".tmp")]
        assert not left, f"{after}: {left}"
        report = verify_log(LOG, files=disk, digests=True)
        assert (report.problems, report.notes) == ([], []), after


async def put(writer: LogWriter, kept: Kept, *batches: tuple[bytes, Sequence[bytes], int]) -> None:
    """Store (stream, payloads, flags) as one frame; a snapshot covers all that its stream has."""
    made: list[Batch] = []
    last: dict[bytes, int] = {}
    for stream, payloads, flags in batches:
        end = last.get(stream, writer.queue.last_seq(stream))
        if flags & KIND_FLAGS == FLAG_SNAPSHOT:
            made.append(Batch(stream, end, payloads, flags))
            continue
        made.append(Batch(stream, end + 1, payloads, flags))
        last[stream] = end + len(payloads)
    submission = writer.submit(made)
    await submission.wait()
    kept.take(submission)


async def delete(writer: LogWriter, kept: Kept, *streams: bytes) -> None:
    """Append their tombstones."""
    await put(writer, kept, *((stream, [b"gone"], FLAG_TOMBSTONE) for stream in streams))


@asynccontextmanager
async def life(
    disk: FileSystem, kept: Kept, *, close: bool = False, options: LogOptions = QUIET
) -> AsyncIterator[tuple[LogWriter, LogCaretaker, OpenLog]]:
    """One incarnation of the log; it ends with a crash, or is closed in order."""
    log = open_log(disk, LOG, options)
    async with tended(log, close=close) as (writer, caretaker):
        yield writer, caretaker, log
    if close:
        kept.epoch_ends = log.epoch_ends()


async def a_log_with_dead_records(disk: FileSystem, *, close: bool = True, options: LogOptions = QUIET) -> Kept:
    """Several segments of several incarnations: three streams, of which one is deleted, two with several snapshots; and
    a deleted one that was open for long, in small batches among others."""
    kept = Kept()
    short = b"short-lived stre"
    for part in range(3):
        async with life(disk, kept, close=part != 1, options=options) as (writer, _caretaker, _log):
            for n in range(6):
                seed = part * 100 + n
                flags = FLAG_OPENS if not part and not n else 0
                await put(writer, kept, (A, [payload(900, seed), payload(30, seed + 1)], flags))
                await put(
                    writer, kept, (B, [payload(1500, seed + 2)], flags), (short, [payload(70, seed + 50_000)], flags)
                )
                await put(writer, kept, (C, [payload(40, seed + 3)] * 3, 0))
                await put(writer, kept, (A, [payload(300, seed)], FLAG_SNAPSHOT), (C, [b"s" * 50], FLAG_SNAPSHOT))
    async with life(disk, kept, close=close, options=options) as (writer, _caretaker, _log):
        await put(writer, kept, (C, [payload(100, 1)], FLAG_CLOSES), (b"another stream..", [b"", b"x"], FLAG_OPENS))
        await delete(writer, kept, short, B)
    return kept


async def compact(disk: FileSystem, kept: Kept, *, close: bool = True, options: LogOptions = QUIET) -> CompactionReport:
    """Open the log, compact it at once, close it."""
    async with life(disk, kept, close=close, options=options) as (_writer, caretaker, _log):
        report = await caretaker.compact()
        await trio.testing.wait_all_tasks_blocked()
    return report


def manifest_paths(disk: FileSystem, path: str = LOG) -> list[str]:
    return [posixpath.join(path, name) for name in disk.list_names(path) if name.startswith("MANIFEST")]


def newest(disk: FileSystem, path: str = LOG) -> Manifest:
    """The manifest that counts."""
    found = read_manifest(disk, manifest_paths(disk, path)[-1])
    assert found is not None
    return found


_COUNT = CHANGES | {"datasync", "sync_directory"}


class PowerCuts:
    """A `before` hook: at every call that changes the disk, disks that a power cut just then may leave."""

    def __init__(self, disk: MemoryFileSystem, seed: int, *, at_random: int = 2):
        self._disk, self._dice, self._at_random = disk, random.Random(seed), at_random
        self.images: list[tuple[Call, MemoryFileSystem]] = []

    def __call__(self, call: Call) -> None:
        if call.operation in _COUNT:
            left = [self._disk.durable_copy(), clone(self._disk)]
            left += [self._disk.crash_copy(self._dice.randrange) for _ in range(self._at_random)]
            self.images += [(call, image) for image in left]
