"""What is read through the index: slices of a stream, frames in log order; a damaged batch costs one stream (row 8)."""

from __future__ import annotations

import errno
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from stepstore.errors import Damaged, RecoveryFailed
from stepstore.log import frame as fr
from stepstore.log.batch_codec import Compression, DecodeFailed
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, Batch
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.index import LogIndex, Part
from stepstore.log.indexed_batch import IndexedBatch, batch_from_words
from stepstore.log.live_index import LiveIndex
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, OpenLog, open_log, open_log_read_only
from stepstore.log.records import Gap, Record
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import Position, StreamReader
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    Forgetful,
    WatchedFiles,
    content,
    flip,
    follow_log,
    frames_of,
    payload,
    put,
    read_log,
    read_stream,
    records_of,
    segments,
    store,
    stream_id,
    submit,
    write_log,
    writing,
)


def reader_of(log: OpenLog) -> StreamReader:
    return StreamReader(log.reading, log.index)


def frame_reader_of(log: OpenLog) -> FrameReader:
    return FrameReader(log.reading, log.index)


def places_of(log: OpenLog) -> list[tuple[str, int, int]]:
    """(path, first LSN, offset) of every frame."""
    return [
        (segment.path, *log.index.frame_place(segment, number))
        for segment in log.index.segments
        for number in range(segment.index.frame_count)
    ]


def batches_of(log: OpenLog) -> list[tuple[object, ...]]:
    """Every batch of every stream, told without the object of its segment."""
    return [
        (stream, batch.segment.path, *batch[1:])
        for stream in streams_of(log.index)
        for batch in log.index.batches_after(stream, 0)
    ]


async def test_the_index_of_a_running_writer_is_the_index_that_an_opening_makes() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        for n in range(20):
            await store(writer, (A, [payload(n * 90, n), b""]), (stream_id(str(n % 3)), [b"%d" % n]))
        batches, places, paths = batches_of(log), places_of(log), list(log.paths)
    again = open_log_read_only(disk, LOG)
    assert again.paths == paths
    assert batches_of(again) == batches
    assert places_of(again) == places
    assert (again.index.records, again.end_lsn, again.report.records) == (60, 60, 60)


async def test_what_is_acknowledged_can_be_read_while_writing_goes_on() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    reader = reader_of(log)
    stored: list[Record] = []
    async with writing(log) as writer:
        for n in range(12):
            stored += records_of(await store(writer, (A, [payload(3000, n)])))
            batches = log.index.batches_after(A, 0)
            assert [record for batch in batches for record in reader.read_batch(A, batch)] == stored
            assert read_stream(reader, A) == stored


def test_a_reader_keeps_a_bounded_number_of_files_open() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(9000, n)])] for n in range(40)])
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    assert len(log.paths) == 40
    reader = reader_of(log)
    opened = len([call for call in files.calls if call.operation == "open"])
    for _ in range(2):
        assert read_stream(reader, A) == stored
    assert len(files.open_files) <= 32
    assert len([call for call in files.calls if call.operation == "open"]) > opened + 40
    log.release()
    assert files.open_files == []


# ---- slices of a stream ----------------------------------------------------------------------------------------------


def a_long_stream() -> tuple[MemoryFileSystem, list[Record]]:
    """One stream in batches of 1 to 7 records over several segments, another one in between."""
    disk = MemoryFileSystem()
    groups: list[list[tuple[bytes, list[bytes]]]] = []
    for n in range(150):
        groups.append([(A, [payload(n % 60, n * 8 + m) for m in range(n % 7 + 1)]), (B, [payload(200, n)])])
    stored = write_log(disk, groups)
    assert len(segments(disk)) > 3
    return disk, [record for record in stored if record.stream == A]


