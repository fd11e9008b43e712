"""The index and what is read through it; one damaged batch costs one stream (row 8)."""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable

import pytest

from stepstore.errors import Damaged, RecoveryFailed
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, Batch, DirectoryEntry
from stepstore.log.index import STREAM_CLOSED, STREAM_FORKED, STREAM_GAP, STREAM_OPENED, LogIndex, Run
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log, open_log_read_only
from stepstore.log.reading import Record, SegmentReader
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    WatchedFiles,
    content,
    flip,
    payload,
    read_log,
    records_of,
    segments,
    store,
    stream_id,
    write_log,
    writing,
)


def entry(stream: bytes, first_seq: int, first_lsn: int, count: int, flags: int = 0, at: int = 0) -> DirectoryEntry:
    return (stream, first_seq, first_lsn, count, count * 10, 0xC0FFEE, flags, at + 500, at + 100)


# ---- the index -------------------------------------------------------------------------------------------------------


def test_runs_after_gives_what_lies_behind_a_seq() -> None:
    index = LogIndex()
    index.add_frame(0, 512, 1, [entry(A, 1, 1, 3, at=512), entry(B, 1, 4, 1)])
    index.add_frame(0, 2048, 5, [entry(A, 4, 5, 2, at=2048), entry(A, 6, 7, 1)])
    index.add_frame(7, 512, 8, [entry(A, 7, 8, 4)])
    runs = index.runs_after(A, 0)
    assert [(run.segment, run.first_seq, run.first_lsn, run.records) for run in runs] == [
        (0, 1, 1, 3), (0, 4, 5, 2), (0, 6, 7, 1), (7, 7, 8, 4)
    ]  # fmt: skip
    assert runs[1] == Run(0, 4, 5, 2, 20, 0xC0FFEE, 2548, 2148)
    for seq in range(12):
        assert index.runs_after(A, seq) == [run for run in runs if run.first_seq + run.records - 1 > seq]
    assert index.runs_after(C, 0) == []
    assert (index.last_seq(A), index.last_seq(B), index.last_seq(C)) == (10, 1, 0)
    assert (index.records, len(index), index.frame_count) == (11, 2, 3)
    assert list(index.streams()) == [A, B]
    assert A in index
    assert C not in index


def test_frames_are_found_by_lsn() -> None:
    index = LogIndex()
    places = [(0, 512, 1), (0, 4096, 10), (1, 512, 11), (3, 9000, 400)]
    for segment, offset, lsn in places:
        index.add_frame(segment, offset, lsn, [])
    for lsn in range(500):
        number = index.frame_at_lsn(lsn)
        assert places[number][2] <= max(lsn, 1)
        assert number == 3 or places[number + 1][2] > lsn
    assert [index.frame_place(number) for number in range(4)] == [place[:2] for place in places]


def test_a_large_index_keeps_every_run_apart() -> None:
    dice, index = random.Random(8), LogIndex()
    expected: dict[bytes, list[tuple[int, int, int]]] = {}
    last: dict[bytes, int] = {}
    lsn = 1
    for number in range(3000):
        stream, count = stream_id(str(dice.randrange(200))), dice.randrange(1, 5)
        first = last.get(stream, 0) + 1
        index.add_frame(number // 100, number * 600, lsn, [entry(stream, first, lsn, count)])
        expected.setdefault(stream, []).append((number // 100, first, lsn))
        last[stream] = first + count - 1
        lsn += count
    for stream, runs in expected.items():
        assert [(run.segment, run.first_seq, run.first_lsn) for run in index.runs_after(stream, 0)] == runs
        assert index.last_seq(stream) == last[stream]


def test_streams_are_open_between_their_flags() -> None:
    index = LogIndex()
    index.add_frame(0, 512, 1, [entry(A, 1, 1, 1, FLAG_OPENS), entry(B, 1, 2, 1, FLAG_OPENS), entry(C, 1, 3, 1)])
    assert (index.open_streams, list(index.streams_still_open())) == (2, [A, B])
    index.add_frame(0, 999, 4, [entry(A, 2, 4, 1), entry(A, 3, 5, 1, FLAG_CLOSES)])
    assert (index.open_streams, list(index.streams_still_open())) == (1, [B])
    index.add_frame(0, 1999, 6, [entry(stream_id("short"), 1, 6, 1, FLAG_OPENS | FLAG_CLOSES)])
    assert index.open_streams == 1
    assert [index.flags(stream) for stream in (A, B, C)] == [STREAM_OPENED | STREAM_CLOSED, STREAM_OPENED, 0]


@pytest.mark.parametrize(("first_seq", "flag"), [(2, STREAM_FORKED), (1, STREAM_FORKED), (5, STREAM_GAP)])
def test_a_batch_that_does_not_continue_its_stream_marks_it_and_is_left_out(first_seq: int, flag: int) -> None:
    index = LogIndex()
    index.add_frame(0, 512, 1, [entry(A, 1, 1, 2), entry(B, 1, 3, 1)])
    index.add_frame(0, 999, 4, [entry(A, first_seq, 4, 1)])
    assert index.flags(A) == flag
    assert index.flags(B) == 0
    assert [run.first_lsn for run in index.runs_after(A, 0)] == [1]
    assert index.last_seq(A) == 2
    assert index.records == 4, "it is stored, and counted"


async def test_the_index_of_a_running_writer_is_the_index_that_an_opening_makes() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        for n in range(20):
            await store(writer, (A, [payload(n * 90, n), b""]), (stream_id(str(n % 3)), [b"%d" % n]))
        live = [log.index.runs_after(stream, 0) for stream in log.index.streams()]
        places = [log.index.frame_place(number) for number in range(log.index.frame_count)]
        paths = list(log.paths)
    again = open_log_read_only(disk, LOG)
    assert again.paths == paths
    assert [again.index.runs_after(stream, 0) for stream in again.index.streams()] == live
    assert [again.index.frame_place(number) for number in range(again.index.frame_count)] == places
    assert (again.index.records, again.end_lsn, again.report.records) == (60, 60, 60)


async def test_what_is_acknowledged_can_be_read_while_writing_goes_on() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    reader = SegmentReader(disk, log.paths)
    stored: list[Record] = []
    async with writing(log) as writer:
        for n in range(12):
            stored += records_of(await store(writer, (A, [payload(3000, n)])))
            runs = log.index.runs_after(A, 0)
            assert [record for run in runs for record in reader.read_run(A, run)] == stored
    reader.close()


def test_a_reader_keeps_a_bounded_number_of_files_open() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(9000, n)])] for n in range(40)])
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    assert len(log.paths) == 40
    reader = SegmentReader(files, log.paths)
    opened = len([call for call in files.calls if call.operation == "open"])
    for _ in range(2):
        assert [record for run in log.index.runs_after(A, 0) for record in reader.read_run(A, run)] == stored
    assert len(files.open_files) <= 33
    assert len([call for call in files.calls if call.operation == "open"]) > opened + 40
    reader.close()
    assert files.open_files == []


