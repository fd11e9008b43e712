"""The task behind the writer: footers, sidecars, the space of the next segment, marks; and all of it dispensable."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from stepstore.errors import CorruptLog
from stepstore.journal import SegmentLogJournal
from stepstore.log import frame as fr
from stepstore.log.caretaker import IDLE_SECONDS, LogCaretaker
from stepstore.log.footer import TRAILER_BYTES, parse_trailer
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, Batch
from stepstore.log.live_index import LiveIndex
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, OpenLog, open_log
from stepstore.log.records import Record
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import sidecar_path
from stepstore.log.stream_reader import Position, StreamReader
from stepstore.log.verify import verify_log
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    FullDisk,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    payload,
    put,
    read_log,
    read_stream,
    records_of,
    reopen,
    segments,
    store,
    submit,
    tended,
    tree,
    write_log,
    writing,
)

SPARE = f"{LOG}/spare.tmp"


def error_at(operation: str, path: str, number: int = errno.EIO) -> Callable[[Call], None]:
    """Fails every such call of a file whose path ends so."""

    def before(call: Call) -> None:
        if call.operation == operation and call.path.endswith(path):
            raise OSError(number, os.strerror(number), call.path)

    return before


def is_sealed(disk: MemoryFileSystem, segment: str) -> bool:
    return parse_trailer(content(disk, segment)[-TRAILER_BYTES:]) is not None


def has_spare(log: OpenLog) -> bool:
    assert log.sequence is not None
    return log.sequence.has_spare


def is_full(writer: LogWriter) -> bool:
    return writer.admission.is_full


async def all_done(caretaker: LogCaretaker) -> None:
    """Every task has done what it can without anything happening."""
    await trio.testing.wait_all_tasks_blocked()
    assert not caretaker._log.unsealed


# ---- footers ---------------------------------------------------------------------------------------------------------


async def test_segments_that_are_left_get_a_footer_and_their_index_leaves_the_memory() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    log = open_log(disk, LOG, SMALL)
    async with tended(log) as (writer, caretaker):
        for n in range(12):
            stored += records_of(await store(writer, (A, [payload(7000, n)]), (B, [b"%d" % n])))
            reader = StreamReader(log.reading, log.index)
            for stream in (A, B):
                assert read_stream(reader, stream) == [record for record in stored if record.stream == stream]
        await caretaker.wait_sealed()
        await all_done(caretaker)
        *older, newest = log.index.segments
        assert len(older) == 5
        for segment in older:
            assert segment.sealed
            assert segment.index_path == segment.path
            assert isinstance(segment.index, SealedIndex)
            assert is_sealed(disk, segment.path)
        assert isinstance(newest.index, LiveIndex)
        assert not newest.sealed
        assert writer.stats.segments_sealed == 5
        log.end_lsn = writer.watermark.lsn
        assert read_log(log) == stored
    assert caretaker.errors == 0
    report = verify_log(LOG, files=disk)
    assert (report.problems, report.sealed) == ([], 5)
    assert reopen(disk)[0] == stored


async def test_the_open_streams_of_a_footer_are_those_of_the_end_of_its_segment() -> None:
    """And not those of the moment at which it is written."""
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        await writer.submit([Batch(A, 1, [b"x"], FLAG_OPENS), Batch(B, 1, [b"x"], FLAG_OPENS)]).wait()
        await writer.rotate()
        await writer.submit([Batch(A, 2, [b"x"], FLAG_CLOSES), Batch(C, 1, [b"x"], FLAG_OPENS)]).wait()
        await writer.rotate()
        assert len(log.unsealed) == 2
        await LogCaretaker(log, writer).finish()
        found = [list(s.index.open_streams()) for s in log.index.segments if isinstance(s.index, SealedIndex)]
    assert found == [[A, B], [B, C]]


@pytest.mark.parametrize("needs_thread", [False, True])
async def test_reads_of_every_stream_go_on_while_segments_are_left_and_sealed(needs_thread: bool) -> None:
    """In threads of their own where the medium can block; nobody ever sees anything but what is acknowledged."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = needs_thread
    journal = SegmentLogJournal.open(LOG, LogOptions(segment_bytes=4096), files)
    stored: dict[bytes, list[Record]] = {A: [], B: [], C: []}
    slices_read, was_read = 0, trio.Event()

    async def read(stream: bytes) -> None:
        nonlocal slices_read
        while not journal._writer.admission.is_finishing:  # type: ignore[union-attr]
            certain = len(stored[stream])
            slices, found = journal.read(stream), []
            while part := await slices.next_slice():
                slices_read += 1
                found += part
            assert len(found) >= certain
            assert found[: len(stored[stream])] == stored[stream][: len(found)]
            was_read.set()

    async def follow(followed: list[Record]) -> None:
        async with journal.follow() as slices:
            async for part in slices:
                followed += [item for item in part if isinstance(item, Record)]

    followed: list[Record] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        nursery.start_soon(follow, followed)
        for stream in stored:
            nursery.start_soon(read, stream)
        for n in range(60):
            for stream, records in stored.items():
                submission = journal.submit([Batch(stream, n + 1, [payload(50 + n * 7, n)], 0)])
                await submission.wait()
                records += records_of(submission)
            was_read = trio.Event()
            await was_read.wait()
        journal.finish()
    journal.release()
    assert slices_read >= 60
    assert followed == sorted((record for records in stored.values() for record in records), key=lambda r: r.lsn)
    assert len(segments(disk)) > 10
    report = verify_log(LOG, files=disk)
    assert (report.problems, report.sealed) == ([], report.segments)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("operation", ["read", "write", "datasync", "truncate"])
