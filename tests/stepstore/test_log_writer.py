"""The one task that writes: natural group commit, and what an acknowledgement means."""

from __future__ import annotations

import itertools
import pathlib
import threading

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, InvalidInput, InvalidState, OutcomeUnknown, Rejected, TooLarge
from stepstore.log import frame as fr
from stepstore.log.files import OsFileSystem
from stepstore.log.footer import TRAILER_BYTES
from stepstore.log.frame import Batch
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log
from stepstore.log.records import Record
from stepstore.log.submission import Submission
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    WatchedFiles,
    clone,
    frames_of,
    header_of,
    payload,
    read_log,
    records_of,
    reopen,
    segments,
    store,
    stream_id,
    submit,
    tended,
    writing,
)


def group_calls(files: WatchedFiles) -> list[str]:
    """What was done to segments (the names end in .seg only after their headers are durable)."""
    return [c.operation for c in files.calls if c.path.endswith(".seg") and c.operation in ("write", "datasync")]


# ---- group commit ----------------------------------------------------------------------------------------------------


async def test_a_lone_batch_costs_one_write_and_one_sync() -> None:
    files = WatchedFiles(MemoryFileSystem())
    async with writing(open_log(files, LOG, SMALL)) as writer:
        for n in range(1, 4):
            await store(writer, (A, [b"x"]))
            assert group_calls(files) == ["write", "datasync"] * n
            assert (writer.stats.groups, writer.stats.syncs, writer.stats.records) == (n, n, n)


async def test_what_queues_meanwhile_shares_one_sync() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    streams = [stream_id(str(n)) for n in range(100)]
    meanwhile: list[Submission] = []
    async with writing(open_log(files, LOG, LogOptions(segment_bytes=256 * 1024))) as writer:

        def on_call(call: Call) -> None:
            if call.operation == "datasync" and call.path.endswith(".seg") and not meanwhile:
                meanwhile.extend(submit(writer, (streams[n % 100], [b"%d" % n])) for n in range(999))

        files.before = on_call
        first = await store(writer, (A, [b"first"]))
        assert len(meanwhile) == 999
        for submission in meanwhile:
            await submission.wait()
        assert writer.stats.syncs == 2
        assert writer.stats.largest_group == 999
    lsns = [submission.first_lsn for submission in (first, *meanwhile)]
    assert lsns == list(range(1, 1001)), "contiguous, in the order of submission"
    found, _report = reopen(disk, options=LogOptions(segment_bytes=256 * 1024))
    assert found == list(itertools.chain.from_iterable(map(records_of, (first, *meanwhile))))


async def test_a_group_takes_no_more_than_its_limit_unless_one_batch_is_larger() -> None:
    disk = MemoryFileSystem()
    sizes = [3_000_000, 1_000_000, 4_500_000, 100, 4_000_000, 300_000]
    async with writing(open_log(disk, LOG, LogOptions(segment_bytes=32 * 1024 * 1024))) as writer:
        submissions = [submit(writer, (stream_id(str(n)), [bytes(size)])) for n, size in enumerate(sizes)]
        for submission in submissions:
            await submission.wait()
        assert writer.stats.groups == 4
    frames = frames_of(disk, segments(disk)[0])
    assert [frame.head.record_count for frame in frames] == [2, 1, 2, 1]
    assert all(frame.head.frame_len < fr.MAX_GROUP_BYTES + 1000 for frame in frames if frame.head.record_count > 1)


async def test_the_batches_of_a_submission_are_in_one_frame_in_their_order() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        done = await store(writer, (A, [b"1", b"2"]), (B, [b"3"]), (A, [b"4"]))
    (frame,) = frames_of(disk, segments(disk)[0])
    assert frame.head.record_count == 4
    expected = [(A, 1, 1, b"1"), (A, 2, 2, b"2"), (B, 1, 3, b"3"), (A, 3, 4, b"4")]
    assert [tuple(record) for record in records_of(done)] == expected
    assert reopen(disk)[0] == records_of(done)


async def test_writing_begins_no_segment_before_the_first_append_after_an_opening() -> None:
    disk = MemoryFileSystem()
    for n in range(1, 4):
        log = open_log(disk, LOG, SMALL)
        assert len(segments(disk)) == max(1, n - 1)
        async with writing(log) as writer:
            await store(writer, (A, [b"x"]))
        assert len(segments(disk)) == n


# ---- what an acknowledgement means -----------------------------------------------------------------------------------


