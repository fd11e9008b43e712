"""The scrub: old segments are read again in the background, slowly, and what is damaged there is told."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import threading
from dataclasses import replace
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from stepstore.journal.contract import append
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.files import FileSystem
from stepstore.log.footer import TRAILER_BYTES, parse_head, parse_trailer
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log, open_log_read_only
from stepstore.log.scrub import BLOCK, Finding, SegmentScrub
from stepstore.log.scrubber import LogScrubber
from stepstore.log.tolerant_file import TolerantFile
from stepstore.log.writer_stats import WriterStats
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    Call,
    Group,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    payload,
    put,
    segments,
    stream_id,
    tree,
    write_log,
)

SMALL_BLOCK = 8192


def sealed_log() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(900, n), b"x"]), (B, [payload(300, n)])] for n in range(20)], close=True, care=True)
    assert len(segments(disk)) > 1
    return disk


def scrub(disk: MemoryFileSystem, *, size: int = BLOCK) -> list[Finding]:
    """Scrub every segment that nothing is written to, as the index of an opening knows them."""
    log = open_log_read_only(disk, LOG)
    try:
        return [finding for segment in log.index.segments for finding in scrub_one(disk, segment, size)]
    finally:
        log.release()


def scrub_one(disk: MemoryFileSystem, segment: IndexedSegment, size: int) -> list[Finding]:
    found: list[Finding] = []
    one = SegmentScrub(disk, segment)
    steps = 0
    while not one.is_done:
        _count, findings = one.step(size)
        found += findings
        steps += 1
        assert steps <= len(content(disk, segment.path)) // (SMALL_BLOCK // 4) + 8, "it goes round in circles"
    return found


@pytest.mark.parametrize("size", [BLOCK, SMALL_BLOCK], ids=["one block", "small blocks"])
def test_a_sound_log_gives_no_finding(size: int) -> None:
    assert scrub(sealed_log(), size=size) == []


def test_segments_without_a_footer_are_read_to_their_end() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(5000, n)])] for n in range(8)])
    log = open_log(disk, LOG, SMALL)
    assert len(log.index.segments) > 2
    for segment in log.index.segments:
        assert scrub_one(disk, segment, SMALL_BLOCK) == []
        last = frames_of(disk, segment.path)[-1]
        image = clone(disk)
        flip(image, segment.path, last.end - 1)
        (finding,) = scrub_one(image, segment, SMALL_BLOCK)
        assert (finding.offset, finding.first_lsn, finding.last_lsn) == (
            last.at,
            last.head.first_lsn,
            last.head.last_lsn,
        )
    log.release()


@pytest.mark.parametrize("size", [BLOCK, SMALL_BLOCK], ids=["one block", "small blocks"])
def test_a_flipped_bit_anywhere_before_the_trailer_is_found_with_its_place_and_its_lsns(size: int) -> None:
    disk = sealed_log()
    log = open_log_read_only(disk, LOG)
    for segment in log.index.segments:
        frames = frames_of(disk, segment.path)
        for at in range(3, len(content(disk, segment.path)) - TRAILER_BYTES, 131):
            image = clone(disk)
            flip(image, segment.path, at, bit=at % 8)
            found = scrub_one(image, segment, size)
            assert len(found) == 1, (at, found)
            (finding,) = found
            assert finding.path == segment.path
            assert finding.offset <= at
            hit = [frame.head for frame in frames if frame.at <= at < frame.end and frame.head.record_count]
            concerned = (finding.first_lsn, finding.last_lsn) if finding.last_lsn >= finding.first_lsn else None
            assert concerned == ((hit[0].first_lsn, hit[0].last_lsn) if hit else None)
    log.release()


def test_several_damaged_frames_are_all_found() -> None:
    disk = sealed_log()
    log = open_log_read_only(disk, LOG)
    segment = log.index.segments[0]
    frames = frames_of(disk, segment.path)
    put(disk, segment.path, payload(60), at=frames[1].at)  # header
    flip(disk, segment.path, frames[3].end - 1)
    put(disk, segment.path, bytes(frames[6].end - frames[5].at), at=frames[5].at)  # two frames at once
    found = scrub_one(disk, segment, SMALL_BLOCK)
    heads = [frame.head for frame in frames]
    assert [(finding.first_lsn, finding.last_lsn) for finding in found] == [
        (heads[1].first_lsn, heads[1].last_lsn),
        (heads[3].first_lsn, heads[3].last_lsn),
        (heads[5].first_lsn, heads[5].last_lsn),
        (heads[6].first_lsn, heads[6].last_lsn),
    ]
    log.release()


def test_a_segment_that_got_shorter_is_found() -> None:
    disk = sealed_log()
    log = open_log_read_only(disk, LOG)
    segment = log.index.segments[0]
    put(disk, segment.path, b"", at=0, size=frames_of(disk, segment.path)[2].at + 40)
    assert scrub_one(disk, segment, BLOCK)
    log.release()


@pytest.mark.parametrize("size", [BLOCK, SMALL_BLOCK], ids=["one block", "small blocks"])
def test_a_footer_that_is_cut_off_is_found_wherever_the_file_ends_now(size: int) -> None:
    """Exactly behind the records, in the middle of the footer, at and in the close frame, before the trailer."""
    disk = sealed_log()
    log = open_log_read_only(disk, LOG)
    segment = log.index.segments[0]
    whole = len(content(disk, segment.path))
    close = frames_of(disk, segment.path)[-1]
    assert segment.end_offset < close.at < close.end == whole - TRAILER_BYTES
    for left in {*range(segment.end_offset, whole, 37), segment.end_offset + 1, close.at, close.at + 1, close.end}:
        image = clone(disk)
        put(image, segment.path, b"", at=0, size=left)
        (finding,) = scrub_one(image, segment, size)
        assert segment.end_offset <= finding.offset <= left
        assert finding.last_lsn < finding.first_lsn, "no record is concerned"
    log.release()


def test_a_header_that_carries_the_tag_but_not_the_chain_is_not_taken_for_the_next_frame() -> None:
    """An older frame of the same segment and the same length stands there: a write that went to the wrong place."""
    disk = sealed_log()
    log = open_log_read_only(disk, LOG)
    segment = log.index.segments[0]
    frames = frames_of(disk, segment.path)
    older, hit = next((a, b) for a, b in zip(frames, frames[2:], strict=False) if a.end - a.at == b.end - b.at)
    put(disk, segment.path, content(disk, segment.path)[older.at : older.end], at=hit.at)
    (finding,) = scrub_one(disk, segment, BLOCK)
    assert (finding.what, finding.first_lsn, finding.last_lsn) == (
        "the header of a frame",
        hit.head.first_lsn,
        hit.head.last_lsn,
    )
    log.release()


def test_behind_a_lost_header_and_with_a_damaged_index_all_the_rest_is_told_as_damaged() -> None:
    disk = sealed_log()
    log = open_log_read_only(disk, LOG)
    segment = log.index.segments[0]
    hit = frames_of(disk, segment.path)[2]
    trailer = parse_trailer(content(disk, segment.path)[-TRAILER_BYTES:])
    assert trailer is not None
    head = parse_head(content(disk, segment.path)[trailer.index_at :])
    flip(disk, segment.path, trailer.index_at + head.frames_at + 5)  # where frames begin
    put(disk, segment.path, bytes(60), at=hit.at)
    (finding,) = scrub_one(disk, segment, BLOCK)
    assert (finding.first_lsn, finding.last_lsn) == (hit.head.first_lsn, segment.end_lsn)
    log.release()


class WithoutAdvice:
    """A file layer that cannot be told what will not be read again."""

    def __init__(self, disk: MemoryFileSystem):
        self._disk = disk

    def open(self, path: str, *, write: bool = True) -> TolerantFile:
        file = TolerantFile(self._disk.open(path, write=write))
        assert not hasattr(file, "will_not_need")
        return file


def test_a_file_layer_that_takes_no_advice_is_scrubbed_like_any_other() -> None:
    disk = sealed_log()
    log = open_log_read_only(disk, LOG)
    segment = log.index.segments[0]
    hit = frames_of(disk, segment.path)[2]
    flip(disk, segment.path, hit.end - 1)
    one = SegmentScrub(cast(FileSystem, WithoutAdvice(disk)), segment)
    count, findings = one.step()
    assert count == len(content(disk, segment.path)) - TRAILER_BYTES
    assert [finding.offset for finding in findings] == [hit.at]
    assert one.is_done
    log.release()


def test_a_segment_whose_footer_is_cut_off_while_it_is_read_does_not_hold_the_scrub_up() -> None:
    disk = MemoryFileSystem()
    streams = [stream_id(str(n)) for n in range(200)]
    groups: list[Group] = [[(stream, [b"x"]) for stream in streams]]
    write_log(disk, groups, close=True, options=LogOptions(segment_bytes=64 * 1024))
    log = open_log_read_only(disk, LOG)
    (segment,) = log.index.segments
    one = SegmentScrub(disk, segment)
    count, findings = one.step(-(-segment.end_offset // SMALL_BLOCK) * SMALL_BLOCK)
    assert not findings
    assert segment.end_offset < count < len(content(disk, segment.path)) - TRAILER_BYTES
    put(disk, segment.path, b"", at=0, size=segment.end_offset)
    count, (finding,) = one.step(SMALL_BLOCK)
    assert (count, finding.offset, finding.what) == (0, segment.end_offset, "the file ends before its footer does")
    assert one.is_done
    log.release()


# ---- the task --------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk() -> MemoryFileSystem:
    """A sealed log; made outside of the test's Trio run."""
    return sealed_log()