async def test_a_seal_that_fails_is_logged_and_harms_nothing(
    operation: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with writing(log) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        await writer.rotate()
        first = segments(disk)[0]
        files.before = error_at(operation, first, number)
        caretaker = LogCaretaker(log, writer)
        await caretaker.finish()
        files.before = None
        assert caretaker.errors == 1
        assert "could not seal" in caplog.text
        assert first in caplog.text
        assert not log.unsealed
        assert not [file for file in files.open_files if file.path == first]
        stored += records_of(await store(writer, (A, [b"2"])))
        assert read_stream(StreamReader(log.reading, log.index), A) == stored
        await writer.rotate()
        await caretaker.finish()
        assert caretaker.errors == 1, "the next one is sealed"
    for image in (clone(disk), disk.durable_copy()):
        assert verify_log(LOG, files=image).problems == []
        assert reopen(image)[0] == stored


async def test_a_footer_that_cannot_be_read_back_leaves_the_index_in_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with writing(log) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        await writer.rotate()
        files.before = error_at("open", segments(disk)[0])
        caretaker = LogCaretaker(log, writer)
        await caretaker.finish()
        files.before = None
        assert caretaker.errors == 1
        assert "could not read the footer" in caplog.text
        first = log.index.segments[0]
        assert (first.sealed, first.index_path) == (True, "")
        assert isinstance(first.index, LiveIndex)
        assert is_sealed(disk, first.path)
        assert read_stream(StreamReader(log.reading, log.index), A) == stored


async def test_a_crash_at_any_call_of_a_seal_leaves_a_sound_log() -> None:
    """Of a segment that was left, and of the last one at the end; verify has nothing to complain of in between."""
    disk = MemoryFileSystem()
    images: list[tuple[Call, MemoryFileSystem]] = []

    def crash(call: Call) -> None:
        images.extend((call, image) for image in (disk.durable_copy(), clone(disk)))

    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with tended(log, close=True) as (writer, caretaker):
        stored = records_of(await store(writer, (A, [payload(700)]), (B, [b"x"])))
        files.before = crash
        await writer.rotate()
        await all_done(caretaker)
        files.before = None
        stored += records_of(await store(writer, (A, [payload(300)])))
        files.before = crash
    assert len(images) > 40
    for call, image in images:
        assert verify_log(LOG, files=image).problems == [], call
        for _ in range(2):
            found = reopen(image)[0]
            assert found in (stored, stored[:2]), call
            assert verify_log(LOG, files=image).problems == [], call


async def test_waiting_for_the_seals_is_a_checkpoint_and_ends_also_when_they_fail() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with tended(log) as (writer, caretaker):
        with trio.testing.assert_checkpoints():
            await caretaker.wait_sealed()
        await store(writer, (A, [b"1"]))
        files.before = error_at("truncate", segments(disk)[0])
        await writer.rotate()
        await caretaker.wait_sealed()
        assert caretaker.errors == 1


# ---- cancelled -------------------------------------------------------------------------------------------------------


async def test_a_caretaker_cancelled_before_a_seal_has_begun_leaves_it_to_the_end() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        await store(writer, (A, [b"1"]))
        await writer.rotate()
        caretaker = LogCaretaker(log, writer)
        for call in (caretaker.run, caretaker.finish):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
            assert len(log.unsealed) == 1
        assert not is_sealed(disk, segments(disk)[0])
        await caretaker.finish()
        assert is_sealed(disk, segments(disk)[0])


class Held:
    """A `before` hook that holds a call of this kind in its worker thread until it is let go."""

    def __init__(self, operation: str, path: str):
        self.operation, self.path = operation, path
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self, call: Call) -> None:
        if call.operation == self.operation and call.path.endswith(self.path) and not self.entered.is_set():
            self.entered.set()
            assert self.go_on.wait(10)


