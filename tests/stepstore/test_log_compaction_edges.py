"""Compaction where something else comes in between: a lost lock, an error half way, a cancel, a full disk; and what a
manifest and a rewritten file prove."""

from __future__ import annotations

import dataclasses
import errno
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, CorruptLog, Fenced, RecoveryFailed, Unavailable
from stepstore.log import compaction, compaction_output
from stepstore.log import frame as fr
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.compaction import Rewriting
from stepstore.log.footer import TRAILER_BYTES, encode_trailer, parse_trailer
from stepstore.log.frame import Batch
from stepstore.log.manifest import encode_manifest
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, OpenLog, open_log
from stepstore.log.segment_header import encode_segment_header
from tests.stepstore.compaction_lab import QUIET, Kept, a_log_with_dead_records, compact, delete, life, manifest_paths
from tests.stepstore.compaction_lab import newest as newest_manifest
from tests.stepstore.compaction_lab import put as store
from tests.stepstore.log_lab import (
    LOG,
    A,
    B,
    Call,
    Forgetful,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    header_of,
    payload,
    put,
    remove,
    segments,
    tree,
)

CUT = LogOptions(segment_bytes=QUIET.segment_bytes, compaction_bytes_per_second=0, tail="cut")
COMPACTED = f"{LOG}/compact.tmp"


async def a_compacted_log() -> tuple[MemoryFileSystem, Kept]:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    return disk, kept


def refusal(disk: MemoryFileSystem, options: LogOptions = QUIET) -> CorruptLog:
    """Opening refuses, and changes nothing."""
    before = tree(disk)
    with pytest.raises(CorruptLog) as caught:
        open_log(disk, LOG, options)
    assert tree(disk) == before
    return caught.value


# ---- what a manifest and a rewritten file prove ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [QUIET, CUT], ids=["strict", "cut"])
async def test_row_02_the_manifest_proves_a_flipped_bit_in_the_newest_file_to_be_damage(options: LogOptions) -> None:
    """Without it the bit would be suspected rot in the last group, which tail="cut" gives up."""
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept, close=True) as (writer, _caretaker, _log):
        await store(writer, kept, (A, [payload(8000)], 0))
        await writer.rotate()
        await store(writer, kept, (B, [payload(8000)], 0))
        await delete(writer, kept, A)
    async with life(disk, kept) as (writer, _caretaker, _log):
        await store(writer, kept, (B, [payload(300)], 0))
        await store(writer, kept, (B, [payload(300, 2)], 0))
    async with life(disk, kept) as (_writer, caretaker, _log):
        await caretaker.compact()
    newest_file = segments(disk)[-1]
    assert newest_manifest(disk).files[-1].name.seq == header_of(disk, newest_file).seq
    assert header_of(disk, newest_file).generation == 0
    remove(disk, newest_file.replace(".0.seg", ".idx"))
    before, last = frames_of(disk, newest_file)[-2:]
    flip(disk, newest_file, last.end - 1)
    error = refusal(disk, options)
    assert (error.row, error.file, error.offset) == (2, newest_file, before.end)


async def test_row_02_a_rewritten_file_whose_trailer_names_another_end_is_refused() -> None:
    disk, _kept = await a_compacted_log()
    path = next(path for path in segments(disk) if header_of(disk, path).generation)
    data = bytearray(content(disk, path))
    trailer = parse_trailer(bytes(data[-TRAILER_BYTES:]))
    assert trailer is not None
    data[-TRAILER_BYTES:] = encode_trailer(trailer._replace(end_lsn=trailer.end_lsn - 1))
    put(disk, path, data)
    error = refusal(disk)
    assert (error.row, error.file, error.first_lsn, error.last_lsn) == (2, path, trailer.end_lsn, trailer.end_lsn)


