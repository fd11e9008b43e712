"""Frames that are sound and that this writer never writes: another version, a restored block, or a forger might have.

Recovery judges them by the decision table like any other bytes.
"""

from __future__ import annotations

from typing import Any

import pytest

from stepstore.errors import CorruptLog, Forked, InvalidState
from stepstore.log import frame as fr
from stepstore.log.directory import must_exist
from stepstore.log.frame import FLAG_TOMBSTONE, Batch
from stepstore.log.live_index import STREAM_FORKED
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log
from stepstore.log.recovery import recover
from stepstore.log.stream_reader import StreamReader
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    WatchedFiles,
    content,
    flip,
    frames_of,
    payload,
    put,
    read_log,
    read_stream,
    segments,
    tree,
    write_log,
    writing,
)

CUT = LogOptions(segment_bytes=SMALL.segment_bytes, tail="cut")


Log = tuple[MemoryFileSystem, str]


@pytest.fixture
def log() -> Log:
    """A disk and the one segment of a log on it that crashed, with three records of A, LSN 1 to 3."""
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(A, [payload(300), b"three"])]])
    (segment,) = segments(disk)
    return disk, segment


def add_frame(disk: MemoryFileSystem, segment: str, *batches: Batch, **other: Any) -> int:
    """Write a frame behind the last one that continues the chain, but for the fields in `other`. Gives its offset."""
    last = frames_of(disk, segment)[-1]
    fields: dict[str, Any] = {
        "offset": fr.header_position(last.end),
        "first_lsn": last.head.last_lsn + 1,
        "durable_lsn": last.head.last_lsn,
        "segment_tag": last.head.segment_tag,
        "prev_crc": last.head.header_crc,
    } | other
    data, _crc, _entries = fr.build_frame(list(batches), **fields)
    put(disk, segment, data, at=fields["offset"])
    return int(fields["offset"])


