"""A medium that fails while the log is written: what is acknowledged stays, what is not is said, and the log goes on.

Two bugs were found with these tests. A segment whose name could not be made durable for want of room left the writer
on the segment before it, and what it acknowledged there lay behind the cut that the next opening found. And an ending
that was queued behind refused steps of the same stream was stored with a gap before it, where no reader finds it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, LogFull, OutcomeUnknown, Rejected
from stepstore.log.admission import RETRY_FULL_SECONDS
from stepstore.log.files import FileSystem
from stepstore.log.frame import FLAG_CLOSES, Batch
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log
from stepstore.log.records import Record
from stepstore.log.segment_header import HEADER_BYTES
from stepstore.log.submission import Submission
from stepstore.log.verify import verify_log
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    FailOnce,
    FullDisk,
    WatchedFiles,
    clone,
    content,
    frames_of,
    header_of,
    payload,
    put,
    read_log,
    records_of,
    remove,
    reopen,
    segments,
    store,
    stream_id,
    submit,
    write_log,
    writing,
)

AFTER_RETRY = RETRY_FULL_SECONDS * 1.5


def check_disk(
    disk: MemoryFileSystem,
    acknowledged: list[Record],
    options: LogOptions = SMALL,
    *,
    unknown: Sequence[bytes] = (),
    hint: object = None,
) -> None:
    """After the death of the process and after a power cut: what was acknowledged is there, and nothing else.

    But for payloads whose outcome is `unknown` because the log failed before it could name a cut: they may be behind.
    """
    for image in (clone(disk), disk.durable_copy()):
        assert verify_log(LOG, files=image).problems == [], hint
        found = reopen(image, options=options)[0]
        assert found[: len(acknowledged)] == acknowledged, hint
        assert {record.payload for record in found[len(acknowledged) :]} <= set(unknown), hint


# ---- an I/O error ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["write", "datasync"])
async def test_an_io_error_makes_the_group_unknown_and_cuts_at_the_last_acknowledged_record(operation: str) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL)) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))
        old = segments(disk)[-1]
        (frame,) = frames_of(disk, old)
        files.before = FailOnce(operation, errno.EIO)
        with pytest.raises(OutcomeUnknown) as caught:
            await store(writer, (A, [b"lost"]))
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EIO
        assert writer.admission.failed is None
        assert writer.stats.write_errors == 1

        new = header_of(disk, segments(disk)[-1])
        assert len(segments(disk)) == 2
        assert new.epoch == header_of(disk, old).epoch + 1
        assert (new.prev_seq, new.prev_end_offset, new.prev_end_lsn) == (1, frame.end, 1)
        assert (new.prev_chain, new.first_lsn) == (frame.head.header_crc, 2)

        check_disk(disk, kept)
        kept += records_of(await store(writer, (A, [b"again, with the same seq"]), (B, [b"and more"])))
        assert [record.lsn for record in kept] == [1, 2, 3]
    check_disk(disk, kept)


async def test_after_an_io_error_nothing_more_is_written_to_that_file() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL), close=True) as writer:
        await store(writer, (A, [b"kept"]))
        files.before = FailOnce("datasync", errno.EIO)
        with pytest.raises(OutcomeUnknown):
            await store(writer, (A, [b"lost"]))
        old, start = segments(disk)[0], len(files.calls)
        for n in range(5):
            await store(writer, (A, [payload(9000, n)]))
    assert not [c for c in files.calls[start:] if c.path == old and c.operation in ("write", "datasync", "truncate")]


async def test_what_continues_a_failed_stream_fails_with_it_and_other_streams_go_on() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    meanwhile: list[Submission] = []
    async with writing(open_log(files, LOG, SMALL)) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))
        fail = FailOnce("datasync", errno.EIO)

        def before(call: Call) -> None:
            if fail.armed and call.operation == "datasync" and call.path.endswith(".seg"):
                meanwhile.append(submit(writer, (A, [b"continues what fails"])))
                meanwhile.append(submit(writer, (B, [b"on its own"])))
                meanwhile.append(submit(writer, (C, [b"C"]), (A, [b"half of it continues what fails"])))
                meanwhile.append(submit(writer, (C, [b"continues that"])))
            fail(call)

        files.before = before
        failing = submit(writer, (A, [b"fails"]))
        await failing.wait()
        for submission in meanwhile:
            await submission.wait()
        errors = [type(submission.error) for submission in (failing, *meanwhile)]
        assert errors == [OutcomeUnknown, OutcomeUnknown, type(None), OutcomeUnknown, OutcomeUnknown]
        assert (writer.queue.last_seq(A), writer.queue.last_seq(B), writer.queue.last_seq(C)) == (1, 1, 0)
        kept += records_of(meanwhile[1])
        kept += records_of(await store(writer, (A, [b"2"]), (C, [b"1"])))
    check_disk(disk, kept)


async def test_what_on_done_submits_after_a_failure_continues_what_is_stored() -> None:
    """`on_done` of the first of two failed batches runs while the second is not yet told."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    again: list[Submission] = []
    async with writing(open_log(files, LOG, SMALL)) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))

        def on_done(submission: Submission) -> None:
            assert submission.error is not None
            again.append(submit(writer, (A, [b"again"])))

        files.before = FailOnce("datasync", errno.EIO)
        for n in (2, 3):
            writer.submit([Batch(A, n, [b"fails"], 0)], on_done=on_done)
        await trio.testing.wait_all_tasks_blocked()
        assert [submission.batches[0].first_seq for submission in again] == [2, 3]
        for submission in again:
            kept += records_of(submission)
    check_disk(disk, kept)


