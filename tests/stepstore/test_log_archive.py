"""Archives: made while the log is written to and compacted, checked, restored; and cut off at every call."""

from __future__ import annotations

import errno
import json
import pathlib
import posixpath
import re

import pytest
import trio
import trio.testing

from stepstore.errors import CorruptLog, InvalidInput, NotFound, RecoveryFailed, StepwellError, Unavailable
from stepstore.journal import SegmentLogJournal
from stepstore.log import copying, names
from stepstore.log.archive import restore_archive
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.compaction_report import CompactionReport
from stepstore.log.cursor import Cursor, judge_cursor
from stepstore.log.directory import must_exist
from stepstore.log.files import FileSystem
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log, open_log_read_only
from stepstore.log.verify import verify_log
from tests.stepstore.compaction_lab import (
    QUIET,
    Kept,
    PowerCuts,
    a_log_with_dead_records,
    compact,
    delete,
    life,
    newest,
    put,
)
from tests.stepstore.log_lab import (
    LOG,
    A,
    B,
    C,
    Call,
    Checkpoints,
    WatchedFiles,
    clone,
    content,
    failing_at,
    flip,
    frames_of,
    header_of,
    payload,
    segments,
    stream_id,
    tended,
    tree,
)
from tests.stepstore.log_lab import put as put_file

ARCHIVE, RESTORED = "/archives/one", "/restored/log"


def check_archive(disk: FileSystem, kept: Kept, path: str = ARCHIVE) -> None:
    """It lists every file there is; it is sound; and it holds what was stored."""
    listed = json.loads(content(disk, f"{path}/ARCHIVE"))
    names = {item["name"] for item in listed["files"]}
    there = {name for name in disk.list_names(path) if name.endswith((".seg", ".idx"))}
    assert names == there
    others = {name for name in disk.list_names(path) if not name.endswith(".tmp")}
    assert others - there - {newest_name(disk, path)} == {"ARCHIVE", "FORMAT"}
    report = verify_log(path, files=disk, digests=True)
    assert (report.problems, report.notes) == ([], [])
    log = open_log_read_only(disk, path)
    kept.check(log)
    assert log.end_lsn == listed["end_lsn"]
    log.release()


def newest_name(disk: FileSystem, path: str) -> str:
    return next(name for name in disk.list_names(path) if name.startswith("MANIFEST"))


def check_restored(disk: FileSystem, kept: Kept, path: str = RESTORED) -> None:
    """It opens, holds what was stored, and goes on by itself."""
    log = open_log(disk, path, QUIET)
    try:
        kept.check(log)
        assert log.identity.log_uuid == must_exist(disk, LOG).log_uuid
        assert log.identity.branch_uuid != must_exist(disk, LOG).branch_uuid
    finally:
        log.release()
    assert verify_log(path, files=disk, digests=True).problems == []


def upto(kept: Kept, end_lsn: int) -> Kept:
    """What had been stored when the log reached to this record."""
    stored = [record for record in kept.stored if record.lsn <= end_lsn]
    return Kept(stored, kept.snapshots, kept.deleted, kept.tombstones, kept.open_streams)


async def an_archive() -> tuple[MemoryFileSystem, Kept]:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk, close=False)
    async with life(disk, kept) as (_writer, caretaker, _log):
        await caretaker.archive(ARCHIVE)
    return disk, kept


# ---- archiving -------------------------------------------------------------------------------------------------------


async def test_an_archive_holds_what_was_stored_when_it_was_asked_for() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk, close=False)
    before = tree(disk, LOG)
    async with life(disk, kept) as (writer, caretaker, log):
        await put(writer, kept, (A, [payload(300)], 0))
        report = await caretaker.archive(ARCHIVE)
        assert (report.path, report.end_lsn, report.notes) == (ARCHIVE, writer.watermark.lsn, ())
        assert report.files >= len(log.paths) - 1
        assert report.bytes == sum(
            len(content(disk, f"{ARCHIVE}/{name}")) for name in disk.list_names(ARCHIVE) if name[0] == "0"
        )
        await put(writer, kept, (A, [payload(400)], 0))
    check_archive(disk, upto(kept, report.end_lsn))
    for path in [path for path in before if path.endswith(".seg")][:-1]:  # the opening has cut the last one
        assert content(disk, path) == before[path]
    assert not [name for name in disk.list_names(LOG) if name.endswith(".tmp")]
    kept.check_reopened(disk)


