"""The index of a segment as bytes: head, trailer, and every question answered from the medium as it was in memory."""

from __future__ import annotations

import itertools
import random
import sys
import zlib
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstore.log import footer as ft
from stepstore.log.footer import HEAD_BYTES, TRAILER_BYTES, IndexHead, Trailer
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, DirectoryEntry
from stepstore.log.live_index import LiveIndex, _big_endian
from stepstore.log.packed_table import PAGE_BYTES, UnsoundIndex
from stepstore.log.sealed_index import SealedIndex
from tests.stepstore.log_lab import entry, index_bytes, payload, sealed_copy, steady, stream_id

# ---- head and trailer ------------------------------------------------------------------------------------------------

_BYTES = {"header_copy": 512, "digest": 32}


def heads() -> st.SearchStrategy[IndexHead]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name, kind in get_type_hints(IndexHead).items():
        if kind is bytes:
            fields[name] = st.binary(min_size=_BYTES[name], max_size=_BYTES[name])
        else:
            fields[name] = st.integers(0, 2**31 - 1)
    return st.builds(IndexHead, **fields)


def trailers() -> st.SearchStrategy[Trailer]:
    return st.builds(Trailer, *[st.integers(0, 2**31 - 1) for _field in Trailer._fields])


def a_head() -> IndexHead:
    values = {name: payload(size, size) for name, size in _BYTES.items()}
    return IndexHead(**{name: values.get(name, n * 1001) for n, name in enumerate(IndexHead._fields)})  # type: ignore[arg-type]


def a_trailer() -> Trailer:
    return Trailer(*[n * 77_777 + 1 for n in range(len(Trailer._fields))])


@steady
@given(heads())
def test_a_head_is_read_as_it_was_written(head: IndexHead) -> None:
    data = ft.encode_head(head)
    assert len(data) == HEAD_BYTES
    assert ft.parse_head(data) == head
    assert ft.parse_head(data + b"what follows") == head


@steady
@given(trailers())
def test_a_trailer_is_read_as_it_was_written(trailer: Trailer) -> None:
    data = ft.encode_trailer(trailer)
    assert len(data) == TRAILER_BYTES
    assert ft.parse_trailer(data) == trailer


def test_offsets_and_lsns_may_be_as_large_as_they_get() -> None:
    huge = 2**64 - 1
    head = a_head()._replace(first_lsn=huge, end_lsn=huge, end_offset=huge, records=huge, first_ns=2**63 - 1)
    assert ft.parse_head(ft.encode_head(head)) == head
    trailer = a_trailer()._replace(index_at=huge, end_offset=huge, end_lsn=huge, records=huge, segment_tag=2**32 - 1)
    assert ft.parse_trailer(ft.encode_trailer(trailer)) == trailer


def test_every_flipped_bit_of_a_head_is_found() -> None:
    whole = ft.encode_head(a_head())
    ft.parse_head(whole)
    for at, bit in itertools.product(range(len(whole)), range(8)):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << bit
        with pytest.raises(UnsoundIndex):
            ft.parse_head(bytes(spoiled))


def test_every_flipped_bit_of_a_trailer_is_found() -> None:
    whole = ft.encode_trailer(a_trailer())
    assert ft.parse_trailer(whole) is not None
    for at, bit in itertools.product(range(len(whole)), range(8)):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << bit
        assert ft.parse_trailer(bytes(spoiled)) is None


@pytest.mark.parametrize("length", [0, 1, TRAILER_BYTES - 1, TRAILER_BYTES + 1])
def test_a_trailer_of_another_length_is_none(length: int) -> None:
    assert ft.parse_trailer((ft.encode_trailer(a_trailer()) + b"\0")[:length]) is None


@pytest.mark.parametrize("length", [0, 1, HEAD_BYTES - 1])
def test_a_head_cut_short_is_unsound(length: int) -> None:
    with pytest.raises(UnsoundIndex, match="the file ends"):
        ft.parse_head(ft.encode_head(a_head())[:length])


@pytest.mark.parametrize(("at", "what"), [(0, "magic"), (11, "version")])
def test_a_head_of_another_kind_is_unsound_although_its_checksum_is_right(at: int, what: str) -> None:
    data = bytearray(ft.encode_head(a_head()))
    data[at] ^= 2
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")
    with pytest.raises(UnsoundIndex):
        ft.parse_head(bytes(data))


@pytest.mark.parametrize("at", [0, 1, 2, TRAILER_BYTES - 5, TRAILER_BYTES - 10])
def test_a_trailer_of_another_kind_is_none_although_its_checksum_is_right(at: int) -> None:
    data = bytearray(ft.encode_trailer(a_trailer()))
    data[at] ^= 2
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")
    assert ft.parse_trailer(bytes(data)) is None


