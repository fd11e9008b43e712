"""A read-only opening keeps up with the process that writes: what has appeared is there, and is there once."""

from __future__ import annotations

import errno

import pytest
import trio.testing

from stepstore.errors import RecoveryFailed
from stepstore.log import frame as fr
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, Batch
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import OpenLog, open_log, open_log_read_only
from stepstore.log.records import Record
from stepstore.log.refreshing import refresh
from stepstore.log.scan import Window
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.stream_reader import Position, StreamReader
from tests.stepstore.compaction_lab import Kept, delete, life
from tests.stepstore.compaction_lab import put as put_in_log
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    move,
    payload,
    put,
    read_log,
    records_of,
    remove,
    segments,
    store,
    tended,
    tree,
    write_log,
    writing,
)


def refreshed(log: OpenLog) -> list[Record]:
    """Everything that the log shows after a refresh."""
    refresh(log)
    return read_log(log)


def add_a_frame(disk: MemoryFileSystem) -> list[Record]:
    """Another frame in the newest segment, as its own writer would have added it."""
    (segment,) = segments(disk)
    last = frames_of(disk, segment)[-1]
    at = fr.header_position(last.end)
    data, _crc, _entries = fr.build_frame(
        [Batch(B, 1, [payload(900)], 0)],
        offset=at,
        first_lsn=last.head.last_lsn + 1,
        durable_lsn=last.head.last_lsn,
        segment_tag=last.head.segment_tag,
        prev_crc=last.head.header_crc,
    )
    put(disk, segment, data, at=at)
    return [Record(B, 1, last.head.last_lsn + 1, payload(900))]


async def test_frames_that_a_writer_adds_are_taken_up_one_refresh_after_the_other() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"before"])))
        files = WatchedFiles(disk)
        log = open_log_read_only(files, LOG)
        assert read_log(log) == stored
        for n in range(4):
            stored += records_of(await store(writer, (A, [payload(200, n), b""]), (B, [b"%d" % n])))
            assert refreshed(log) == stored
            assert log.end_lsn == len(stored)
        start = frames_of(disk, segments(disk)[0])[-1].end
        files.calls.clear()
        refresh(log)
        reads = [call for call in files.calls if call.operation == "read" and call.path.endswith(".seg")]
        assert all(call.offset >= start for call in reads), "what was seen before is not read again"
    assert files.changes(but=()) == []