# ---- row 8: damage in what was sound when the log was opened ---------------------------------------------------------


def test_row_08_a_flipped_payload_damages_its_stream_and_no_other() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"a one"]), (B, [b"b one", b"b two"])], [(A, [b"a two"]), (C, [b"c one"])]])
    log = open_log(disk, LOG, SMALL)
    (segment,) = segments(disk)
    run = log.index.runs_after(B, 0)[0]
    flip(disk, segment, run.payload_at + 5)
    reader = SegmentReader(disk, log.paths)
    with pytest.raises(Damaged) as caught:
        reader.read_run(B, run)
    error = caught.value
    assert (error.file, error.offset, error.row) == (segment, run.payload_at, 8)
    assert (error.first_lsn, error.last_lsn, error.streams) == (2, 3, (B,))
    for stream in (A, C):
        found = [record for run in log.index.runs_after(stream, 0) for record in reader.read_run(stream, run)]
        assert found == [record for record in stored if record.stream == stream]
    with pytest.raises(Damaged) as caught:
        reader.read_frame(*log.index.frame_place(0))
    assert (caught.value.file, caught.value.offset) == (segment, log.index.frame_place(0)[1])
    assert [record.stream for record in reader.read_frame(*log.index.frame_place(1))] == [A, C]
    reader.close()
    log.release()


def test_row_08_every_flipped_bit_of_a_run_is_noticed() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"some text", b"", b"more"])]])
    log = open_log_read_only(disk, LOG)
    (run,) = log.index.runs_after(A, 0)
    (segment,) = segments(disk)
    reader = SegmentReader(disk, log.paths)
    reader.read_run(A, run)
    places = itertools.chain(
        range(run.payload_at, run.payload_at + run.size), range(run.lengths_at, run.lengths_at + run.records * 4)
    )
    for at, bit in itertools.product(places, range(8)):
        flip(disk, segment, at, bit)
        with pytest.raises(Damaged):
            reader.read_run(A, run)
        flip(disk, segment, at, bit)
    reader.read_run(A, run)


def test_row_08_every_flipped_byte_of_a_frame_is_noticed() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"some text"]), (B, [b"more"])]])
    log = open_log_read_only(disk, LOG)
    segment, at = log.index.frame_place(0)
    path = segments(disk)[segment]
    reader = SegmentReader(disk, log.paths)
    end = len(content(disk, path).rstrip(b"\0"))
    for place in range(at, end):
        flip(disk, path, place, place % 8)
        with pytest.raises(Damaged):
            reader.read_frame(segment, at)
        flip(disk, path, place, place % 8)
    assert len(reader.read_frame(segment, at)) == 2


def test_a_read_error_is_recovery_failed_and_not_damage() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"text"])]])

    def bad_block(call: Call) -> None:
        if call.operation == "read":
            raise OSError(errno.EIO, "Input/output error")

    log = open_log_read_only(disk, LOG)
    reader = SegmentReader(WatchedFiles(disk, bad_block), log.paths)
    (run,) = log.index.runs_after(A, 0)
    reads: list[Callable[[], object]] = [
        lambda: reader.read_run(A, run),
        lambda: reader.read_frame(*log.index.frame_place(0)),
    ]
    for read in reads:
        with pytest.raises(RecoveryFailed) as caught:
            read()
        assert (caught.value.file, caught.value.errno) == (segments(disk)[0], errno.EIO)
        assert caught.value.offset in (run.payload_at, log.index.frame_place(0)[1])


# ---- reading beside a writer -----------------------------------------------------------------------------------------


async def test_a_log_can_be_read_only_while_another_writes_to_it() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for n in range(8):
            stored += records_of(await store(writer, (A, [payload(5000, n)])))
            files = WatchedFiles(disk)
            beside = open_log_read_only(files, LOG)
            assert read_log(beside) == stored
            assert files.changes(but=()) == []
            assert not [call for call in files.calls if call.operation == "lock"]
            assert (beside.lock, beside.sequence, beside.segment) == (None, None, None)
            beside.release()


async def test_flags_of_a_batch_are_kept() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for seq, flags in ((1, FLAG_OPENS), (2, 0), (3, FLAG_CLOSES)):
            await writer.submit([Batch(A, seq, [b"x"], flags), Batch(B, seq, [b"x"], flags & FLAG_OPENS)]).wait()
    log = open_log_read_only(disk, LOG)
    assert list(log.index.streams_still_open()) == [B]
    assert log.report.open_streams == 1