async def test_an_io_error_in_the_fresh_segment_too_still_loses_nothing() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL)) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))
        files.before = FailOnce("datasync", errno.EIO, errno.EIO)
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await store(writer, (A, [b"lost"]))
        kept += records_of(await store(writer, (A, [b"stored"])))
    assert [header_of(disk, name).epoch for name in segments(disk)] == [1, 2, 3]
    check_disk(disk, kept)


@pytest.mark.parametrize("second", ["stat", "create", "allocate", "write", "datasync", "rename", "sync_directory"])
async def test_an_io_error_and_no_fresh_segment_is_the_end(second: str) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    first = FailOnce("datasync", errno.EIO)
    meanwhile: list[Submission] = []

    def before(call: Call) -> None:
        if first.armed and call.operation == "datasync" and call.path.endswith(".seg"):
            meanwhile.append(submit(writer, (B, [b"queued"])))
        first(call)
        if not first.armed and call.operation == second and not call.path.endswith("LOCK"):
            raise OSError(errno.EIO, "Input/output error", call.path)

    async with writing(open_log(files, LOG, SMALL)) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))
        files.before = before
        with pytest.raises(OutcomeUnknown):
            await store(writer, (A, [b"lost"]))
        await meanwhile[0].wait()
        assert isinstance(meanwhile[0].error, OutcomeUnknown)
        assert isinstance(writer.admission.failed, OSError)
        for critical in (False, True):
            with pytest.raises(Closed) as caught:
                submit(writer, (A, [b"late"]), critical=critical)
            assert caught.value.__cause__ is writer.admission.failed
        assert not await writer.watermark.wait_beyond(1)
        files.before = None
    check_disk(disk, kept, unknown=[b"lost"])


# ---- no room ---------------------------------------------------------------------------------------------------------


async def filled(writer: LogWriter, size: int = 3000) -> list[Record]:
    """Store until there is no more room."""
    stored: list[Record] = []
    for n in range(1000):
        try:
            stored += records_of(await store(writer, (A, [payload(size, n)])))
        except LogFull:
            return stored
    raise AssertionError("the disk did not become full")


