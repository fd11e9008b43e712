"""Which records of which stream lie where, over all segments: in memory, on the medium, and some of both."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest
import trio.testing

from stepstore.errors import InvalidState, RecoveryFailed
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch, DirectoryEntry
from stepstore.log.index import LogIndex
from stepstore.log.indexed_batch import IndexedBatch
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import (
    STREAM_CLOSED,
    STREAM_DELETED,
    STREAM_FORKED,
    STREAM_GAP,
    STREAM_OPENED,
    LiveIndex,
    StreamEntry,
)
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.open_streams import open_streams_after
from stepstore.log.opening import open_log
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.stream_listing import streams_of
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    a_segment,
    entry,
    sealed_copy,
    store,
    stream_id,
    tended,
    writing,
)

OPENS_AND_CLOSES = FLAG_OPENS | FLAG_CLOSES


class Building:
    """An index that is written to by hand. `seal` does to the newest segment but one what a caretaker does."""

    def __init__(self, *, same: Callable[[IndexedBatch, IndexedBatch], bool] | None = None):
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


def from_memory(made: Building) -> Callable[[IndexedSegment], LiveIndex]:
    """Gives, for a segment that is sealed later, the index that it has now: as if built again from its frames."""
    live = {segment.path: segment.index for segment in made.index.segments}

    def rebuild(segment: IndexedSegment) -> LiveIndex:
        index = live[segment.path]
        assert isinstance(index, LiveIndex)
        return index

    return rebuild


def words_of(index: LogIndex, stream: bytes) -> list[tuple[str, int, int, int]]:
    return [
        (batch.segment.path[5:], batch.first_seq, batch.first_lsn, batch.records)
        for batch in index.batches_after(stream, 0)
    ]


# ---- one segment -----------------------------------------------------------------------------------------------------


def test_batches_after_gives_what_lies_behind_a_seq() -> None:
    made = Building().segment().frame((A, 1, 3), (B, 1, 1)).frame((A, 4, 2), (A, 6, 1))
    made.segment().frame((A, 7, 4))
    for index in (made.index, made.seal().index, made.seal(1, 2).index):
        assert words_of(index, A) == [("1", 1, 1, 3), ("1", 4, 5, 2), ("1", 6, 7, 1), ("2", 7, 8, 4)]
        batches = index.batches_after(A, 0)
        assert batches[1] == IndexedBatch(index.segments[0], 4, 5, 2, 20, 0xC0FFEE, 0, 812 + 500, 812 + 100)
        for seq in range(12):
            assert index.batches_after(A, seq) == [
                batch for batch in batches if batch.first_seq + batch.records - 1 > seq
            ]
        assert index.batches_after(C, 0) == []
        assert (index.last_seq(A), index.last_seq(B), index.last_seq(C)) == (10, 1, 0)
        assert index.records == 11
        assert list(streams_of(index)) == [A, B]
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
        for stream, batches in expected.items():
            assert words_of(index, stream) == batches
            assert index.last_seq(stream) == last[stream]
        assert list(streams_of(index)) == list(expected)


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
    assert [batch.first_lsn for batch in index.batches_after(A, 0)] == [1]
    assert index.last_seq(A) == 2
    assert index.records == 4, "it is stored, and counted"


def test_a_reader_that_finds_a_stream_while_its_first_batch_is_taken_up_finds_all_of_it() -> None:
    """In another thread, between any two steps of the one that adds it."""
    index = LiveIndex()
    seen: list[StreamEntry | None] = []

    class Watched(dict[bytes, int]):
        def __setitem__(self, stream: bytes, number: int) -> None:
            super().__setitem__(stream, number)
            seen.append(index.find(stream))

    index._numbers = Watched()
    index.add_frame(512, 1, [entry(A, 1, 1, 3)])
    assert seen == [StreamEntry(A, 0, 1, 1, 3, 1, 0)]


# ---- the last number of a stream -------------------------------------------------------------------------------------


async def test_the_last_number_of_a_stream_is_right_however_often_its_segment_was_sealed_since_it_was_asked() -> None:
    """What was read of a sealed segment once must not be taken for what a later one says."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL), close=True) as writer:
        await store(writer, (A, [b"1"]), (B, [b"1"]))
    async with tended(open_log(disk, LOG, SMALL)) as (writer, caretaker):
        for n in range(2, 8):
            assert writer.queue.last_seq(A) == n - 1
            await store(writer, (A, [b"%d" % n]))
            await writer.rotate()
            await caretaker.wait_sealed()
            await trio.testing.wait_all_tasks_blocked()
            assert all(isinstance(s.index, SealedIndex) for s in writer._log.index.segments[:-1])
            assert (writer.queue.last_seq(A), writer.queue.last_seq(B)) == (n, 1)
            with pytest.raises(InvalidState):
                writer.submit([Batch(A, n, [b"another record with this number"], 0)])