@steady
@given(heads())
def test_the_parts_of_an_index_lie_behind_one_another(head: IndexHead) -> None:
    parts = [head.fingerprints_at, head.open_at, head.frames_at, head.streams_at, head.batches_at, head.snapshots_at]
    assert parts == sorted(parts)
    assert parts[0] == HEAD_BYTES
    assert head.open_at - head.fingerprints_at == 4 * head.streams
    assert head.frames_at - head.open_at == 16 * head.open_streams
    for start, end in itertools.pairwise([*parts[2:], head.size]):
        assert (end - start) % PAGE_BYTES == 0


# ---- from memory to the medium ---------------------------------------------------------------------------------------

POOL = [bytes([n % 3]) * 4 + payload(12, n) for n in range(12)]
"""Twelve streams, of which four each have the same fingerprint."""

plans = st.lists(  # one frame after another: (stream, records, kind, a jump of its numbers)
    st.lists(
        st.tuples(
            st.integers(0, 11),
            st.integers(1, 5),
            st.sampled_from(["", "", "", "opens", "closes", "snapshot", "tombstone"]),
            st.sampled_from([0, 0, 0, 0, 0, 3, -1]),
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=30,
)
_FLAGS = {"": 0, "opens": FLAG_OPENS, "closes": FLAG_CLOSES, "snapshot": FLAG_SNAPSHOT, "tombstone": FLAG_TOMBSTONE}

Plan = list[list[tuple[int, int, str, int]]]


def built(plan: Plan) -> LiveIndex:
    index, lsn, at = LiveIndex(), 1, 512
    last: dict[bytes, int] = {}
    for frame in plan:
        first_lsn, entries = lsn, list[DirectoryEntry]()
        for number, count, kind, jump in frame:
            stream = POOL[number]
            if kind in ("snapshot", "tombstone"):
                count = 1
            if kind == "snapshot":
                entries.append(entry(stream, max(last.get(stream, 0), 1), lsn, 1, FLAG_SNAPSHOT, at=at))
                lsn += 1
                continue
            first_seq = max(last.get(stream, 0) + 1 + jump, 1)
            entries.append(entry(stream, first_seq, lsn, count, _FLAGS[kind], at=at))
            if not jump:
                last[stream] = first_seq + count - 1
            lsn += count
        index.add_frame(at, first_lsn, entries)
        at += 700
    return index


def check_same(live: LiveIndex, sealed: SealedIndex) -> None:
    """Every question that a segment's index answers."""
    assert sealed.records == live.records
    assert sealed.frame_count == live.frame_count
    assert sealed.tombstones == live.tombstones
    assert [sealed.frame_place(n) for n in range(live.frame_count)] == [
        live.frame_place(n) for n in range(live.frame_count)
    ]
    mine = sorted(live.streams())
    theirs = list(sealed.streams())
    assert [found._replace(first_batch=0) for found in theirs] == mine
    assert [found.first_batch for found in theirs] == [0, *itertools.accumulate(found.batches for found in theirs)][:-1]
    sealed.check_streams()
    sealed.check()
    for some in (POOL, POOL[::3], [*POOL[1:2], stream_id("none")], []):
        many = {
            entry.stream: (entry._replace(first_batch=0), words) for entry, words in sealed.batches_of_many(set(some))
        }
        assert many == {entry.stream: (entry, words) for entry, words in live.batches_of_many(set(some))}
        assert list(many) == sorted(set(some) & {found.stream for found in mine})
    for stream in [*POOL, stream_id("none"), bytes(16), b"\xff" * 16]:
        one, other = live.find(stream), sealed.find(stream)
        assert (one is None) == (other is None)
        assert live.might_hold(stream) == (one is not None)
        assert sealed.might_hold(stream) or one is None, "it may say yes too often and never no"
        assert sealed.tail(stream) == live.tail(stream)
        assert sealed.snapshot(stream) == live.snapshot(stream)
        if one is not None and other is not None:
            assert other._replace(first_batch=0) == one
            for start, end in [
                (0, one.batches),
                (0, 1),
                (one.batches - 1, one.batches),
                (one.batches // 2, one.batches),
            ]:
                assert sealed.batch_words(other, start, end) == live.batch_words(one, start, end)


@steady
@given(plans, st.lists(st.sampled_from(POOL), unique=True), st.sampled_from([0, 8, 5000]))
def test_an_index_on_the_medium_answers_as_the_one_in_memory(plan: Plan, opened: list[bytes], base: int) -> None:
    live = built(plan)
    sealed = sealed_copy(live, opened, base=base)
    check_same(live, sealed)
    assert list(sealed.open_streams()) == opened, "in the order in which they were opened"


def test_an_index_of_many_pages_answers_as_the_one_in_memory() -> None:
    dice = random.Random(3)
    live, lsn = LiveIndex(), 1
    streams = [stream_id(str(n // 2))[:5] + stream_id(str(n))[5:] for n in range(2500)]
    last: dict[bytes, int] = {}
    for number in range(6000):
        stream = dice.choice(streams)
        entries = [entry(stream, last.get(stream, 0) + 1, lsn, 2, at=number * 100)]
        last[stream] = last.get(stream, 0) + 2
        lsn += 2
        if number % 20 == 0:
            entries.append(entry(stream, last[stream], lsn, 1, FLAG_SNAPSHOT, at=number * 100))
            lsn += 1
        live.add_frame(512 + number * 100, entries[0][2], entries)
    sealed = sealed_copy(live)
    check_same(live, sealed)
    for stream in streams:
        entry_there = sealed.find(stream)
        assert (entry_there and entry_there._replace(first_batch=0)) == live.find(stream)
        assert sealed.snapshot(stream) == live.snapshot(stream)
    assert len(index_bytes(live)) == sealed.head.size
    assert sealed.head.size > 40 * PAGE_BYTES
    assert live.size_so_far <= sealed.head.size <= live.size_so_far * 1.1 + 4 * PAGE_BYTES + HEAD_BYTES


def test_an_empty_segment_has_an_index_too() -> None:
    sealed = sealed_copy(LiveIndex())
    check_same(LiveIndex(), sealed)
    assert sealed.head.size == HEAD_BYTES


def test_only_what_is_asked_for_is_read() -> None:
    """One page to find a stream, one for a batch of it, one for a snapshot; nothing to know that it is not there."""
    live = LiveIndex()
    for number in range(1000):
        live.add_frame(512 + number, number + 1, [entry(stream_id(str(number)), 1, number + 1)])
    data = index_bytes(live)
    reads: list[int] = []

    def read(offset: int, size: int) -> bytes:
        reads.append(size)
        return data[offset : offset + size]

    sealed = SealedIndex(read, 0, ft.parse_head(data))
    assert reads == [4000], "the fingerprints"
    reads.clear()
    assert not sealed.might_hold(stream_id("none"))
    assert sealed.find(stream_id("none")) is None
    assert sealed.snapshot(stream_id("none")) is None
    assert reads == []
    found = sealed.find(stream_id("500"))
    assert found is not None
    sealed.batch_words(found, 0, 1)
    assert reads == [PAGE_BYTES, PAGE_BYTES]


def test_frames_that_are_asked_for_one_after_the_other_are_read_together() -> None:
    live = LiveIndex()
    for number in range(3000):
        live.add_frame(512 + number, number + 1, [])
    data = index_bytes(live)
    reads: list[int] = []

    def read(offset: int, size: int) -> bytes:
        reads.append(size)
        return data[offset : offset + size]

    sealed = SealedIndex(read, 0, ft.parse_head(data))
    reads.clear()
    assert [sealed.frame_place(n) for n in range(3000)] == [live.frame_place(n) for n in range(3000)]
    assert len(reads) == 3


def test_every_flipped_byte_of_an_index_is_found_by_its_check() -> None:
    live = built([[(n % 12, 1, "", 0), (n % 5, 1, "snapshot", 0)] for n in range(40)])
    data = bytearray(index_bytes(live, POOL[:3]))
    head = ft.parse_head(bytes(data))

    def read(offset: int, size: int) -> bytes:
        return bytes(data[offset : offset + size])

    SealedIndex(read, 0, head).check()
    for at in range(HEAD_BYTES, len(data)):
        data[at] ^= 1 << at % 8
        with pytest.raises(UnsoundIndex):
            SealedIndex(read, 0, head).check()
        data[at] ^= 1 << at % 8


@pytest.mark.parametrize("missing", [1, 5000, 20_000])
def test_an_index_that_was_cut_short_is_unsound(missing: int) -> None:
    live = built([[(n % 12, 1, "", 0), (n % 5, 1, "snapshot", 0)] for n in range(40)])
    data = index_bytes(live, POOL[:3])
    head = ft.parse_head(data)
    short = data[:-missing]
    with pytest.raises(UnsoundIndex):
        SealedIndex(lambda offset, size: short[offset : offset + size], 0, head).check()


def test_a_part_of_a_stream_that_reaches_beyond_the_table_is_unsound() -> None:
    """Only a crafted index says so."""
    sealed = sealed_copy(built([[(0, 1, "", 0)]]))
    found = sealed.find(POOL[0])
    assert found is not None
    with pytest.raises(UnsoundIndex):
        sealed.batch_words(found, 0, 2)


def test_the_words_of_a_machine_that_has_them_in_the_right_order_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = payload(64)
    assert _big_endian(words) == b"".join(words[at : at + 8][::-1] for at in range(0, 64, 8))
    live = built([[(0, 2, "", 0), (3, 1, "", 0)], [(0, 1, "", 0)]])
    for module in ("live_index", "sealed_index"):
        monkeypatch.setattr(f"stepstore.log.{module}.sys", SimpleNamespace(byteorder="big"))
    assert _big_endian(words) == words
    assert sys.byteorder == "little", "on such a machine this is what the other tests do"
    sealed = sealed_copy(live)
    found = live.find(POOL[0])
    assert found is not None
    there = next(entry for entry in sealed.streams() if entry.stream == POOL[0])
    assert sealed.batch_words(there, 0, 2) == live.batch_words(found, 0, 2)
