"""`docs/format.md` is drawn byte by byte; this holds its tables against the code and against a segment."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from stepstore.log import footer as ft
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.memory_files import MemoryFileSystem
from tests.stepstore.log_lab import A, B, content, frames_of, payload, segments, write_log

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "format.md").read_text()
SIZES = {0x18: 1, 0x1A: 4, 0x1B: 8, 0x50: 16}


class Row:
    def __init__(self, cells: list[str]):
        self.at, self.size = int(cells[0]), int(cells[1])
        self.head = int(cells[2], 16) if re.fullmatch(r"[0-9A-F]{2}", cells[2]) else None
        self.name = cells[2] if self.head is None else cells[3]


def table_before(heading: str, first: str) -> list[Row]:
    """The rows of the first table behind a piece of text whose first row is of field `first`."""
    rows: list[Row] = []
    for line in TEXT[TEXT.index(heading) :].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            rows.append(Row(cells))
        elif rows and rows[0].name == first:
            return rows
        else:
            rows = []
    raise AssertionError(f"no table behind {heading!r} begins with {first!r}")


def is_gapless(rows: list[Row], total: int) -> bool:
    ends = [row.at + row.size for row in rows]
    return [row.at for row in rows] == [0, *ends[:-1]] and ends[-1] == total


@pytest.fixture(scope="module")
def segment() -> bytes:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(20), b"two"]), (B, [b"three"])], [(A, [b"four"])]], close=True)
    return content(disk, segments(disk)[0])


def test_the_segment_header_is_as_drawn(segment: bytes) -> None:
    rows = table_before("### Segment header", "magic")
    assert is_gapless(rows, sh.HEADER_BYTES)
    assert [row.name for row in rows[1:-2]] == list(sh.SegmentHeader._fields)
    parsed = sh.parse_segment_header(segment)
    assert parsed is not None
    for row, value in zip(rows[1:-2], parsed[0], strict=True):
        assert row.head == segment[row.at]
        assert row.head is not None
        assert SIZES[row.head] == row.size - 1
        raw = segment[row.at + 1 : row.at + row.size]
        assert raw == value if isinstance(value, bytes) else int.from_bytes(raw, "big") == value, row.name
    crc = rows[-1]
    assert int.from_bytes(segment[crc.at + 1 : crc.at + 5], "big") == parsed[1]


def test_the_frame_header_is_as_drawn(segment: bytes) -> None:
    rows = table_before("### Frame", "array")
    assert is_gapless(rows, fr.HEADER_BYTES)
    assert [row.name for row in rows[1:]] == list(fr.FrameHeader._fields)
    head = fr.parse_header(segment, sh.HEADER_BYTES)
    assert head is not None
    for row, value in zip(rows[1:], head, strict=True):
        at = sh.HEADER_BYTES + row.at
        assert row.head == segment[at]
        assert int.from_bytes(segment[at + 1 : at + row.size], "big") == value, row.name


def test_the_directory_entry_is_as_drawn(segment: bytes) -> None:
    rows = table_before("**Directory**", "stream")
    assert is_gapless(rows, fr.ENTRY_BYTES)
    at = sh.HEADER_BYTES + fr.HEADER_BYTES + 5
    fields = fr.DIRECTORY_ENTRY.unpack_from(segment, at)
    for row, value in zip(rows, fields, strict=True):
        raw = segment[at + row.at : at + row.at + row.size]
        assert raw == value if isinstance(value, bytes) else int.from_bytes(raw, "big") == value, row.name
    assert (fields[0], fields[1], fields[3]) == (A, 1, 2)


def test_the_index_and_the_trailer_are_as_drawn(segment: bytes) -> None:
    rows = table_before("### Footer, close", "magic")
    assert is_gapless(rows, ft.HEAD_BYTES)
    assert [row.name for row in rows] == ["magic", "version", *ft.IndexHead._fields, "crc"]
    trailer_rows = table_before("The trailer is the last", "head")
    assert is_gapless(trailer_rows, ft.TRAILER_BYTES)
    assert [row.name for row in trailer_rows] == ["head", "magic", *ft.Trailer._fields, "zeros", "crc"]
    trailer = ft.parse_trailer(segment[-ft.TRAILER_BYTES :])
    assert trailer is not None
    index = segment[trailer.index_at :][: trailer.index_bytes]
    head = ft.parse_head(index)
    for row, value in zip(rows[2:-1], head, strict=True):
        raw = index[row.at : row.at + row.size]
        assert raw == value if isinstance(value, bytes) else int.from_bytes(raw, "big") == value, row.name
    for row, value in zip(trailer_rows[2:-2], trailer, strict=True):
        assert int.from_bytes(segment[-ft.TRAILER_BYTES :][row.at : row.at + row.size], "big") == value, row.name


def test_the_sections_of_the_index_have_the_sizes_that_are_told() -> None:
    told = dict(re.findall(r"^\| ([a-z ]+) \| (\d+) \|", TEXT, re.MULTILINE))
    assert told == {
        "fingerprints": str(ft.FINGERPRINT_BYTES),
        "open set": str(ft.OPEN_BYTES),
        "frame table": str(ft.FRAME_ENTRY.size),
        "stream table": str(ft.STREAM_ENTRY.size),
        "batch table": str(ft.BATCH_ENTRY_BYTES),
        "snapshot table": str(ft.SNAPSHOT_BYTES),
    }


def test_where_headers_may_stand(segment: bytes) -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(437 + n)])] for n in range(20)], close=True)
    padded = 0
    before = sh.HEADER_BYTES
    for frame in frames_of(disk, segments(disk)[0]):
        assert frame.at % fr.SECTOR + fr.HEADER_BYTES <= fr.SECTOR
        if frame.head.kind == fr.KIND_CLOSE:
            assert frame.at % fr.MARK_ALIGNMENT == 0
        else:
            padded += frame.at > before
        before = frame.end
    assert padded
    assert struct.unpack(">I", segment[-4:])[0]