def test_an_answer_about_a_stream_is_read_once() -> None:
    reads: list[int] = []
    made = Building().segment().frame((A, 1, 3)).segment().frame((A, 4, 1), (B, 1, 1)).segment()
    made.seal()
    count_reads(made.index, reads)
    assert not made.index.knows(A)
    assert made.index.tail(A) == (4, 0)
    assert made.index.knows(A)
    assert len(reads) == 1
    assert made.index.tail(A) == (4, 0)
    assert A in made.index
    assert len(reads) == 1
    assert made.index.knows(C)
    assert made.index.tail(C) == (0, 0)
    assert len(reads) == 1, "no segment can have it"
    made.frame((B, 2, 1))
    assert made.index.knows(B)
    assert made.index.tail(B) == (2, 0)
    assert len(reads) == 1, "it is in memory"


def test_an_answer_about_a_stream_that_only_looks_like_another_is_read_once_too() -> None:
    """The first four bytes of both ids are the same."""
    reads: list[int] = []
    twin = A[:4] + B[4:]
    made = Building().segment().frame((A, 1, 3)).segment().frame((A, 4, 1)).segment().seal()
    count_reads(made.index, reads)
    for _ in range(3):
        assert made.index.tail(twin) == (0, 0)
        assert made.index.knows(twin)
    assert len(reads) == 2


def test_a_stream_that_only_looks_like_another_has_no_records() -> None:
    """The first four bytes of both ids are the same, and only the table on the medium can tell them apart."""
    twin = A[:4] + B[4:]
    made = Building().segment().frame((A, 1, 3)).segment().frame((twin, 1, 2)).segment().frame((A, 4, 1)).segment()
    made.seal()
    assert words_of(made.index, A) == [("1", 1, 1, 3), ("3", 4, 6, 1)]
    assert words_of(made.index, twin) == [("2", 1, 4, 2)]
    assert made.index.locate(A[:4] + C[4:]) == ((), 0, 0)


def test_only_so_many_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.log.index._TAILS_KEPT", 10)
    streams = [stream_id(str(n)) for n in range(25)]
    made = Building().segment().frame(*((stream, 1, n + 1) for n, stream in enumerate(streams))).segment().seal()
    for n, stream in enumerate(streams):
        assert made.index.last_seq(stream) == n + 1
        assert len(made.index._tails) <= 10


def count_reads(index: LogIndex, reads: list[int]) -> None:
    """Note every read of the tables of sealed segments from now on."""
    for segment in index.segments:
        if isinstance(segment.index, SealedIndex):
            table = segment.index._streams
            inner = table._read

            def read(offset: int, size: int, inner: Callable[[int, int], bytes] = inner) -> bytes:
                reads.append(size)
                return inner(offset, size)

            table._read = read


# ---- a stream over several segments ----------------------------------------------------------------------------------


