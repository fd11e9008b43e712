"""Openings, rotations and compactions that were interrupted, as the crash suites found them; each is small."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
import trio

from stepstore.errors import RecoveryFailed, StepwellError
from stepstore.journal.contract import FLAG_OPENS, append, delete, records
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.crash.examining import LOG
from tests.crash.watching import Call, Stopped, WatchedFiles

A, B = b"A" * 16, b"B" * 16
SMALL = LogOptions(segment_bytes=8192)


def dying_in_front_of(disk: MemoryFileSystem, operation: str, path: str) -> WatchedFiles:
    """The process dies at the first such call."""

    def before(call: Call) -> None:
        if (call.operation, call.path) == (operation, path):
            raise Stopped

    return WatchedFiles(disk, before)


def die_opening(disk: MemoryFileSystem, operation: str, path: str) -> MemoryFileSystem:
    """What is left when the process dies while it opens the log, in front of this call."""
    with pytest.raises(Stopped):
        SegmentLogJournal.open(LOG, SMALL, dying_in_front_of(disk, operation, path))
    return disk.page_cache_copy()


def store(files: MemoryFileSystem | WatchedFiles, *payloads: bytes, stream: bytes = A, close: bool = False) -> None:
    """Append to a stream, each record acknowledged, and leave the log by the death of the process, or `close` it."""

    async def main() -> None:
        journal = SegmentLogJournal.open(LOG, SMALL, files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for payload in payloads:
                await append(journal, stream, [payload], expected_seq=journal.last_seq(stream), flags=FLAG_OPENS)
            journal.finish() if close else nursery.cancel_scope.cancel()
        journal.release()

    trio.run(main)


def stored(disk: MemoryFileSystem | WatchedFiles) -> list[bytes]:
    async def main() -> list[bytes]:
        journal = SegmentLogJournal.open(LOG, SMALL, disk)
        try:
            return [record.payload async for record in records(journal, A)]
        finally:
            journal.release()

    return trio.run(main)


def power_cut(disk: MemoryFileSystem, keep: Callable[[str, str], bool]) -> MemoryFileSystem:
    """A power cut that keeps of what is not synced whatever `keep(kind, path)` says."""
    return disk.image({item.number: -1 for item in disk.unsynced() if keep(item.kind, item.path)})


@pytest.mark.parametrize("dies", [True, False])
def test_a_log_whose_directory_an_earlier_opening_made_survives_a_power_cut(dies: bool) -> None:
    """An opening makes the directory, and dies, or meets an error, in front of the sync of its parent. The next one
    finds the directory there, and never syncs the parent: all that is acknowledged goes with the power."""
    disk = MemoryFileSystem()
    if dies:
        disk = die_opening(disk, "sync_directory", "/")
    else:
        with pytest.raises(StepwellError):
            SegmentLogJournal.open(LOG, SMALL, failing_once(disk, "sync_directory", "/"))
    store(disk, b"acknowledged")
    assert stored(disk.durable_copy()) == [b"acknowledged"]


def failing_once(disk: MemoryFileSystem, operation: str, path: str) -> WatchedFiles:
    def before(call: Call) -> None:
        if (call.operation, call.path) == (operation, path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)

    return WatchedFiles(disk, before)


@pytest.mark.parametrize("kept", ["LOCK", ".seg"])
def test_a_log_whose_format_file_an_earlier_opening_made_opens_after_a_power_cut(kept: str) -> None:
    """The first opening dies between the rename to FORMAT and the sync of the directory. The next one finds FORMAT,
    describes itself in LOCK, and begins a segment; a power cut that keeps one of these and not the name FORMAT leaves
    a directory that is refused for ever, as somebody else's or as half of a log."""
    disk = die_opening(MemoryFileSystem(), "sync_directory", LOG)
    with pytest.raises(Stopped):
        SegmentLogJournal.open(LOG, SMALL, dying_in_front_of(disk, "sync_directory", LOG))
    image = power_cut(disk, lambda kind, path: path.endswith((kept, "spare.tmp")))
    assert stored(image) == []