@pytest.mark.parametrize("field", ["log_uuid", "branch_uuid"])
async def test_row_13_the_manifest_of_another_log_is_named_and_not_the_files_it_lists(field: str) -> None:
    disk, _kept = await a_compacted_log()
    (*_older, path) = manifest_paths(disk)
    foreign: dict[str, Any] = {field: b"somebody elses!!"}
    put(disk, path, encode_manifest(newest_manifest(disk)._replace(**foreign)))
    error = refusal(disk)
    assert (error.row, error.file) == (13, path)


@pytest.mark.parametrize("compacted", [False, True])
async def test_row_07_a_file_that_reaches_to_another_segment_than_is_known_is_refused(compacted: bool) -> None:
    """It stands for more files than it may; only a crafted header says so."""
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    if compacted:
        await compact(disk, kept)
    path = segments(disk)[0]
    header = header_of(disk, path)
    assert header.seq_last == (2 if compacted else 1)
    other, _crc = encode_segment_header(header._replace(seq_last=header.seq_last + 1))
    put(disk, path, other, at=0)
    error = refusal(disk)
    assert (error.row, error.file, error.first_lsn) == (7, path, 1)
    assert f"reaches to segment {header.seq_last + 1}" in str(error)


@pytest.mark.parametrize("left", [0, 40, -1])
async def test_row_18_a_short_read_of_the_manifest_is_no_damage(left: int) -> None:
    disk, _kept = await a_compacted_log()
    (*_older, path) = manifest_paths(disk)
    files = WatchedFiles(disk)
    files.spoil_read = lambda call, data: data[:left] if call.path == path else data
    with pytest.raises(RecoveryFailed) as caught:
        open_log(files, LOG, QUIET)
    assert caught.value.file == path


async def test_row_17_the_sidecar_of_a_file_that_was_replaced_is_removed_and_that_of_another_stays() -> None:
    disk, kept = await a_compacted_log()
    async with life(disk, kept) as (writer, _caretaker, _log):
        await store(writer, kept, (A, [b"left without a footer"], 0))
    async with life(disk, kept):
        await trio.testing.wait_all_tasks_blocked()
    (sidecar,) = [name for name in disk.list_names(LOG) if name.endswith(".idx")]
    rewritten = next(path for path in segments(disk) if header_of(disk, path).generation)
    stale = f"{posixpath.basename(rewritten).split('.')[0]}.idx"
    put(disk, f"{LOG}/{stale}", content(disk, f"{LOG}/{sidecar}"))
    kept.check_reopened(disk)
    assert [name for name in disk.list_names(LOG) if name.endswith(".idx")] == [sidecar]


# ---- sources that are not what their index says ----------------------------------------------------------------------


async def one_dead_enough() -> tuple[MemoryFileSystem, Kept, str]:
    """A log whose first file, of five frames, is to be rewritten. Its path."""
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept, close=True) as (writer, _caretaker, _log):
        for n in range(4):
            await store(writer, kept, (A, [payload(100, n)], 0))
        await store(writer, kept, (B, [payload(9000)], 0))
        await writer.rotate()
        await store(writer, kept, (A, [payload(9000)], 0))
        await delete(writer, kept, B)
    return disk, kept, segments(disk)[0]


async def left_alone(disk: MemoryFileSystem, log: OpenLog, caretaker: LogCaretaker, path: str) -> None:
    """Compaction names the file, and leaves it as it is."""
    before = content(disk, path)
    report = await caretaker.compact()
    assert (report.files_rewritten, report.left_alone) == (0, (path,))
    assert content(disk, path) == before
    assert path in log.paths
    assert disk.stat(COMPACTED) is None


