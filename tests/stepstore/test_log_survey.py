"""`survey_log`: what a log holds, told by its indexes alone."""

from __future__ import annotations

import pytest

from stepstore.errors import NotFound
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log
from stepstore.log.survey import survey_log
from stepstore.log.verify import verify_log
from tests.stepstore.compaction_lab import QUIET, Kept, delete, life, put
from tests.stepstore.log_lab import LOG, A, B, C, WatchedFiles, content, flip, frames_of, payload, segments, tree
from tests.stepstore.log_lab import put as put_file


async def a_log(disk: MemoryFileSystem) -> Kept:
    """Three streams: one ended, one deleted, one open; the deleted one fills the first segment nearly alone."""
    kept = Kept()
    async with life(disk, kept) as (writer, caretaker, _log):
        await put(writer, kept, (A, [b"a", b"b"], FLAG_OPENS), (B, [payload(12_000)], FLAG_OPENS))
        await writer.rotate()
        await caretaker.wait_sealed()
        await put(writer, kept, (A, [b"end"], FLAG_CLOSES), (C, [b"goes on"], FLAG_OPENS))
        await delete(writer, kept, B)
    return kept


async def test_a_survey_counts_what_is_stored_what_is_dead_and_what_is_open() -> None:
    disk = MemoryFileSystem()
    kept = await a_log(disk)
    survey = survey_log(LOG, disk)
    paths = segments(disk)
    assert (survey.segments, survey.sealed) == (2, 1)
    assert survey.log_bytes == sum(len(content(disk, path)) for path in paths)
    assert survey.records == len(kept.stored)
    assert survey.payload_bytes == sum(len(record.payload) for record in kept.stored)
    assert (survey.streams, survey.open_streams, survey.deleted_streams) == (2, 1, 1)
    assert (survey.dead_batches, survey.dead_bytes) == (1, 12_000)
    assert survey.worth_compacting == (paths[0],)
    assert (survey.quarantine_files, survey.quarantine_bytes, survey.notes) == (0, 0, ())


async def test_a_survey_changes_nothing_and_leaves_nothing_open() -> None:
    disk = MemoryFileSystem()
    await a_log(disk)
    before, files = tree(disk), WatchedFiles(disk)
    survey_log(LOG, files)
    assert files.changes(but=()) == []
    assert tree(disk) == before
    assert files.open_files == []


async def test_a_survey_asks_the_index_and_not_the_records() -> None:
    disk = MemoryFileSystem()
    await a_log(disk)
    before = survey_log(LOG, disk)
    flip(disk, segments(disk)[0], frames_of(disk, segments(disk)[0])[0].end - 100)
    assert verify_log(LOG, files=disk).problems
    assert survey_log(LOG, disk) == before


async def test_a_survey_tells_what_openings_have_cut_off() -> None:
    disk = MemoryFileSystem()
    await a_log(disk)
    disk.make_directory(f"{LOG}/quarantine")
    put_file(disk, f"{LOG}/quarantine/one", b"three")
    put_file(disk, f"{LOG}/quarantine/two", b"more")
    survey = survey_log(LOG, disk)
    assert (survey.quarantine_files, survey.quarantine_bytes) == (2, 9)


async def test_a_survey_beside_a_living_writer_sees_what_is_written() -> None:
    disk = MemoryFileSystem()
    kept = Kept()
    async with life(disk, kept) as (writer, _caretaker, _log):
        await put(writer, kept, (A, [b"one", b"two"], FLAG_OPENS))
        assert survey_log(LOG, disk).records == 2


def test_a_survey_of_no_log_says_so_and_makes_none() -> None:
    disk = MemoryFileSystem()
    with pytest.raises(NotFound):
        survey_log(LOG, disk)
    assert tree(disk) == {}
    open_log(disk, LOG, QUIET).release()
    assert survey_log(LOG, disk).records == 0
