"""Archives of the finished segments, made beside a writer that knows nothing of it and goes on."""

from __future__ import annotations

import posixpath

import pytest

from stepstore.errors import CorruptLog, InvalidInput, InvalidState, NotFound, Unavailable
from stepstore.log.archive import archive_finished, restore_archive
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log_read_only
from tests.stepstore.compaction_lab import Kept, a_log_with_dead_records, compact, life, put
from tests.stepstore.log_lab import LOG, A, Call, WatchedFiles, clone, flip, frames_of, payload, segments, tree
from tests.stepstore.test_log_archive import ARCHIVE, RESTORED, check_archive, check_restored, upto


async def test_the_finished_segments_are_copied_while_somebody_writes_and_the_log_is_left_as_it_is() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk, close=False)
    async with life(disk, kept) as (writer, _caretaker, log):
        await put(writer, kept, (A, [payload(300)], 0))
        before = tree(disk, LOG)
        told: list[tuple[int, int]] = []
        report = archive_finished(LOG, ARCHIVE, lambda done, total: told.append((done, total)), files=disk)
        assert tree(disk, LOG) == before
        assert report.end_lsn == log.index.segments[-2].end_lsn < writer.watermark.lsn
        assert told[-1] == (report.bytes, report.bytes)
        assert told == sorted(told)
        await put(writer, kept, (A, [payload(400)], 0))
    check_archive(disk, upto(kept, report.end_lsn))
    restore_archive(ARCHIVE, RESTORED, files=disk)
    check_restored(disk, upto(kept, report.end_lsn))


async def test_a_segment_that_a_crash_has_left_without_a_footer_is_finished_too() -> None:
    disk = MemoryFileSystem()
    kept = Kept()
    for seed in range(3):
        async with life(disk, kept) as (writer, _caretaker, _log):
            await put(writer, kept, (A, [payload(3000, seed)], 0))
    report = archive_finished(LOG, ARCHIVE, files=disk)
    assert report.records == 2
    assert [name for name in disk.list_names(ARCHIVE) if name.endswith(".idx")]
    check_archive(disk, upto(kept, report.end_lsn))


async def test_a_log_with_nothing_finished_makes_no_archive() -> None:
    disk = MemoryFileSystem()
    kept = Kept()
    async with life(disk, kept) as (writer, _caretaker, _log):
        await put(writer, kept, (A, [payload(300)], 0))
        with pytest.raises(InvalidState, match="all 1 records are in the one that is written to"):
            archive_finished(LOG, ARCHIVE, files=disk)
    assert disk.stat(ARCHIVE) is None


async def test_what_a_compaction_takes_away_meanwhile_is_copied_as_it_is_then() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    compacted = clone(disk)
    kept_then = Kept(list(kept.stored), kept.snapshots, kept.deleted, kept.tombstones, kept.open_streams)
    await compact(compacted, kept_then)
    gone = set(segments(disk)) - set(segments(compacted))
    assert gone
    files = WatchedFiles(disk)
    copied = 0

    def take_away(call: Call) -> None:
        nonlocal copied
        if call.operation == "create" and call.path.startswith(f"{ARCHIVE}/0"):
            copied += 1
            if copied == 2:  # the second file is about to be copied; the log is compacted just now
                files.inner = compacted
                _move_archive(disk, compacted)
                raise FileNotFoundError(2, "No such file or directory", call.path)

    files.before = take_away
    report = archive_finished(LOG, ARCHIVE, files=files)
    assert copied > 2
    check_archive(compacted, upto(kept_then, report.end_lsn))


def _move_archive(source: MemoryFileSystem, target: MemoryFileSystem) -> None:
    """What of the archive there was by then."""
    target.make_directory(posixpath.dirname(ARCHIVE))
    target.make_directory(ARCHIVE)
    for path, data in tree(source, ARCHIVE).items():
        if data is not None:
            file = target.open(path, create=True)
            file.write(0, data)
            file.close()


async def test_a_log_that_is_compacted_again_and_again_is_given_up() -> None:
    disk = MemoryFileSystem()
    await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    tries: list[str] = []

    def take_away(call: Call) -> None:
        if call.operation == "create" and call.path.startswith(f"{ARCHIVE}/0"):
            tries.append(call.path)
            raise FileNotFoundError(2, "No such file or directory", call.path)

    files.before = take_away
    with pytest.raises(Unavailable, match="each of the 5 times"):
        archive_finished(LOG, ARCHIVE, files=files)
    assert len(tries) == 5
    assert "ARCHIVE" not in disk.list_names(ARCHIVE)
    assert files.open_files == []
    files.before = None
    assert archive_finished(LOG, ARCHIVE, files=files).records > 0  # what was left there is no hindrance


async def test_damage_is_noticed_and_makes_no_archive() -> None:
    disk = MemoryFileSystem()
    await a_log_with_dead_records(disk)
    path = segments(disk)[0]
    flip(disk, path, frames_of(disk, path)[2].end - 3)
    with pytest.raises(CorruptLog) as caught:
        archive_finished(LOG, ARCHIVE, files=disk)
    assert caught.value.file == path
    assert "ARCHIVE" not in disk.list_names(ARCHIVE)


async def test_the_target_is_looked_at_first() -> None:
    disk = MemoryFileSystem()
    await a_log_with_dead_records(disk)
    with pytest.raises(InvalidInput, match="inside"):
        archive_finished(LOG, f"{LOG}/copy", files=disk)
    with pytest.raises(NotFound):
        archive_finished("/nothing", ARCHIVE, files=disk)
    archive_finished(LOG, ARCHIVE, files=disk)
    with pytest.raises(InvalidInput, match="not an empty directory"):
        archive_finished(LOG, ARCHIVE, files=disk)
    log = open_log_read_only(disk, ARCHIVE)
    log.release()
