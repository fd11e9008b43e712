"""The 512 bytes at the head of a segment."""

from __future__ import annotations

import io
from typing import get_type_hints

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstore.log import segment_header as sh
from stepstore.log.segment_header import SegmentHeader
from tests.stepstore.log_lab import steady

SMALL_FIELDS = {"format_major", "format_minor", "codec", "cipher", "segment_tag", "align", "prev_chain", "orig_chain"}
SMALL_FIELDS |= {"reserved"}
COUNTED = ("seq_last", "first_lsn", "epoch", "prev_end_lsn", "orig_end_lsn")


def field(name: str, kind: object) -> st.SearchStrategy[object]:
    if kind is bytes:
        return st.binary(min_size=16, max_size=16)
    return st.integers(0, 2 ** (32 if name in SMALL_FIELDS else 63 if name in COUNTED else 64) - 1)


headers: st.SearchStrategy[SegmentHeader] = st.tuples(
    *(field(name, kind) for name, kind in get_type_hints(SegmentHeader).items())
).map(lambda values: SegmentHeader(*values))

EXAMPLE = SegmentHeader(
    *(1, 0, 0, 0, b"L" * 16, b"B" * 16, 3, 3, 0, 77, 2, 10**18, 0, 0, 0xABCDEF01, 0, 2, 4711, 76, 99, 0, 0, 0)
)


@steady
@given(headers)
def test_a_header_is_read_as_it_was_written(header: SegmentHeader) -> None:
    data, crc = sh.encode_segment_header(header)
    assert len(data) == sh.HEADER_BYTES == 512
    assert sh.parse_segment_header(data) == (header, crc)
    assert sh.parse_segment_header(data + b"frames") == (header, crc)


@pytest.mark.parametrize("name", COUNTED)
def test_a_number_that_nothing_could_come_behind_makes_no_header(name: str) -> None:
    fields = EXAMPLE._asdict()
    largest = SegmentHeader(**{**fields, name: 2**63 - 1})
    assert sh.parse_segment_header(sh.encode_segment_header(largest)[0]) is not None
    beyond = SegmentHeader(**{**fields, name: 2**63})
    assert sh.parse_segment_header(sh.encode_segment_header(beyond)[0]) is None


def test_every_flipped_bit_of_a_header_is_noticed() -> None:
    data, _crc = sh.encode_segment_header(EXAMPLE)
    for position in range(len(data) * 8):
        spoiled = bytearray(data)
        spoiled[position // 8] ^= 1 << position % 8
        assert sh.parse_segment_header(bytes(spoiled)) is None, f"bit {position}"


def test_a_header_cut_short_is_none() -> None:
    data, _crc = sh.encode_segment_header(EXAMPLE)
    for length in range(len(data)):
        assert sh.parse_segment_header(data[:length]) is None


def test_a_header_is_one_cbor_item_behind_the_self_described_tag() -> None:
    data, crc = sh.encode_segment_header(EXAMPLE)
    assert data.startswith(bytes.fromhex("d9d9f7"))
    stream = io.BytesIO(data)
    item = cbor2.load(stream)
    assert stream.tell() == len(data)
    assert item[0] == "stepwell"
    assert SegmentHeader(*item[1:-2]) == EXAMPLE
    assert not any(item[-2]), "padding"
    assert item[-1] == crc


def test_the_feature_bit_says_whether_space_was_set_aside() -> None:
    assert EXAMPLE.preallocated
    assert not EXAMPLE._replace(features_compatible=sh.FEATURE_NOT_PREALLOCATED).preallocated
