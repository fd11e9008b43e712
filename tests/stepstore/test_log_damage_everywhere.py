"""A small log, cut at every length and spoiled at every byte: a prefix of what was written, or a declared refusal."""

from __future__ import annotations

import pytest

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log import segment_header as sh
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.reading import Record
from stepstore.log.verify import verify_log
from tests.stepstore.log_lab import (
    LOG,
    A,
    B,
    clone,
    content,
    flip,
    frames_of,
    payload,
    put,
    remove,
    reopen,
    segments,
    write_log,
)

GROUPS = [
    [(A, [b"one", b""]), (B, [payload(40, 3)])],
    [(A, [payload(330, 4)])],
    [(B, [b"x" + bytes(700) + b"y"])],
    [(A, [payload(60, 5)]), (B, [b"last"])],
]


def a_small_log(*, close: bool) -> tuple[MemoryFileSystem, str, list[Record], list[int]]:
    """The disk, its only segment, what is stored, and behind which record each frame ends."""
    disk = MemoryFileSystem()
    stored = write_log(disk, GROUPS, close=close)
    remove(disk, f"{LOG}/reserve")  # only to make the copies cheap
    (segment,) = segments(disk)
    return disk, segment, stored, [frame.head.last_lsn for frame in frames_of(disk, segment)]


@pytest.mark.parametrize("close", [False, True], ids=["crashed", "closed"])
def test_cut_at_any_length_a_log_is_a_prefix_of_whole_groups_or_refused(close: bool) -> None:
    disk, segment, stored, ends = a_small_log(close=close)
    frames = frames_of(disk, segment)
    seen: set[int] = set()
    data_end = frames[-2 if close else -1].end
    for size in [*range(data_end + 2), *range(data_end + 2, frames[-1].end, 41), frames[-1].end]:
        image = clone(disk)
        put(image, segment, b"", at=0, size=size)
        if size < sh.HEADER_BYTES:
            with pytest.raises(CorruptLog) as caught:
                reopen(image)
            assert caught.value.row == 16
            continue
        found, _report = reopen(image)
        whole = max((end for end, frame in zip(ends, frames, strict=True) if frame.end <= size), default=0)
        assert found == stored[:whole], f"cut at {size}"
        seen.add(whole)
    assert seen == {0, *ends}


@pytest.mark.parametrize("close", [False, True], ids=["crashed", "closed"])
def test_a_flipped_bit_anywhere_is_refused_or_harmless_and_verify_finds_it(close: bool) -> None:
    disk, segment, stored, _ends = a_small_log(close=close)
    frames = frames_of(disk, segment)
    data_end, close_at, end = frames[-2 if close else -1].end, frames[-1].at, frames[-1].end
    refused = 0
    for at in [*range(data_end + 100), *range(data_end + 100, close_at, 43), *range(close_at, end)]:
        if at >= end:
            break
        image = clone(disk)
        flip(image, segment, at, bit=at % 8)
        report = verify_log(LOG, files=image)
        assert report.problems, f"verify overlooks a flipped bit at {at}"
        try:
            found, _report = reopen(image)
        except (CorruptLog, RecoveryFailed) as error:
            refused += 1
            assert error.file == segment
            assert content(image, segment)[at] != content(disk, segment)[at], "nothing was changed"
        else:
            assert found == stored, f"a flipped bit at {at} changes what is read"
    assert refused >= data_end


def test_a_flipped_bit_anywhere_in_an_older_segment_is_refused() -> None:
    disk, segment, stored, _ends = a_small_log(close=True)
    write_log(disk, [[(A, [b"in the next one"])]])
    remove(disk, f"{LOG}/reserve")
    assert len(segments(disk)) == 2
    for at in range(0, len(content(disk, segment)), 3):
        image = clone(disk)
        flip(image, segment, at, bit=at % 8)
        assert verify_log(LOG, files=image).problems, at
        with pytest.raises(CorruptLog) as caught:
            reopen(image)
        assert caught.value.row in (2, 16)
    assert reopen(disk)[0][: len(stored)] == stored