def refusal(disk: MemoryFileSystem, options: LogOptions = SMALL) -> CorruptLog:
    """Opening refuses, and changes nothing."""
    before = tree(disk)
    with pytest.raises(CorruptLog) as caught:
        open_log(disk, LOG, options)
    assert tree(disk) == before
    return caught.value


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
def test_row_03_a_close_frame_closes_a_segment_without_a_footer_too(log: Log, options: LogOptions) -> None:
    disk, segment = log
    last = frames_of(disk, segment)[-1]
    at = -(-last.end // fr.MARK_ALIGNMENT) * fr.MARK_ALIGNMENT
    tag, chain = last.head.segment_tag, last.head.header_crc
    data, _crc = fr.build_wrapper(
        fr.KIND_CLOSE, b"", offset=at, first_lsn=4, durable_lsn=3, segment_tag=tag, prev_crc=chain
    )
    put(disk, segment, data + bytes(700) + b"\x01", at=at)
    error = refusal(disk, options)
    assert (error.row, error.file, error.offset) == (3, segment, at + len(data))


def test_row_09_a_frame_with_the_tag_of_another_segment_is_not_of_the_chain(log: Log) -> None:
    """Whatever else of it fits: nothing in another file proves anything about this one."""
    disk, segment = log
    last = frames_of(disk, segment)[-1]
    add_frame(disk, segment, Batch(A, 4, [b"four"], 0), segment_tag=last.head.segment_tag ^ 1)
    error = refusal(disk)
    assert (error.row, error.offset, error.first_lsn) == (5, last.end, 4)
    opened = open_log(disk, LOG, CUT)
    assert [record.payload for record in read_log(opened)] == [b"one", payload(300), b"three"]
    opened.release()


def test_row_10_records_that_one_segment_holds_twice_are_kept_once_and_counted(log: Log) -> None:
    disk, segment = log
    add_frame(disk, segment, Batch(A, 2, [payload(300), b"three"], 0), Batch(B, 1, [b"new"], 0))
    add_frame(disk, segment, Batch(A, 1, [b"one", payload(300)], 0))
    found = recover(disk, LOG, must_exist(disk, LOG))
    assert found.duplicates == 4
    assert found.end_lsn == 8
    reader = StreamReader(found.reading, found.index)
    assert [(record.seq, record.lsn) for record in read_stream(reader, A)] == [(1, 1), (2, 2), (3, 3)]
    assert [(record.seq, record.lsn) for record in read_stream(reader, B)] == [(1, 6)]
    assert not found.index.flags(A) & STREAM_FORKED
    found.reading.close()


@pytest.mark.parametrize(
    "fork",
    [
        Batch(A, 2, [payload(300), b"THREE"], 0),
        Batch(A, 3, [b"three and more"], 0),
        Batch(A, 3, [b"three", b"four"], 0),
    ],
    ids=["other bytes", "another length", "it goes on"],
)
async def test_row_11_two_records_of_one_number_in_one_segment_fork_their_stream_and_no_other(
    log: Log, fork: Batch
) -> None:
    disk, segment = log
    add_frame(disk, segment, fork, Batch(B, 1, [b"one of another stream"], 0))
    opened = open_log(disk, LOG, SMALL)
    assert opened.index.flags(A) & STREAM_FORKED
    assert not opened.index.flags(B) & STREAM_FORKED
    reader = StreamReader(opened.reading, opened.index)
    assert [record.payload for record in read_stream(reader, A)] == [b"one", payload(300), b"three"]
    async with writing(opened) as writer:
        with pytest.raises(InvalidState, match="forked"):
            writer.submit([Batch(A, 4, [b"four"], 0)])
        for batch in (Batch(B, 2, [b"two"], 0), Batch(A, 4, [b"deleted"], FLAG_TOMBSTONE)):
            submission = writer.submit([batch])
            await submission.wait()
            assert submission.error is None


async def test_row_11_a_journal_reads_a_forked_stream_up_to_the_fork_and_says_so(log: Log) -> None:
    from stepstore.journal import SegmentLogJournal

    disk, segment = log
    add_frame(disk, segment, Batch(A, 3, [b"another third"], 0))
    journal = SegmentLogJournal.open_read_only(LOG, SMALL, disk)
    slices = journal.read(A)
    assert [record.payload for record in await slices.next_slice()] == [b"one", payload(300), b"three"]
    with pytest.raises(Forked) as caught:
        await slices.next_slice()
    assert caught.value.streams == (A,)
    journal.release()


def test_frames_that_no_later_one_calls_durable_are_written_again_and_the_others_are_not(log: Log) -> None:
    """Promise 5, for a writer that has several frames on their way at once."""
    disk, segment = log
    add_frame(disk, segment, Batch(B, 1, [b"lags"], 0), durable_lsn=1)
    add_frame(disk, segment, Batch(B, 2, [b"less"], 0), durable_lsn=3)
    frames = frames_of(disk, segment)
    proven, unproven = frames[:2], frames[2:]
    assert [frame.head.durable_lsn for frame in frames] == [0, 1, 1, 3]
    data = content(disk, segment)
    files = WatchedFiles(disk)
    open_log(files, LOG, SMALL).release()
    written = [(call.offset, call.data) for call in files.calls if call.operation == "write" and call.path == segment]
    assert written == [(frame.at, data[frame.at : frame.end]) for frame in unproven]
    assert [frame.head.last_lsn for frame in proven] == [1, 3]


def test_row_02_a_frame_that_lags_proves_what_it_calls_durable_and_no_more(log: Log) -> None:
    disk, segment = log
    first, second = frames_of(disk, segment)
    add_frame(disk, segment, Batch(B, 1, [b"lags"], 0), durable_lsn=1)
    flip(disk, segment, second.end - 1)
    error = refusal(disk)
    assert (error.row, error.offset, error.first_lsn) == (6, first.end, 2), "not proven, but not the last group either"
    flip(disk, segment, first.end - 1)
    error = refusal(disk)
    assert (error.row, error.first_lsn) == (2, 1)