@pytest.mark.parametrize("records", [1, 5, 1000])
@pytest.mark.parametrize("after", [0, 1, 17, 299])
def test_slices_of_any_size_give_every_record_once(records: int, after: int) -> None:
    disk, stored = a_long_stream()
    log = open_log_read_only(disk, LOG)
    reader, position, found = reader_of(log), Position(after), []
    while True:
        part, position = reader.read_slice(A, position, 2**63, records, 1024 * 1024)
        if not part:
            break
        assert len(part) <= max(records, 7), "a batch is never divided"
        found += part
    assert found == [record for record in stored if record.seq > after]
    assert (position.last_seq, position.flags) == (len(stored), 0)


def test_a_slice_holds_no_more_bytes_than_asked_for_unless_one_batch_is_larger() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(400, n)])] for n in range(6)] + [[(A, [payload(3000, 7)])]])
    reader, position, sizes = reader_of(open_log_read_only(disk, LOG)), Position(0), []
    for _ in stored:
        part, position = reader.read_slice(A, position, 2**63, 256, 1000)
        sizes.append([len(record.payload) for record in part])
    assert sizes[:4] == [[400, 400], [400, 400], [400, 400], [3000]]


@pytest.mark.parametrize("upto", [0, 1, 100, 101, 5000])
def test_a_slice_ends_at_the_lsn_it_was_asked_for(upto: int) -> None:
    disk, stored = a_long_stream()
    reader, position, found = reader_of(open_log_read_only(disk, LOG)), Position(0), []
    while True:
        part, position = reader.read_slice(A, position, upto, 10, 100_000)
        if not part:
            break
        found += part
    batch_ends = {frame.head.first_lsn for segment in segments(disk) for frame in frames_of(disk, segment)}
    last = max([lsn for lsn in batch_ends if lsn <= upto], default=0)
    assert [record for record in found if record.lsn < last] == [record for record in stored if record.lsn < last]
    assert all(record.lsn <= upto + 7 for record in found)


def test_more_runs_than_are_looked_at_together_are_all_given() -> None:
    """A stream of lone records: its batches are read 256 at a time."""
    disk = MemoryFileSystem()
    options = LogOptions(segment_bytes=256 * 1024)
    stored = write_log(disk, [[(A, [b"%d" % n])] for n in range(600)], options=options)
    reader, position, sizes = reader_of(open_log_read_only(disk, LOG)), Position(0), []
    found: list[Record] = []
    while True:
        part, position = reader.read_slice(A, position, 2**63, 1000, 1024 * 1024)
        if not part:
            break
        sizes.append(len(part))
        found += part
    assert found == stored
    assert sizes == [600], "and the slice is as large as was asked for"


def three_batches() -> tuple[MemoryFileSystem, list[Record]]:
    """Two of one stream with little between them, and one far behind."""
    disk = MemoryFileSystem()
    others = [(B, [payload(200, 1)]), (B, [payload(9_000, 2)])]
    stored = write_log(disk, [[(A, [b"one", b"two"])], [others[0]], [(A, [b"three"])], [others[1]], [(A, [b"four"])]])
    return disk, [record for record in stored if record.stream == A]


def test_the_operating_system_is_told_what_a_slice_will_read_before_it_is_read() -> None:
    disk, stored = three_batches()
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    first, second, third = (batch.places[0] for batch in log.index.batches_after(A, 0) if batch.places)
    files.calls.clear()
    found, _position = reader_of(log).read_slice(A, Position(0), 2**63, 100, 10**6)
    assert found == stored
    expected = [(first[0], sum(second) - first[0]), third]
    calls = [(call.operation, call.offset, call.size) for call in files.calls if call.operation != "open"]
    told = [("will_need", offset, size) for offset, size in expected]
    read = [("read", offset, size) for offset, size in expected]
    assert calls == told + read, "what is near is one read, and what is far is waited for by nobody"


