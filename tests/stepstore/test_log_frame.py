"""Frames as bytes: what is written is read, whatever is changed is noticed, and crafted directories are refused."""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstore.log import frame as fr
from stepstore.log.frame import Batch
from tests.stepstore.log_lab import A, B, payload, steady, with_nul_runs

payloads = st.binary(max_size=60) | st.sampled_from([b"", bytes(700), bytes(1600) + b"x", with_nul_runs(3200)])
batches = st.builds(
    Batch,
    stream=st.binary(min_size=16, max_size=16),
    first_seq=st.integers(1, fr.MAX_NUMBER - 5),
    payloads=st.lists(payloads, min_size=1, max_size=5),
    flags=st.integers(0, 3),
)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(1, fr.MAX_NUMBER - 30)


def split(data: bytes | bytearray, at: int = 0) -> tuple[fr.FrameHeader, bytes]:
    head = fr.parse_header(data)
    assert head is not None
    return head, bytes(data[fr.HEADER_BYTES :])


def test_numbers_beyond_the_largest_make_no_frame() -> None:
    for first_seq, first_lsn, sound in (
        (fr.MAX_NUMBER, fr.MAX_NUMBER, True),
        (fr.MAX_NUMBER + 1, 1, False),
        (1, fr.MAX_NUMBER + 1, False),
    ):
        data, _crc, _entries = fr.build_frame(
            [Batch(A, first_seq, [b"x"], 0)],
            offset=512,
            first_lsn=first_lsn,
            durable_lsn=0,
            segment_tag=1,
            prev_crc=1,
        )
        head = fr.parse_header(data)
        assert (head is not None) == (first_lsn <= fr.MAX_NUMBER)
        if head is not None:
            parsed = fr.parse_directory(head, bytes(data[fr.HEADER_BYTES :]), 512)
            assert (parsed is not None) == sound


@steady
@given(st.lists(batches, max_size=6), st.integers(512, 10**9), u64, u64, u32, u32)
def test_a_frame_is_read_as_it_was_written(
    written: list[Batch], offset: int, first_lsn: int, durable: int, tag: int, chain: int
) -> None:
    data, crc, entries = fr.build_frame(
        written, offset=offset, first_lsn=first_lsn, durable_lsn=durable, segment_tag=tag, prev_crc=chain
    )
    head, body = split(data)
    assert head.frame_len == len(data)
    assert (head.kind, head.flags, head.first_lsn, head.durable_lsn) == (fr.KIND_DATA, 0, first_lsn, durable)
    assert (head.segment_tag, head.prev_crc, head.header_crc) == (tag, chain, crc)
    assert head.record_count == head.lsn_span == sum(len(batch.payloads) for batch in written)
    assert head.last_lsn == first_lsn + head.record_count - 1
    assert fr.body_is_sound(head, body)
    assert fr.parse_directory(head, body, offset) == entries
    lsn = first_lsn
    for batch, entry in zip(written, entries, strict=True):
        stream, first_seq, entry_lsn, count, size, body_crc, flags, payload_at, lengths_at = entry
        assert (stream, first_seq, count, flags, entry_lsn) == (
            batch.stream,
            batch.first_seq,
            len(batch.payloads),
            batch.flags,
            lsn,
        )
        stored = data[payload_at - offset : payload_at - offset + size]
        assert zlib.crc32(stored) == body_crc
        lengths = data[lengths_at - offset : lengths_at - offset + 4 * count]
        assert fr.split_payloads(lengths, stored) == list(batch.payloads)
        lsn += count


@steady
@given(st.lists(batches, min_size=1, max_size=6))
def test_the_cost_of_batches_is_the_size_of_their_frame_without_its_two_heads(written: list[Batch]) -> None:
    data, _crc, _entries = fr.build_frame(written, offset=512, first_lsn=1, durable_lsn=0, segment_tag=0, prev_crc=0)
    cost = sum(fr.batch_cost(sum(map(len, batch.payloads)), len(batch.payloads)) for batch in written)
    assert len(data) == cost + fr.HEADER_BYTES + fr.BODY_OVERHEAD


@pytest.mark.parametrize("align", [0, 512, 4096])
def test_a_header_never_crosses_a_sector(align: int) -> None:
    for offset in range(512, 512 + 2 * 4096):
        at = fr.header_position(offset, align)
        assert at >= offset
        assert at % fr.SECTOR + fr.HEADER_BYTES <= fr.SECTOR
        assert at - offset < (align or fr.HEADER_BYTES)
        assert not align or at % align == 0


