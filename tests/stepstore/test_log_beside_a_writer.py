"""A read-only opening that keeps up with the process that writes: nothing judged, nothing missed, nothing twice."""

from __future__ import annotations

import errno
import os

import pytest
import trio
import trio.testing

from stepstore.errors import RecoveryFailed
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, Batch
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.listing import again_if_replaced
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.names import manifest_name
from stepstore.log.opening import OpenLog, open_log, open_log_read_only
from stepstore.log.records import Record
from stepstore.log.refreshing import refresh
from stepstore.log.stream_reader import Position, StreamReader
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    Call,
    WatchedFiles,
    flip,
    frames_of,
    payload,
    put,
    read_log,
    records_of,
    segments,
    store,
    stream_id,
    tended,
    tree,
    writing,
)


def scanned(files: WatchedFiles) -> set[str]:
    return {call.path for call in files.calls if call.operation == "read" and call.path.endswith(".seg")}


async def test_what_is_written_beside_it_is_taken_up_frame_by_frame() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        beside = open_log_read_only(disk, LOG)
        for n in range(12):
            stored += records_of(await store(writer, (A, [payload(900, n)]), (stream_id(str(n)), [b"x"])))
            before = tree(disk)
            refresh(beside)
            assert tree(disk) == before
            assert read_log(beside) == stored
            assert beside.end_lsn == len(stored)
        beside.release()


async def test_only_the_end_of_the_newest_segment_is_read() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for n in range(5):
            await store(writer, (A, [payload(7000, n)]))
        files = WatchedFiles(disk)
        beside = open_log_read_only(files, LOG)
        *older, newest = segments(disk)
        for n in range(3):
            await store(writer, (A, [b"%d" % n]))
            files.calls.clear()
            refresh(beside)
            assert scanned(files) == {newest}
            assert beside.index.last_seq(A) == 6 + n
        files.calls.clear()
        refresh(beside)
        assert not scanned(files) & {*older}, "nothing has changed"
        assert beside.index.last_seq(A) == 8
        beside.release()


async def test_segments_that_are_begun_left_and_sealed_meanwhile_are_taken_up() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    async with tended(open_log(disk, LOG, SMALL), close=True) as (writer, caretaker):
        beside = open_log_read_only(disk, LOG)
        for n in range(20):
            stored += records_of(await store(writer, (A, [payload(3000, n)]), (B, [b"%d" % n])))
            if n % 3 == 0:
                await caretaker.wait_sealed()
            if n % 2:
                refresh(beside)
                assert read_log(beside) == stored
        assert len(segments(disk)) > 3
    refresh(beside)  # the writer has closed its log
    assert read_log(beside) == stored
    beside.release()


async def test_a_log_that_was_closed_in_order_is_not_read_again() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL), close=True) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
    files = WatchedFiles(disk)
    beside = open_log_read_only(files, LOG)
    files.calls.clear()
    refresh(beside)
    assert scanned(files) == set()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored += records_of(await store(writer, (A, [b"2"])))
        refresh(beside)
        assert read_log(beside) == stored
    beside.release()


async def test_a_mark_is_passed_over() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        beside = open_log_read_only(disk, LOG)
        writer.want_mark()
        await trio.testing.wait_all_tasks_blocked()
        refresh(beside)
        stored += records_of(await store(writer, (A, [b"2"])))
        refresh(beside)
        assert read_log(beside) == stored
        beside.release()


async def test_streams_open_and_close_beside_it() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        beside = open_log_read_only(disk, LOG)
        for stream, seq, flags in ((A, 1, FLAG_OPENS), (B, 1, FLAG_OPENS), (A, 2, FLAG_CLOSES)):
            await writer.submit([Batch(stream, seq, [b"x"], flags)]).wait()
            refresh(beside)
        assert list(beside.index.streams_still_open()) == [B]
        beside.release()