def test_a_stream_with_a_segment_missing_from_it_is_readable_up_to_the_gap() -> None:
    made = Building().segment().frame((A, 1, 2), (B, 1, 1)).segment().frame((A, 4, 1)).segment().frame((A, 5, 1))
    made.frame((B, 2, 1))
    for index in (made.index, made.seal().index):
        assert index.flags(A) == STREAM_GAP
        assert words_of(index, A) == [("1", 1, 1, 2)]
        assert index.locate(A).last_seq == 2
        assert index.flags(B) == 0
        assert len(words_of(index, B)) == 2


def test_a_stream_with_a_gap_within_a_segment_is_readable_up_to_the_gap() -> None:
    made = Building().segment().frame((A, 1, 2)).frame((A, 4, 1)).segment().frame((A, 3, 1))
    for index in (made.index, made.seal().index):
        assert index.flags(A) == STREAM_GAP
        assert words_of(index, A) == [("1", 1, 1, 2)]


def test_a_stream_that_does_not_begin_with_1_has_a_gap_in_front() -> None:
    made = Building().segment().frame((A, 2, 2)).segment().frame((B, 1, 1))
    for index in (made.index, made.seal().index):
        assert (index.flags(A), words_of(index, A)) == (STREAM_GAP, [])


def always(_one: IndexedBatch, _other: IndexedBatch) -> bool:
    return True


def never(_one: IndexedBatch, _other: IndexedBatch) -> bool:
    return False


def test_row_10_records_that_a_later_segment_repeats_are_passed_over() -> None:
    made = Building(same=always).segment().frame((A, 1, 2)).frame((A, 3, 2), (B, 1, 1))
    made.segment().frame((A, 3, 2)).frame((A, 5, 1)).segment().frame((A, 6, 1))
    for index in (made.index, made.seal().index):
        assert index.flags(A) == 0
        assert words_of(index, A) == [("1", 1, 1, 2), ("1", 3, 3, 2), ("2", 5, 8, 1), ("3", 6, 9, 1)]
        assert index.locate(A).last_seq == 6
        assert index.first_batch_after(index.locate(A).parts[1], 4) == 1


def test_row_10_a_segment_that_only_repeats_records_changes_nothing() -> None:
    made = Building(same=always).segment().frame((A, 1, 5)).segment().frame((A, 1, 2)).segment().frame((A, 6, 1))
    for index in (made.index, made.seal().index):
        assert index.flags(A) == 0
        assert words_of(index, A) == [("1", 1, 1, 5), ("3", 6, 8, 1)]
        assert index.locate(A).last_seq == 6
        assert list(streams_of(index)) == [A], "and it is one stream"


def test_row_11_a_later_segment_with_other_bytes_ends_what_is_readable() -> None:
    made = Building(same=never).segment().frame((A, 1, 2)).frame((A, 3, 2), (B, 1, 1))
    made.segment().frame((A, 3, 2)).frame((A, 5, 1)).segment().frame((A, 6, 1), (B, 2, 1))
    for index in (made.index, made.seal().index):
        assert index.flags(A) == STREAM_FORKED
        assert words_of(index, A) == [("1", 1, 1, 2), ("1", 3, 3, 2)]
        assert index.locate(A).last_seq == 4
        assert (index.flags(B), len(words_of(index, B))) == (0, 2)


def test_row_11_a_batch_that_repeats_records_and_goes_on_behind_them_is_a_fork() -> None:
    """No producer retries so: a batch is stored as a whole or not at all."""
    made = Building(same=always).segment().frame((A, 1, 4)).segment().frame((A, 3, 5))
    for index in (made.index, made.seal().index):
        assert index.flags(A) == STREAM_FORKED
        assert words_of(index, A) == [("1", 1, 1, 4)]


def test_row_11_a_fork_within_one_segment_ends_what_is_readable() -> None:
    made = Building(same=never).segment().frame((A, 1, 2), (B, 1, 1)).frame((A, 2, 1)).frame((A, 3, 1), (A, 4, 1))
    live = made.index.segments[0].index
    assert isinstance(live, LiveIndex)
    ((stream, (_seq, lsn, *_rest)),) = live.doubts
    live.mark_forked(stream, lsn)
    made.segment().frame((A, 5, 1))
    for index in (made.index, made.seal().index):
        assert index.flags(A) == STREAM_FORKED
        assert words_of(index, A) == [("1", 1, 1, 2)]
        assert index.tail(A)[0] == 5, "no number is given out twice"