async def test_a_full_disk_refuses_and_recovers_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    full = FullDisk(disk, room=150_000)
    async with writing(open_log(WatchedFiles(disk, full), LOG, SMALL)) as writer:
        kept = await filled(writer)
        assert len(segments(disk)) > 2
        assert writer.admission.is_full
        assert writer.admission.failed is None
        with pytest.raises(LogFull) as caught:
            submit(writer, (A, [b"refused at the door"]))
        assert isinstance(caught.value, Rejected)
        with pytest.raises(LogFull):
            writer.admission.check_open()
        full.room = full.used()
        await trio.sleep(20 * RETRY_FULL_SECONDS)
        full.room = 1_000_000
        await trio.sleep(RETRY_FULL_SECONDS + 0.1)
        writer.admission.check_open()
        kept += records_of(await store(writer, (A, [b"there is room again"])))
    assert disk.stat(f"{LOG}/reserve") is not None
    check_disk(disk, kept)


async def test_endings_are_stored_through_the_reserve_of_a_full_disk(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    full = FullDisk(disk, room=150_000)
    async with writing(open_log(WatchedFiles(disk, full), LOG, SMALL)) as writer:
        kept = await filled(writer)
        for n in range(5):
            with pytest.raises(LogFull):
                submit(writer, (B, [b"a step"]))
            kept += records_of(await store(writer, (stream_id(str(n)), [payload(500, n)]), critical=True))
        assert writer.admission.is_full
        assert disk.stat(f"{LOG}/reserve") is None
    check_disk(disk, kept)


async def test_a_full_disk_is_told_once_however_many_endings_find_no_room_either(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk = MemoryFileSystem()
    full = FullDisk(disk, room=150_000)
    async with writing(open_log(WatchedFiles(disk, full), LOG, SMALL)) as writer:
        kept = await filled(writer)
        refused = 0
        for n in range(1000):
            try:
                kept += records_of(await store(writer, (stream_id(str(n)), [payload(9000, n)]), critical=True))
            except LogFull:
                refused += 1
                if refused == 3:
                    break
        assert refused == 3, "the reserve did not become full"
        assert writer.admission.is_full
        assert [record.message for record in caplog.records].count(
            "the log in /log is full (No space left on device); only endings are taken until there is room"
        ) == 1
    check_disk(disk, kept)


@pytest.mark.parametrize("segment_bytes", [4096, 16 * 1024])
async def test_an_ending_in_the_very_group_that_meets_the_full_disk_is_stored(
    segment_bytes: int, autojump_clock: trio.testing.MockClock
) -> None:
    disk = MemoryFileSystem()
    options = LogOptions(segment_bytes=segment_bytes)
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, options)) as writer:
        kept = records_of(await store(writer, (A, [payload(segment_bytes - 1200)])))
        files.before = FullDisk(disk, FullDisk(disk, 0).used())
        step = submit(writer, (A, [payload(2000)]))
        ending = submit(writer, (B, [payload(2000)]), critical=True)
        its_ending = submit(writer, (A, [b"would leave a gap"]), critical=True)
        for submission in (step, ending, its_ending):
            await submission.wait()
        assert isinstance(step.error, LogFull)
        assert isinstance(its_ending.error, LogFull)
        assert ending.error is None
        kept += records_of(ending)
        kept += records_of(await store(writer, (A, [b"now it continues the stream"]), critical=True))
    check_disk(disk, kept, options)