async def test_an_archive_is_made_while_the_log_is_written_to_compacted_and_purged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    done: list[str] = []

    async with life(disk, kept) as (writer, caretaker, _log):

        async def write() -> None:
            while len(done) < 2:
                await put(writer, kept, (A, [payload(700)], 0))
                await trio.sleep(0.1)

        async def compact_all() -> CompactionReport:
            report = await caretaker.compact()
            done.append("compacted")
            return report

        async def purge() -> None:
            assert (await caretaker.compact(purge=True)).is_proven
            done.append("purged")

        slow = SlowCopies(caretaker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(slow.archive)
            await slow.pinned.wait()
            nursery.start_soon(purge)
            await compact_all()
            await trio.sleep(2)
            assert done == ["compacted"]  # while the purge waits for the archive
            slow.go_on.set()
        assert done == ["compacted", "purged"]
        kept.check(_log, compacted=True)
    assert len(upto(kept, slow.end_lsn).stored) < len(kept.stored)
    check_archive(disk, upto(kept, slow.end_lsn))
    kept.check_reopened(disk)


class SlowCopies:
    """An archive that waits between pinning and copying."""

    def __init__(self, caretaker: LogCaretaker):
        self._caretaker, archiver = caretaker, caretaker._archiver
        self.pinned, self.go_on, self.end_lsn = trio.Event(), trio.Event(), 0
        blocking = archiver._blocking

        async def slowly(call: object, *args: object) -> object:
            name = getattr(call, "__name__", "")
            if name == "has_more" and not self.pinned.is_set():
                self.pinned.set()
                await self.go_on.wait()
            return await blocking(call, *args)  # type: ignore[arg-type]

        archiver._blocking = slowly  # type: ignore[assignment]

    async def archive(self) -> None:
        self.end_lsn = (await self._caretaker.archive(ARCHIVE)).end_lsn


async def test_where_there_are_no_hard_links_compaction_waits_for_the_copies(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    links = 0

    def before(call: Call) -> None:
        nonlocal links
        if call.operation == "link":
            links += 1
            if links == 3:
                raise OSError(errno.EPERM, "Operation not permitted", call.path)

    async with life(WatchedFiles(disk, before), kept) as (_writer, caretaker, _log):
        slow = SlowCopies(caretaker)
        finished: list[str] = []

        async def compact_all() -> None:
            await caretaker.compact()
            finished.append("compacted")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.archive)
            await slow.pinned.wait()
            assert not [name for name in disk.list_names(LOG) if name.endswith(".archive.tmp")]
            nursery.start_soon(compact_all)
            await trio.sleep(5)
            assert finished == []
            slow.go_on.set()
    check_archive(disk, kept)
    kept.check_reopened(disk, compacted=True)


async def test_a_file_without_a_footer_is_archived_with_its_sidecar_and_without_what_lies_behind_its_end() -> None:
    disk = MemoryFileSystem()
    kept = Kept()
    async with life(disk, kept) as (writer, _caretaker, _log):
        await put(writer, kept, (A, [payload(3000)], 0))
    assert len(content(disk, segments(disk)[0])) == 16 * 1024
    async with life(disk, kept) as (writer, caretaker, _log):
        await put(writer, kept, (B, [payload(3000)], 0))
        report = await caretaker.archive(ARCHIVE)
        assert report.files == 3
    assert [name for name in disk.list_names(ARCHIVE) if name.endswith(".idx")] == ["00000001-0000000000000001.idx"]
    assert len(content(disk, f"{ARCHIVE}/00000001-0000000000000001.0.seg")) < 4000
    check_archive(disk, kept)
    restore_archive(ARCHIVE, RESTORED, files=disk)
    check_restored(disk, kept)


@pytest.mark.parametrize("close", [True, False])
async def test_a_log_that_only_was_opened_is_archived(close: bool) -> None:
    disk = MemoryFileSystem()
    kept = Kept()
    async with life(disk, kept, close=close) as (_writer, caretaker, _log):
        report = await caretaker.archive("/archives/empty")
        assert (report.files, report.records, report.end_lsn) == (0, 0, 0)
        names = ["ARCHIVE", "FORMAT"]
        assert disk.list_names("/archives/empty") == names
    restore_archive("/archives/empty", RESTORED, files=disk)
    check_restored(disk, kept)


async def test_a_compacted_log_is_archived_restored_written_to_compacted_and_archived_again() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    ends: list[tuple[int, int]] = []
    place = LOG
    branches = {must_exist(disk, LOG).branch_uuid}
    for part in range(3):
        log = open_log(disk, place, QUIET)
        async with tended(log) as (writer, caretaker):
            ends = log.epoch_ends()
            await put(writer, kept, (A, [payload(3000, part)], 0), (stream_id(f"part {part}"), [b"x"], 0))
            await caretaker.archive(f"/archives/{part}")
        restored = restore_archive(f"/archives/{part}", f"/restored/{part}", files=disk)
        place = f"/restored/{part}"
        assert restored.records == verify_log(place, files=disk).records
        log = open_log(disk, place, QUIET)
        branches.add(log.identity.branch_uuid)
        kept.check(log)
        assert log.epoch_ends()[: len(ends)] == ends
        async with tended(log) as (writer, caretaker):
            await put(writer, kept, (C, [payload(5000, part)], 0))
            if part == 1:
                await delete(writer, kept, stream_id("part 0"))
                assert (await caretaker.compact(purge=True)).is_proven
                kept.check(log, compacted=True)
            await writer.rotate()
        files = [header_of(disk, path).branch_uuid for path in segments(disk, place)]
        assert len({*files}) > 1
    assert len(branches) == 4
    assert verify_log(place, files=disk, digests=True).problems == []


async def test_cursors_of_the_original_are_not_taken_for_cursors_of_the_restored() -> None:
    disk, _kept = await an_archive()
    restore_archive(ARCHIVE, RESTORED, files=disk)
    original = must_exist(disk, LOG)
    log = open_log_read_only(disk, RESTORED)
    cursor = Cursor(original.log_uuid, original.branch_uuid, 1, 10)
    assert judge_cursor(cursor, log.identity, log.epoch_ends(), log.end_lsn) == "another branch"
    own = cursor._replace(branch_uuid=log.identity.branch_uuid)
    assert judge_cursor(own, log.identity, log.epoch_ends(), log.end_lsn) == "valid"
    log.release()


# ---- where it is refused ---------------------------------------------------------------------------------------------


async def test_a_target_that_is_not_empty_is_refused_and_left_alone() -> None:
    disk, kept = await an_archive()
    put_file_at(disk, "/full/of.something", b"else")
    put_file_at(disk, "/file", b"a file")
    before = tree(disk)
    async with life(disk, kept) as (_writer, caretaker, _log):
        for target in ("/full", "/file", ARCHIVE, LOG, f"{LOG}/inside"):
            with pytest.raises(InvalidInput, match="target"):
                await caretaker.archive(target)
    for target in ("/full", "/file", ARCHIVE, LOG, f"{ARCHIVE}/inside"):
        with pytest.raises(InvalidInput, match="target"):
            restore_archive(ARCHIVE, target, files=disk)
    after = tree(disk)
    assert {path: data for path, data in before.items() if not path.startswith(LOG)} == {
        path: data for path, data in after.items() if not path.startswith(LOG)
    }


async def test_what_came_to_the_target_while_archiving_waited_for_a_compaction_is_left_alone() -> None:
    disk, kept = await an_archive()
    async with life(disk, kept) as (_writer, caretaker, _log), trio.open_nursery() as nursery:
        refused = trio.Event()

        async def archive() -> None:
            with pytest.raises(InvalidInput, match="target"):
                await caretaker.archive("/archives/two")
            refused.set()

        async with caretaker.compactor.rewriter.turn:
            nursery.start_soon(archive)
            await trio.testing.wait_all_tasks_blocked()
            put_file_at(disk, "/archives/two/of.somebody", b"else")
        await refused.wait()
        assert not [name for name in disk.list_names(LOG) if name.endswith(names.PIN)]
    assert content(disk, "/archives/two/of.somebody") == b"else"
    assert disk.list_names("/archives/two") == ["of.somebody"]


async def test_restoring_twice_at_once_to_one_place_keeps_the_log_that_was_there_first() -> None:
    disk, kept = await an_archive()
    before: dict[str, bytes | None] = {}

    def restore_first(call: Call) -> None:
        if not before and call.operation == "read" and call.path.endswith(".seg"):
            restore_archive(ARCHIVE, RESTORED, files=disk)
            before.update(tree(disk, RESTORED))

    with pytest.raises(InvalidInput, match="target"):
        restore_archive(ARCHIVE, RESTORED, files=WatchedFiles(disk, restore_first))
    assert before
    assert tree(disk, RESTORED) == before
    check_restored(disk, kept)


@pytest.mark.parametrize("through", ["the link", "the directory"])
async def test_a_target_inside_the_log_or_the_archive_is_refused_whatever_names_lead_there(
    tmp_path: pathlib.Path, through: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    link, there = str(tmp_path / "link"), str(tmp_path / "there")
    opened, named = (link, there) if through == "the directory" else (there, link)
    journal = SegmentLogJournal.open(f"{opened}/log")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        with pytest.raises(InvalidInput, match="inside"):
            await journal.archive(f"{named}/log/backup/one")
        await journal.archive(f"/{named}/archive")  # two slashes at the root are another root to the text of a path
        journal.finish()
    journal.release()
    with pytest.raises(InvalidInput, match="inside"):
        restore_archive(f"{opened}/archive", f"{named}/archive/log")
    assert not (tmp_path / "there" / "log" / "backup").exists()
    assert not (tmp_path / "there" / "archive" / "log").exists()


async def test_a_target_that_cannot_be_looked_at_is_an_error_of_the_medium(tmp_path: pathlib.Path) -> None:
    journal = SegmentLogJournal.open(str(tmp_path / "log"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for target in ("x" * 300, "log/LOCK/inside"):  # a name too long, and a file where a directory should be
            with pytest.raises(Unavailable, match="could not archive"):
                await journal.archive(str(tmp_path / target))
        journal.finish()
    journal.release()


def put_file_at(disk: MemoryFileSystem, path: str, data: bytes) -> None:
    folder = posixpath.dirname(path)
    if disk.stat(folder) is None:
        disk.make_directory(folder)
    put_file(disk, path, data)


async def test_an_archive_is_read_but_not_written_to() -> None:
    disk, kept = await an_archive()
    with pytest.raises(InvalidInput, match="archive"):
        open_log(disk, ARCHIVE, QUIET)
    check_archive(disk, kept)


async def test_what_is_no_archive_is_not_restored() -> None:
    disk, _kept = await an_archive()
    for source in ("/nowhere", LOG):
        with pytest.raises(NotFound):
            restore_archive(source, RESTORED, files=disk)
    assert disk.stat(RESTORED) is None
    put_file(disk, f"{ARCHIVE}/ARCHIVE", content(disk, f"{ARCHIVE}/ARCHIVE").replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(RecoveryFailed, match="version"):
        restore_archive(ARCHIVE, RESTORED, files=disk)


async def test_a_flipped_bit_in_any_file_of_an_archive_is_refused_and_makes_no_log() -> None:
    disk, _kept = await an_archive()
    refused = 0
    for name in disk.list_names(ARCHIVE):
        path = f"{ARCHIVE}/{name}"
        data = content(disk, path)
        for at in range(0, len(data), max(len(data) // 7, 1)):
            if name == "ARCHIVE" and chr(data[at]) in ' \n":{}[],':
                continue  # what people read; a letter of it may be another one
            image = clone(disk)
            flip(image, path, at, 2)
            try:
                restore_archive(ARCHIVE, RESTORED, files=image)
            except (CorruptLog, RecoveryFailed, NotFound):
                refused += 1
                assert image.stat(RESTORED) is None or "FORMAT" not in image.list_names(RESTORED)
            else:
                assert name == "ARCHIVE", (name, at)
    assert refused > 60


async def test_a_missing_or_added_file_of_an_archive_is_noticed() -> None:
    disk, kept = await an_archive()
    for name in disk.list_names(ARCHIVE):
        image = clone(disk)
        image.unlink(f"{ARCHIVE}/{name}")
        with pytest.raises((CorruptLog, NotFound)):
            restore_archive(ARCHIVE, RESTORED, files=image)
        assert image.stat(RESTORED) is None
    put_file(disk, f"{ARCHIVE}/notes.txt", b"whatever")
    restore_archive(ARCHIVE, RESTORED, files=disk)
    assert "notes.txt" not in disk.list_names(RESTORED)
    check_restored(disk, kept)


@pytest.mark.parametrize("name", ["../../etc/passwd", "FORMAT", "/etc/passwd", "x.seg"])
async def test_a_list_that_names_what_no_archive_has_is_refused(name: str) -> None:
    disk, _kept = await an_archive()
    listed = json.loads(content(disk, f"{ARCHIVE}/ARCHIVE"))
    listed["files"].append({"name": name, "bytes": 0, "blake2b": ""})
    put_file(disk, f"{ARCHIVE}/ARCHIVE", json.dumps(listed).encode())
    with pytest.raises(CorruptLog):
        restore_archive(ARCHIVE, RESTORED, files=disk)
    assert disk.stat(RESTORED) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r'"bytes": \d+', '"bytes": Infinity'),
        (r'"bytes": \d+', '"bytes": 1e999'),
        (r'"log_uuid": "[^"]+"', '"log_uuid": 5'),
        (r'"branch_uuid": "[^"]+"', '"branch_uuid": [1]'),
        (r'"files": \[\s*(\{[^}]*\})', r'"files": [\1, \1'),
    ],
    ids=["an endless file", "a number beyond all floats", "a log that is a number", "a branch that is none", "twice"],
)
async def test_a_list_with_values_that_no_archive_has_is_refused(old: str, new: str) -> None:
    disk, _kept = await an_archive()
    listed = content(disk, f"{ARCHIVE}/ARCHIVE").decode()
    changed = re.sub(old, new, listed, count=1)
    assert changed != listed
    put_file(disk, f"{ARCHIVE}/ARCHIVE", changed.encode())
    with pytest.raises(CorruptLog):
        restore_archive(ARCHIVE, RESTORED, files=disk)
    assert disk.stat(RESTORED) is None


async def test_damage_in_the_log_is_noticed_by_archiving_it() -> None:
    disk = MemoryFileSystem()
    await a_log_with_dead_records(disk, close=False)
    for number, path in enumerate(segments(disk)):
        image = clone(disk)
        flip(image, path, frames_of(disk, path)[0].end - 3)
        try:
            log = open_log(image, LOG, QUIET)
        except CorruptLog:
            assert number == len(segments(disk)) - 1  # which has no footer, so its frames were read
            continue
        async with tended(log) as (_writer, caretaker):
            with pytest.raises(CorruptLog) as caught:
                await caretaker.archive(ARCHIVE)
            assert caught.value.file in (path, f"{ARCHIVE}/{posixpath.basename(path)}")
        assert "ARCHIVE" not in image.list_names(ARCHIVE)
        assert not [name for name in image.list_names(LOG) if name.endswith(".tmp")]
        with pytest.raises(NotFound):
            restore_archive(ARCHIVE, RESTORED, files=image)


# ---- crashes, errors, cancels ----------------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # traced for coverage on a busy machine it takes minutes
async def test_a_power_cut_at_any_call_of_archiving_hurts_nothing_and_archiving_again_works() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    cuts = PowerCuts(disk, 41, at_random=1)
    files = WatchedFiles(disk)
    async with life(files, kept) as (writer, caretaker, _log):
        await put(writer, kept, (A, [payload(20)], 0))
        files.before = cuts
        await caretaker.archive(ARCHIVE)
        files.before = None
    assert len(cuts.images) > 150
    whole = 0
    for call, image in cuts.images:
        kept.check_reopened(image, call)
        listed = image.list_names(ARCHIVE) if image.stat(ARCHIVE) else []
        if "ARCHIVE" in listed:
            whole += 1
        else:
            with pytest.raises(NotFound):
                restore_archive(ARCHIVE, RESTORED, files=image)
            async with life(image, kept) as (_writer, caretaker, _log):
                await caretaker.archive(ARCHIVE)
        check_archive(image, kept)
    assert whole > 2
    print(f"{len(cuts.images)} images, {whole} of them with a whole archive")


async def test_a_power_cut_at_any_call_of_restoring_leaves_a_log_or_none() -> None:
    disk, kept = await an_archive()
    cuts = PowerCuts(disk, 43, at_random=1)
    restore_archive(ARCHIVE, RESTORED, files=WatchedFiles(disk, cuts))
    assert len(cuts.images) > 100
    whole = 0
    for call, image in cuts.images:
        listed = image.list_names(RESTORED) if image.stat(RESTORED) else []
        if "FORMAT" in listed:
            whole += 1
        else:
            if listed:
                with pytest.raises((CorruptLog, InvalidInput)):
                    open_log(clone(image), RESTORED, QUIET)
            restore_archive(ARCHIVE, RESTORED, files=image)
        check_restored(image, kept)
        assert "RESTORING" not in image.list_names(RESTORED), call
    assert whole > 0
    print(f"{len(cuts.images)} images, {whole} of them with a whole log")


@pytest.mark.parametrize("error_number", [errno.EIO, errno.ENOSPC])
async def test_an_error_at_any_call_of_archiving_is_declared_and_the_log_goes_on(error_number: int) -> None:
    start = MemoryFileSystem()
    kept = await a_log_with_dead_records(start)
    number, failed, finished = 0, 0, False
    while not finished:
        number += 1
        disk = clone(start)
        files = WatchedFiles(disk)
        async with life(files, kept) as (_writer, caretaker, log):
            armed = len(files.calls) + number
            files.before = failing_at(armed, error_number)
            try:
                await caretaker.archive(ARCHIVE)
            except StepwellError as error:
                assert isinstance(error, (Unavailable, RecoveryFailed)), number
                failed += 1
            else:
                files.before = None
                check_archive(disk, kept)
            finished = len(files.calls) < armed
            files.before = None
            kept.check(log, number)
            if "ARCHIVE" not in (disk.list_names(ARCHIVE) if disk.stat(ARCHIVE) else []):
                await caretaker.archive(ARCHIVE)
                check_archive(disk, kept)
        kept.check_reopened(disk, number)
    assert failed > 60
    print(f"{number - 1} calls, {failed} errors failed the archive")


async def test_an_error_at_any_call_of_restoring_is_declared_and_restoring_again_works() -> None:
    disk, kept = await an_archive()
    number, failed, finished = 0, 0, False
    while not finished:
        number += 1
        image = clone(disk)
        files = WatchedFiles(image, failing_at(number, errno.EIO))
        try:
            restore_archive(ARCHIVE, RESTORED, files=files)
        except (OSError, StepwellError):
            failed += 1
            if image.stat(RESTORED) is None or "FORMAT" not in image.list_names(RESTORED):
                restore_archive(ARCHIVE, RESTORED, files=image)
        finished = len(files.calls) < number
        check_restored(image, kept)
    assert failed > 60


async def test_a_cancelled_archive_leaves_no_second_names() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(clone(disk), kept) as (_writer, caretaker, _log):
        with Checkpoints(None) as count:
            await caretaker.archive(ARCHIVE)
    assert count.seen > 20
    for number in range(1, count.seen + 1):
        copy = clone(disk)
        async with life(copy, kept) as (_writer, caretaker, _log):
            with trio.CancelScope() as scope, Checkpoints(scope, number):
                await caretaker.archive(ARCHIVE)
            assert not [name for name in copy.list_names(LOG) if name.endswith(".tmp") and name != "spare.tmp"], number
            if "ARCHIVE" not in (copy.list_names(ARCHIVE) if copy.stat(ARCHIVE) else []):
                await caretaker.archive(ARCHIVE)
            check_archive(copy, kept)


async def test_second_names_that_a_crash_left_are_removed_by_the_next_opening() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    for path in segments(disk):
        disk.link(path, f"{path}.archive.tmp")
    disk.sync_directory(LOG)
    kept.check_reopened(disk)


async def test_what_is_read_back_is_compared_with_what_was_written() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)

    def spoil(call: Call, data: bytes) -> bytes:
        return data[:-1] + b"?" if call.path.startswith("/archives") and call.path.endswith(".0.seg") else data

    async with life(files, kept) as (_writer, caretaker, _log):
        files.spoil_read = spoil
        with pytest.raises((Unavailable, CorruptLog), match=r"read back|damaged"):
            await caretaker.archive(ARCHIVE)
        files.spoil_read = None
        await caretaker.archive(ARCHIVE)
    check_archive(disk, kept)


async def test_second_names_that_could_not_be_removed_are_in_nobodys_way() -> None:
    """The log goes on, and the next archive is one of what is there then."""
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    async with life(files, kept) as (writer, caretaker, _log):

        def stays(call: Call) -> None:
            if call.operation == "unlink" and call.path.endswith(".archive.tmp"):
                raise OSError(errno.EIO, "Input/output error", call.path)

        files.before = stays
        await caretaker.archive("/archives/first")
        files.before = None
        left = [name for name in disk.list_names(LOG) if name.endswith(".archive.tmp")]
        assert left
        assert caretaker.compactor.errors == 1
        disk.unlink(f"{LOG}/{left[0]}")
        put_file(disk, f"{LOG}/{left[0]}", b"something else by now")
        await put(writer, kept, (A, [payload(300)], 0))
        await caretaker.archive(ARCHIVE)
        assert not [name for name in disk.list_names(LOG) if name.endswith(".archive.tmp")]
    check_archive(disk, kept)


async def test_a_file_without_a_footer_and_without_a_sidecar_yet_is_archived_from_its_frames() -> None:
    """The sidecar could not be written."""
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, _caretaker, _log):
        await put(writer, kept, (A, [payload(3000)], 0))
    files = WatchedFiles(disk)

    def no_sidecar(call: Call) -> None:
        if call.operation == "create" and call.path == posixpath.join(LOG, names.SIDECAR_TEMPORARY):
            raise OSError(errno.ENOSPC, "No space left on device", call.path)

    log = open_log(files, LOG, QUIET)
    files.before = no_sidecar
    async with tended(log) as (writer, caretaker):
        await put(writer, kept, (B, [payload(3000)], 0))
        report = await caretaker.archive(ARCHIVE)
        assert report.files == 2
    assert not [name for name in disk.list_names(ARCHIVE) if name.endswith(".idx")]
    restore_archive(ARCHIVE, RESTORED, files=disk)
    check_restored(disk, kept)


async def test_a_file_is_compared_with_its_digest_wherever_the_blocks_it_is_read_in_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    monkeypatch.setattr(copying, "_BLOCK", 1000)
    async with life(disk, kept) as (_writer, caretaker, _log):
        await caretaker.archive(ARCHIVE)
        path = segments(disk)[0]
        flip(disk, path, frames_of(disk, path)[3].end - 3)
        with pytest.raises(CorruptLog, match="digest") as caught:
            await caretaker.archive("/archives/two")
        assert caught.value.file == path
    check_archive(disk, kept)


async def test_a_restoring_tells_how_far_it_is() -> None:
    disk, kept = await an_archive()
    told: list[tuple[int, int]] = []
    report = restore_archive(ARCHIVE, RESTORED, lambda done, total: told.append((done, total)), files=disk)
    sizes = [item["bytes"] for item in json.loads(content(disk, f"{ARCHIVE}/ARCHIVE"))["files"]]
    assert len(sizes) > 3
    assert told == [(sum(sizes[: n + 1]), sum(sizes)) for n in range(len(sizes))]
    assert report.bytes == sum(sizes)
    check_restored(disk, kept)


async def test_an_archive_that_changes_between_its_check_and_its_copy_makes_no_log() -> None:
    disk, _kept = await an_archive()
    files = WatchedFiles(disk)
    path = f"{ARCHIVE}/{posixpath.basename(segments(disk, ARCHIVE)[1])}"

    def spoil(call: Call, data: bytes) -> bytes:
        copying = any(call.operation == "create" and call.path.startswith(RESTORED) for call in files.calls)
        return b"?" + data[1:] if call.path == path and copying else data

    files.spoil_read = spoil
    with pytest.raises(CorruptLog) as caught:
        restore_archive(ARCHIVE, RESTORED, files=files)
    assert caught.value.file == path
    assert "FORMAT" not in disk.list_names(RESTORED)


@pytest.mark.parametrize("short", [False, True], ids=["other bytes", "fewer bytes"])
async def test_a_restored_file_that_is_read_back_otherwise_makes_no_log(short: bool) -> None:
    disk, kept = await an_archive()
    files = WatchedFiles(disk)

    def spoil(call: Call, data: bytes) -> bytes:
        if not call.path.startswith(RESTORED) or not call.path.endswith(".seg"):
            return data
        return data[:-1] if short else data[:-1] + b"?"

    files.spoil_read = spoil
    with pytest.raises(OSError, match="gave" if short else "read back is not what was written") as caught:
        restore_archive(ARCHIVE, RESTORED, files=files)
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == segments(disk, RESTORED)[0]
    assert "FORMAT" not in disk.list_names(RESTORED)
    restore_archive(ARCHIVE, RESTORED, files=disk)
    check_restored(disk, kept)


async def test_a_file_of_the_log_that_is_gone_is_named_by_archiving_it() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(disk, kept) as (_writer, caretaker, _log):
        path = segments(disk)[1]
        disk.unlink(path)
        with pytest.raises(Unavailable, match=posixpath.basename(path)):
            await caretaker.archive(ARCHIVE)
    with pytest.raises(NotFound):
        restore_archive(ARCHIVE, RESTORED, files=disk)


async def test_a_restored_log_keeps_the_manifest_of_a_merged_one() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    ends = kept.epoch_ends
    async with life(disk, kept) as (_writer, caretaker, _log):
        await caretaker.archive(ARCHIVE)
    restore_archive(ARCHIVE, RESTORED, files=disk)
    manifest = newest(disk, RESTORED)
    assert [*manifest.epochs] == ends
    assert manifest.branch_uuid == must_exist(disk, RESTORED).branch_uuid.bytes
    assert {file.branch_uuid for file in manifest.files} == {must_exist(disk, LOG).branch_uuid.bytes}
    put_file(
        disk, f"{RESTORED}/{newest_name(disk, RESTORED)}", content(disk, f"{ARCHIVE}/{newest_name(disk, ARCHIVE)}")
    )
    with pytest.raises(CorruptLog) as caught:
        open_log(disk, RESTORED, LogOptions(segment_bytes=16 * 1024))
    assert caught.value.row in (7, 13)