def options(**changed: float) -> LogOptions:
    return LogOptions(segment_bytes=16 * 1024, **changed)  # type: ignore[arg-type]


async def test_the_first_pass_comes_a_minute_after_opening_and_the_next_a_day_later(
    disk: MemoryFileSystem, autojump_clock: MockClock
) -> None:
    files = WatchedFiles(disk)
    journal = SegmentLogJournal.open(LOG, options(scrub_bytes_per_second=10_000), files)
    size = sum(len(content(disk, segment)) - TRAILER_BYTES for segment in segments(disk))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        opened = trio.current_time()
        before = tree(disk)
        await trio.sleep(59.5)
        assert journal.stats.scrubbed_bytes == 0
        files.calls.clear()
        await trio.sleep(1)
        assert 0 < journal.stats.scrubbed_bytes < size, "slowly"
        await trio.sleep(size / 10_000)
        assert (journal.stats.scrubbed_bytes, journal.stats.scrubs, journal.stats.scrub_problems) == (size, 1, 0)
        await trio.sleep_until(opened + 60 + 86_400 - 0.5)
        assert journal.stats.scrubbed_bytes == size
        await trio.sleep(1 + size / 10_000)
        assert (journal.stats.scrubbed_bytes, journal.stats.scrubs) == (2 * size, 2)
        assert files.changes(but=()) == []
        assert tree(disk) == before, "it changes nothing"
        journal.finish()
    journal.release()