async def acknowledge_and_pull_the_plug(files: WatchedFiles, disk: MemoryFileSystem) -> int:
    """At the moment each submission resolves, cut the power on a copy and look there for all that was acknowledged."""
    acknowledged: list[Record] = []
    checks = 0

    def on_done(submission: Submission) -> None:
        nonlocal checks
        assert submission.error is None
        acknowledged.extend(records_of(submission))
        found, _report = reopen(disk.durable_copy())
        assert found[: len(acknowledged)] == acknowledged, "acknowledged but not durable"
        checks += 1

    log = open_log(files, LOG, SMALL)
    async with writing(log) as writer:
        for n in range(12):  # three segments
            batch = Batch(A, n + 1, [payload(3000, n)], 0)
            done = writer.submit([batch], on_done=on_done)
            writer.submit([Batch(B, n + 1, [b"%d" % n], 0)], on_done=on_done)
            await done.wait()
        await trio.testing.wait_all_tasks_blocked()
    return checks


async def test_at_the_moment_of_the_acknowledgement_the_bytes_are_durable() -> None:
    disk = MemoryFileSystem()
    assert await acknowledge_and_pull_the_plug(WatchedFiles(disk), disk) == 24
    assert len(segments(disk)) == 3


async def test_the_check_above_objects_when_fdatasync_does_nothing() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    open_log(files, LOG, SMALL).release()
    files.lying = ".seg"
    with pytest.raises(BaseException) as caught:
        await acknowledge_and_pull_the_plug(files, disk)
    assert caught.group_contains(AssertionError, match="acknowledged but not durable")


async def test_the_check_above_objects_when_the_directory_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    open_log(files, LOG, SMALL).release()
    monkeypatch.setattr(disk, "sync_directory", lambda path: None)
    with pytest.raises(BaseException) as caught:
        await acknowledge_and_pull_the_plug(files, disk)
    assert caught.group_contains(AssertionError, match="acknowledged but not durable")


async def test_the_result_is_known_to_on_done_before_the_waiters_and_is_indexed() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    seen: list[str] = []

    def on_done(submission: Submission) -> None:
        assert submission.done
        assert log.index.last_seq(A) == 2
        assert writer.watermark.lsn == 2
        seen.append("on_done")

    async with writing(log) as writer:
        submission = writer.submit([Batch(A, 1, [b"1", b"2"], 0)], on_done=on_done)
        assert not submission.done
        await submission.wait()
        seen.append("waiter")
        await submission.wait()
        assert seen == ["on_done", "waiter"]


async def test_what_on_done_submits_continues_the_stream() -> None:
    disk = MemoryFileSystem()

    def on_done(submission: Submission) -> None:
        assert submission.error is None
        if writer.queue.last_seq(A) < 10:
            writer.submit([Batch(A, writer.queue.last_seq(A) + 1, [b"next"], 0)], on_done=on_done)

    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for _ in range(2):
            writer.submit([Batch(A, writer.queue.last_seq(A) + 1, [b"first"], 0)], on_done=on_done)
        await trio.testing.wait_all_tasks_blocked()
    assert [record.seq for record in reopen(disk)[0]] == list(range(1, 11))


async def test_a_cancelled_waiter_does_not_cancel_the_write() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        submission = submit(writer, (A, [b"x"]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await submission.wait()
        assert scope.cancelled_caught
        await submission.wait()
        assert submission.error is None
    assert len(reopen(disk)[0]) == 1


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        [Batch(A, 1, [b"again"], 0)],
        [Batch(A, 4, [b"a gap"], 0)],
        [Batch(A, 0, [b"zero"], 0)],
        [Batch(B, 2, [b"not the first"], 0)],
        [Batch(A, 3, [b"good"], 0), Batch(A, 3, [b"twice"], 0)],
        [Batch(A, 3, [b"good", b"good"], 0), Batch(A, 4, [b"overlaps"], 0)],
    ],
)
async def test_a_batch_that_does_not_continue_its_stream_is_invalid_state(wrong: list[Batch]) -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"1", b"2"]))
        with pytest.raises(InvalidState):
            writer.submit(wrong)
        assert (writer.queue.last_seq(A), writer.queue.last_seq(B)) == (2, 0)
        await store(writer, (A, [b"3"]))
    assert [record.payload for record in reopen(disk)[0]] == [b"1", b"2", b"3"]


async def test_what_is_queued_counts_for_the_next_seq() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        writer.submit([Batch(A, 1, [b"1"], 0)])
        assert writer.queue.last_seq(A) == 1
        with pytest.raises(InvalidState):
            writer.submit([Batch(A, 1, [b"again"], 0)])
        await writer.submit([Batch(A, 2, [b"2"], 0)]).wait()
    assert [record.payload for record in reopen(disk)[0]] == [b"1", b"2"]


