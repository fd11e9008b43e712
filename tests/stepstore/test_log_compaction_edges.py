"""Compaction where something else comes in between: a lost lock, an error half way, a cancel, a full disk; and what a
manifest and a rewritten file prove."""

from __future__ import annotations

import errno
import posixpath
from typing import Any

import pytest
import trio
import trio.testing

from stepstore.errors import CorruptLog, Fenced, RecoveryFailed, Unavailable
from stepstore.log.footer import TRAILER_BYTES, encode_trailer, parse_trailer
from stepstore.log.manifest import encode_manifest
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log
from tests.stepstore.compaction_lab import QUIET, Kept, a_log_with_dead_records, compact, delete, life, manifest_paths
from tests.stepstore.compaction_lab import newest as newest_manifest
from tests.stepstore.compaction_lab import put as store
from tests.stepstore.log_lab import (
    LOG,
    A,
    B,
    Call,
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


async def test_while_the_disk_is_full_no_rewriting_is_begun(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    async with life(files, kept) as (writer, caretaker, log):
        remove(disk, f"{LOG}/reserve")  # or it would be taken for room

        def before(call: Call) -> None:
            if call.operation in ("write", "allocate"):
                raise OSError(errno.ENOSPC, "No space left on device", call.path)

        files.before = before
        submission = writer.submit([])
        await submission.wait()
        assert writer.is_full
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