def brute_force_zero_pieces(frame: bytes | bytearray, offset: int) -> int:
    pieces: dict[int, bytearray] = {}
    for n, byte in enumerate(frame):
        pieces.setdefault((offset + n) // fr.SECTOR, bytearray()).append(byte)
    del pieces[offset // fr.SECTOR]  # the header's
    return sum(not any(piece) for piece in pieces.values())


@steady
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0, 1]), st.sampled_from([1, 5, 511, 512, 513, 1024, 2000])),
        min_size=1,
        max_size=9,
    ),
    st.integers(0, 3 * fr.SECTOR),
)
def test_zero_pieces_agree_with_counting_them_one_by_one(runs: list[tuple[int, int]], offset: int) -> None:
    frame = b"".join(bytes([value]) * length for value, length in runs)
    assert fr.count_zero_pieces(frame, offset) == brute_force_zero_pieces(frame, offset)
    assert fr.count_zero_pieces(memoryview(frame), offset) == brute_force_zero_pieces(frame, offset)


@pytest.mark.parametrize("size", [0, 1, 400, 511, 512, 513, 1500, 5000])
@pytest.mark.parametrize("offset", [512, 600, 949, 1024])
def test_a_frame_records_its_own_zero_pieces(size: int, offset: int) -> None:
    data, _crc, _entries = fr.build_frame(
        [Batch(A, 1, [b"x", bytes(size), b"y"], 0)],
        offset=offset,
        first_lsn=1,
        durable_lsn=0,
        segment_tag=7,
        prev_crc=7,
    )
    assert split(data)[0].zero_pieces == brute_force_zero_pieces(data, offset)