@pytest.mark.parametrize("forgotten", [0, 2, 4])
async def test_a_file_whose_index_forgets_a_frame_is_left_as_it_is(forgotten: int) -> None:
    """Its checksums are right all the same. What it forgets would be lost for good."""
    disk, kept, path = await one_dead_enough()
    async with life(disk, kept) as (_writer, caretaker, log):
        segment = log.index.segments[0]
        frames = [segment.index.frame_place(n) for n in range(5)]
        assert segment.index.frame_count == 5
        del frames[forgotten]
        segment.index = Forgetful(segment.index, frames)  # type: ignore[assignment]
        await left_alone(disk, log, caretaker, path)
    kept.check_reopened(disk)


async def test_a_file_with_a_crafted_directory_behind_sound_crcs_is_left_as_it_is() -> None:
    disk, kept, path = await one_dead_enough()
    _first, frame, *_later = frames_of(disk, path)
    data, _crc, _entries = fr.build_frame(
        [Batch(A, 0, [payload(100, 1)], 0)],  # no stream has a record 0
        offset=frame.at,
        first_lsn=frame.head.first_lsn,
        durable_lsn=frame.head.durable_lsn,
        segment_tag=frame.head.segment_tag,
        prev_crc=frame.head.prev_crc,
    )
    assert len(data) == frame.head.frame_len
    put(disk, path, data, at=frame.at)
    async with life(disk, kept) as (_writer, caretaker, log):
        await left_alone(disk, log, caretaker, path)


# ---- how a rewritten file is written ---------------------------------------------------------------------------------


@contextmanager
def rewriting_of(disk: MemoryFileSystem) -> Iterator[Rewriting]:
    """The first file of a log being rewritten without B."""
    log = open_log(disk, LOG, QUIET)
    rewriting = Rewriting(log, log.index.segments[:1], {B})
    try:
        yield rewriting
    finally:
        rewriting.discard()
        log.release()


async def test_a_rewriting_in_short_steps_makes_the_same_frames_as_one_in_a_single_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing a log waits for one step at most."""
    disk, _kept, path = await one_dead_enough()
    sizes = [frame.head.frame_len for frame in frames_of(disk, path) if frame.head.kind == fr.KIND_DATA]
    made: list[list[int]] = []
    for step_bytes in (1, 2 * sizes[0], compaction.STEP_BYTES):
        monkeypatch.setattr(compaction, "STEP_BYTES", step_bytes)
        with rewriting_of(clone(disk)) as rewriting:
            steps: list[int] = []
            while read := rewriting.step():
                steps.append(read)
            rewriting.seal()
            made.append([rewriting.bytes_after, rewriting.records_removed])
        if step_bytes == 1:
            assert steps == sizes
        elif step_bytes == 2 * sizes[0]:
            assert steps == [sizes[0] + sizes[1], sizes[2] + sizes[3], sizes[4]]
        else:
            assert steps == [sum(sizes)]
    assert made[0][1] == 1
    assert made == [made[0]] * 3


async def test_a_rewriting_reads_and_writes_in_few_large_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each call of the file layer the thread may have to wait 5 ms for the GIL, behind a busy host. What is not
    written yet is in memory, and so bounded."""
    disk, _kept, path = await one_dead_enough()
    sizes = [frame.head.frame_len for frame in frames_of(disk, path) if frame.head.kind == fr.KIND_DATA]
    monkeypatch.setattr(compaction_output, "FRAME_BYTES", sizes[0] - fr.HEADER_BYTES)  # a batch that is alive each
    # In steps of one frame each, of three and two, and of all five. What the last batch is in is written by `seal`.
    for step_bytes, frame_writes, frame_reads in ((1, 4, 10), (sum(sizes[:2]) + 1, 2, None), (2 * sum(sizes), 1, 1)):
        monkeypatch.setattr(compaction, "STEP_BYTES", step_bytes)
        files = WatchedFiles(clone(disk))
        log = open_log(files, LOG, QUIET)
        (source, *_others) = log.index.segments
        rewriting = Rewriting(log, [source], {B})
        files.calls.clear()
        while not rewriting.is_copied:
            rewriting.step()
        rewriting.seal()
        reads = [call for call in files.calls if (call.operation, call.path) == ("read", path)]
        reads = [call for call in reads if call.offset < source.end_offset]  # not the table of frames
        writes = [call for call in files.calls if call.operation == "write"]
        assert frame_reads in (None, len(reads))
        assert len(writes) == 3 + frame_writes, "header, frames, footer, close frame with trailer"
        rewriting.discard()
        log.release()