# ---- deleted streams and snapshots -----------------------------------------------------------------------------------


def test_a_deleted_stream_has_no_records_and_keeps_its_last_number() -> None:
    made = Building().segment().frame((A, 1, 2, FLAG_OPENS), (B, 1, 1)).segment().frame((A, 3, 1))
    made.segment().frame((A, 4, 1, FLAG_TOMBSTONE | FLAG_CLOSES)).segment().frame((C, 1, 1))
    for index in (made.index, made.seal(1, 2).index, made.seal().index):
        assert index.flags(A) & STREAM_DELETED
        assert words_of(index, A) == []
        assert index.last_seq(A) == index.locate(A).last_seq == 4
        assert index.tail(A)[1] & STREAM_DELETED
        assert list(streams_of(index)) == [B, C]
        assert list(index.deleted_streams()) == [A]
        assert list(index.streams_still_open()) == []
        assert index.records == 6, "until it is compacted away"


def test_a_stream_deleted_in_the_segment_in_which_it_began_is_no_stream() -> None:
    made = Building().segment().frame((A, 1, 2, FLAG_OPENS), (B, 1, 1)).frame((A, 3, 1, FLAG_TOMBSTONE)).segment()
    for index in (made.index, made.seal().index):
        assert list(streams_of(index)) == [B]
        assert words_of(index, A) == []
        assert list(index.streams_still_open()) == []
        assert open_streams_after(index.segments, no_rebuild) == {}


def test_what_stands_behind_a_tombstone_stays_unread() -> None:
    made = Building().segment().frame((A, 1, 1)).frame((A, 2, 1, FLAG_TOMBSTONE)).segment().frame((A, 3, 1))
    for index in (made.index, made.seal().index):
        assert words_of(index, A) == []
        assert list(streams_of(index)) == []


def test_a_snapshot_takes_no_number_and_the_newest_one_is_found() -> None:
    made = (
        Building().segment().frame((A, 1, 3)).frame((A, 2, 1, FLAG_SNAPSHOT), (B, 1, 1)).frame((A, 3, 1, FLAG_SNAPSHOT))
    )
    made.segment().frame((A, 4, 1)).segment().frame((A, 4, 1, FLAG_SNAPSHOT)).segment().frame((B, 2, 1))
    for index in (made.index, made.seal().index):
        assert words_of(index, A) == [("1", 1, 1, 3), ("2", 4, 7, 1)]
        assert (index.last_seq(A), index.flags(A)) == (4, 0)
        batch = index.snapshot_batch(A)
        assert batch is not None
        assert (batch.segment.path, batch.first_seq, batch.first_lsn, batch.records) == (f"{LOG}/3", 4, 8, 1)
        assert index.snapshot_batch(B) is None
        assert index.records == 9


# ---- streams that are open -------------------------------------------------------------------------------------------


def no_rebuild(segment: IndexedSegment) -> LiveIndex:
    raise AssertionError(f"the index of {segment.path} was sound")


def test_streams_are_open_between_their_flags() -> None:
    made = Building().segment().frame((A, 1, 1, FLAG_OPENS), (B, 1, 1, FLAG_OPENS), (C, 1, 1))
    index = made.index
    assert list(index.streams_still_open()) == [A, B]
    made.frame((A, 2, 1), (A, 3, 1, FLAG_CLOSES))
    assert list(index.streams_still_open()) == [B]
    made.frame((stream_id("short"), 1, 1, OPENS_AND_CLOSES))
    assert list(index.streams_still_open()) == [B]
    assert [index.flags(stream) for stream in (A, B, C)] == [STREAM_OPENED | STREAM_CLOSED, STREAM_OPENED, 0]
    made.frame((A, 4, 1, FLAG_OPENS))
    assert list(index.streams_still_open()) == [B, A]
    assert index.flags(A) == STREAM_OPENED