async def test_what_a_writer_adds_behind_a_mark_is_taken_up() -> None:
    """A refresh may see the mark alone, and the next one what continues behind it."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"before"])))
        files = WatchedFiles(disk)
        log = open_log_read_only(files, LOG)
        writer.want_mark()
        await trio.testing.wait_all_tasks_blocked()
        mark = frames_of(disk, segments(disk)[0])[-1]
        assert mark.head.kind == fr.KIND_MARK
        assert refreshed(log) == stored
        files.calls.clear()
        refresh(log)
        assert min(call.offset for call in files.calls if call.operation == "read") >= mark.end
        stored += records_of(await store(writer, (A, [b"behind"])))
        assert refreshed(log) == stored


async def test_segments_that_a_writer_begins_and_seals_are_taken_up() -> None:
    disk = MemoryFileSystem()
    async with tended(open_log(disk, LOG, SMALL)) as (writer, caretaker):
        stored = records_of(await store(writer, (A, [payload(9000)])))
        log = open_log_read_only(disk, LOG)
        for n in range(4):
            stored += records_of(await store(writer, (A, [payload(9000, n)]), (B, [b"%d" % n])))
            await caretaker.wait_sealed()
            assert refreshed(log) == stored
            assert log.end_lsn == len(stored)
            assert [segment.path for segment in log.index.segments] == segments(disk)
        assert [type(segment.index) for segment in log.index.segments[:-1]] == [SealedIndex] * 4
        assert log.index.last_seq(A) == 5


async def test_a_log_that_was_closed_in_order_has_nothing_more_to_take_up_until_it_is_opened_again() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"one"])))
        log = open_log_read_only(disk, LOG)
        writer.finish()
    async with writing(open_log(disk, LOG, SMALL), close=True):
        pass
    assert refreshed(log) == stored
    async with writing(open_log(disk, LOG, SMALL), close=True) as writer:
        stored += records_of(await store(writer, (A, [b"two"])))
    assert refreshed(log) == stored
    files = WatchedFiles(disk)
    log.files = files
    refresh(log)
    assert {call.operation for call in files.calls} == {"list_names"}, "a sealed log is not read again"


async def test_the_open_streams_are_those_of_the_moment_of_the_refresh() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await writer.submit([Batch(A, 1, [b"opens"], FLAG_OPENS)]).wait()
        log = open_log_read_only(disk, LOG)
        assert list(log.index.streams_still_open()) == [A]
        await writer.submit([Batch(B, 1, [b"opens"], FLAG_OPENS), Batch(A, 2, [b"closes"], FLAG_CLOSES)]).wait()
        refresh(log)
        assert list(log.index.streams_still_open()) == [B]
        await store(writer, (B, [payload(14_000)]))
        await writer.submit([Batch(B, 3, [payload(9000)], FLAG_CLOSES)]).wait()
        assert len(segments(disk)) == 2
        refresh(log)
        assert list(log.index.streams_still_open()) == []


async def test_a_reader_that_had_begun_goes_on_behind_a_refresh() -> None:
    """Its place was one in the index that the refresh has replaced."""
    disk = MemoryFileSystem()
    async with tended(open_log(disk, LOG, SMALL)) as (writer, caretaker):
        stored: list[Record] = []
        for n in range(6):
            stored += records_of(await store(writer, (A, [payload(3000, n)])))
        log = open_log_read_only(disk, LOG)
        reader = StreamReader(log.reading, log.index)
        frame_reader = FrameReader(log.reading, log.index)
        found, place = reader.read_slice(A, Position(0), 2**63, 2, 10**6)
        items, frames = frame_reader.read_frames(FramePosition(0), log.end_lsn, 2)
        assert (found, items) == (stored[:2], stored[:2])
        for n in range(6):
            stored += records_of(await store(writer, (A, [payload(3000, n + 6)])))
        await caretaker.wait_sealed()
        refresh(log)
        while not place.is_at_end:
            part, place = reader.read_slice(A, place, 2**63, 2, 10**6)
            found += part
        while frames.after < log.end_lsn:
            more, frames = frame_reader.read_frames(frames, log.end_lsn, 2)
            items += more
    assert found == stored
    assert items == stored


@pytest.mark.parametrize("part", ["header", "payload"])
def test_a_frame_that_is_half_there_is_not_yet_and_taken_up_once_it_is_whole(part: str) -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"one"])]])
    (segment,) = segments(disk)
    log = open_log_read_only(disk, LOG)
    whole = clone(disk)
    more = add_a_frame(whole)
    frame = frames_of(whole, segment)[-1]
    data = content(whole, segment)[frame.at : frame.end]
    half = bytes(20) + data[20:] if part == "header" else data[:-5] + bytes(5)
    put(disk, segment, half, at=frame.at)
    for _ in range(3):
        assert refreshed(log) == stored
    put(disk, segment, data, at=frame.at)
    assert refreshed(log) == stored + more


def test_a_log_that_is_seen_half_way_through_a_change_stays_as_it_was_and_is_whole_the_next_time() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(9000, n)])] for n in range(3)])
    log = open_log_read_only(disk, LOG)
    stored += write_log(disk, [[(A, [payload(9000, n)])] for n in range(3, 5)])
    hidden = segments(disk)[3]
    move(disk, hidden, f"{LOG}/hidden")
    assert refreshed(log) == stored[:3], "a gap in the numbers of the segments: somebody is at it"
    move(disk, f"{LOG}/hidden", hidden)
    assert refreshed(log) == stored


async def test_a_newest_file_that_is_compacted_between_the_listing_and_the_opening_is_taken_up_where_it_is_now() -> (
    None
):
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, _caretaker, _log):
        await put_in_log(writer, kept, (A, [b"stays"], 0), (B, [payload(3000)], 0))
        await delete(writer, kept, B)
    before = clone(disk)
    (newest,) = segments(before)
    put(before, newest, content(before, newest), size=frames_of(before, newest)[-1].end)  # as while it is written to
    async with life(disk, kept) as (writer, caretaker, _log):
        await put_in_log(writer, kept, (C, [b"later"], 0))
        await caretaker.compact()

    def compacted_meanwhile(call: Call) -> None:
        if call.operation == "open" and call.path.endswith(".seg"):
            files.before = lambda _call: None
            for name in before.list_names(LOG):
                remove(before, f"{LOG}/{name}")
            for path, data in tree(disk, LOG).items():
                if data is not None:
                    put(before, path, data)

    files = WatchedFiles(before, lambda _call: None)
    reader = open_log_read_only(files, LOG)
    old = reader.paths
    files.before = compacted_meanwhile
    refresh(reader)
    assert not {*old} & {*reader.paths}
    kept.check(reader)
    reader.release()


def test_damage_behind_what_was_seen_is_not_yet_and_nothing_is_lost() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(9000, n)])] for n in range(2)])
    log = open_log_read_only(disk, LOG)
    stored += write_log(disk, [[(B, [payload(9000, n)])] for n in range(3)])
    damaged = segments(disk)[2]
    place = frames_of(disk, damaged)[0].end - 1
    flip(disk, damaged, place)
    assert refreshed(log) == stored[:2]
    flip(disk, damaged, place)
    assert refreshed(log) == stored


@pytest.mark.parametrize("operation", ["list_names", "open", "size", "read"])
def test_row_18_a_read_error_of_a_refresh_is_declared_and_the_next_one_goes_on(operation: str) -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"one"])]])
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    stored += add_a_frame(disk)

    def fail(call: Call) -> None:
        if call.operation == operation:
            raise OSError(errno.EIO, "Input/output error", call.path)

    files.before = fail
    with pytest.raises(RecoveryFailed) as caught:
        refresh(log)
    assert caught.value.errno == errno.EIO
    files.before = None
    assert refreshed(log) == stored


def test_a_first_open_that_was_interrupted_is_taken_up_once_it_was_repeated() -> None:
    disk = MemoryFileSystem()
    open_log(disk, LOG, SMALL).release()
    (only,) = segments(disk)
    disk.unlink(only)
    log = open_log_read_only(disk, LOG)
    assert refreshed(log) == []
    stored = write_log(disk, [[(A, [b"one"])]])
    assert refreshed(log) == stored


def test_a_segment_that_is_closed_while_it_is_looked_through_is_no_damage() -> None:
    """The writer cuts off the space it had set aside: a reader that had asked for the size before was refused."""
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(300)])]])
    (segment,) = segments(disk)
    end = len(content(disk, segment))
    file = disk.open(segment)
    file.truncate(end + 4 * 1024 * 1024)
    files = WatchedFiles(disk)

    def close_it(call: Call) -> None:
        if call.operation == "read" and call.path == segment and call.offset + call.size > end:
            file.truncate(end)

    expected = read_log(open_log_read_only(disk, LOG))
    files.before = close_it
    assert read_log(open_log_read_only(files, LOG)) == expected


@pytest.mark.parametrize("trouble", ["short", "size"])
def test_a_read_that_is_short_of_a_file_that_has_not_shrunk_is_an_error(trouble: str) -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(300)])]])
    (segment,) = segments(disk)
    files = WatchedFiles(disk)
    short = False

    def spoil(call: Call, data: bytes) -> bytes:
        nonlocal short
        if call.path == segment and call.size > 512:
            short = True
            return data[:100]
        return data

    def fail(call: Call) -> None:
        if trouble == "size" and short and call.operation == "size":
            raise OSError(errno.EIO, "Input/output error", call.path)

    files.spoil_read, files.before = spoil, fail
    with pytest.raises(
        RecoveryFailed, match="although the file is longer" if trouble == "short" else "Input/output"
    ) as it:
        open_log_read_only(files, LOG)
    assert it.value.file == segment
    assert it.value.errno == (None if trouble == "short" else errno.EIO)
    assert trouble == "short" or str(it.value).startswith(f"cannot read {segment!r}: ")


def test_a_window_on_a_file_that_cannot_be_looked_at_says_which() -> None:
    disk = MemoryFileSystem()
    put(disk, "/file", b"x")

    def fail(call: Call) -> None:
        if call.operation == "size":
            raise OSError(errno.EIO, "Input/output error", call.path)

    with pytest.raises(RecoveryFailed, match=r"^cannot read 'the name': ") as caught:
        Window(WatchedFiles(disk, fail).open("/file"), "the name")
    assert caught.value.file == "the name"


@pytest.mark.parametrize("now", [250, 1_000], ids=["it has shrunk by less", "it has not shrunk"])
def test_a_window_objects_to_a_read_that_is_shorter_than_the_file(now: int) -> None:
    disk = MemoryFileSystem()
    put(disk, "/file", b"x" * 1_000)
    files = WatchedFiles(disk)
    files.spoil_read = lambda _call, data: data[:20]
    window = Window(files.open("/file"), "file", block=100)
    disk.open("/file").truncate(now)
    with pytest.raises(RecoveryFailed, match="reading 'file' at offset 200 gave 20 of 100 bytes") as caught:
        window.at(200, 100)
    assert (caught.value.file, caught.value.offset) == ("file", 200)


def test_a_window_knows_the_size_of_a_file_that_has_shrunk() -> None:
    disk = MemoryFileSystem()
    put(disk, "/file", b"x" * 1_000)
    file = disk.open("/file")
    window = Window(file, "file", block=100)
    file.truncate(250)
    assert bytes(window.at(200, 100)) == b"x" * 50
    assert window.size == 250
    assert bytes(window.at(900, 100)) == b""
