"""Looking for frame headers where no chain leads: each one of the segment is found, and none of another one."""

from __future__ import annotations

import pytest

from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from stepstore.log.scan import Window, sound_headers
from tests.stepstore.log_lab import LOG, A, B, content, frames_of, header_of, put, reopen, segments, write_log

ROOMY = LogOptions(segment_bytes=256 * 1024)
NEWLINE = 10
"""A byte that a pattern may take for the end of a line; as an LSN, as a size and as a checksum it is like any other."""


def a_log(groups: int) -> tuple[MemoryFileSystem, str]:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [bytes([n % 256]) * (n % 37)])] for n in range(groups)], options=ROOMY)
    (path,) = segments(disk)
    return disk, path


def found(disk: MemoryFileSystem, path: str, tag: int | None, start: int = 0) -> list[tuple[int, int]]:
    file = disk.open(path, write=False)
    return [(at, head.first_lsn) for at, head in sound_headers(Window(file, path), tag, start)]


@pytest.mark.parametrize("block", [600, 4096, 1 << 20])
def test_every_header_is_found_whatever_bytes_are_in_it(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path = a_log(300)
    frames = frames_of(disk, path)
    headers = [content(disk, path)[frame.at : frame.at + 60] for frame in frames]
    assert sum(NEWLINE in header for header in headers) > 8, "or this shows nothing"
    monkeypatch.setattr("stepstore.log.scan._BLOCK", block)
    tag = header_of(disk, path).segment_tag
    expected = [(frame.at, frame.head.first_lsn) for frame in frames]
    assert found(disk, path, tag) == found(disk, path, None) == expected
    assert found(disk, path, tag, frames[7].at) == expected[7:]
    assert found(disk, path, tag, frames[7].at + 1) == expected[8:]


def test_headers_of_another_segment_are_found_only_when_any_are_asked_for() -> None:
    disk, path = a_log(3)
    other, other_path = a_log(40)
    mine, theirs = header_of(disk, path).segment_tag, header_of(other, other_path).segment_tag
    assert mine != theirs
    strange = frames_of(other, other_path)[-1]
    at = strange.at % 512 + 8192  # as it lay in its sector, or it is no header
    put(disk, path, content(other, other_path)[strange.at : strange.end], at=at)
    assert [lsn for _at, lsn in found(disk, path, mine)] == [1, 2, 3]
    assert found(disk, path, theirs) == [(at, strange.head.first_lsn)]
    assert [lsn for _at, lsn in found(disk, path, None)] == [1, 2, 3, strange.head.first_lsn]


def test_a_frame_of_another_segment_behind_a_torn_write_proves_nothing_about_this_one() -> None:
    """It lay in the space that the medium gave to this file; its LSNs are larger than any here."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"one"])], [(B, [bytes([7]) * 9000])]], options=ROOMY)[:1]
    (path,) = segments(disk)
    last = frames_of(disk, path)[-1]
    other, other_path = a_log(40)
    strange = frames_of(other, other_path)[-1]
    hole = last.at // 512 * 512 + 512
    put(disk, path, bytes(last.end - hole), at=hole)
    behind = last.end // 512 * 512 + 1024 + strange.at % 512
    put(disk, path, content(other, other_path)[strange.at : strange.end], at=behind)
    records, report = reopen(disk, LOG, ROOMY)
    assert records == stored
    assert report.bytes_cut