async def test_damage_is_logged_in_one_line_and_counted(
    disk: MemoryFileSystem, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    journal = SegmentLogJournal.open(LOG, options(), disk)
    path = segments(disk)[0]
    frame = frames_of(disk, path)[2]
    flip(disk, path, frame.end - 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        with caplog.at_level(logging.ERROR, "stepstore.log"):
            await trio.sleep(70)
        assert journal.stats.scrub_problems == 1
        (line,) = [record.getMessage() for record in caplog.records]
        for part in (path, f"offset {frame.at}", f"LSN {frame.head.first_lsn} to {frame.head.last_lsn}"):
            assert part in line
        assert (await append(journal, A, [b"goes on"], expected_seq=journal.last_seq(A))).first_lsn
        journal.finish()
    journal.release()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
async def test_a_read_error_is_counted_if_it_is_of_the_medium_and_the_pass_goes_on(
    disk: MemoryFileSystem, number: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    files = WatchedFiles(disk)
    journal = SegmentLogJournal.open(LOG, options(), files)
    path = segments(disk)[0]

    def before(call: Call) -> None:
        if call.path == path and call.operation == "read":
            raise OSError(number, os.strerror(number), path)

    files.before = before
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        with caplog.at_level(logging.WARNING, "stepstore.log"):
            await trio.sleep(100)
        assert journal.stats.scrub_problems == (1 if number == errno.EIO else 0)
        assert journal.stats.scrubs == 1
        assert sum("scrub" in record.getMessage() for record in caplog.records) == 1
        assert journal.stats.scrubbed_bytes == len(content(disk, segments(disk)[1])) - TRAILER_BYTES
        journal.finish()
    journal.release()


@pytest.mark.parametrize("off", [{"scrub_bytes_per_second": 0}, {"scrub_every_seconds": 0}])
async def test_0_is_never(disk: MemoryFileSystem, off: dict[str, float], autojump_clock: MockClock) -> None:
    flip(disk, segments(disk)[0], 1000)
    journal = SegmentLogJournal.open(LOG, options(**off), disk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await trio.sleep_until(200_000)
        assert (journal.stats.scrubbed_bytes, journal.stats.scrub_problems) == (0, 0)
        journal.finish()
    journal.release()


async def test_closing_in_the_middle_of_a_pass_ends_it(disk: MemoryFileSystem, autojump_clock: MockClock) -> None:
    for moment in range(12):
        journal = SegmentLogJournal.open(LOG, options(scrub_bytes_per_second=10_000), clone(disk))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            await trio.sleep(60 + moment / 3)
            journal.finish()
            before = journal.stats.scrubbed_bytes
        journal.release()
        assert journal.stats.scrubbed_bytes <= before + BLOCK, "the block that was on its way, and no more"
        assert moment < 2 or before


async def test_the_segment_being_written_is_not_read(autojump_clock: MockClock) -> None:
    disk = MemoryFileSystem()
    journal = SegmentLogJournal.open(LOG, options(), disk)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await append(journal, A, [b"one"], expected_seq=0)
        await trio.sleep(1000)
        assert (journal.stats.scrubs, journal.stats.scrubbed_bytes) == (1, 0)
        journal.finish()
    journal.release()


async def test_a_file_that_a_compaction_has_just_replaced_is_left_out_without_a_word(
    disk: MemoryFileSystem, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    files = WatchedFiles(disk)
    log = open_log(files, LOG, options())
    stats = WriterStats()
    gone, left = log.index.segments
    opened: list[str] = []

    def before(call: Call) -> None:
        if call.operation == "open":
            opened.append(call.path)
        if call.operation == "open" and call.path == gone.path:
            log.index.segments = (left,)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), call.path)

    files.before = before
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LogScrubber(log, stats).run)
        with caplog.at_level(logging.WARNING, "stepstore.log"):
            await trio.sleep(100)
        nursery.cancel_scope.cancel()
    log.release()
    assert opened == [gone.path, left.path], "the pass goes on with the next file"
    assert (stats.scrubs, stats.scrub_problems, caplog.records) == (1, 0, [])
    assert stats.scrubbed_bytes == len(content(disk, left.path)) - TRAILER_BYTES


async def test_files_on_a_medium_are_read_in_another_thread(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stepstore.log.scrubber.FIRST_PASS_AFTER", 0.0)
    place = str(tmp_path / "log")
    fast = replace(options(), scrub_bytes_per_second=10**9)
    journal = SegmentLogJournal.open(place, fast)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await append(journal, A, [payload(900)], expected_seq=0)
        journal.finish()
    journal.release()
    (segment,) = (tmp_path / "log").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[data.index(payload(900))] ^= 1
    segment.write_bytes(data)
    threads: list[bool] = []
    step = SegmentScrub.step

    def watched(self: SegmentScrub, size: int = BLOCK) -> tuple[int, list[Finding]]:
        threads.append(threading.current_thread() is threading.main_thread())
        return step(self, size)

    monkeypatch.setattr(SegmentScrub, "step", watched)
    journal = SegmentLogJournal.open(place, fast)
    with caplog.at_level(logging.ERROR, "stepstore.log"), trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            while not journal.stats.scrubs:  # noqa: ASYNC110 - a thread tells no event
                await trio.sleep(0.01)
            journal.finish()
    journal.release()
    assert journal.stats.scrub_problems == 1
    assert threads == [False]
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(segment) in line