def test_what_cannot_be_read_between_two_batches_of_a_stream_does_no_harm_to_it() -> None:
    disk, stored = three_batches()
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    bad = log.index.batches_after(B, 0)[0].payload_at
    files.before = bad_block_at(log.index.segments[0].path, bad)
    found, _position = reader_of(log).read_slice(A, Position(0), 2**63, 100, 10**6)
    assert found == stored
    with pytest.raises(RecoveryFailed) as caught:
        read_stream(reader_of(log), B)
    assert (caught.value.offset, caught.value.errno) == (bad, errno.EIO)


def bad_block_at(path: str, offset: int) -> Callable[[Call], None]:
    """Whoever reads this byte is told that it cannot be read."""

    def fail(call: Call) -> None:
        if call.operation == "read" and call.path == path and call.offset <= offset < call.offset + call.size:
            raise OSError(errno.EIO, "Input/output error", call.path)

    return fail


def test_a_hint_that_fails_is_no_matter_and_the_read_says_what_is_wrong() -> None:
    disk, _stored = three_batches()
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    log.reading.close()

    def no_file(call: Call) -> None:
        if call.operation == "open":
            raise OSError(errno.EMFILE, "Too many open files", call.path)

    files.before = no_file
    with pytest.raises(RecoveryFailed) as caught:
        reader_of(log).read_slice(A, Position(0), 2**63, 100, 10**6)
    assert caught.value.errno == errno.EMFILE


def test_lengths_far_from_their_payloads_are_read_apart() -> None:
    """In a frame of many batches the directory is long; the bytes between are not read."""
    disk = MemoryFileSystem()
    filler = [(stream_id(str(n)), [payload(200, n)]) for n in range(100)]
    options = LogOptions(segment_bytes=256 * 1024)
    stored = write_log(disk, [[(A, [b"one", b"two"]), *filler, (B, [b"three", b"four"])]], options=options)
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    (batch,) = log.index.batches_after(B, 0)
    assert batch.payload_at - batch.lengths_at > 16 * 1024
    files.calls.clear()
    assert reader_of(log).read_batch(B, batch) == stored[-2:]
    assert [call.offset for call in files.calls if call.operation == "read"] == [batch.lengths_at, batch.payload_at]
    assert reader_of(log).read_batch(A, log.index.batches_after(A, 0)[0]) == stored[:2]


# ---- frames in log order ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_records", [1, 10, 100_000])
def test_frames_are_given_in_log_order_behind_any_lsn(slice_records: int) -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(700, n)] * (n % 4 + 1)), (B, [b"b"])] for n in range(40)])
    assert len(segments(disk)) > 3
    log = open_log_read_only(disk, LOG)
    for after in [*range(0, len(stored) + 3, 9 if slice_records == 1 else 1)]:
        assert follow_log(log, after, slice_records) == stored[after:]


def test_a_position_that_was_kept_goes_on_where_it_was() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(3000, n)])] for n in range(30)])
    log = open_log_read_only(disk, LOG)
    reader, position, found = frame_reader_of(log), FramePosition(0), []
    for upto in (3, 4, 4, 17, 30):
        while position.after < upto:
            items, position = reader.read_frames(position, upto, 2)
            found += items
        assert found == stored[:upto]


async def test_a_frame_that_is_added_while_the_last_one_is_read_is_not_passed_over() -> None:
    """The reader's thread has seen that the frame is the last one, and then the writer adds another."""
    log = open_log(MemoryFileSystem(), LOG, SMALL)
    segment = log.segment
    assert segment is not None
    asked = 0

    def commit() -> None:
        submit(writer, (A, [b"4"]))
        group = writer.queue.take_group()
        frame = segment.prepare([batch for submission in group for batch in submission.batches])
        segment.write(frame)
        writer._group_commit._acknowledge(segment, frame, group)

    class Growing(LiveIndex):
        @property
        def frame_count(self) -> int:
            nonlocal asked
            count = super().frame_count
            asked += 1
            if asked == 7:  # once to find the first frame, then twice for each: is there one, is there another
                commit()
            return count

    log.index.segments[0].index = Growing()
    async with writing(log) as writer:
        stored: list[Record] = []
        for n in (b"1", b"2", b"3"):
            stored += records_of(await store(writer, (A, [n])))
        asked = 0
        reader, position, found = frame_reader_of(log), FramePosition(0), []
        while position.after < writer.watermark.lsn:
            items, position = reader.read_frames(position, writer.watermark.lsn, 256)
            found += items
        assert asked >= 7
        assert found == [*stored, Record(A, 4, 4, b"4")]