@asynccontextmanager
async def held_in_a_thread(log: OpenLog, files: WatchedFiles, held: Held) -> AsyncIterator[LogWriter]:
    """A running writer; at the end its caretaker is cancelled while it is held in that call."""
    async with writing(log) as writer:
        yield writer
        caretaker = LogCaretaker(log, writer)
        files.before = held
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caretaker.run)
            await trio.to_thread.run_sync(held.entered.wait)
            nursery.cancel_scope.cancel()
            held.go_on.set()
        files.before = None
        assert caretaker.errors == 0


async def test_a_seal_that_has_begun_is_finished_although_cancelled() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = True
    log = open_log(files, LOG, SMALL)
    async with held_in_a_thread(log, files, Held("datasync", "0001.0.seg")) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        await writer.rotate()
    assert is_sealed(disk, segments(disk)[0])
    assert not log.unsealed
    assert log.index.segments[0].sealed
    assert reopen(disk)[0] == stored
    assert files.open_files == []


async def test_a_spare_that_has_begun_is_finished_although_cancelled_and_removed_at_the_end() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = True
    log = open_log(files, LOG, SMALL)
    async with held_in_a_thread(log, files, Held("allocate", "spare.tmp")) as writer:
        await store(writer, (A, [payload(9000)]))
    assert disk.stat(SPARE) is None
    assert files.open_files == []


async def test_a_sidecar_that_has_begun_is_finished_although_cancelled() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
    files = WatchedFiles(disk)
    files.needs_thread = True
    log = open_log(files, LOG, SMALL)
    async with held_in_a_thread(log, files, Held("datasync", "sidecar.tmp")):
        pass
    assert disk.stat(sidecar_path(segments(disk)[0])) is not None
    assert reopen(disk)[0] == stored


# ---- the space of the next segment -----------------------------------------------------------------------------------


async def test_the_next_segment_lies_ready_when_half_of_this_one_is_used() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with tended(log) as (writer, caretaker):
        await store(writer, (A, [payload(7000)]))
        await all_done(caretaker)
        assert not has_spare(log)
        await store(writer, (A, [payload(900)]))
        await store(writer, (A, [payload(900)]))
        await all_done(caretaker)
        assert has_spare(log)
        assert content(disk, SPARE) == bytes(SMALL.segment_bytes)
        start = len(files.calls)
        await store(writer, (A, [payload(9000)]))
        assert len(segments(disk)) == 2
        made = [call.operation for call in files.calls[start:] if call.path == SPARE]
        assert "create" not in made, "beginning the segment did not wait for its space"
        assert "allocate" not in made
        await all_done(caretaker)
        assert has_spare(log), "and half of that one is used by this"
    assert disk.stat(SPARE) is None, "given back at the end"
    assert files.open_files == []