async def test_an_ending_queued_behind_refused_steps_leaves_no_gap(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    queued: list[Submission] = []
    async with writing(open_log(files, LOG, SMALL)) as writer:
        kept = records_of(await store(writer, (A, [b"kept"]), (B, [b"kept"])))
        fail = FailOnce("write", errno.ENOSPC)

        def before(call: Call) -> None:
            if fail.armed and call.operation == "write" and call.path.endswith(".seg"):
                queued.append(submit(writer, (B, [b"a step"])))
                queued.append(submit(writer, (B, [b"the ending behind it"]), critical=True))
                queued.append(submit(writer, (C, [b"another ending"]), critical=True))
            fail(call)

        files.before = before
        with pytest.raises(LogFull):
            await store(writer, (A, [b"meets the full disk"]))
        for submission in queued:
            await submission.wait()
        assert [type(submission.error) for submission in queued] == [LogFull, LogFull, type(None)]
        assert (writer.queue.last_seq(A), writer.queue.last_seq(B), writer.queue.last_seq(C)) == (1, 1, 1)
        kept += records_of(queued[2])
        kept += records_of(await store(writer, (B, [b"the ending again"]), critical=True))
    check_disk(disk, kept)


async def test_on_a_full_medium_the_space_of_the_spare_is_given_back(autojump_clock: trio.testing.MockClock) -> None:
    """What is critical needs the room more than a segment does that may never be filled."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    assert log.sequence is not None
    async with writing(log) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))
        log.sequence.prepare_spare()
        assert len(content(disk, f"{LOG}/spare.tmp")) == SMALL.segment_bytes
        files.before = FailOnce("write", errno.ENOSPC)
        with pytest.raises(LogFull):
            await store(writer, (A, [b"meets the full disk"]))
        second = segments(disk)[1]
        assert (log.sequence.has_spare, disk.stat(f"{LOG}/spare.tmp")) == (False, None)
        assert len(content(disk, second)) == HEADER_BYTES
        assert not header_of(disk, second).preallocated
        assert len([file for file in files.open_files if file.path == second]) == 1, "the spare was closed"
        kept += records_of(await store(writer, (A, [b"the ending"]), critical=True))
    check_disk(disk, kept)


@pytest.mark.parametrize("operation", ["write", "datasync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_no_room_for_a_frame_is_log_full_once_the_cut_is_durable(
    operation: str, number: int, autojump_clock: trio.testing.MockClock
) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL)) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))
        files.before = FailOnce(operation, number)
        refused = submit(writer, (A, [payload(5000)]))
        refused.on_done = lambda submission: check_disk(disk, kept)
        await refused.wait()
        assert isinstance(refused.error, LogFull)
        assert len(segments(disk)) == 2
        assert not header_of(disk, segments(disk)[-1]).preallocated
        await trio.sleep(AFTER_RETRY)
        kept += records_of(await store(writer, (A, [b"2"])))
    check_disk(disk, kept)


async def test_a_full_log_is_finished_in_order(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    full = FullDisk(disk, room=150_000)
    async with writing(open_log(WatchedFiles(disk, full), LOG, SMALL), close=True) as writer:
        kept = await filled(writer)
        kept += records_of(await store(writer, (B, [b"an ending"]), critical=True))
    assert writer.admission.failed is None
    check_disk(disk, kept)


async def test_the_reserve_may_be_used_up_and_the_log_then_fails_without_a_loss(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryFileSystem()
    full = FullDisk(disk, room=150_000)
    kept: list[Record] = []
    async with writing(open_log(WatchedFiles(disk, full), LOG, SMALL)) as writer:
        kept = await filled(writer)
        full.room = full.used()
        n = 0
        with pytest.raises((LogFull, OutcomeUnknown)):
            for n in range(1000):
                kept += records_of(await store(writer, (stream_id(str(n)), [payload(3000, n)]), critical=True))
    check_disk(disk, kept, unknown=[payload(3000, n)])


# ---- rotation --------------------------------------------------------------------------------------------------------


async def store_what_can_be_stored(
    writer: LogWriter, sizes: Iterable[int], acknowledged: list[Record], refused: list[bytes], unknown: list[bytes]
) -> None:
    """Go on whatever happens; tell what was acknowledged, and which payloads were refused or have an unknown fate."""
    for n, size in enumerate(sizes):
        data = payload(size, n)
        try:
            acknowledged += records_of(await store(writer, (A, [data]), critical=n % 3 == 2))
        except LogFull:
            refused.append(data)
            await trio.sleep(AFTER_RETRY)
        except OutcomeUnknown:
            unknown.append(data)
        except Closed:
            return


@pytest.mark.parametrize("operation", ["sync_directory", "rename", "create", "write", "datasync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_rotation_that_fails_half_way_loses_nothing_that_is_acknowledged_later(
    operation: str, number: int, autojump_clock: trio.testing.MockClock
) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    kept: list[Record] = []
    unknown: list[bytes] = []
    armed = True

    def before(call: Call) -> None:
        nonlocal armed
        if armed and call.operation == operation and call.path in (LOG, f"{LOG}/spare.tmp", successor):
            armed = False
            raise OSError(number, os.strerror(number), call.path)

    async with writing(open_log(files, LOG, SMALL), close=True) as writer:
        kept += records_of(await store(writer, (A, [payload(9000)])))
        successor = f"{LOG}/00000002-0000000000000002.0.seg"
        files.before = before
        await store_what_can_be_stored(writer, [9000, 100, 200, 9000, 9000], kept, [], unknown)
        assert not armed
    check_disk(disk, kept, unknown=unknown if writer.admission.failed else ())


Fault = Callable[[int, int], Callable[[Call], None]]


def once(at: int, number: int) -> Callable[[Call], None]:
    def before(call: Call) -> None:
        if call.number == at:
            raise OSError(number, os.strerror(number), call.path)

    return before


def for_a_while(at: int, number: int) -> Callable[[Call], None]:
    def before(call: Call) -> None:
        if at <= call.number < at + 12:
            raise OSError(number, os.strerror(number), call.path)

    return before


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("fault", [once, for_a_while])
async def test_an_error_at_any_call_of_the_writer_costs_no_acknowledged_record(
    fault: Fault, number: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Errors at the k-th call, for every k of a run with rotations and a close; the disk is checked after each run."""
    sizes = [4000, 300, 2500, 4100, 3000, 200, 4000, 2000]
    options = LogOptions(segment_bytes=6 * 1024)
    outcomes: set[str] = set()
    at = 0
    for at in range(1, 200):
        disk = MemoryFileSystem()
        files = WatchedFiles(disk)
        log = open_log(files, LOG, options)
        files.calls.clear()
        files.before = fault(at, number)
        kept: list[Record] = []
        refused: list[bytes] = []
        unknown: list[bytes] = []
        async with writing(log, close=True) as writer:
            await store_what_can_be_stored(writer, sizes, kept, refused, unknown)
        outcomes |= {"failed" if writer.admission.failed else "works", "full" if refused else "never full"}
        files.before = None
        doubtful = unknown if writer.admission.failed else ()
        check_disk(disk, kept, options, unknown=doubtful, hint=f"an error at call {at}")
        if len(files.calls) < at:
            break
    assert outcomes == ({"works", "never full", "failed"} | ({"full"} if number == errno.ENOSPC else set()))
    assert 60 < at < 199, at


# ---- closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["write", "datasync", "truncate"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_close_that_fails_loses_nothing(operation: str, number: int) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL), close=True) as writer:
        kept = records_of(await store(writer, (A, [b"kept"])))
        writer.submit([Batch(A, 2, [b"the end"], FLAG_CLOSES)])
        await trio.testing.wait_all_tasks_blocked()
        files.before = FailOnce(operation, number)
    assert (writer.admission.failed is None) == (number == errno.ENOSPC)
    kept.append(Record(A, 2, 2, b"the end"))
    files.before = None
    check_disk(disk, kept)


async def test_the_bytes_of_a_failed_group_are_in_quarantine_after_the_next_opening() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL)) as writer:
        await store(writer, (A, [b"kept"]))
        files.before = FailOnce("datasync", errno.EIO)
        with pytest.raises(OutcomeUnknown):
            await store(writer, (A, [b"never acknowledged"]))
    old = segments(disk)[0]
    end = header_of(disk, segments(disk)[1]).prev_end_offset
    leftover = content(disk, old)[end:].rstrip(b"\0")
    assert b"never acknowledged" in leftover
    _found, report = reopen(disk)
    (name,) = report.quarantined
    assert content(disk, f"{LOG}/quarantine/{name}") == leftover
    assert len(content(disk, old)) == end