@pytest.mark.parametrize(
    "wrong",
    [Batch(A, 1, [], 0), Batch(b"short", 1, [b"x"], 0), Batch(A + b"!", 1, [b"x"], 0)],
    ids=["no record", "short id", "long id"],
)
async def test_a_batch_that_no_reader_would_accept_is_invalid_input(wrong: Batch) -> None:
    """Stored, it would make recovery refuse the whole log, or file the records under another stream."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        with pytest.raises(InvalidInput):
            writer.submit([Batch(B, 1, [b"fine"], 0), wrong])
        assert writer.queue.last_seq(B) == 0
    assert reopen(disk)[0] == []


async def test_a_batch_over_the_limit_is_too_large_and_one_at_the_limit_is_stored() -> None:
    disk = MemoryFileSystem()
    room = fr.MAX_BATCH_BYTES - fr.batch_cost(0, 1)
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for batches in ([(A, [bytes(room + 1)])], [(A, [bytes(room // 2)]), (B, [bytes(room // 2)])]):
            with pytest.raises(TooLarge):
                submit(writer, *batches)
        assert (writer.queue.last_seq(A), writer.queue.last_seq(B)) == (0, 0)
        done = await store(writer, (A, [payload(4096) + bytes(room - 4096)]))
        await store(writer, (B, [b"and on"]))
    assert len(segments(disk)) == 2
    found, _report = reopen(disk)
    assert found[:1] == records_of(done)
    assert found[1].payload == b"and on"
    assert reopen(clone(disk))[0] == found


async def test_closed_after_finish_and_finish_drains() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL), close=True) as writer:
        submissions = [submit(writer, (A, [b"%d" % n])) for n in range(50)]
        writer.finish()
        with pytest.raises(Closed):
            submit(writer, (B, [b"late"]))
        with pytest.raises(Closed):
            writer.admission.check_open(critical=True)
        assert issubclass(Closed, Rejected)
    assert all(submission.done and submission.error is None for submission in submissions)
    assert frames_of(disk, segments(disk)[0])[-1].head.kind == fr.KIND_CLOSE
    assert len(reopen(disk)[0]) == 50


async def test_finish_without_a_single_write_leaves_a_log_that_was_read_as_it_is() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"x"]))
    log = open_log(disk, LOG, SMALL)
    names = disk.list_names(LOG)
    async with writing(log, close=True):
        pass
    assert disk.list_names(LOG) == names


# ---- rotation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", [0, 512, 4096])
@pytest.mark.parametrize("segment_bytes", [2048, 16 * 1024])
async def test_rotation_makes_a_chain_of_segments(segment_bytes: int, align: int) -> None:
    disk = MemoryFileSystem()
    options = LogOptions(segment_bytes=segment_bytes, align=align)
    stored: list[Record] = []
    async with tended(open_log(disk, LOG, options)) as (writer, caretaker):
        for n in range(25):
            stored += records_of(await store(writer, (A, [payload(500 + 97 * n, n)]), (B, [b""])))
        await caretaker.wait_sealed()
        names = segments(disk)
        assert len(names) > (15 if segment_bytes == 2048 else 3)
        assert writer.stats.segments_begun == writer.stats.segments_sealed == len(names) - 1
    headers = [header_of(disk, name) for name in names]
    for number, (before, after) in enumerate(itertools.pairwise(headers)):
        *frames, footer, close = frames_of(disk, names[number])
        assert {frame.head.kind for frame in frames} == {fr.KIND_DATA}
        assert (footer.head.kind, close.head.kind) == (fr.KIND_FOOTER, fr.KIND_CLOSE)
        assert after.seq == before.seq + 1
        assert after.epoch == before.epoch, "no new epoch without a failure or an opening"
        assert (after.prev_seq, after.prev_end_offset) == (before.seq, frames[-1].end)
        assert (after.prev_end_lsn, after.prev_chain) == (frames[-1].head.last_lsn, frames[-1].head.header_crc)
        assert after.segment_tag != before.segment_tag
        size = disk.stat(names[number])
        assert size is not None
        assert size.size == close.end + TRAILER_BYTES, "no zeros are left behind the end of a segment that was sealed"
    assert reopen(disk, options=options)[0] == stored
    assert reopen(disk.durable_copy(), options=options)[0] == stored


async def test_a_batch_larger_than_a_segment_has_one_to_itself() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for size in (100, 50_000, 100, 60_000, 70_000):
            stored += records_of(await store(writer, (A, [payload(size, size)])))
    assert [len(frames_of(disk, name)) for name in segments(disk)] == [1] * 5
    assert reopen(disk)[0] == stored


# ---- waiting ---------------------------------------------------------------------------------------------------------


async def test_wait_room_waits_for_a_queue_below_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.log.commit_queue.QUEUE_BYTES", 1000)
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    writer = LogWriter(log)
    await writer.queue.wait_room()
    submit(writer, (A, [bytes(2000)]))
    passed: list[bool] = []

    async def wait() -> None:
        await writer.queue.wait_room()
        passed.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not passed
        nursery.start_soon(writer.run)
        await trio.testing.wait_all_tasks_blocked()
        assert passed
        writer.finish()
    log.release()


async def test_wait_durable_beyond_follows_the_log_to_its_end() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    seen: list[int] = []

    async def follow(writer: LogWriter) -> None:
        lsn = 0
        while await writer.watermark.wait_beyond(lsn):
            lsn = writer.watermark.lsn
            seen.append(lsn)

    async with trio.open_nursery() as nursery, writing(log, close=True) as writer:
        nursery.start_soon(follow, writer)
        for _ in range(3):
            await store(writer, (A, [b"x"]))
            await trio.testing.wait_all_tasks_blocked()
        submit(writer, (A, [b"queued when it was told to finish"]))
        writer.finish()
        nursery.start_soon(follow, writer)
    assert seen[:3] == [1, 2, 3]
    assert seen.count(4) == 2, "both followers saw the record that was drained"


# ---- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_bytes", [fr.MAX_GROUP_BYTES, 300], ids=["in one group", "in many groups"])
async def test_cancelling_the_task_resolves_everything_queued_as_outcome_unknown(
    group_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepstore.log.commit_queue.MAX_GROUP_BYTES", group_bytes)
    disk = MemoryFileSystem()
    done: list[Submission] = []
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"kept"]))
        for n in range(20):
            writer.submit([Batch(B, n + 1, [b"x"], 0)], on_done=done.append)
    assert len(done) == 20
    assert all(isinstance(submission.error, OutcomeUnknown) for submission in done)
    assert writer.queue.last_seq(B) == 0
    with pytest.raises(Closed):
        submit(writer, (A, [b"late"]))
    assert not await writer.watermark.wait_beyond(1)
    await writer.queue.wait_room()
    assert [record.payload for record in reopen(disk)[0]] == [b"kept"]


class SlowSync:
    """A `before` hook that blocks the next sync of a segment in the worker thread until it is let go."""

    def __init__(self) -> None:
        self.entered, self.go_on, self.armed = threading.Event(), threading.Event(), False

    def __call__(self, call: Call) -> None:
        if self.armed and call.operation == "datasync" and call.path.endswith(".seg"):
            self.armed = False
            self.entered.set()
            assert self.go_on.wait(10)


async def test_a_write_that_has_started_is_finished_and_acknowledged_although_cancelled() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = True
    slow = SlowSync()
    files.before = slow
    log = open_log(files, LOG, SMALL)
    writer = LogWriter(log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        slow.armed = True
        started = submit(writer, (A, [b"started"]))
        await trio.to_thread.run_sync(slow.entered.wait)
        queued = submit(writer, (A, [b"queued"]))
        nursery.cancel_scope.cancel()
        slow.go_on.set()
    log.release()
    assert started.error is None
    assert started.first_lsn == 1
    assert isinstance(queued.error, OutcomeUnknown)
    assert reopen(disk.durable_copy())[0] == records_of(started)


async def test_a_follower_that_comes_while_the_log_is_drained_sees_the_last_record() -> None:
    files = WatchedFiles(MemoryFileSystem())
    files.needs_thread = True
    slow = SlowSync()
    files.before = slow
    seen: list[bool] = []

    async def follow(writer: LogWriter) -> None:
        seen.append(await writer.watermark.wait_beyond(0))
        seen.append(await writer.watermark.wait_beyond(1))

    async with trio.open_nursery() as nursery, writing(open_log(files, LOG, SMALL), close=True) as writer:
        slow.armed = True
        submit(writer, (A, [b"the last"]))
        await trio.to_thread.run_sync(slow.entered.wait)
        writer.finish()
        nursery.start_soon(follow, writer)
        await trio.testing.wait_all_tasks_blocked()
        slow.go_on.set()
    assert seen == [True, False]


async def test_the_event_loop_runs_on_while_the_medium_is_slow() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = True
    slow = SlowSync()
    files.before = slow
    async with writing(open_log(files, LOG, SMALL)) as writer:
        slow.armed = True
        first = submit(writer, (A, [b"1"]))
        await trio.to_thread.run_sync(slow.entered.wait)
        others = [submit(writer, (B, [b"%d" % n])) for n in range(10)]
        assert not first.done
        slow.go_on.set()
        for submission in (first, *others):
            await submission.wait()
        assert writer.stats.syncs == 2


async def test_a_log_on_a_real_disk(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "deep" / "log")
    stored: list[Record] = []
    for life in range(3):
        log = open_log(OsFileSystem(), path, SMALL)
        assert read_log(log) == stored
        async with writing(log, close=life == 1) as writer:
            for n in range(10):
                stored += records_of(await store(writer, (A, [payload(2000, n)]), (C, [b"", bytes(300)])))
    found, report = reopen(OsFileSystem(), path)
    assert found == stored
    assert report.quarantined == ()