def test_a_log_without_a_segment_is_empty() -> None:
    """A first open was interrupted behind FORMAT."""
    disk = MemoryFileSystem()
    open_log(disk, LOG, SMALL).release()
    for segment in segments(disk):
        disk.unlink(segment)
    log = open_log_read_only(disk, LOG)
    assert (log.end_lsn, log.index.records, log.report.segments) == (0, 0, 0)
    assert frame_reader_of(log).read_frames(FramePosition(0), 10, 10) == ([], FramePosition(0))
    assert read_stream(reader_of(log), A) == []
    assert list(streams_of(log.index)) == []
    assert log.index.last_seq(A) == 0


# ---- row 8: damage in what was sound when the log was opened ---------------------------------------------------------


def test_row_08_a_flipped_payload_damages_its_stream_and_no_other() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"a one"]), (B, [b"b one", b"b two"])], [(A, [b"a two"]), (C, [b"c one"])]])
    log = open_log(disk, LOG, SMALL)
    (segment,) = segments(disk)
    batch = log.index.batches_after(B, 0)[0]
    flip(disk, segment, batch.payload_at + 5)
    reader = reader_of(log)
    with pytest.raises(Damaged) as caught:
        reader.read_batch(B, batch)
    error = caught.value
    assert (error.file, error.offset, error.row) == (segment, batch.payload_at, 8)
    assert (error.first_lsn, error.last_lsn, error.streams) == (2, 3, (B,))
    for stream in (A, C):
        assert read_stream(reader, stream) == [record for record in stored if record.stream == stream]
    assert follow_log(log) == [stored[0], Gap(2, 3), *stored[3:]]
    log.release()


def test_row_08_a_follower_that_begins_inside_a_gap_is_given_the_gap() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"1"])], [(A, [b"2", b"3", b"4"])], [(A, [b"5"])]])
    log = open_log_read_only(disk, LOG)
    flip(disk, segments(disk)[0], log.index.batches_after(A, 0)[1].payload_at)
    for after in (1, 2, 3):
        assert follow_log(log, after) == [Gap(2, 4), stored[4]]
    assert follow_log(log, 4) == [stored[4]]


def test_a_batch_whose_lengths_do_not_add_up_is_a_gap_for_a_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a forger who has made the checksums right."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"some text", b"more"]), (B, [b"one"])]])
    log = open_log_read_only(disk, LOG)
    (batch,) = log.index.batches_after(A, 0)
    (segment,) = segments(disk)
    flip(disk, segment, batch.lengths_at + 3)
    monkeypatch.setattr(fr, "body_is_sound", lambda *_args: True)
    assert follow_log(log) == [Gap(1, 2), stored[2]]


def test_row_08_every_flipped_bit_of_a_run_is_noticed() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"some text", b"", b"more"])]])
    log = open_log_read_only(disk, LOG)
    (batch,) = log.index.batches_after(A, 0)
    (segment,) = segments(disk)
    reader = reader_of(log)
    reader.read_batch(A, batch)
    places = itertools.chain(
        range(batch.payload_at, batch.payload_at + batch.size),
        range(batch.lengths_at, batch.lengths_at + batch.records * 4),
    )
    for at, bit in itertools.product(places, range(8)):
        flip(disk, segment, at, bit)
        with pytest.raises(Damaged):
            reader.read_batch(A, batch)
        flip(disk, segment, at, bit)
    reader.read_batch(A, batch)