async def test_readers_go_on_where_they_were() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    async with tended(open_log(disk, LOG, SMALL)) as (writer, _caretaker):
        beside = open_log_read_only(disk, LOG)
        reader = StreamReader(beside.reading, beside.index)
        frame_reader = FrameReader(beside.reading, beside.index)
        slices, frames = Position(0), FramePosition(0)
        by_stream: list[Record] = []
        in_order: list[object] = []
        for n in range(15):
            stored += records_of(await store(writer, (A, [payload(4000, n)])))
            refresh(beside)
            part, slices = reader.read_slice(A, Position(slices.after), beside.end_lsn, 100, 10**6)
            by_stream += part
            items, frames = frame_reader.read_frames(frames, beside.end_lsn, 100)
            in_order += items
            assert by_stream == in_order == stored
        beside.release()


async def test_a_frame_that_is_not_whole_yet_is_looked_at_again() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        beside = open_log_read_only(disk, LOG)
        stored += records_of(await store(writer, (A, [b"2" * 300])))
    segment = segments(disk)[0]
    last = frames_of(disk, segment)[-1]
    flip(disk, segment, last.end - 1)
    refresh(beside)
    assert read_log(beside) == stored[:1]
    flip(disk, segment, last.end - 1)
    refresh(beside)
    assert read_log(beside) == stored
    beside.release()


async def test_a_log_seen_half_way_through_a_change_stays_as_it_was() -> None:
    """A name is there and its header is not what it must be: never so on one machine, and then not taken up."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        beside = open_log_read_only(disk, LOG)
        put(disk, f"{LOG}/00000002-0000000000000002.0.seg", b"half a header")
        refresh(beside)
        assert read_log(beside) == stored
        disk.unlink(f"{LOG}/00000002-0000000000000002.0.seg")
        stored += records_of(await store(writer, (A, [b"2"])))
        refresh(beside)
        assert read_log(beside) == stored
        beside.release()


def test_a_first_open_that_was_interrupted_is_taken_up_once_it_is_repeated() -> None:
    disk = MemoryFileSystem()
    open_log(disk, LOG, SMALL).release()
    for segment in segments(disk):
        disk.unlink(segment)
    beside = open_log_read_only(disk, LOG)
    refresh(beside)
    assert not list(beside.index.segments)
    open_log(disk, LOG, SMALL).release()
    refresh(beside)
    assert len(beside.index.segments) == 1
    beside.release()


@pytest.mark.parametrize("operation", ["list_names", "open", "read"])
async def test_row_18_an_io_error_is_told_and_the_next_look_finds_everything(operation: str) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        beside: OpenLog = open_log_read_only(files, LOG)
        stored += records_of(await store(writer, (A, [b"2"])))

        def fail(call: Call) -> None:
            if call.operation == operation:
                raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)

        files.before = fail
        with pytest.raises(RecoveryFailed):
            refresh(beside)
        files.before = None
        refresh(beside)
        assert read_log(beside) == stored
        beside.release()
        assert files.open_files == []


@pytest.mark.parametrize("sound_at", [1, 2, 3, 4])
def test_what_is_looked_at_while_a_compaction_replaces_it_is_looked_at_three_times_at_most(sound_at: int) -> None:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    looks = 0

    def look() -> str:
        nonlocal looks
        looks += 1
        if looks == sound_at:
            return "sound"
        put(disk, f"{LOG}/{manifest_name(looks)}", b"another one")
        raise RecoveryFailed(f"look {looks}")

    if sound_at <= 3:
        assert again_if_replaced(disk, LOG, look) == "sound"
    else:
        with pytest.raises(RecoveryFailed, match="look 3"):
            again_if_replaced(disk, LOG, look)
    assert looks == min(sound_at, 3)


def test_what_fails_although_no_file_was_replaced_is_not_looked_at_again() -> None:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        put(disk, f"{LOG}/spare.tmp", bytes(looks))
        raise RecoveryFailed(f"look {looks}")

    with pytest.raises(RecoveryFailed, match="look 1"):
        again_if_replaced(disk, LOG, look)
