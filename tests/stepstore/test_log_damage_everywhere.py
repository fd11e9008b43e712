"""A small log, cut at every length and spoiled at every byte: a prefix of what was written, or a declared refusal.

In a sealed segment it is damage that is contained (row 8): the reader of the stream concerned is told, a follower is
given a gap, and everything else reads as before.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from stepstore.errors import CorruptLog, Damaged, RecoveryFailed
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.footer import TRAILER_BYTES
from stepstore.log.frame import DirectoryEntry
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import OpenLog, open_log
from stepstore.log.records import Gap, Record
from stepstore.log.stream_reader import StreamReader
from stepstore.log.verify import verify_log
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    FoundFrame,
    clone,
    content,
    flip,
    follow_log,
    frames_of,
    payload,
    put,
    read_stream,
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
    data_end = frames[len(GROUPS) - 1].end
    whole_size = len(content(disk, segment)) if close else data_end + 2
    sizes = {*range(data_end + 2), *range(data_end + 2, whole_size, 97), *range(whole_size - 150, whole_size + 1)}
    for size in sorted(sizes):
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


def test_a_flipped_bit_anywhere_in_what_was_not_sealed_is_refused_or_harmless_and_verify_finds_it() -> None:
    disk, segment, stored, _ends = a_small_log(close=False)
    data_end = frames_of(disk, segment)[-1].end
    refused = 0
    for at in range(data_end):
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
    assert refused == data_end


def test_a_flipped_bit_anywhere_in_an_older_segment_without_a_footer_is_refused() -> None:
    """The next segment proves it durable (row 2)."""
    disk, segment, stored, _ends = a_small_log(close=False)
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


# ---- row 8: a sealed segment -----------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What a flipped byte of a sealed segment costs: the streams that are damaged, the gaps of a follower."""

    damaged: set[bytes]
    gaps: list[tuple[int, int]]


def entries_of(disk: MemoryFileSystem, segment: str, frame: FoundFrame) -> list[DirectoryEntry]:
    body = content(disk, segment)[frame.at + fr.HEADER_BYTES : frame.end]
    found = fr.parse_directory(frame.head, body, frame.at)
    assert found is not None
    return found


def cost_of(at: int, frames: list[FoundFrame], directories: list[list[DirectoryEntry]]) -> Expected:
    """Which records are concerned by the byte at this offset, told from where the bytes of each batch lie."""
    for frame, entries in zip(frames, directories, strict=True):
        if not frame.at <= at < frame.end:
            continue
        directory = frame.at + fr.HEADER_BYTES + 5
        whole_frame = [(frame.head.first_lsn, frame.head.last_lsn)]
        for stream, _seq, lsn, count, size, _crc, _flags, payload_at, lengths_at in entries:
            if payload_at <= at < payload_at + size:
                return Expected({stream}, [(lsn, lsn + count - 1)])
            if lengths_at <= at < lengths_at + 4 * count:  # the length of a lone record is known without them
                return Expected({stream} if count > 1 else set(), whole_frame)
        if at < frame.at + fr.HEADER_BYTES or directory <= at < directory + frame.head.dir_len:
            return Expected(set(), whole_frame)
    return Expected(set(), [])


def check_what_is_read(log: OpenLog, stored: list[Record], expected: Expected, at: int) -> None:
    reader = StreamReader(log.reading, log.index)
    for stream in (A, B):
        if stream in expected.damaged:
            with pytest.raises(Damaged) as caught:
                read_stream(reader, stream)
            assert (caught.value.streams, caught.value.row) == ((stream,), 8), at
        else:
            assert read_stream(reader, stream) == [record for record in stored if record.stream == stream], at
    followed = follow_log(log)
    gaps = [item for item in followed if isinstance(item, Gap)]
    assert [tuple(gap) for gap in gaps] == expected.gaps, at
    lost = {lsn for gap in gaps for lsn in range(gap.first_lsn, gap.last_lsn + 1)}
    assert [item for item in followed if isinstance(item, Record)] == [r for r in stored if r.lsn not in lost], at


@pytest.mark.parametrize("newest", [True, False], ids=["the newest", "an older one"])
def test_row_08_a_flipped_bit_anywhere_in_a_sealed_segment_is_contained_and_verify_finds_it(newest: bool) -> None:
    disk, segment, stored, _ends = a_small_log(close=True)
    if not newest:
        stored = stored + write_log(disk, [[(A, [b"in the next one"])]], close=True)
        remove(disk, f"{LOG}/reserve")
    frames = frames_of(disk, segment)[: len(GROUPS)]
    directories = [entries_of(disk, segment, frame) for frame in frames]
    data_end, size = frames[-1].end, len(content(disk, segment))
    places = [*range(0, 512, 37), *range(512, data_end), *range(data_end, size - 140, 53), *range(size - 140, size)]
    seen: set[tuple[int, int]] = set()
    for at in places[:: 1 if newest else 3]:
        image = clone(disk)
        flip(image, segment, at, bit=at % 8)
        spoiled = content(image, segment)
        problems = verify_log(LOG, files=image).problems
        assert problems, f"verify overlooks a flipped bit at {at}"
        assert all(segment in str(problem) for problem in problems)
        if at < sh.HEADER_BYTES and newest:
            with pytest.raises(CorruptLog) as caught:
                open_log(image, LOG, SMALL)
            assert caught.value.row == 16
            continue
        log = open_log(image, LOG, SMALL)
        try:
            assert (log.report.records, log.report.notes) == (len(stored), ()), at
            expected = cost_of(at, frames, directories)
            check_what_is_read(log, stored, expected, at)
        finally:
            log.release()
        if newest or at < size - TRAILER_BYTES:
            assert content(image, segment) == spoiled, "what is damaged is left as it is"
        else:  # without a trailer nothing tells the seal of an older segment from a write that was given up
            assert content(image, segment) == spoiled[:data_end]
            assert content(image, f"{LOG}/quarantine/{log.report.quarantined[0]}") == spoiled[data_end:].rstrip(b"\0")
        seen.add((len(expected.damaged), len(expected.gaps)))
    assert seen == {(0, 0), (0, 1), (1, 1)}
