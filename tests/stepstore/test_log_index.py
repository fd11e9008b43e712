"""Which records of which stream lie where, over all segments: in memory, on the medium, and some of both."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import trio.testing

from stepstore.errors import CorruptLog, InvalidState
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch, DirectoryEntry
from stepstore.log.index import (
    STREAM_CLOSED,
    STREAM_DELETED,
    STREAM_FORKED,
    STREAM_GAP,
    STREAM_OPENED,
    IndexedSegment,
    LogIndex,
    Run,
    open_streams_after,
)
from stepstore.log.live_index import LiveIndex
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log, open_log_read_only
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.sealed_index import SealedIndex
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    a_segment,
    entry,
    payload,
    sealed_copy,
    segments,
    store,
    stream_id,
    tended,
    write_log,
    writing,
)

OPENS_AND_CLOSES = FLAG_OPENS | FLAG_CLOSES


class Building:
    """An index that is written to by hand. `seal` does to the newest segment but one what a caretaker does."""

    def __init__(self, *, same: Callable[[Run, Run], bool] | None = None):
        self.index = LogIndex(same_records=same)
        self.lsn, self.at = 1, 512

    def segment(self) -> Building:
        self.index.begin_segment(a_segment(len(self.index.segments) + 1, self.lsn))
        self.at = 512
        return self

    def frame(self, *batches: tuple[bytes, int, int] | tuple[bytes, int, int, int]) -> Building:
        """One frame of batches: (stream, first seq, records, flags)."""
        entries: list[DirectoryEntry] = []
        lsn = self.lsn
        for stream, first_seq, count, *flags in batches:
            entries.append(entry(stream, first_seq, lsn, count, flags[0] if flags else 0, at=self.at))
            lsn += count
        self.index.add_frame(self.at, self.at + 300, self.lsn, lsn - 1, lsn * 7, entries)
        self.lsn, self.at = lsn, self.at + 300
        return self

    def seal(self, *numbers: int) -> Building:
        """Put the segments with these numbers (default: all but the newest) on the medium."""
        open_streams: dict[bytes, None] = {}
        for number, segment in enumerate(self.index.segments, 1):
            index = segment.index
            if isinstance(index, SealedIndex):
                open_streams = index.open_streams()
                continue
            index.apply_open(open_streams)
            if number in numbers or (not numbers and number < len(self.index.segments)):
                segment.index = sealed_copy(index, open_streams)
        return self


def words_of(index: LogIndex, stream: bytes) -> list[tuple[str, int, int, int]]:
    return [(run.segment.path[5:], run.first_seq, run.first_lsn, run.records) for run in index.runs_after(stream, 0)]


# ---- one segment -----------------------------------------------------------------------------------------------------


def test_runs_after_gives_what_lies_behind_a_seq() -> None:
    made = Building().segment().frame((A, 1, 3), (B, 1, 1)).frame((A, 4, 2), (A, 6, 1))
    made.segment().frame((A, 7, 4))
    for index in (made.index, made.seal().index, made.seal(1, 2).index):
        assert words_of(index, A) == [("1", 1, 1, 3), ("1", 4, 5, 2), ("1", 6, 7, 1), ("2", 7, 8, 4)]
        runs = index.runs_after(A, 0)
        assert runs[1] == Run(index.segments[0], 4, 5, 2, 20, 0xC0FFEE, 0, 812 + 500, 812 + 100)
        for seq in range(12):
            assert index.runs_after(A, seq) == [run for run in runs if run.first_seq + run.records - 1 > seq]
        assert index.runs_after(C, 0) == []
        assert (index.last_seq(A), index.last_seq(B), index.last_seq(C)) == (10, 1, 0)
        assert index.records == 11
        assert list(index.streams()) == [A, B]
        assert A in index
        assert C not in index


def test_a_large_index_keeps_every_run_apart() -> None:
    dice, made = random.Random(8), Building()
    expected: dict[bytes, list[tuple[str, int, int, int]]] = {}
    last: dict[bytes, int] = {}
    for number in range(3000):
        if number % 300 == 0:
            made.segment()
        stream, count = stream_id(str(dice.randrange(200))), dice.randrange(1, 5)
        first = last.get(stream, 0) + 1
        expected.setdefault(stream, []).append((str(number // 300 + 1), first, made.lsn, count))
        made.frame((stream, first, count))
        last[stream] = first + count - 1
    for index in (made.index, made.seal(2, 3, 7).index, made.seal().index):
        for stream, runs in expected.items():
            assert words_of(index, stream) == runs
            assert index.last_seq(stream) == last[stream]
        assert list(index.streams()) == list(expected)


def test_frames_are_found_by_lsn() -> None:
    made = Building().segment()
    lsns: list[tuple[int, int]] = []
    for number in range(1, 40):
        if number % 11 == 0:
            made.segment()
        lsns.append((made.lsn, made.at))
        made.frame((stream_id(str(number)), 1, number % 5 + 1))
    for index in (made.index, made.seal().index):
        places = [
            (segment, index.frame_place(segment, n))
            for segment in index.segments
            for n in range(segment.index.frame_count)
        ]
        assert [place for _segment, place in places] == lsns
        for lsn in range(made.lsn + 5):
            segment = index.segments[index.segment_of_lsn(lsn)]
            at = places.index((segment, index.frame_place(segment, index.frame_of_lsn(segment, lsn))))
            assert lsns[at][0] <= max(lsn, 1)
            assert at == len(lsns) - 1 or lsns[at + 1][0] > lsn


@pytest.mark.parametrize(("first_seq", "flag", "doubts"), [(2, 0, 1), (1, 0, 1), (5, STREAM_GAP, 0)])
def test_a_batch_that_does_not_continue_its_stream_is_left_out(first_seq: int, flag: int, doubts: int) -> None:
    """A number that was there before is a retry or a fork (rows 10 and 11); the bytes tell, so it is only noted."""
    made = Building().segment().frame((A, 1, 2), (B, 1, 1)).frame((A, first_seq, 1))
    index = made.index
    live = index.segments[0].index
    assert isinstance(live, LiveIndex)
    assert index.flags(A) == flag
    assert len(live.doubts) == doubts
    assert index.flags(B) == 0
    assert [run.first_lsn for run in index.runs_after(A, 0)] == [1]
    assert index.last_seq(A) == 2
    assert index.records == 4, "it is stored, and counted"


# ---- the last number of a stream -------------------------------------------------------------------------------------


async def test_the_last_number_of_a_stream_is_right_however_often_its_segment_was_sealed_since_it_was_asked() -> None:
    """What was read of a sealed segment once must not be taken for what a later one says."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL), close=True) as writer:
        await store(writer, (A, [b"1"]), (B, [b"1"]))
    async with tended(open_log(disk, LOG, SMALL)) as (writer, caretaker):
        for n in range(2, 8):
            assert writer.last_seq(A) == n - 1
            await store(writer, (A, [b"%d" % n]))
            await writer.rotate()
            await caretaker.wait_sealed()
            await trio.testing.wait_all_tasks_blocked()
            assert all(isinstance(s.index, SealedIndex) for s in writer._log.index.segments[:-1])
            assert (writer.last_seq(A), writer.last_seq(B)) == (n, 1)
            with pytest.raises(InvalidState):
                writer.submit([Batch(A, n, [b"another record with this number"], 0)])
