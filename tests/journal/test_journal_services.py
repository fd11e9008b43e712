"""Whatever goes wrong in the background of a log, writing and reading go on, and it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from stepstore.errors import OutcomeUnknown, Unavailable
from stepstore.journal import SegmentLogJournal
from stepstore.journal.contract import append, delete, records
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.compactor import LogCompactor
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from stepstore.log.scrubber import FIRST_PASS_AFTER, LogScrubber
from stepstore.log.segment import Segment
from stepstore.log.verify import verify_log
from stepstore.restarting import RestartPolicy, Service

LOG, A, B = "/log", b"a" * 16, b"b" * 16
NO_JITTER = RestartPolicy(uniform=lambda low, high: 1.0)
UNTIL_PARKED = 0.2 + 0.4 + 0.8 + 1.6 + 3.2


class Bug(Exception):
    """Something that nobody foresaw."""


async def bug(*_arguments: object) -> None:
    await trio.lowlevel.checkpoint()
    raise Bug("in the background")


@asynccontextmanager
async def running(files: MemoryFileSystem) -> AsyncIterator[SegmentLogJournal]:
    options = LogOptions(segment_bytes=64 * 1024, scrub_every_seconds=1.0)
    journal = SegmentLogJournal.open(LOG, options, files, NO_JITTER)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            yield journal
            journal.finish()
    finally:
        journal.release()


def service(journal: SegmentLogJournal, name: str) -> Service:
    return next(service for service in journal.services if service.name == name)


async def write_more(journal: SegmentLogJournal, stream: bytes = A) -> int:
    return (await append(journal, stream, [b"x" * 100], expected_seq=journal.last_seq(stream))).last_seq


async def read_back(journal: SegmentLogJournal, stream: bytes = A) -> list[int]:
    return [record.seq async for record in records(journal, stream)]


async def test_a_caretaker_that_fails_every_time_is_parked_and_writing_goes_on(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    files = MemoryFileSystem()
    with monkeypatch.context() as patch:
        patch.setattr(LogCaretaker, "_work", bug)
        async with running(files) as journal:
            assert await write_more(journal) == 1
            await trio.sleep(UNTIL_PARKED + 1)
            caretaker = service(journal, "log caretaker")
            assert (caretaker.state, caretaker.restarts) == ("parked", 5)
            assert isinstance(caretaker.error, Bug)
            assert await write_more(journal) == 2
            for asked in (journal.rotate, journal.compact, lambda: journal.archive("/archive")):
                with pytest.raises(Unavailable, match=r"parked \(Bug\('in the background'\)\).*writing goes on"):
                    with trio.fail_after(1):
                        await asked()
            assert await write_more(journal) == 3
            assert [s.state for s in journal.services] == ["parked", "running", "running"]
    assert verify_log(LOG, files=files).problems == []
    async with running(files) as journal:
        assert await read_back(journal) == [1, 2, 3]
        await journal.rotate()
        assert service(journal, "log caretaker").state == "running"


async def test_who_waits_for_the_caretaker_when_it_is_parked_is_told_and_does_not_hang(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(LogCaretaker, "_work", bug)
    async with running(MemoryFileSystem()) as journal:
        await write_more(journal)
        with trio.fail_after(UNTIL_PARKED + 1), pytest.raises(Unavailable, match="parked"):
            await journal.rotate()


async def test_a_caretaker_that_fails_now_and_then_seals_everything_in_the_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    real, calls = Segment.seal, 0

    def seal(segment: Segment, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise Bug("while sealing")
        return real(segment, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Segment, "seal", seal)
    files = MemoryFileSystem()
    async with running(files) as journal:
        for number in range(1, 11):
            await write_more(journal)
            await journal.rotate()
            assert journal.stats.segments_sealed == number
        assert service(journal, "log caretaker").restarts == 10
        calls = 1
    report = verify_log(LOG, files=files)
    assert (report.problems, report.sealed) == ([], report.segments)


async def test_a_scrubber_that_fails_in_every_pass_is_parked_although_it_lived_long(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(LogScrubber, "_scrub", bug)
    async with running(MemoryFileSystem()) as journal:
        await write_more(journal)
        await journal.rotate()
        await trio.sleep(6 * (FIRST_PASS_AFTER + 1) + UNTIL_PARKED)
        assert service(journal, "log scrubber").state == "parked"
        assert await write_more(journal) == 2
        assert [s.state for s in journal.services] == ["running", "running", "parked"]


async def test_a_compactor_that_fails_is_parked_and_compacting_on_request_still_works(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(LogCompactor, "_work", bug)
    files = MemoryFileSystem()
    async with running(files) as journal:
        await write_more(journal, B)
        await write_more(journal, B)
        await write_more(journal)
        await delete(journal, B, b"gone")
        await trio.sleep(UNTIL_PARKED + 1)
        assert service(journal, "log compactor").state == "parked"
        assert (await journal.compact()).streams_removed == 1
        assert await write_more(journal) == 2
    assert verify_log(LOG, files=files).problems == []


async def test_a_caretaker_that_cannot_finish_does_not_fail_the_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = MemoryFileSystem()
    with monkeypatch.context() as patch:
        patch.setattr(LogCaretaker, "finish", bug)
        async with running(files) as journal:
            await write_more(journal)
    assert "could not finish the files of the log" in caplog.text
    async with running(files) as journal:
        assert await read_back(journal) == [1]


async def test_a_writer_that_fails_still_fails_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise Bug("in the writer")

    monkeypatch.setattr(Segment, "prepare", broken)
    with pytest.raises(ExceptionGroup) as caught:
        async with running(MemoryFileSystem()) as journal:
            with pytest.raises(OutcomeUnknown):
                await write_more(journal)
    assert caught.group_contains(Bug, match="in the writer")


async def test_latency_counts_once_per_group_from_the_oldest_submission_on(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    from stepstore.journal import Batch
    from stepstore.log.active_segment import ActiveSegment

    real = ActiveSegment.with_room

    async def slowly(active: ActiveSegment, size: int) -> Segment:
        await trio.sleep(0.3)
        return await real(active, size)

    monkeypatch.setattr(ActiveSegment, "with_room", slowly)
    async with running(MemoryFileSystem()) as journal:
        assert journal.stats.queued_bytes == 0
        journal.submit([Batch(A, 1, [b"x"], 0)])
        await trio.sleep(0.1)  # the first group is on its way; these two wait for it, and go together
        journal.submit([Batch(A, 2, [b"x"], 0)])
        await trio.sleep(0.1)
        last = journal.submit([Batch(A, 3, [b"x"], 0)])
        assert journal.stats.queued_bytes > 0
        await last.wait()
        latency = journal.stats.commit_latency
        assert latency.count == journal.stats.groups == 2
        assert latency.longest == pytest.approx(0.5)
        assert latency.quantile(0.5) == pytest.approx(0.5)
        assert journal.stats.queued_bytes == 0