def test_row_08_every_flipped_bit_of_a_single_record_is_noticed() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"some text"])], [(A, [b"more"])], [(B, [b"other"])]])
    log = open_log_read_only(disk, LOG)
    batch = log.index.batches_after(A, 0)[0]
    (segment,) = segments(disk)
    for at, bit in itertools.product(range(batch.payload_at, batch.payload_at + batch.size), range(8)):
        flip(disk, segment, at, bit)
        with pytest.raises(Damaged) as caught:
            read_stream(reader_of(log), A)
        assert (caught.value.first_lsn, caught.value.last_lsn, caught.value.streams) == (1, 1, (A,))
        with pytest.raises(Damaged):
            reader_of(log).read_batch(A, batch)
        assert read_stream(reader_of(log), A, after=1) == stored[1:2]
        assert read_stream(reader_of(log), B) == stored[2:]
        flip(disk, segment, at, bit)
    assert read_stream(reader_of(log), A) == stored[:2]


def test_row_08_a_sound_frame_of_other_records_is_a_gap_for_a_follower() -> None:
    """A write that the medium put at another place: every checksum is right, and the records are not those."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"%d" % n])] for n in range(3)])
    log = open_log_read_only(disk, LOG)
    (segment,) = segments(disk)
    first, second, _third = frames_of(disk, segment)
    put(disk, segment, content(disk, segment)[second.at : second.end], at=first.at)
    assert follow_log(log) == [Gap(1, 1), *stored[1:]]


def test_row_08_every_flipped_byte_of_a_frame_is_noticed_or_changes_nothing() -> None:
    """Only the heads of the two byte strings say nothing that is not known otherwise."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"some text"]), (B, [b"more"])]])
    log = open_log_read_only(disk, LOG)
    (segment,) = segments(disk)
    (frame,) = frames_of(disk, segment)
    directory = frame.at + fr.HEADER_BYTES
    heads = {*range(directory, directory + 5)}
    heads |= {*range(directory + 5 + frame.head.dir_len, directory + fr.BODY_OVERHEAD + frame.head.dir_len)}
    payloads = frame.end - sum(len(record.payload) for record in stored)
    for place in range(frame.at, frame.end):
        flip(disk, segment, place, place % 8)
        found = follow_log(log)
        if place in heads:
            assert found == stored
        elif place >= payloads:
            assert found in ([Gap(1, 1), stored[1]], [stored[0], Gap(2, 2)])
        else:
            assert found == [Gap(1, 2)]
        flip(disk, segment, place, place % 8)
    assert follow_log(log) == stored


def test_row_08_a_file_that_has_become_shorter_is_damage_in_what_it_lost() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(300, n), b""])] for n in range(6)])
    log = open_log(disk, LOG, SMALL)
    (segment,) = segments(disk)
    file = disk.open(segment)
    file.truncate(frames_of(disk, segment)[4].at + fr.HEADER_BYTES + 20)
    file.close()
    assert follow_log(log) == [*stored[:8], Gap(9, 10), Gap(11, 12)]
    with pytest.raises(Damaged) as caught:
        read_stream(reader_of(log), A, after=8)
    assert (caught.value.first_lsn, caught.value.last_lsn) == (9, 10)
    log.release()


def test_a_read_error_is_recovery_failed_and_not_damage() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"text"])]])

    def bad_block(call: Call) -> None:
        if call.operation == "read":
            raise OSError(errno.EIO, "Input/output error")

    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    files.before = bad_block
    reader = reader_of(log)
    frame_reader = frame_reader_of(log)
    (batch,) = log.index.batches_after(A, 0)
    (segment,) = log.index.segments
    reads: list[Callable[[], object]] = [
        lambda: reader.read_batch(A, batch),
        lambda: reader.read_slice(A, Position(0), 10, 10, 10),
        lambda: frame_reader.read_frames(FramePosition(0), 10, 10),
    ]
    for read in reads:
        with pytest.raises(RecoveryFailed) as caught:
            read()
        assert (caught.value.file, caught.value.errno) == (segments(disk)[0], errno.EIO)
        assert caught.value.offset in (batch.payload_at, log.index.frame_place(segment, 0)[1])