async def test_a_rewriting_may_be_given_up_twice() -> None:
    """A cancel may come while it is given up."""
    disk, kept, _path = await one_dead_enough()
    before = tree(disk)
    with rewriting_of(disk) as rewriting:
        assert rewriting.step()
        assert disk.stat(COMPACTED) is not None
        rewriting.discard()
        assert disk.stat(COMPACTED) is None
    assert tree(disk) == before
    kept.check_reopened(disk)


async def test_a_left_over_of_a_compaction_that_could_not_be_removed_is_in_nobodys_way() -> None:
    """It is longer than the file that is written now, and would lie behind its end."""
    disk, kept, path = await one_dead_enough()
    listed_later = path.replace(".0.seg", ".1.seg")
    async with life(disk, kept) as (_writer, caretaker, _log):
        for left_over in (COMPACTED, listed_later):
            put(disk, left_over, payload(50_000))
        report = await caretaker.compact()
        assert report.files_rewritten == 1
        assert segments(disk)[0] == listed_later
        assert len(content(disk, listed_later)) < 50_000
    kept.check_reopened(disk, compacted=True)


async def test_a_file_that_would_be_longer_than_its_index_can_say_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, kept, path = await one_dead_enough()
    monkeypatch.setattr(compaction_output, "MAX_FILE_BYTES", 400)
    async with life(disk, kept) as (_writer, caretaker, log):
        with pytest.raises(Unavailable, match="longer than its index can say"):
            await caretaker.compact()
        assert path in log.paths
        assert disk.stat(COMPACTED) is None
        kept.check(log)
    kept.check_reopened(disk)