async def test_a_segment_that_reads_back_shorter_than_it_was_written_gets_no_footer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its digest would be that of something else."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with writing(log) as writer:
        stored = records_of(await store(writer, (A, [payload(900)])))
        await writer.rotate()
        first = segments(disk)[0]
        before = content(disk, first)
        files.spoil_read = lambda call, data: data[:-1] if call.path == first else data
        caretaker = LogCaretaker(log, writer)
        await caretaker.finish()
        files.spoil_read = None
        assert caretaker.errors == 1
        assert f"could not seal {first}" in caplog.text.replace("'", "")
        end = frames_of(disk, first)[-1].end
        assert f"reading {end} bytes at offset 0 gave {end - 1}" in caplog.text
        assert content(disk, first) == before
    assert reopen(disk)[0] == stored


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", ["create", "allocate"])
async def test_a_spare_that_cannot_be_made_is_asked_for_once_in_a_segment(
    operation: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with tended(log) as (writer, caretaker):
        files.before = error_at(operation, "spare.tmp", number)
        stored = records_of(await store(writer, (A, [payload(9000)])))
        for n in range(3):
            stored += records_of(await store(writer, (A, [b"%d" % n])))
            await all_done(caretaker)
        refused = operation == "create" or number == errno.EIO
        assert caretaker.errors == int(refused)
        assert has_spare(log) == (not refused), "without room for it, it is made without space"
        assert caplog.text.count("could not set aside") == int(refused)
        files.before = None
        stored += records_of(await store(writer, (A, [payload(9000)])))
        await all_done(caretaker)
        assert has_spare(log), "in the next segment it is tried again"
    assert reopen(disk)[0] == stored


async def test_on_a_full_disk_no_space_is_set_aside(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    async with tended(log) as (writer, caretaker):
        full = FullDisk(disk, 0)
        await store(writer, (A, [payload(7000)]))
        full.room = full.used()
        files.before = full
        refused = submit(writer, (A, [payload(10_000)]))
        await refused.wait()
        assert writer.admission.is_full
        start = len(files.calls)
        await store(writer, (A, [payload(2000)]), critical=True)
        await trio.testing.wait_all_tasks_blocked()
        assert not [call for call in files.calls[start:] if call.path == SPARE and call.operation == "create"]
        files.before = None
        assert caretaker.errors == 0


class TellingLock:
    """A lock that sets `told` in front of waiting for somebody else."""

    def __init__(self, told: threading.Event) -> None:
        self._lock, self._told = threading.Lock(), told

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._told.set()
            self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


async def test_a_spare_is_not_used_twice_although_it_is_prepared_while_a_segment_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The caretaker's thread waits until the spare has its name."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = True
    log = open_log(files, LOG, SMALL)
    assert log.sequence is not None
    log.sequence.prepare_spare()
    waits_or_is_done = threading.Event()
    monkeypatch.setattr(log.sequence, "_spare_lock", TellingLock(waits_or_is_done))

    def prepare() -> None:
        assert log.sequence is not None
        try:
            log.sequence.prepare_spare()
        finally:
            waits_or_is_done.set()

    held = Held("rename", ".seg")
    async with writing(log) as writer:
        await store(writer, (A, [b"x"]))
        files.before = held
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.rotate)
            await trio.to_thread.run_sync(held.entered.wait)
            nursery.start_soon(trio.to_thread.run_sync, prepare)
            await trio.to_thread.run_sync(waits_or_is_done.wait)
            held.go_on.set()
        await store(writer, (A, [b"y"]))
        names = segments(disk)
        assert len(names) == 2
        assert content(disk, SPARE) == bytes(SMALL.segment_bytes), "another one"
        log.sequence.prepare_spare()  # again is nothing
    assert reopen(disk)[0][-1].payload == b"y"


# ---- marks -----------------------------------------------------------------------------------------------------------


def marks_of(disk: MemoryFileSystem, segment: str) -> list[int]:
    return [frame.at for frame in frames_of(disk, segment) if frame.head.kind == fr.KIND_MARK]


async def test_one_mark_is_written_when_the_log_has_been_idle_for_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryFileSystem()
    async with tended(open_log(disk, LOG, SMALL)) as (writer, _caretaker):
        segment = segments(disk)[0]
        await trio.sleep(5)
        assert marks_of(disk, segment) == [], "nothing was written"
        stored = records_of(await store(writer, (A, [b"1"])))
        await trio.sleep(IDLE_SECONDS * 0.9)
        stored += records_of(await store(writer, (A, [b"2"])))
        await trio.sleep(IDLE_SECONDS * 0.9)
        assert marks_of(disk, segment) == [], "it was not idle for a second yet"
        await trio.sleep(IDLE_SECONDS * 0.2)
        (mark,) = marks_of(disk, segment)
        assert mark % fr.MARK_ALIGNMENT == 0
        await trio.sleep(100)
        assert marks_of(disk, segment) == [mark], "one in an idle period"
        stored += records_of(await store(writer, (A, [b"3"])))
        await trio.sleep(2 * IDLE_SECONDS)
        assert len(marks_of(disk, segment)) == 2
        assert (writer.stats.marks, writer.stats.groups, writer.stats.syncs) == (2, 3, 3)
    for image in (clone(disk), disk.durable_copy()):
        assert verify_log(LOG, files=image).problems == []
        assert reopen(image)[0] == stored


async def test_a_mark_proves_the_last_group_so_that_a_flipped_bit_in_it_is_damage_and_no_suspicion(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryFileSystem()
    async with tended(open_log(disk, LOG, SMALL)) as (writer, _caretaker):
        await store(writer, (A, [payload(700)]))
        unmarked = clone(disk)
        await trio.sleep(2 * IDLE_SECONDS)
        marked = clone(disk)
    segment = segments(disk)[0]
    end = frames_of(disk, segment)[0].end
    for image, row in ((unmarked, 5), (marked, 2)):
        flip(image, segment, end - 1)
        with pytest.raises(CorruptLog) as caught:
            open_log(image, LOG, SMALL)
        assert caught.value.row == row


async def test_a_mark_that_a_crash_tore_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """It lies within one sector, so it is not there at all; and whatever stands at its place is no record."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with tended(open_log(files, LOG, SMALL)) as (writer, _caretaker):
        stored = records_of(await store(writer, (A, [payload(700)])))
        images: list[MemoryFileSystem] = []
        files.before = lambda call: images.extend((disk.durable_copy(), clone(disk)))
        await trio.sleep(2 * IDLE_SECONDS)
        files.before = None
        (mark,) = marks_of(disk, segments(disk)[0])
    assert images
    cut = clone(disk)
    put(cut, segments(disk)[0], b"", at=0, size=mark + 30)
    for image in (*images, cut):
        found, report = reopen(image)
        assert found == stored
        assert all("ever acknowledged" in note for note in report.notes)


async def test_what_is_written_after_a_mark_continues_behind_it(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    async with tended(open_log(disk, LOG, SMALL), close=True) as (writer, _caretaker):
        for n in range(3):
            stored += records_of(await store(writer, (A, [b"%d" % n])))
            await trio.sleep(2 * IDLE_SECONDS)
    kinds = [frame.head.kind for frame in frames_of(disk, segments(disk)[0])]
    assert kinds == [fr.KIND_DATA, fr.KIND_MARK] * 3 + [fr.KIND_FOOTER, fr.KIND_CLOSE]
    assert verify_log(LOG, files=disk).problems == []
    assert reopen(disk)[0] == stored


async def test_a_segment_without_a_record_gets_no_mark(autojump_clock: trio.testing.MockClock) -> None:
    """What was written before lies in segments whose end the header of this one names."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with tended(open_log(files, LOG, SMALL)) as (writer, _caretaker):
        await store(writer, (A, [b"x"]))
        await writer.rotate()
        await trio.sleep(3 * IDLE_SECONDS)
        assert frames_of(disk, segments(disk)[1]) == []
        await store(writer, (A, [b"y"]))
        files.before = lambda call: fail_once(call, files)
        failed = submit(writer, (A, [b"z"]))
        await failed.wait()
        await trio.sleep(3 * IDLE_SECONDS)
        assert frames_of(disk, segments(disk)[2]) == []
        assert writer.stats.marks == 0
        await store(writer, (A, [b"z"]))
        await trio.sleep(3 * IDLE_SECONDS)
        assert writer.stats.marks == 1


def fail_once(call: Call, files: WatchedFiles) -> None:
    if call.operation == "datasync" and call.path.endswith(".seg"):
        files.before = None
        raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_mark_that_fails_costs_its_segment_and_no_record(
    number: int, autojump_clock: trio.testing.MockClock
) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with tended(open_log(files, LOG, SMALL)) as (writer, _caretaker):
        stored = records_of(await store(writer, (A, [b"1"])))
        files.before = error_at("write", "0001.0.seg", number)
        await trio.sleep(2 * IDLE_SECONDS)
        files.before = None
        assert len(segments(disk)) == 2
        assert writer.admission.failed is None
        await trio.sleep(20)
        stored += records_of(await store(writer, (A, [b"2"])))
        assert writer.stats.marks == 0
    for image in (clone(disk), disk.durable_copy()):
        assert verify_log(LOG, files=image).problems == []
        assert reopen(image)[0] == stored


async def test_on_a_full_disk_no_mark_is_written(autojump_clock: trio.testing.MockClock) -> None:
    """A mark that found no room would spend the reserve, which is for endings."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with tended(open_log(files, LOG, SMALL)) as (writer, _caretaker):
        await store(writer, (A, [payload(7000)]))
        full = FullDisk(disk, 0)
        full.room = full.used()
        files.before = full
        refused = submit(writer, (A, [payload(10_000)]))
        await refused.wait()
        await store(writer, (A, [payload(300)]), critical=True)
        before = tree(disk)
        await trio.sleep(3 * IDLE_SECONDS)
        assert is_full(writer)
        assert tree(disk) == before
        files.before = None
        await trio.sleep(20)
        assert not is_full(writer)
        await store(writer, (A, [b"there is room again"]))
        await trio.sleep(3 * IDLE_SECONDS)
        assert writer.stats.marks == 1


async def test_a_mark_that_is_wanted_while_something_is_queued_comes_behind_it() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        writer.want_mark()
        await trio.testing.wait_all_tasks_blocked()
        assert writer.stats.marks == 0, "there is nothing to prove"
        submissions = [submit(writer, (A, [b"%d" % n])) for n in range(5)]
        writer.want_mark()
        await submissions[-1].wait()
        await trio.testing.wait_all_tasks_blocked()
        assert [frame.head.kind for frame in frames_of(disk, segments(disk)[0])] == [fr.KIND_DATA, fr.KIND_MARK]


async def test_a_mark_is_wanted_before_the_first_append_after_an_opening() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"x"]))
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        writer.want_mark()
        await trio.testing.wait_all_tasks_blocked()
    assert len(segments(disk)) == 1


# ---- slow media ------------------------------------------------------------------------------------------------------


async def test_a_sync_that_takes_more_than_a_second_is_counted_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return now

    monkeypatch.setattr("stepstore.log.group_commit.time", Clock)
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    taking: list[float] = []

    def take_time(call: Call) -> None:
        nonlocal now
        if call.operation == "datasync" and taking:
            now += taking.pop()

    files.before = take_time
    with caplog.at_level(logging.WARNING):
        async with writing(open_log(files, LOG, SMALL)) as writer:
            for seconds in (0.2, 1.0, 3.5, 1.5, 0.1):
                taking.append(seconds)
                await store(writer, (A, [b"x"]))
    assert (writer.stats.slow_syncs, writer.stats.longest_sync_seconds) == (2, 3.5)
    assert [record.getMessage() for record in caplog.records] == [
        f"a write to the log in {LOG} took 3.5 s to reach the medium",
        f"a write to the log in {LOG} took 1.5 s to reach the medium",
    ]


# ---- sidecars --------------------------------------------------------------------------------------------------------


async def test_an_index_that_cannot_be_written_is_only_missing(caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
    for operation in ("create", "write", "datasync", "rename", "sync_directory"):
        files = WatchedFiles(disk)
        log = open_log(files, LOG, SMALL)
        files.before = error_at(operation, {"rename": ".idx", "sync_directory": LOG}.get(operation, "sidecar.tmp"))
        caplog.clear()
        async with tended(log) as (_writer, caretaker):
            await all_done(caretaker)
        assert caretaker.errors == 1, operation
        assert "could not write the index" in caplog.text
        files.before = None
        if operation != "sync_directory":
            assert not [name for name in disk.list_names(LOG) if name.endswith(".idx")], operation
        assert files.open_files == [], operation
        assert reopen(disk)[0] == stored
    async with tended(open_log(disk, LOG, SMALL)) as (_writer, caretaker):
        await all_done(caretaker)
    assert disk.stat(sidecar_path(segments(disk)[0])) is not None


def test_the_files_of_a_crashed_log_are_indexed_behind_the_first_reads() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    for n in range(3):
        stored += write_log(disk, [[(A, [payload(9000, n)])], [(A, [payload(9000, n + 7)])]])
    write_log(disk, [], care=True)
    assert len([name for name in disk.list_names(LOG) if name.endswith(".idx")]) == 6
    assert verify_log(LOG, files=disk).problems == []
    log = open_log(disk, LOG, SMALL)
    assert all(isinstance(segment.index, SealedIndex) for segment in log.index.segments)
    reader, position = StreamReader(log.reading, log.index), Position(0)
    found, _position = reader.read_slice(A, position, 2**63, 100, 10**6)
    assert found == stored
    log.release()