def test_a_read_error_in_the_middle_of_a_slice_names_its_own_place_and_nothing_of_the_slice_is_given() -> None:
    disk, stored = a_long_stream()
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    third = log.index.batches_after(A, 0)[2]
    assert third.places is not None
    files.before = bad_block_at(third.segment.path, third.places[0][0])
    with pytest.raises(RecoveryFailed) as caught:
        reader_of(log).read_slice(A, Position(0), 2**63, 100, 10**6)
    assert (caught.value.file, caught.value.offset) == (third.segment.path, third.payload_at)
    files.before = None
    found, _position = reader_of(log).read_slice(A, Position(0), 2**63, 100, 10**6)
    assert len(found) > 90
    assert found == stored[: len(found)]


# ---- batches that are not stored as they are -------------------------------------------------------------------------


COMPRESSED = LogOptions(segment_bytes=SMALL.segment_bytes, compression=Compression("zstd"))
TEXT = b"the same words again and again, " * 20


@pytest.mark.parametrize("needs_thread", [False, True])
async def test_a_compressed_batch_is_read_through_its_decoder(needs_thread: bool) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = needs_thread
    async with writing(open_log(files, LOG, COMPRESSED)) as writer:
        stored = records_of(await store(writer, (A, [TEXT, b"", TEXT[:100]]), (B, [TEXT])))
        stored += records_of(await store(writer, (A, [b"short"]), (B, [TEXT])))
    log = open_log_read_only(disk, LOG)
    assert TEXT not in content(disk, segments(disk)[0])
    reader = StreamReader(log.reading, log.index, log.codec.decode)
    frame_reader = FrameReader(log.reading, log.index, log.codec.decode)
    for stream in (A, B):
        assert read_stream(reader, stream) == [record for record in stored if record.stream == stream]
    assert frame_reader.read_frames(FramePosition(0), 10, 10)[0] == stored
    with pytest.raises(RecoveryFailed, match="compressed or encrypted"):
        read_stream(reader_of(log), A)


async def test_row_08_a_compressed_batch_that_cannot_be_decoded_is_damaged() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, COMPRESSED)) as writer:
        stored = records_of(await store(writer, (A, [TEXT]), (B, [TEXT])))
    log = open_log_read_only(disk, LOG)

    def cannot(stream: bytes, first_seq: int, flags: int, data: bytes, lengths: Sequence[int]) -> bytes:
        if stream == A:
            raise DecodeFailed("no")
        return log.codec.decode(stream, first_seq, flags, data, lengths)

    reader = StreamReader(log.reading, log.index, cannot)
    frame_reader = FrameReader(log.reading, log.index, cannot)
    with pytest.raises(Damaged):
        read_stream(reader, A)
    assert read_stream(reader, B) == stored[1:]
    assert frame_reader.read_frames(FramePosition(0), 10, 10)[0] == [Gap(1, 1), stored[1]]