def test_open_streams_are_carried_forward_over_segments_that_do_not_mention_them() -> None:
    made = Building().segment().frame((A, 1, 1, FLAG_OPENS), (B, 1, 1, FLAG_OPENS))
    for number in range(5):
        made.segment().frame((stream_id(str(number)), 1, 1, FLAG_OPENS)).seal()
    expected = [A, B, *(stream_id(str(number)) for number in range(5))]
    assert list(made.index.streams_still_open()) == expected
    assert list(open_streams_after(made.index.segments, no_rebuild)) == expected
    made.frame((A, 2, 1, FLAG_CLOSES)).segment().seal()
    assert list(open_streams_after(made.index.segments, no_rebuild)) == expected[1:]


def random_turns(seed: int, segments_of: int = 6) -> Building:
    """Streams that open, close and open again, several times in one segment and over several; some are deleted."""
    dice, made = random.Random(seed), Building()
    last: dict[bytes, int] = {}
    gone: set[bytes] = set()
    for number in range(segments_of * 12):
        if number % 12 == 0:
            made.segment()
        batches: list[tuple[bytes, int, int, int]] = []
        for stream in dice.sample([stream_id(str(n)) for n in range(7)], dice.randrange(1, 4)):
            if stream in gone:
                continue
            flags = dice.choice([0, 0, FLAG_OPENS, FLAG_OPENS, FLAG_CLOSES, OPENS_AND_CLOSES])
            if dice.random() < 0.02:
                flags = FLAG_TOMBSTONE | FLAG_CLOSES
                gone.add(stream)
            last[stream] = last.get(stream, 0) + 1
            batches.append((stream, last[stream], 1, flags))
        made.frame(*batches)
    return made


@pytest.mark.parametrize("seed", range(40))
def test_an_opening_finds_the_open_streams_in_the_order_in_which_they_were_opened(seed: int) -> None:
    """Whichever segments it has to scan and whichever have a footer."""
    dice, made = random.Random(seed), random_turns(seed)
    expected = list(made.index.streams_still_open())
    assert list(open_streams_after(made.index.segments, no_rebuild)) == expected
    made.seal(*dice.sample(range(1, 7), 3))
    assert list(open_streams_after(made.index.segments, no_rebuild)) == expected


@pytest.mark.parametrize("seed", range(40))
def test_an_open_set_that_is_unsound_costs_no_open_stream(seed: int) -> None:
    """Then the newest sound one is taken, and what came after it is read from the segments behind it."""
    dice, made = random.Random(seed), random_turns(seed)
    expected = list(made.index.streams_still_open())
    rebuild = from_memory(made)
    made.seal(1, 2, 3, 4, 5, 6)
    for segment in dice.sample(made.index.segments, 3):
        index = segment.index
        assert isinstance(index, SealedIndex)
        index.head = index.head._replace(open_crc=index.head.open_crc ^ 1)
    found = open_streams_after(made.index.segments, rebuild)
    assert list(found) == expected


# ---- all streams -----------------------------------------------------------------------------------------------------


def test_streams_stand_in_the_order_of_first_appearance_whatever_is_sealed() -> None:
    made = Building()
    names: list[bytes] = []
    dice = random.Random(5)
    last: dict[bytes, int] = {}
    for number in range(60):
        if number % 10 == 0:
            made.segment()
        stream = stream_id(str(dice.randrange(40)))
        last[stream] = last.get(stream, 0) + 1
        names += [stream] if stream not in names else []
        made.frame((stream, last[stream], 1))
    for index in (made.index, made.seal(2, 3).index, made.seal().index, made.seal(1, 2, 3, 4, 5, 6).index):
        assert list(streams_of(index)) == names


def test_streams_are_those_of_the_moment_of_the_call() -> None:
    made = Building().segment().frame((A, 1, 1))
    before = streams_of(made.index)
    made.frame((B, 1, 1)).segment().frame((C, 1, 1))
    assert list(before) == [A]
    assert list(streams_of(made.index)) == [A, B, C]


