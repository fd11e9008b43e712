"""Tables in pages with a checksum each: every entry is found, and every flipped byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstore.log.packed_table import PAGE_BYTES, PackedTable, UnsoundIndex, pack_table, table_bytes
from tests.stepstore.log_lab import payload, steady

SIZES = [4, 16, 40, 56, 52, 1000]


def entries(count: int, size: int) -> bytes:
    return b"".join(payload(size, n) for n in range(count))


class Medium:
    """Bytes that can be read, and the reads that were made of them."""

    def __init__(self, data: bytes):
        self.data, self.reads = bytearray(data), list[tuple[int, int]]()

    def read(self, offset: int, size: int) -> bytes:
        self.reads.append((offset, size))
        return bytes(self.data[offset : offset + size])


def made(count: int, size: int, *, offset: int = 0) -> tuple[Medium, PackedTable, bytes]:
    data = entries(count, size)
    medium = Medium(b"\xee" * offset + pack_table(data, size) + b"\xdd" * 100)
    return medium, PackedTable(medium.read, offset, count, size), data


@steady
@given(st.sampled_from(SIZES), st.integers(0, 2100), st.integers(0, 2100), st.integers(0, 2100), st.integers(0, 9000))
def test_any_range_of_entries_is_read_as_it_was_packed(
    size: int, count: int, one: int, other: int, offset: int
) -> None:
    medium, table, data = made(count % (40_000 // size), size, offset=offset)
    start, end = sorted((one % (table.count + 1), other % (table.count + 1)))
    assert table.entries(start, end) == data[start * size : end * size]
    assert len(medium.reads) == (start < end), "one read for all of it"


@pytest.mark.parametrize("size", SIZES)
def test_entries_beside_the_border_of_a_page(size: int) -> None:
    per_page = (PAGE_BYTES - 4) // size
    for count in (per_page - 1, per_page, per_page + 1, 3 * per_page, 3 * per_page + 1):
        medium, table, data = made(count, size)
        assert table_bytes(count, size) == len(pack_table(data, size)) == -(-count // per_page) * PAGE_BYTES
        for start in {0, per_page - 1, per_page, 2 * per_page - 1, 2 * per_page, count - 1}:
            if not 0 <= start < count:
                continue
            for end in {start + 1, start + 2, start + per_page, count}:
                if end <= count:
                    medium.reads.clear()
                    assert table.entries(start, end) == data[start * size : end * size]
                    ((offset, read),) = medium.reads
                    assert offset == start // per_page * PAGE_BYTES
                    assert read == ((end - 1) // per_page - start // per_page + 1) * PAGE_BYTES


def test_an_empty_table_takes_no_space_and_reads_nothing() -> None:
    assert (pack_table(b"", 16), table_bytes(0, 16)) == (b"", 0)
    medium, table, _data = made(0, 16)
    assert table.entries(0, 0) == b""
    table.check()
    assert medium.reads == []


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (0, 11), (5, 4), (11, 11)])
def test_entries_that_are_not_there_are_not_asked_of_the_medium(start: int, end: int) -> None:
    medium, table, _data = made(10, 40)
    with pytest.raises(UnsoundIndex, match="a table of 10"):
        table.entries(start, end)
    assert medium.reads == []


def test_every_flipped_byte_is_found() -> None:
    """By whoever reads an entry of its page, and by the check of the whole; nobody else has to read the page."""
    size = 40
    per_page = (PAGE_BYTES - 4) // size
    medium, table, data = made(2 * per_page + 5, size)
    for at in range(len(medium.data) - 100):
        medium.data[at] ^= 1 << at % 8
        with pytest.raises(UnsoundIndex, match=f"page {at // PAGE_BYTES} "):
            table.check()
        first = at // PAGE_BYTES * per_page
        with pytest.raises(UnsoundIndex):
            table.entries(first, first + 1)
        elsewhere = (at // PAGE_BYTES + 1) % 3 * per_page
        assert table.entries(elsewhere, elsewhere + 1) == data[elsewhere * size : (elsewhere + 1) * size]
        medium.data[at] ^= 1 << at % 8
    table.check()


@pytest.mark.parametrize("missing", [1, 100, PAGE_BYTES, PAGE_BYTES + 1])
def test_a_file_that_ends_inside_the_table_is_unsound(missing: int) -> None:
    medium, table, _data = made(200, 40)
    del medium.data[-100 - missing :]
    with pytest.raises(UnsoundIndex, match="the file ends"):
        table.check()


def test_a_large_table_is_checked_in_pieces() -> None:
    medium, table, _data = made(300 * ((PAGE_BYTES - 4) // 1000), 1000)
    table.check()
    assert [size // PAGE_BYTES for _offset, size in medium.reads] == [256, 44]