def test_every_flipped_bit_of_a_frame_is_noticed() -> None:
    data, _crc, _entries = fr.build_frame(
        [Batch(A, 1, [b"one", bytes(40)], 0), Batch(B, 4, [b"two"], 3)],
        offset=512,
        first_lsn=9,
        durable_lsn=8,
        segment_tag=0xFEEDBEEF,
        prev_crc=1,
    )
    head, _body = split(data)
    for position in range(len(data) * 8):
        spoiled = bytearray(data)
        spoiled[position // 8] ^= 1 << position % 8
        if position < fr.HEADER_BYTES * 8:
            assert fr.parse_header(bytes(spoiled)) is None, f"bit {position} of the header"
        else:
            assert not fr.body_is_sound(head, bytes(spoiled[fr.HEADER_BYTES :])), f"bit {position}"


def test_a_body_with_one_byte_too_many_or_too_few_is_not_sound() -> None:
    data, _crc, _entries = fr.build_frame(
        [Batch(A, 1, [b"one"], 0)], offset=512, first_lsn=1, durable_lsn=0, segment_tag=7, prev_crc=7
    )
    head, body = split(data)
    assert not fr.body_is_sound(head, body + b"\0")
    assert not fr.body_is_sound(head, body[:-1])


def test_a_header_cut_short_is_none() -> None:
    data, _crc, _entries = fr.build_frame([], offset=512, first_lsn=1, durable_lsn=0, segment_tag=7, prev_crc=7)
    for length in range(fr.HEADER_BYTES):
        assert fr.parse_header(data[:length]) is None
    assert fr.parse_header(data) is not None


# ---- crafted frames: every CRC is right, the contents contradict themselves ------------------------------------------


def crafted(
    entries: list[tuple[int, int, int, int, int]], lengths: list[int], data: bytes, /, **changed: int
) -> tuple[fr.FrameHeader, bytes]:
    """A frame with sound CRCs from (first_seq, lsn_offset, count, size, kind) per entry; `changed` header fields."""
    directory = b"".join(
        fr.DIRECTORY_ENTRY.pack(A, seq, lsn_offset, count, size, zlib.crc32(data), 0, kind)
        for seq, lsn_offset, count, size, kind in entries
    ) + struct.pack(f">{len(lengths)}I", *lengths)
    body = b"".join((struct.pack(">BI", 0x5A, len(directory)), directory, struct.pack(">BI", 0x5A, len(data)), data))
    fields: dict[str, int] = {
        "kind": 1, "flags": 0, "first_lsn": 1, "lsn_span": len(lengths), "record_count": len(lengths),
        "durable_lsn": 0, "segment_tag": 7, "prev_crc": 7, "body_len": len(body), "dir_len": len(directory),
        "dir_crc": zlib.crc32(directory), "body_crc": zlib.crc32(body), "zero_pieces": 0, "header_crc": 0,
    }  # fmt: skip
    return fr.FrameHeader(**(fields | changed)), body


GOOD = ([(1, 0, 1, 3, 1), (2, 1, 2, 2, 1)], [3, 1, 1], b"abcde")


def test_the_crafted_frame_is_sound_as_long_as_nothing_is_wrong_with_it() -> None:
    head, body = crafted(*GOOD)
    assert fr.body_is_sound(head, body)
    entries = fr.parse_directory(head, body, 512)
    assert entries is not None
    assert [entry[1:5] for entry in entries] == [(1, 1, 1, 3), (2, 2, 2, 2)]


@pytest.mark.parametrize(
    ("wrong", "entries", "lengths", "data"),
    [
        ("an entry without records", [(1, 0, 0, 0, 1)], [], b""),
        ("a batch that begins with seq 0", [(0, 0, 1, 1, 1)], [1], b"a"),
        ("LSNs that overlap", [(1, 0, 1, 1, 1), (2, 0, 1, 1, 1)], [1, 1], b"ab"),
        ("LSNs that go back", [(1, 1, 1, 1, 1), (2, 0, 1, 1, 1)], [1, 1], b"ab"),
        ("LSNs beyond the span", [(1, 2, 1, 1, 1), (2, 3, 1, 1, 1)], [1, 1], b"ab"),
        ("an unknown kind of entry", [(1, 0, 1, 1, 9)], [1], b"a"),
        ("more records than lengths", [(1, 0, 2, 1, 1)], [1], b"a"),
        ("fewer records than lengths", [(1, 0, 1, 2, 1)], [1, 1], b"ab"),
        ("sizes that end before the frame", [(1, 0, 1, 1, 1)], [1], b"ab"),
        ("sizes that end behind the frame", [(1, 0, 1, 2**32 - 1, 1)], [1], b"ab"),
        ("a count that wraps around", [(1, 0, 2**32 - 1, 1, 1)], [1], b"a"),
    ],
)
def test_a_crafted_directory_is_refused(
    wrong: str, entries: list[tuple[int, int, int, int, int]], lengths: list[int], data: bytes
) -> None:
    head, body = crafted(entries, lengths, data)
    assert fr.body_is_sound(head, body), "the CRCs are right; only the contents are wrong"
    assert fr.parse_directory(head, body, 512) is None, wrong


@pytest.mark.parametrize(
    "changed",
    [
        {"body_len": fr.MAX_FRAME_BYTES - fr.HEADER_BYTES + 1},
        {"dir_len": 10**6},
        {"record_count": 10**6, "lsn_span": 10**6},
        {"record_count": 2, "lsn_span": 3},  # the directory is then no whole number of entries
        {"record_count": 3, "lsn_span": 2},
    ],
    ids=str,
)
def test_a_crafted_header_is_refused(changed: dict[str, int]) -> None:
    def encoded(head: fr.FrameHeader) -> bytes:
        types = fr._TYPES
        values = [item for pair in zip(types[1:], head, strict=True) for item in pair]
        data = fr._HEADER.pack(types[0], *values)[:-5]
        return data + struct.pack(">BI", 0x1A, zlib.crc32(data))

    assert fr.parse_header(encoded(crafted(*GOOD)[0])) is not None
    assert fr.parse_header(encoded(crafted(*GOOD, **changed)[0])) is None


def test_the_lengths_of_a_machine_that_has_them_in_the_right_order_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sys.byteorder == "little", "on such a machine this is what the other tests do"
    lengths = [3, 0x1234]
    found = []
    for order in ("little", "big"):
        monkeypatch.setattr("stepstore.log.frame.sys", SimpleNamespace(byteorder=order))
        data, _crc, ((*_fields, lengths_at),) = fr.build_frame(
            [Batch(A, 1, [bytes(n) for n in lengths], 0)],
            offset=512,
            first_lsn=1,
            durable_lsn=0,
            segment_tag=7,
            prev_crc=7,
        )
        found.append(bytes(data[lengths_at - 512 : lengths_at - 512 + 8]))
    assert found == [struct.pack(">2I", *lengths), array("I", lengths).tobytes()]


@pytest.mark.parametrize("lengths", [[2, 3], [6], [2**32 - 1], [0, 0], []], ids=str)
def test_lengths_that_do_not_add_up_split_nothing(lengths: list[int]) -> None:
    packed = struct.pack(f">{len(lengths)}I", *lengths)
    parts = fr.split_payloads(packed, b"abcde")
    assert parts == ([b"ab", b"cde"] if lengths == [2, 3] else None)


def test_a_largest_batch_fits_the_longest_frame() -> None:
    body = payload(64)
    size = fr.MAX_BATCH_BYTES - fr.batch_cost(0, 1) - len(body)
    written = Batch(A, 1, [body + bytes(size)], 0)
    assert fr.batch_cost(len(written.payloads[0]), 1) == fr.MAX_BATCH_BYTES
    data, _crc, _entries = fr.build_frame([written], offset=512, first_lsn=1, durable_lsn=0, segment_tag=7, prev_crc=7)
    assert len(data) <= fr.MAX_FRAME_BYTES
    assert fr.parse_header(data) is not None


def test_a_directory_crc_that_is_not_that_of_the_directory_makes_the_frame_unsound() -> None:
    data, _crc, _entries = fr.build_frame(
        [fr.Batch(bytes(16), 1, [b"payload"], 0)], offset=512, first_lsn=1, durable_lsn=0, segment_tag=7, prev_crc=8
    )
    header, body = split(data)
    assert fr.body_is_sound(header, body)
    assert not fr.body_is_sound(header._replace(dir_crc=header.dir_crc ^ 1), body)
