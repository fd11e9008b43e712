"""Anybody can read a log: every segment is a CBOR sequence that a foreign decoder walks to its exact end."""

from __future__ import annotations

import io
import itertools

import cbor2
import pytest

from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.footer import TRAILER_BYTES, parse_trailer
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from stepstore.log.sealing import sidecar_path
from tests.stepstore.log_lab import A, B, content, frames_of, payload, put, reopen, segments, with_nul_runs, write_log

GROUPS = [[(A, [payload(n * 37, n), b"", bytes(n)]), (B, [with_nul_runs(n * 400, n)])] for n in range(1, 9)]


def items_of(data: bytes) -> list[object]:
    stream = io.BytesIO(data)
    items: list[object] = []
    while stream.tell() < len(data):
        items.append(cbor2.load(stream))
    assert stream.tell() == len(data)
    return items


@pytest.mark.parametrize("align", [0, 512, 4096])
@pytest.mark.parametrize("close", [False, True], ids=["crashed", "closed"])
def test_each_segment_is_a_cbor_sequence_from_the_tag_to_its_end(align: int, close: bool) -> None:
    disk = MemoryFileSystem()
    write_log(disk, GROUPS, close=close, care=True, options=LogOptions(segment_bytes=16 * 1024, align=align))
    assert len(segments(disk)) > 1
    sealed = segments(disk) if close else segments(disk)[:-1]
    for segment in segments(disk):
        data = content(disk, segment)
        assert data.startswith(bytes.fromhex("d9d9f7"))
        items = items_of(data)
        frames = frames_of(disk, segment)
        assert items[0][0] == "stepwell"  # type: ignore[index]
        rest = [item for item in items[1:] if item != 0]
        if segment in sealed:
            trailer = rest.pop()
            assert isinstance(trailer, bytes)
            assert data.endswith(trailer)
        assert len(rest) == 3 * len(frames), "a frame is a header, a directory and the payloads; all else is zero"
        for n, (at, head) in enumerate(frames):
            assert rest[3 * n] == list(head)
            assert rest[3 * n + 1] == data[at + fr.HEADER_BYTES + 5 :][: head.dir_len]
            assert isinstance(rest[3 * n + 2], bytes)
            assert at % fr.SECTOR + fr.HEADER_BYTES <= fr.SECTOR
            assert head.kind == fr.KIND_CLOSE or not align or at % align == 0


def test_a_cut_segment_still_is_a_cbor_sequence() -> None:
    disk = MemoryFileSystem()
    write_log(disk, GROUPS[:3])
    last = frames_of(disk, segments(disk)[0])[-1]
    put(disk, segments(disk)[0], b"", at=0, size=last.end - 5)
    reopen(disk)
    for segment in segments(disk):
        items_of(content(disk, segment))


def test_a_sealed_segment_ends_with_footer_close_frame_and_trailer() -> None:
    disk = MemoryFileSystem()
    write_log(disk, GROUPS[:4], close=True)
    (segment,) = segments(disk)
    whole = content(disk, segment)
    *data, footer, close = frames_of(disk, segment)
    assert [frame.head.kind for frame in data] == [fr.KIND_DATA] * 4
    assert [frame.head.kind for frame in (footer, close)] == [fr.KIND_FOOTER, fr.KIND_CLOSE]
    assert footer.at == fr.header_position(data[-1].end)
    assert close.at % fr.MARK_ALIGNMENT == 0
    for frame in (footer, close):
        assert frame.head.record_count == frame.head.lsn_span == frame.head.dir_len == 0
        assert frame.head.durable_lsn == data[-1].head.last_lsn
    assert close.head.frame_len == fr.WRAPPER_BYTES
    assert close.end + TRAILER_BYTES == len(whole), "nothing follows"
    trailer = parse_trailer(whole[close.end :])
    assert trailer is not None
    assert (trailer.index_at, trailer.index_bytes) == (footer.at + fr.WRAPPER_BYTES, footer.end - trailer.index_at)
    assert (trailer.end_offset, trailer.end_lsn) == (data[-1].end, data[-1].head.last_lsn)
    assert trailer.chain == data[-1].head.header_crc
    assert trailer.segment_tag == data[-1].head.segment_tag
    assert trailer.records == sum(frame.head.record_count for frame in data)
    assert close.end // fr.SECTOR == (len(whole) - 1) // fr.SECTOR, "within one sector, so it is there or it is not"


def test_a_sidecar_is_a_cbor_sequence_of_two_byte_strings() -> None:
    disk = MemoryFileSystem()
    write_log(disk, GROUPS[:3])
    write_log(disk, [], care=True)
    data = content(disk, sidecar_path(segments(disk)[0]))
    tagged, trailer = items_of(data)
    assert data.startswith(bytes.fromhex("d9d9f7"))
    assert isinstance(tagged, bytes)
    assert isinstance(trailer, bytes)
    found = parse_trailer(data[-TRAILER_BYTES:])
    assert found is not None
    assert data[found.index_at : found.index_at + found.index_bytes] == tagged
    assert content(disk, segments(disk)[0])[: sh.HEADER_BYTES] in tagged, "with a copy of the header"


def test_the_frames_of_a_segment_are_chained() -> None:
    disk = MemoryFileSystem()
    write_log(disk, GROUPS[:4], close=True)
    frames = frames_of(disk, segments(disk)[0])
    for before, after in itertools.pairwise(frames):
        assert after.head.prev_crc == before.head.header_crc
        assert after.head.first_lsn == before.head.last_lsn + 1
        assert after.head.durable_lsn == before.head.last_lsn