def reading_fails(segment: IndexedSegment, fail: Callable[[], Exception]) -> None:
    """From now on the table of streams of a sealed segment cannot be read."""
    assert isinstance(segment.index, SealedIndex)

    def read(offset: int, size: int) -> bytes:
        raise fail()

    segment.index._streams._read = read


def test_streams_are_listed_on_where_a_segment_is_replaced_while_its_index_is_read() -> None:
    """A compaction has put a rewritten file in its place, and the old one is gone."""
    made = Building().segment().frame((A, 1, 1)).segment().frame((B, 1, 1), (A, 2, 1)).segment().frame((C, 1, 1))
    second = made.index.segments[1]
    rewritten = a_segment(2, second.header.first_lsn, second.index)
    rewritten.end_lsn = second.end_lsn
    made.seal()

    def replaced() -> RecoveryFailed:
        made.index.replace([second], rewritten)
        return RecoveryFailed("no such file", file=second.path, errno=errno.ENOENT)

    reading_fails(second, replaced)
    listed = streams_of(made.index)
    assert [next(listed), *listed] == [A, B, C]
    assert made.index.segments[1] is rewritten


@pytest.mark.parametrize("error_number", [errno.EIO, errno.ENOENT])
def test_row_18_a_read_error_while_streams_are_listed_is_declared_unless_the_file_was_replaced(
    error_number: int,
) -> None:
    made = Building().segment().frame((A, 1, 1)).segment().frame((B, 1, 1)).segment().seal()
    asked: list[bool] = []

    def nothing_was_replaced() -> bool:
        asked.append(True)
        return False

    made.index.reload = nothing_was_replaced
    second = made.index.segments[1]
    reading_fails(second, lambda: RecoveryFailed("cannot read", file=second.path, errno=error_number))
    listed = streams_of(made.index)
    assert next(listed) == A
    with pytest.raises(RecoveryFailed) as caught:
        next(listed)
    assert (caught.value.file, caught.value.errno) == (second.path, error_number)
    assert asked == [True] * (error_number == errno.ENOENT)


def test_of_many_streams_those_that_a_segment_has_are_told_with_all_their_batches() -> None:
    made = Building().segment().frame((A, 1, 3), (B, 1, 1)).frame((A, 4, 1)).segment().frame((C, 1, 1))
    asked = {A, B, C, stream_id("none")}

    def told() -> dict[bytes, list[int]]:
        first = made.index.segments[0]
        return {entry.stream: [*words[0::5]] for entry, words in made.index.batches_of_many(first, asked)}

    assert told() == {A: [1, 4], B: [1]}
    made.seal()
    assert told() == {A: [1, 4], B: [1]}


# ---- an index that is unsound ----------------------------------------------------------------------------------------


def spoil(index: SealedIndex, part: str) -> None:
    """Turn over a bit of one part of an index on the medium."""
    table = {
        "frames": index._frames,
        "streams": index._streams,
        "batches": index._batches,
        "snapshots": index._snapshots,
    }[part]
    inner = table._read

    def read(offset: int, size: int) -> bytes:
        data = bytearray(inner(offset, size))
        data[7] ^= 1
        return bytes(data)

    table._read = read


def answers(index: LogIndex) -> dict[str, object]:
    """Everything that an index can be asked."""
    streams = (A, B, C, stream_id("none"))
    return {
        "streams": list(streams_of(index)),
        "deleted": list(index.deleted_streams()),
        "tails": [index.tail(stream) for stream in streams],
        "flags": [index.flags(stream) for stream in streams],
        "batches": [words_of(index, stream) for stream in streams],
        "located": [
            [(part.segment.path, *part.entry[2:]) for part in index.locate(stream).parts] for stream in streams
        ],
        "snapshots": [(batch := index.snapshot_batch(stream)) and batch[1:] for stream in streams],
        "frames": [
            index.frame_place(segment, number)
            for segment in index.segments
            for number in range(segment.index.frame_count)
        ],
        "records": index.records,
    }


