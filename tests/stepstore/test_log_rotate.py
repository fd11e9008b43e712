"""`LogWriter.rotate`: what was written so far lies in files that nothing is added to any more."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, Fenced
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log
from stepstore.log.records import Record
from stepstore.log.verify import verify_log
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    Call,
    WatchedFiles,
    clone,
    content,
    frames_of,
    header_of,
    records_of,
    remove,
    reopen,
    segments,
    store,
    submit,
    tended,
    writing,
)


async def test_what_is_written_after_a_rotation_lies_in_another_segment() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"before"])))
        await writer.rotate()
        first, second = segments(disk)
        before = content(disk, first)
        stored += records_of(await store(writer, (A, [b"after"])))
        assert content(disk, first) == before
        assert [frame.head.first_lsn for frame in frames_of(disk, second)] == [2]
        assert header_of(disk, second).epoch == header_of(disk, first).epoch
    assert reopen(disk)[0] == stored


async def test_a_segment_in_which_nothing_is_written_is_not_left() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        await writer.rotate()
        assert len(segments(disk)) == 1
        await store(writer, (A, [b"x"]))
        for _ in range(3):
            await writer.rotate()
        assert len(segments(disk)) == 2
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await writer.rotate()  # there is no segment of this incarnation at all
        assert len(segments(disk)) == 2


async def test_several_that_wait_share_one_rotation_and_each_goes_on_behind_it() -> None:
    disk = MemoryFileSystem()
    done: list[int] = []

    async def rotate(number: int) -> None:
        await writer.rotate()
        assert len(segments(disk)) == 2
        done.append(number)

    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"x"]))
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(rotate, number)
    assert sorted(done) == [0, 1, 2, 3]


async def test_a_rotation_is_a_checkpoint_and_what_is_queued_comes_behind_it() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"before"]))
        waiting = submit(writer, (B, [b"queued"]))
        with trio.testing.assert_checkpoints():
            await writer.rotate()
        await waiting.wait()
        assert [len(frames_of(disk, segment)) for segment in segments(disk)] in ([1, 1], [2, 0])


def failing(operation: str, number: int, path: str) -> Callable[[Call], None]:
    def before(call: Call) -> None:
        if call.operation == operation and call.path.endswith(path):
            raise OSError(number, os.strerror(number), call.path)

    return before


@pytest.mark.parametrize("operation", ["create", "allocate", "write", "datasync"])
async def test_a_rotation_for_which_there_is_no_room_leaves_the_writer_where_it_was(operation: str) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        files.before = failing(operation, errno.ENOSPC, "spare.tmp")
        if operation == "allocate":  # then it is made without space set aside
            await writer.rotate()
        else:
            with pytest.raises(OSError) as caught:
                await writer.rotate()
            assert caught.value.errno == errno.ENOSPC
        files.before = None
        assert writer.admission.failed is None
        stored += records_of(await store(writer, (A, [b"2"])))
        await writer.rotate()
        stored += records_of(await store(writer, (A, [b"3"])))
    assert reopen(disk)[0] == stored


@pytest.mark.parametrize(
    ("operation", "number", "path"),
    [
        ("write", errno.EIO, "spare.tmp"),
        ("rename", errno.EIO, ".seg"),
        ("sync_directory", errno.EIO, LOG),
        ("sync_directory", errno.ENOSPC, LOG),
    ],
)
async def test_a_rotation_that_fails_when_the_next_segment_may_be_there_is_the_end(
    operation: str, number: int, path: str
) -> None:
    """Its header names where this one ends. What would be acknowledged here later would lie behind that."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, SMALL)) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        files.before = failing(operation, number, path)
        with pytest.raises(OSError) as caught:
            await writer.rotate()
        files.before = None
        assert caught.value is writer.admission.failed
        with pytest.raises(Closed):
            submit(writer, (A, [b"2"]))
        with pytest.raises(Closed):
            await writer.rotate()
    for image in (clone(disk), disk.durable_copy()):
        assert verify_log(LOG, files=image).problems == []
        assert reopen(image)[0] == stored


async def test_a_rotation_of_a_log_whose_lock_was_taken_away_is_the_end() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"1"]))
        remove(disk, f"{LOG}/LOCK")
        with pytest.raises(Fenced):
            await writer.rotate()
        assert isinstance(writer.admission.failed, Fenced)
    assert len(segments(disk)) == 1


@pytest.mark.parametrize("stuck_in", ["with_room", "_leave_behind"], ids=["queued", "under way"])
async def test_whoever_waits_for_a_rotation_learns_that_the_writer_was_cancelled(
    stuck_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(MemoryFileSystem(), LOG, SMALL)
    writer = LogWriter(log)
    started, scope = trio.Event(), trio.CancelScope()
    told: list[Closed] = []

    async def run() -> None:
        with scope:
            await writer.run()

    async def rotate() -> None:
        with pytest.raises(Closed) as caught:
            await writer.rotate()
        told.append(caught.value)

    async def stuck(_argument: object) -> None:
        started.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await store(writer, (A, [b"x"]))
        monkeypatch.setattr(writer.active, stuck_in, stuck)
        if stuck_in == "with_room":
            submit(writer, (A, [b"y"]))
            await started.wait()
        nursery.start_soon(rotate)
        await trio.testing.wait_all_tasks_blocked()
        assert started.is_set()
        scope.cancel()
    assert len(told) == 1
    log.release()


async def test_rotations_under_load_lose_nothing_and_every_segment_is_sealed() -> None:
    disk = MemoryFileSystem()
    stored: list[Record] = []
    options = dataclasses.replace(SMALL, compaction_bytes_per_second=0)  # which would merge the small ones
    async with tended(open_log(disk, LOG, options), close=True) as (writer, _caretaker):

        async def load() -> None:
            for n in range(40):
                stored.extend(records_of(await store(writer, (A, [b"%d" % n * 100]))))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            while len(stored) < 40:
                await writer.rotate()
    report = verify_log(LOG, files=disk)
    assert report.problems == []
    assert (report.sealed, report.records) == (report.segments, 40)
    assert writer.stats.segments_begun > 10
    assert reopen(disk)[0] == stored