# ---- a disk that is full when the log is opened ----------------------------------------------------------------------


async def test_opened_on_a_full_disk_a_torn_log_can_be_read_and_is_written_again_once_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        stored = records_of(await store(writer, (A, [b"one", b"two"])))
    segment = segments(disk)[-1]
    put(disk, segment, payload(200), at=header_of_end(disk, segment) + 700)  # a write that a crash tore
    full = FullDisk(disk, 0)
    full.room = full.used()
    files = WatchedFiles(disk, full)
    remove(disk, f"{LOG}/reserve")
    full.room = full.used()
    log = open_log(files, LOG, SMALL)
    assert "full" in " ".join(log.report.notes)
    assert read_log(log) == stored
    async with writing(log) as writer:
        for critical in (False, True):
            with pytest.raises(LogFull):
                submit(writer, (A, [b"three"]), critical=critical)
        full.room += 10 * 1024 * 1024
        await trio.sleep(RETRY_FULL_SECONDS * 1.5)
        stored += records_of(await store(writer, (A, [b"three"])))
    assert reopen(disk)[0] == stored
    assert [name for name in disk.list_names(f"{LOG}/quarantine") if name.endswith(".tmp")] == []


def torn_log() -> tuple[MemoryFileSystem, str, list[Record], bytes]:
    """A disk, the newest segment, what was acknowledged, and behind its end a write that a crash tore."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"one", b"two"])]])
    (segment,) = segments(disk)
    end = header_of_end(disk, segment)
    put(disk, segment, payload(200), at=end + 700)
    return disk, segment, stored, content(disk, segment)[end:].rstrip(b"\0")


def quarantined(disk: MemoryFileSystem) -> list[bytes]:
    folder = f"{LOG}/quarantine"
    return [content(disk, f"{folder}/{name}") for name in disk.list_names(folder)]


def test_opened_on_a_full_disk_a_torn_log_is_repaired_as_soon_as_there_is_room() -> None:
    disk, segment, stored, leftover = torn_log()
    full = FullDisk(disk, 0)
    remove(disk, f"{LOG}/reserve")
    full.room = full.used()

    async def main() -> None:
        async with writing(open_log(WatchedFiles(disk, full), LOG, SMALL)) as writer:
            assert writer.admission.is_full
            await trio.sleep(3 * RETRY_FULL_SECONDS)
            assert content(disk, segment).rstrip(b"\0").endswith(leftover), "nothing is cut before there is a copy"
            assert writer.admission.is_full
            full.room += 10 * 1024 * 1024
            await trio.sleep(RETRY_FULL_SECONDS * 1.5)
            assert leftover in quarantined(disk)
            assert len(content(disk, segment)) == header_of_end(disk, segment)
            stored.extend(records_of(await store(writer, (B, [b"three"]))))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert reopen(disk)[0] == stored


def test_opening_spends_the_reserve_on_its_repair_when_the_disk_is_full() -> None:
    disk, segment, stored, leftover = torn_log()
    full = FullDisk(disk, 0)
    full.room = full.used()
    assert disk.stat(f"{LOG}/reserve") is not None
    log = open_log(WatchedFiles(disk, full), LOG, SMALL)
    assert log.pending_repair is None
    assert leftover in quarantined(disk)
    assert len(content(disk, segment)) == header_of_end(disk, segment)
    assert read_log(log) == stored
    log.release()


def header_of_end(files: FileSystem, segment: str) -> int:
    return frames_of(files, segment)[-1].end
