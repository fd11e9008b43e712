"""Opening a directory as a log: the first time, the second time, at the same time, and where it is none."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import uuid

import pytest

from stepstore.errors import CorruptLog, Fenced, InvalidInput, LogLocked, NotFound, RecoveryFailed
from stepstore.log.directory import look
from stepstore.log.files import OsFileSystem
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log, open_log_read_only
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    Call,
    Stopped,
    WatchedFiles,
    clone,
    content,
    failing_at,
    move,
    put,
    read_log,
    remove,
    reopen,
    segments,
    stopping_at,
    store,
    tree,
    write_log,
    writing,
)

DEEP = "/a/b/log"


def a_log() -> MemoryFileSystem:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(A, [b"two"])]])
    return disk


# ---- the first open --------------------------------------------------------------------------------------------------


def test_a_first_open_makes_a_log_that_is_empty() -> None:
    disk = MemoryFileSystem()
    found, report = reopen(disk, DEEP)
    assert found == []
    assert (report.segments, report.records, report.bytes_cut, report.notes) == (0, 0, 0, ())
    assert disk.list_names(DEEP) == ["00000001-0000000000000001.0.seg", "FORMAT", "LOCK", "reserve"]
    kind, version, log_uuid, branch_uuid = content(disk, f"{DEEP}/FORMAT").decode().rstrip("\n").rsplit(" ", 3)
    assert (kind, version) == ("stepwell log", "v1")
    assert uuid.UUID(log_uuid) != uuid.UUID(branch_uuid)


def test_a_first_open_creates_nothing_before_it_has_looked() -> None:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    files = WatchedFiles(disk)
    open_log(files, LOG, SMALL).release()
    first_change = min(call.number for call in files.changes(but=()))
    looked = [call.number for call in files.calls if call.operation == "list_names" and call.path == LOG]
    assert looked[0] < first_change


def test_a_first_open_syncs_each_new_level_into_its_parent() -> None:
    disk = MemoryFileSystem()
    open_log(disk, DEEP, SMALL).release()
    assert [path for path, data in tree(disk.durable_copy()).items() if data is None] == ["/a", "/a/b", "/a/b/log"]


def must_open_empty(image: MemoryFileSystem, after: Call) -> None:
    for again in range(2):  # the second time, it is not the first open any more
        found, report = reopen(image, DEEP)
        assert (found, report.bytes_cut) == ([], 0), f"opening {again} after a crash in front of {after}"
    assert not [name for name in image.list_names(DEEP) if name.endswith(".tmp")]


def test_a_power_cut_at_any_call_of_a_first_open_leaves_what_opens_as_an_empty_log() -> None:
    disk = MemoryFileSystem()
    dice = random.Random(11)
    images: list[tuple[Call, MemoryFileSystem]] = []

    def crash(call: Call) -> None:
        images.extend((call, image) for image in (disk.durable_copy(), clone(disk)))
        images.extend((call, disk.crash_copy(dice.randrange)) for _ in range(4))

    files = WatchedFiles(disk, crash)
    open_log(files, DEEP, SMALL).release()
    files.before = None
    assert len(files.calls) > 30
    for call, image in [*images, (files.calls[-1], disk.durable_copy())]:
        must_open_empty(image, call)


def test_a_process_that_dies_at_any_call_of_a_first_open_can_be_followed_by_another() -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        disk = MemoryFileSystem()
        files = WatchedFiles(disk, stopping_at(number))
        try:
            open_log(files, DEEP, SMALL).release()
            finished = True
        except Stopped:
            must_open_empty(disk, files.calls[number - 1])
    assert number > 30


@pytest.mark.parametrize("error_number", [errno.EIO, errno.EACCES, errno.ENOSPC])
def test_an_error_at_any_call_of_a_first_open_is_declared_and_can_be_mended(error_number: int) -> None:
    refused = 0
    for number in range(1, 100):
        disk = MemoryFileSystem()
        files = WatchedFiles(disk, failing_at(number, error_number))
        try:
            open_log(files, DEEP, SMALL).release()
        except RecoveryFailed as error:
            refused += 1
            assert isinstance(error.__cause__, OSError)
            assert error.errno in (error_number, errno.EIO)
        if len(files.calls) < number:
            break
        must_open_empty(disk, files.calls[number - 1])
    assert refused > 20


def test_a_read_only_place_is_recovery_failed_with_its_errno() -> None:
    def read_only(call: Call) -> None:
        if call.operation in ("create", "make_directory", "write", "unlink", "rename"):
            raise OSError(errno.EACCES, "Permission denied", call.path)

    for disk, where in [(MemoryFileSystem(), DEEP), (a_log(), LOG)]:
        before = tree(disk)
        with pytest.raises(RecoveryFailed) as caught:
            open_log(WatchedFiles(disk, read_only), where, SMALL)
        assert caught.value.errno == errno.EACCES
        assert tree(disk) == before


# ---- what is not a log -----------------------------------------------------------------------------------------------


def refused(disk: MemoryFileSystem, path: str, kind: type[Exception]) -> Exception:
    """Opening raises and changes nothing, in either mode."""
    before = tree(disk)
    files = WatchedFiles(disk)
    with pytest.raises(kind):
        open_log_read_only(files, path)
    with pytest.raises(kind) as caught:
        open_log(files, path, SMALL)
    assert files.changes() == []
    assert tree(disk) == before
    return caught.value


def test_a_file_instead_of_a_directory_is_invalid_input() -> None:
    disk = MemoryFileSystem()
    put(disk, "/file", b"text")
    assert "is a file" in str(refused(disk, "/file", InvalidInput))
    assert "not a directory" in str(refused(disk, "/file/below", InvalidInput))


def test_a_file_instead_of_a_directory_is_invalid_input_on_a_real_disk(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("text")
    for name in ("file", "file/below", "file/far/below"):
        with pytest.raises(InvalidInput, match="file"):
            open_log(OsFileSystem(), str(tmp_path / name), SMALL)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("others", [["notes.txt"], ["src", "Makefile"], ["LOCK.txt", "FORMAT.old"]], ids=str)
def test_a_directory_of_something_else_is_invalid_input(others: list[str]) -> None:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    for name in others:
        put(disk, f"{LOG}/{name}", b"mine")
    error = refused(disk, LOG, InvalidInput)
    assert "something else" in str(error)
    assert others[0] in str(error)


def test_a_lock_file_with_text_in_it_is_somebody_elses() -> None:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    put(disk, f"{LOG}/LOCK", b"4711\n")
    assert "LOCK" in str(refused(disk, LOG, InvalidInput))


def test_an_empty_directory_and_the_rests_of_a_first_open_become_a_log() -> None:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    put(disk, f"{LOG}/LOCK", b"")
    put(disk, f"{LOG}/FORMAT.tmp", b"stepwell lo")
    assert look(disk, LOG) is None
    assert reopen(disk)[0] == []
    assert disk.stat(f"{LOG}/FORMAT.tmp") is None


def test_reading_only_where_no_log_is_finds_nothing_and_creates_nothing() -> None:
    disk = MemoryFileSystem()
    with pytest.raises(NotFound):
        open_log_read_only(disk, LOG)
    disk.make_directory(LOG)
    with pytest.raises(NotFound):
        open_log_read_only(disk, LOG)
    assert tree(disk) == {LOG: None}


# ---- FORMAT ----------------------------------------------------------------------------------------------------------


def test_row_15_segments_without_format_are_refused_and_never_initialised() -> None:
    disk = a_log()
    remove(disk, f"{LOG}/FORMAT")
    error = refused(disk, LOG, CorruptLog)
    assert isinstance(error, CorruptLog)
    assert (error.row, error.file) == (15, f"{LOG}/FORMAT")


GOOD_FORMAT = "stepwell log v1 {0} {0}\n".format("0" * 8 + "-0000" * 3 + "-" + "0" * 12).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        GOOD_FORMAT[:-1],
        GOOD_FORMAT + b"x",
        GOOD_FORMAT.upper(),
        GOOD_FORMAT.replace(b"v1", b"v"),
        GOOD_FORMAT.replace(b"0-0", b"0_0", 1),
        b"\xff" + GOOD_FORMAT[1:],
        GOOD_FORMAT * 100,
    ],
)
def test_row_15_a_malformed_format_is_refused(text: bytes) -> None:
    disk = a_log()
    put(disk, f"{LOG}/FORMAT", text)
    error = refused(disk, LOG, CorruptLog)
    assert isinstance(error, CorruptLog)
    assert (error.row, error.file) == (15, f"{LOG}/FORMAT")


def test_row_15_every_flipped_bit_of_format_is_a_declared_error() -> None:
    disk = a_log()
    text = content(disk, f"{LOG}/FORMAT")
    for position in range(len(text) * 8):
        spoiled = bytearray(text)
        spoiled[position // 8] ^= 1 << position % 8
        image = clone(disk)
        put(image, f"{LOG}/FORMAT", bytes(spoiled))
        with pytest.raises((CorruptLog, RecoveryFailed)):
            open_log(image, LOG, SMALL)


def test_row_12_a_newer_version_is_named() -> None:
    disk = a_log()
    put(disk, f"{LOG}/FORMAT", content(disk, f"{LOG}/FORMAT").replace(b"v1", b"v2"))
    error = refused(disk, LOG, RecoveryFailed)
    assert "version 2" in str(error)
    assert "newer" in str(error)


# ---- LOCK ------------------------------------------------------------------------------------------------------------


def test_a_machine_that_does_not_tell_its_boot_id_locks_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(path: str, **_how: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr("stepstore.log.directory.open", no_proc, raising=False)
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    text = json.loads(content(disk, f"{LOG}/LOCK"))
    assert (text["pid"], text["host"], text["boot_id"]) == (os.getpid(), socket.gethostname(), None)
    with pytest.raises(LogLocked, match=str(os.getpid())):
        open_log(disk, LOG, SMALL)
    log.release()


def test_a_second_opener_in_this_process_learns_who_has_it() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    before = tree(disk)
    with pytest.raises(LogLocked) as caught:
        open_log(disk, LOG, SMALL)
    assert (caught.value.pid, caught.value.host) == (os.getpid(), socket.gethostname())
    assert caught.value.since is not None
    assert str(os.getpid()) in str(caught.value)
    assert tree(disk) == before
    assert read_log(open_log_read_only(disk, LOG)) == []
    log.release()
    open_log(disk, LOG, SMALL).release()


def test_a_second_opener_in_this_process_on_a_real_disk(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")
    log = open_log(OsFileSystem(), path, SMALL)
    with pytest.raises(LogLocked) as caught:
        open_log(OsFileSystem(), path, SMALL)
    assert caught.value.pid == os.getpid()
    log.release()
    open_log(OsFileSystem(), path, SMALL).release()


CHILD = """
import sys
from stepstore.log.files import OsFileSystem
from stepstore.log.opening import LogOptions, open_log
log = open_log(OsFileSystem(), sys.argv[1], LogOptions(segment_bytes=16384))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_child_process_has_the_lock_until_it_is_killed(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")
    storage = pathlib.Path(__file__).resolve().parents[2] / "storage"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(storage)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(LogLocked) as caught:
            open_log(OsFileSystem(), path, SMALL)
        child.kill()
    assert (caught.value.pid, caught.value.host) == (child.pid, socket.gethostname())
    assert reopen(OsFileSystem(), path)[0] == []


@pytest.mark.parametrize("text", [b"", b"not json", b"[]", b"17", b'"text"', b"\xff\xfe"])
def test_a_lock_whose_text_says_nothing_still_is_a_lock(text: bytes) -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    put(disk, f"{LOG}/LOCK", text)
    with pytest.raises(LogLocked) as caught:
        open_log(disk, LOG, SMALL)
    assert (caught.value.pid, caught.value.host, caught.value.since) == (None, None, None)
    log.release()


def test_the_lock_file_says_who_has_it_and_is_never_deleted() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    for _ in range(3):
        log = open_log(files, LOG, SMALL)
        text = json.loads(content(disk, f"{LOG}/LOCK"))
        assert (text["pid"], text["host"]) == (os.getpid(), socket.gethostname())
        log.release()
        assert disk.stat(f"{LOG}/LOCK") is not None
    assert not [c for c in files.calls if c.operation in ("unlink", "rename") and c.path.endswith("LOCK")]


def test_a_refused_opening_gives_the_lock_back() -> None:
    disk = a_log()
    damaged = segments(disk)[0]
    header = content(disk, damaged)[:512]
    put(disk, damaged, b"\xff", at=100)
    with pytest.raises(CorruptLog):
        open_log(disk, LOG, SMALL)
    put(disk, damaged, header, at=0)
    assert len(reopen(disk)[0]) == 2


def replace_lock(disk: MemoryFileSystem) -> None:
    remove(disk, f"{LOG}/LOCK")
    put(disk, f"{LOG}/LOCK", b"")


async def test_fenced_when_the_lock_file_was_replaced_before_the_first_append() -> None:
    disk = MemoryFileSystem()
    open_log(disk, LOG, SMALL).release()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        replace_lock(disk)
        before = tree(disk)
        with pytest.raises(Exception, match="replaced"):
            await store(writer, (A, [b"one"]))
        assert isinstance(writer.admission.failed, Fenced)
    assert tree(disk) == before


async def test_fenced_at_a_rotation_when_the_lock_file_was_removed() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        stored = [await store(writer, (A, [bytes(9000)]))]
        remove(disk, f"{LOG}/LOCK")
        with pytest.raises(Exception, match="removed"):
            await store(writer, (A, [bytes(9000)]))
        assert isinstance(writer.admission.failed, Fenced)
    assert [record.seq for record in reopen(disk)[0]] == [1]
    assert stored[0].first_lsn == 1


def test_a_lock_file_replaced_while_it_is_being_taken_is_not_taken() -> None:
    disk = a_log()

    def swap(call: Call) -> None:
        if call.operation == "lock":
            replace_lock(disk)

    with pytest.raises(RecoveryFailed) as caught:
        open_log(WatchedFiles(disk, swap), LOG, SMALL)
    assert caught.value.errno == errno.EAGAIN


# ---- the rest of the directory ---------------------------------------------------------------------------------------


def test_row_17_temporary_files_of_a_dead_incarnation_are_removed() -> None:
    disk = a_log()
    for name in ("spare.tmp", "FORMAT.tmp", "anything.tmp"):
        put(disk, f"{LOG}/{name}", b"half")
    put(disk, f"{LOG}/kept.txt", b"not ours")
    found, _report = reopen(disk)
    assert len(found) == 2
    assert not [name for name in disk.list_names(LOG) if name.endswith(".tmp")]
    assert content(disk, f"{LOG}/kept.txt") == b"not ours"


def test_row_17_nothing_else_is_removed() -> None:
    """Neither what is not ours, nor a sidecar, although that could be written again."""
    disk = a_log()
    write_log(disk, [], care=True)
    names = ["notes.txt", "spare.tmp.bak", "tmp", "00000009-0000000000000009.idx", "catalog.sqlite"]
    for name in names:
        put(disk, f"{LOG}/{name}", b"kept")
    before = tree(disk)
    (sidecar,) = [path for path in before if path.endswith(".idx") and path != f"{LOG}/{names[3]}"]
    reopen(disk)
    assert {path: tree(disk).get(path) for path in before} == before
    assert before[sidecar]


def test_row_17_temporary_files_stay_when_the_log_is_refused_or_only_read() -> None:
    disk = a_log()
    put(disk, f"{LOG}/spare.tmp", b"half")
    read_log(open_log_read_only(disk, LOG))
    assert disk.stat(f"{LOG}/spare.tmp") is not None
    put(disk, segments(disk)[0], b"\xff", at=100)
    refused(disk, LOG, CorruptLog)


def test_an_open_that_appends_nothing_makes_no_segment() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])]], close=True)
    before = tree(disk)
    reopen(disk)
    assert tree(disk) == before


def test_a_log_may_be_moved() -> None:
    disk = a_log()
    disk.make_directory("/other")
    for name in disk.list_names(LOG):
        move(disk, f"{LOG}/{name}", f"/other/{name}")
    assert [record.payload for record in reopen(disk, "/other")[0]] == [b"one", b"two"]