async def test_a_gap_behind_the_end_that_was_asked_for_comes_with_the_next_frames() -> None:
    """As where compaction has made one frame of several since the end was asked."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, COMPRESSED)) as writer:
        submission = submit(writer, (A, [TEXT]), (B, [TEXT]))
        await submission.wait()
        stored = records_of(submission)
    log = open_log_read_only(disk, LOG)

    def cannot(stream: bytes, first_seq: int, flags: int, data: bytes, lengths: Sequence[int]) -> bytes:
        if stream == B:
            raise DecodeFailed("no")
        return log.codec.decode(stream, first_seq, flags, data, lengths)

    reader = FrameReader(log.reading, log.index, cannot)
    found, position = reader.read_frames(FramePosition(0), 1, 10)
    assert found == stored[:1]
    found, position = reader.read_frames(position, 2, 10)
    assert (found, position.after) == ([Gap(2, 2)], 2)


async def test_row_08_a_snapshot_that_an_index_names_where_none_can_be_is_damaged() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await writer.submit([Batch(A, 1, [b"x"], 0), Batch(A, 1, [b"all so far"], FLAG_SNAPSHOT)]).wait()
    log = open_log_read_only(disk, LOG)
    batch = log.index.snapshot_batch(A)
    assert batch is not None
    for lie in (batch._replace(payload_at=1 << 31), batch._replace(lengths_at=0), batch._replace(size=1 << 31)):
        with pytest.raises(Damaged):
            reader_of(log).read_batch(A, lie)
    assert reader_of(log).read_batch(A, batch)[0].payload == b"all so far"


async def a_compressed_stream() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, COMPRESSED)) as writer:
        for n in range(4):
            await store(writer, (A, [TEXT, b"%d" % n]))
    return disk


async def test_a_slice_counts_what_compressed_records_will_take_and_not_what_is_stored_for_them() -> None:
    disk = await a_compressed_stream()
    log = open_log_read_only(disk, LOG)
    reader = StreamReader(log.reading, log.index, log.codec.decode)
    found, _position = reader.read_slice(A, Position(0), 2**63, 100, 2 * (len(TEXT) + 1))
    assert [record.seq for record in found] == [1, 2, 3, 4]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
async def test_a_compressed_batch_whose_lengths_cannot_be_read_is_declared_only_if_it_cannot_be_read_either(
    lasting: bool,
) -> None:
    disk = await a_compressed_stream()
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    reader = StreamReader(log.reading, log.index, log.codec.decode)
    batch = log.index.batches_after(A, 0)[1]
    failed: list[int] = []

    def bad_block(call: Call) -> None:
        is_hit = call.offset <= batch.lengths_at < call.offset + call.size
        if call.operation == "read" and is_hit and (lasting or not failed):
            failed.append(call.size)
            raise OSError(errno.EIO, "Input/output error", call.path)

    files.before = bad_block
    if lasting:
        with pytest.raises(RecoveryFailed) as caught:
            read_stream(reader, A)
        assert (caught.value.file, caught.value.offset, caught.value.errno) == (
            batch.segment.path,
            batch.payload_at,
            errno.EIO,
        )
    else:
        assert [record.payload for record in read_stream(reader, A)] == [
            part for n in range(4) for part in (TEXT, b"%d" % n)
        ]
    assert failed[0] == 8, "the two lengths alone"


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
    assert [batch.flags for batch in log.index.batches_after(A, 0)] == [FLAG_OPENS, 0, FLAG_CLOSES]
    assert isinstance(log.index.batches_after(A, 0)[0], IndexedBatch)


@pytest.mark.parametrize(("forgotten", "gap"), [(slice(-1, None), Gap(4, 4)), (slice(0, 1), Gap(1, 2))])
def test_a_follower_meets_a_gap_where_an_index_forgets_a_frame_and_goes_on_behind_it(
    forgotten: slice, gap: Gap
) -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"1", b"2"])], [(A, [b"3"])], [(B, [b"4"])]])
    log = open_log_read_only(disk, LOG)
    (segment,) = log.index.segments
    assert isinstance(segment.index, LiveIndex)
    frames = [segment.index.frame_place(n) for n in range(3)]
    del frames[forgotten]
    segment.index = Forgetful(segment.index, frames)  # type: ignore[assignment]
    reader = frame_reader_of(log)
    kept = [record for record in stored if not gap.first_lsn <= record.lsn <= gap.last_lsn]
    found, position = reader.read_frames(FramePosition(0), 4, 100)
    assert found == ([*kept, gap] if gap.first_lsn > 1 else [gap, *kept])
    assert position.after == 4
    for records in (1, 2):
        position, again = FramePosition(0), list[Record | Gap]()
        while position.after < 4:
            part, position = reader.read_frames(position, 4, records)
            again += part
        assert again == found


@contextmanager
def lying_about_pairs(index: LogIndex, **change: Any) -> Iterator[None]:
    """Have an index say something else of every batch of two records."""
    honest = index.batch_words

    def lying(part: Part, start: int, end: int) -> array[int]:
        words = honest(part, start, end)
        said = array("Q")
        for at in range(0, len(words), 5):
            batch = batch_from_words(part.segment, words, at)
            if batch.records == 2:
                batch = batch._replace(**change)
            said.extend((batch.first_seq, batch.first_lsn, batch.lengths_at << 32 | batch.payload_at))
            said.extend((batch.records << 32 | batch.size, batch.crc << 32 | batch.flags))
        return said

    with mock.patch.object(index, "batch_words", lying):
        yield


@pytest.mark.parametrize("change", [{"payload_at": 2**31}, {"lengths_at": 5}, {"size": 2**32 - 1}, {"first_seq": 7}])
def test_a_batch_that_an_index_names_where_none_can_be_damages_one_stream(change: dict[str, Any]) -> None:
    """And costs neither memory nor time: an index whose checksums are right may lie all the same."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"1", b"2"])], [(B, [b"3"])]])
    log = open_log_read_only(disk, LOG)
    reader = reader_of(log)
    with lying_about_pairs(log.index, **change), pytest.raises(Damaged) as caught:
        read_stream(reader, A)
    assert caught.value.streams == (A,)
    assert read_stream(reader, B) == stored[2:]