def dying_behind(disk: MemoryFileSystem, operation: str, ending: str) -> WatchedFiles:
    """The process dies in front of the first sync of a directory behind such a call."""
    made: list[Call] = []

    def before(call: Call) -> None:
        if call.operation == "create" and call.path.endswith("sidecar.tmp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)  # its sync of the directory would come in time
        if call.operation == operation and call.path.endswith(ending):
            made.append(call)
        if call.operation == "sync_directory" and made:
            raise Stopped

    return WatchedFiles(disk, before)


def test_a_log_opens_whose_last_two_segments_two_incarnations_began() -> None:
    """A process dies in front of the sync of the directory behind the rename of a new segment. The next one begins
    another behind it; a power cut that keeps the name of that one only leaves a gap, though nothing was in either."""
    disk = MemoryFileSystem()
    store(disk, b"acknowledged")
    for _ in range(2):
        with pytest.raises(BaseExceptionGroup):
            store(dying_behind(disk, "rename", ".seg"), b"on its way")
        disk = disk.page_cache_copy()
    names = [name for name in disk.list_names(LOG) if name.endswith(".seg")]
    assert len(names) == 3
    assert stored(disk.page_cache_copy()) == [b"acknowledged"]
    image = power_cut(disk, lambda kind, path: path.endswith((names[2], "spare.tmp")))
    assert stored(image) == [b"acknowledged"]


async def _delete_and_compact(journal: SegmentLogJournal) -> None:
    await delete(journal, B, b"tombstone")
    assert journal._caretaker is not None
    await journal._caretaker.compact()


def test_a_compacted_log_opens_whose_manifest_a_dead_process_named() -> None:
    """A process dies in front of the sync of the directory behind the rename of a manifest. The next opening removes
    the files that it no longer lists; a power cut that keeps the removals and not the manifest loses what they held."""
    disk = MemoryFileSystem()
    store(disk, b"acknowledged", close=True)
    store(disk, b"to be deleted", stream=B, close=True)
    files = dying_behind(disk, "rename", "/MANIFEST-00000002")

    async def main() -> None:
        journal = SegmentLogJournal.open(LOG, SMALL, files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            await _delete_and_compact(journal)

    with pytest.raises(BaseExceptionGroup):
        trio.run(main)
    disk = disk.page_cache_copy()
    assert stored(disk.page_cache_copy()) == [b"acknowledged"]
    with pytest.raises(Stopped):
        SegmentLogJournal.open(LOG, SMALL, dying_behind(disk, "unlink", ".seg"))
    image = power_cut(disk, lambda kind, path: "MANIFEST" not in path)
    assert stored(image) == [b"acknowledged"]


def only_segment(disk: MemoryFileSystem) -> str:
    (name,) = [name for name in disk.list_names(LOG) if name.endswith(".seg")]
    return f"{LOG}/{name}"


@pytest.mark.parametrize("full_for", [{"allocate", "truncate"}, {"write", "datasync", "allocate"}])
def test_what_a_log_on_a_full_medium_shows_survives_a_power_cut(full_for: set[str]) -> None:
    """A process dies with a record in the page cache. The next opening has no room for its repairs. What it shows to
    readers and followers is made durable first, or it does not open: else a cursor may be beyond the end of the log."""
    disk = MemoryFileSystem()
    store(disk, b"acknowledged")
    first = only_segment(disk)

    def dying(call: Call) -> None:
        if call.operation == "datasync" and call.path.endswith(".seg") and call.path != first:
            raise Stopped

    with pytest.raises(BaseExceptionGroup):
        store(WatchedFiles(disk, dying), b"on its way")
    disk = disk.page_cache_copy()

    def full(call: Call) -> None:
        if call.operation in full_for:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), call.path)

    if "write" in full_for:
        with pytest.raises(RecoveryFailed, match="No space left"):
            stored(WatchedFiles(disk, full))
        assert stored(disk.durable_copy()) == [b"acknowledged"]
    else:
        shown = stored(WatchedFiles(disk, full))
        assert shown == [b"acknowledged", b"on its way"]
        assert stored(disk.durable_copy()) == shown


def failing_from(disk: MemoryFileSystem, wanted: Callable[[Call], bool]) -> tuple[WatchedFiles, list[bool]]:
    """A disk on which such calls fail once the list says so."""
    now: list[bool] = []

    def before(call: Call) -> None:
        if now and wanted(call):
            raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)

    return WatchedFiles(disk, before), now


def test_a_rotation_that_fails_says_so_in_an_error_of_stepwells_own() -> None:
    files, now = failing_from(MemoryFileSystem(), lambda call: call.operation == "datasync")

    async def main() -> None:
        journal = SegmentLogJournal.open(LOG, SMALL, files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            await append(journal, A, [b"one"], expected_seq=0, flags=FLAG_OPENS)
            now.append(True)
            with pytest.raises(StepwellError):
                await journal.rotate()
            nursery.cancel_scope.cancel()
        journal.release()

    trio.run(main)