async def test_dead_records_behind_the_last_that_is_alive_are_covered_by_frames_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More of them than one frame can span."""
    monkeypatch.setattr(compaction_output, "MAX_SPAN", 5)
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, _log):
        await store(writer, kept, (A, [b"alive"] * 2, 0))
        await store(writer, kept, (B, [payload(300, 1)] * 13, 0))
        await writer.rotate()
        await store(writer, kept, (A, [payload(5000)], 0))  # so that this one is not joined
        await delete(writer, kept, B)
        await caretaker.compact()
        heads = [found.head for found in frames_of(disk, segments(disk)[0]) if found.head.kind == fr.KIND_DATA]
        assert [(head.record_count, head.lsn_span) for head in heads] == [(2, 2), (0, 5), (0, 5), (0, 3)]
    kept.check_reopened(disk, compacted=True)


async def test_a_batch_larger_than_a_frame_is_to_be_may_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_output, "FRAME_BYTES", 500)
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, _log):
        await store(writer, kept, (A, [payload(900)], 0))
        await store(writer, kept, (A, [b"small"], 0), (B, [payload(9000)], 0))
        await writer.rotate()
        await store(writer, kept, (A, [payload(5000)], 0))  # so that this one is not joined
        await delete(writer, kept, B)
        await caretaker.compact()
        heads = [found.head for found in frames_of(disk, segments(disk)[0]) if found.head.kind == fr.KIND_DATA]
        assert [(head.record_count, head.lsn_span) for head in heads] == [(1, 1), (1, 2)]
    kept.check_reopened(disk, compacted=True)


async def test_files_without_a_record_become_one() -> None:
    """A log that was opened and left, and then lost its first write to a crash."""
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept):
        pass
    async with life(disk, Kept()) as (writer, _caretaker, _log):
        await store(writer, Kept(), (A, [b"not on the medium"], 0))
    _first, second = segments(disk)
    (lost,) = frames_of(disk, second)
    put(disk, second, bytes(lost.head.frame_len), at=lost.at)
    report = await compact(disk, kept)
    assert (report.files_rewritten, report.files_written, report.records_removed) == (2, 1, 0)
    (only,) = segments(disk)
    assert [found.head.kind for found in frames_of(disk, only)] == [fr.KIND_FOOTER, fr.KIND_CLOSE]
    kept.check_reopened(disk, compacted=True)
    async with life(disk, kept, close=True) as (writer, _caretaker, _log):
        await store(writer, kept, (A, [b"the first record"], 0))
    assert kept.stored[0].lsn == 1
    kept.check_reopened(disk, compacted=True)


# ---- what comes in between -------------------------------------------------------------------------------------------


async def test_fenced_when_the_lock_file_was_replaced_before_a_rewritten_file_is_put_in_its_place() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    before = [*segments(disk), *manifest_paths(disk)]
    async with life(disk, kept) as (_writer, caretaker, log):
        remove(disk, f"{LOG}/LOCK")
        put(disk, f"{LOG}/LOCK", b"")
        with pytest.raises(Fenced):
            await caretaker.compact()
        assert [*segments(disk), *manifest_paths(disk)] == before
        kept.check(log)
    kept.check_reopened(disk)


@pytest.mark.parametrize("operation", ["rename", "sync_directory"])
async def test_after_an_error_half_way_nothing_more_is_replaced_or_removed_before_the_next_opening(
    operation: str,
) -> None:
    """Which of the two manifests counts, only the medium can tell."""
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    failed = 0

    def fail_once(call: Call) -> None:
        nonlocal failed
        if call.operation == operation and (manifest_paths(disk) or operation == "rename"):
            failed += 1
            files.before = None
            raise OSError(errno.EIO, "Input/output error", call.path)

    files = WatchedFiles(disk)
    async with life(files, kept) as (writer, caretaker, log):
        files.before = fail_once
        with pytest.raises(Unavailable, match="open it again"):
            await caretaker.compact()
        assert failed == 1
        listed, start = disk.list_names(LOG), len(files.calls)
        with pytest.raises(Unavailable, match="open it again"):
            await caretaker.compact()
        assert disk.list_names(LOG) == listed
        assert not [call for call in files.calls[start:] if call.operation in ("rename", "unlink", "create", "write")]
        await store(writer, kept, (A, [b"writing goes on"], 0))
        kept.check(log)
    kept.check_reopened(disk)


async def test_a_cancelled_request_leaves_no_file_behind_and_none_open() -> None:
    """At each call that reads or writes for the rewriting, in turn."""
    start = MemoryFileSystem()
    kept = await a_log_with_dead_records(start)
    number, cancelled, finished = 0, 0, False
    while not finished:
        number += 3
        disk = clone(start)
        files = WatchedFiles(disk)
        async with life(files, kept) as (_writer, caretaker, log):
            await trio.testing.wait_all_tasks_blocked()
            first, held = len(files.calls), {file.path for file in files.open_files}
            with trio.CancelScope() as scope:

                def before(call: Call, scope: trio.CancelScope = scope, at: int = first + number) -> None:
                    if call.number == at:
                        scope.cancel()

                files.before = before
                await caretaker.compact()
            files.before = None
            finished = not scope.cancel_called
            if scope.cancelled_caught:
                cancelled += 1
                assert disk.stat(COMPACTED) is None, number
                assert COMPACTED not in {file.path for file in files.open_files}, number
                held_names = set(map(posixpath.basename, held))
                names = {posixpath.basename(file.path) for file in files.open_files} - held_names
                assert names <= {posixpath.basename(segment.path) for segment in log.index.segments}, number
    assert cancelled > 10


@pytest.mark.parametrize("at", ["beginning", "footer"])
async def test_a_log_that_is_closed_while_a_file_is_rewritten_keeps_the_old_files(at: str) -> None:
    """While it is copied, and while its last is written: what has ended then cannot be told any more."""
    disk, kept, _path = await one_dead_enough()
    files = WatchedFiles(disk)
    before = segments(disk)
    async with life(files, kept) as (writer, caretaker, log):
        closed: list[int] = []

        footers: list[int] = []

        def close(call: Call) -> None:
            if call.path != COMPACTED or not call.data:
                return
            if parse_trailer(call.data[-TRAILER_BYTES:]) is not None:
                footers.append(call.number)
            if not closed and (footers or at == "beginning"):
                closed.append(call.number)
                writer.finish()

        files.before = close
        with pytest.raises(Closed):
            await caretaker.compact()
        assert closed
        assert len(footers) == (at == "footer")
        files.before = None
        assert disk.stat(COMPACTED) is None
        assert (segments(disk), manifest_paths(disk)) == (before, [])
        kept.check(log)
    kept.check_reopened(disk)


async def test_replaced_files_that_cannot_be_removed_until_the_log_is_closed_are_removed_by_the_next_opening() -> None:
    disk, kept, path = await one_dead_enough()
    files = WatchedFiles(disk)
    async with life(files, kept, close=True) as (_writer, caretaker, log):

        def stays(call: Call) -> None:
            if call.operation == "unlink" and call.path == path:
                raise OSError(errno.EACCES, "Permission denied", call.path)

        files.before = stays
        with pytest.raises(Unavailable, match="Nothing is lost"):
            await caretaker.compact()
        assert path not in log.paths, "the rewritten file counts"
        kept.check(log, compacted=True)
    assert caretaker.compactor.errors == 2, "the request, and the closing"
    assert path in segments(disk)
    kept.check_reopened(disk, compacted=True)
    assert path not in segments(disk)


async def test_replaced_files_that_could_not_be_removed_in_the_background_go_with_the_next_news(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk, kept, path = await one_dead_enough()
    files = WatchedFiles(disk)
    async with life(files, kept, options=dataclasses.replace(QUIET)) as (_writer, caretaker, log):

        def stays(call: Call) -> None:
            if call.operation == "unlink" and call.path == path:
                raise OSError(errno.EBUSY, "Device or resource busy", call.path)

        files.before = stays
        object.__setattr__(log.options, "compaction_bytes_per_second", 10**9)  # from here on by itself
        caretaker.compactor.notice()
        await trio.sleep(300)
        assert caretaker.compactor.errors == 1, "and not asked for again and again"
        assert path not in log.paths, "the rewritten file counts"
        assert path in segments(disk)
        files.before = None
        caretaker.compactor.notice()
        await trio.sleep(300)
        assert path not in segments(disk)
        assert caretaker.compactor.errors == 1
        kept.check(log, compacted=True)
    kept.check_reopened(disk, compacted=True)


async def test_while_the_disk_is_full_no_rewriting_is_begun(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    async with life(files, kept, options=dataclasses.replace(QUIET)) as (writer, caretaker, log):
        remove(disk, f"{LOG}/reserve")  # or it would be taken for room

        def before(call: Call) -> None:
            if call.operation in ("write", "allocate"):
                raise OSError(errno.ENOSPC, "No space left on device", call.path)

        files.before = before
        submission = writer.submit([])
        await submission.wait()
        assert writer.admission.is_full
        # The rate is looked at anew for each piece of work: from here on it may compact by itself.
        object.__setattr__(log.options, "compaction_bytes_per_second", 10**9)
        caretaker.compactor.notice()
        start = len(files.calls)
        await trio.sleep(300)
        assert COMPACTED not in [call.path for call in files.calls[start:] if call.operation == "create"]
        files.before = None
        await trio.sleep(300)
        assert COMPACTED in [call.path for call in files.calls[start:] if call.operation == "create"]
    kept.check_reopened(disk)