def a_bit_of_everything() -> Building:
    made = Building().segment().frame((A, 1, 3, FLAG_OPENS), (B, 1, 1)).frame((A, 2, 1, FLAG_SNAPSHOT)).frame((A, 4, 1))
    made.segment().frame((B, 2, 2), (A, 5, 1)).frame((C, 1, 1)).frame((C, 2, 1, FLAG_TOMBSTONE | FLAG_CLOSES))
    return made.segment().frame((A, 6, 1)).frame((B, 4, 1, FLAG_SNAPSHOT))


@pytest.mark.parametrize("part", ["frames", "streams", "batches", "snapshots"])
def test_an_index_whose_part_is_unsound_is_built_again_and_answers_the_same(part: str) -> None:
    expected = answers(a_bit_of_everything().index)
    assert expected == answers(a_bit_of_everything().seal().index)
    made = a_bit_of_everything()
    rebuild = from_memory(made)
    made.seal(1, 2, 3)
    rebuilt: list[str] = []

    def noted(segment: IndexedSegment) -> LiveIndex:
        rebuilt.append(segment.path)
        return rebuild(segment)

    index = LogIndex(made.index.segments, rebuild=noted)
    for segment in index.segments:
        assert isinstance(segment.index, SealedIndex)
        spoil(segment.index, part)
    assert answers(index) == expected
    with_that_part = {"snapshots": [f"{LOG}/1", f"{LOG}/3"]}.get(part, [f"{LOG}/1", f"{LOG}/2", f"{LOG}/3"])
    assert sorted(rebuilt) == with_that_part, "each once"
    assert index.index_rebuilds == len(rebuilt)


@pytest.mark.parametrize(
    "question",
    [
        lambda index: index.tail(A),
        lambda index: index.locate(A),
        lambda index: list(streams_of(index)),
        lambda index: index.frame_place(index.segments[0], 0),
        lambda index: index.frame_of_lsn(index.segments[0], 2),
        lambda index: index.snapshot_batch(A),
    ],
    ids=["tail", "locate", "streams", "frame_place", "frame_of_lsn", "snapshot_batch"],
)
def test_whatever_is_asked_first_of_an_unsound_index_is_answered(question: Callable[[LogIndex], object]) -> None:
    def normal(answer: object) -> str:
        return repr(answer).split("IndexedSegment")[0]

    made = a_bit_of_everything()
    expected = normal(question(made.index))
    rebuild = from_memory(made)
    made.seal(1, 2, 3)
    index = LogIndex(made.index.segments, rebuild=rebuild)
    for segment in index.segments:
        assert isinstance(segment.index, SealedIndex)
        for part in ("frames", "streams", "batches", "snapshots"):
            spoil(segment.index, part)
    assert normal(question(index)) == expected
    assert index.index_rebuilds


def test_batches_of_a_part_that_was_located_before_its_index_was_found_unsound() -> None:
    made = a_bit_of_everything()
    rebuild, expected = from_memory(made), words_of(made.index, A)
    made.seal(1, 2, 3)
    index = LogIndex(made.index.segments, rebuild=rebuild)
    located = index.locate(A)
    for segment in index.segments:
        assert isinstance(segment.index, SealedIndex)
        spoil(segment.index, "batches")
    words = [
        list(index.batch_words(part, part.first, part.entry.batches)) for part in located.parts for _twice in range(2)
    ]
    assert [found[0] for found in words] == [1, 1, 5, 5, 6, 6]
    assert index.index_rebuilds == 3, "the second time it is asked of the one that was built"
    assert words_of(index, A) == expected


def test_an_index_without_frames_to_build_it_from_says_that_it_is_unsound() -> None:
    made = a_bit_of_everything().seal(1, 2, 3)
    for segment in made.index.segments:
        assert isinstance(segment.index, SealedIndex)
        spoil(segment.index, "streams")
    with pytest.raises(UnsoundIndex):
        made.index.tail(A)
