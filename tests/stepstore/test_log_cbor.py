"""Anybody can read a log: every segment is a CBOR sequence that a foreign decoder walks to its exact end."""

from __future__ import annotations

import io
import itertools

import cbor2
import pytest

from stepstore.log import frame as fr
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
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
    write_log(disk, GROUPS, close=close, options=LogOptions(segment_bytes=16 * 1024, align=align))
    assert len(segments(disk)) > 1
    for segment in segments(disk):
        data = content(disk, segment)
        assert data.startswith(bytes.fromhex("d9d9f7"))
        items = items_of(data)
        frames = frames_of(disk, segment)
        assert items[0][0] == "stepwell"  # type: ignore[index]
        rest = [item for item in items[1:] if item != 0]
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


def test_a_close_frame_stands_at_a_multiple_of_4096_and_ends_the_file() -> None:
    disk = MemoryFileSystem()
    write_log(disk, GROUPS[:4], close=True)
    (segment,) = segments(disk)
    *data, close = frames_of(disk, segment)
    assert [frame.head.kind for frame in data] == [fr.KIND_DATA] * 4
    assert close.head.kind == fr.KIND_CLOSE
    assert close.at % fr.MARK_ALIGNMENT == 0
    assert close.head.record_count == close.head.lsn_span == 0
    assert close.head.durable_lsn == data[-1].head.last_lsn
    assert close.end == len(content(disk, segment))


def test_the_frames_of_a_segment_are_chained() -> None:
    disk = MemoryFileSystem()
    write_log(disk, GROUPS[:4], close=True)
    frames = frames_of(disk, segments(disk)[0])
    for before, after in itertools.pairwise(frames):
        assert after.head.prev_crc == before.head.header_crc
        assert after.head.first_lsn == before.head.last_lsn + 1
        assert after.head.durable_lsn == before.head.last_lsn