@pytest.mark.parametrize("options", [SMALL, COMPRESSED], ids=["plain", "compressed"])
async def test_of_a_batch_that_an_index_names_where_none_can_be_nothing_is_read(options: LogOptions) -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, options)) as writer:
        stored = records_of(await store(writer, (A, [TEXT])))
        await store(writer, (B, [payload(9_000, 1)]))  # so that what lies before and behind is not one read
        stored += records_of(await store(writer, (A, [TEXT])))
        stored += records_of(await store(writer, (A, [TEXT, TEXT])))
        stored += records_of(await store(writer, (A, [TEXT])))
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    reader = StreamReader(log.reading, log.index, log.codec.decode)
    end = log.index.segments[0].end_offset

    files.calls.clear()
    with lying_about_pairs(log.index, lengths_at=2**31, payload_at=2**31 + 8):
        found, position = reader.read_slice(A, Position(0), 2**63, 100, 10**6)
        assert found == stored[:2], "what is sound before it is given first"
        with pytest.raises(Damaged) as caught:
            reader.read_slice(A, position, 2**63, 100, 10**6)
    assert (caught.value.first_lsn, caught.value.last_lsn) == (4, 5)
    places = [(call.operation, call.offset + call.size) for call in files.calls]
    assert "will_need" in [operation for operation, _end in places]
    assert all(at <= end for _operation, at in places)
    log.release()


@pytest.mark.parametrize("at", [0, 511, 2**31])
def test_a_follower_meets_a_gap_where_an_index_names_a_frame_where_none_can_be(at: int) -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"1", b"2"])], [(A, [b"3"])], [(B, [b"4"])]])
    files = WatchedFiles(disk)
    log = open_log_read_only(files, LOG)
    (segment,) = log.index.segments
    assert isinstance(segment.index, LiveIndex)
    frames = [segment.index.frame_place(n) for n in range(3)]
    frames[1] = (frames[1][0], at)
    segment.index = Forgetful(segment.index, frames)  # type: ignore[assignment]
    files.calls.clear()
    assert follow_log(log) == [*stored[:2], Gap(3, 3), stored[3]]
    reads = [call for call in files.calls if call.operation == "read"]
    assert all(call.offset >= 512 and call.offset + call.size <= segment.end_offset for call in reads)
