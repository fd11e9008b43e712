"""The file layers: one contract, kept by the real one and by the one in memory; and what a power cut leaves."""

from __future__ import annotations

import errno
import functools
import os
import pathlib
import random
from collections.abc import Callable

import pytest

from stepstore.log import watched_files
from stepstore.log.files import FileSystem, OsFileSystem, write_all
from stepstore.log.memory_files import MemoryFileSystem
from tests.stepstore.log_lab import Call, WatchedFiles, clone, content, put, tree


class Place:
    """A file layer and an empty directory in it."""

    def __init__(self, files: FileSystem, root: str):
        self.files, self.root = files, root

    def __truediv__(self, name: str) -> str:
        return f"{self.root}/{name}"


@pytest.fixture(params=["os", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    if request.param == "os":
        return Place(OsFileSystem(), str(tmp_path))
    disk = MemoryFileSystem()
    disk.make_directory("/here")
    return Place(disk, "/here")


def error_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


# ---- the contract ----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(place: Place) -> None:
    file = place.files.open(place / "f", create=True)
    assert file.size() == 0
    assert file.read(0, 10) == b""
    assert file.write(0, b"hello world") == 11
    assert file.write(6, memoryview(b"there")) == 5
    assert file.read(0, 100) == b"hello there"
    assert file.read(6, 3) == b"the"
    assert file.read(50, 3) == b""
    file.datasync()
    file.close()
    assert content(place.files, place / "f") == b"hello there"


def test_a_write_behind_the_end_leaves_zeros_between(place: Place) -> None:
    file = place.files.open(place / "f", create=True)
    file.write(4, b"x")
    assert file.read(0, 9) == b"\0\0\0\0x"
    file.close()


def test_truncate_cuts_and_lengthens_with_zeros(place: Place) -> None:
    file = place.files.open(place / "f", create=True)
    file.write(0, b"abcdef")
    file.truncate(2)
    file.truncate(4)
    assert (file.size(), file.read(0, 9)) == (4, b"ab\0\0")
    file.close()


def test_allocate_sets_zeros_aside_and_never_shortens(place: Place) -> None:
    file = place.files.open(place / "f", create=True)
    file.write(0, b"abc")
    file.allocate(8)
    file.allocate(2)
    assert (file.size(), file.read(0, 9)) == (8, b"abc" + bytes(5))
    file.close()


def test_create_wants_a_new_name_and_open_an_old_one(place: Place) -> None:
    assert error_of(lambda: place.files.open(place / "f")) == errno.ENOENT
    place.files.open(place / "f", create=True).close()
    assert error_of(lambda: place.files.open(place / "f", create=True)) == errno.EEXIST
    assert error_of(lambda: place.files.open(place / "no/f", create=True)) == errno.ENOENT


def test_a_file_opened_for_reading_takes_no_write(place: Place) -> None:
    put(place.files, place / "f", b"abc")
    file = place.files.open(place / "f", write=False)
    assert error_of(lambda: file.write(0, b"x")) == errno.EBADF
    assert file.read(0, 3) == b"abc"
    file.close()


def test_a_closed_file_is_gone_and_may_be_closed_twice(place: Place) -> None:
    file = place.files.open(place / "f", create=True)
    file.close()
    file.close()
    calls: list[Callable[[], object]] = [
        lambda: file.read(0, 1), lambda: file.write(0, b"x"), file.datasync, file.size, file.identity, file.lock
    ]  # fmt: skip
    for call in calls:
        with pytest.raises((OSError, ValueError)):  # os.fdatasync(-1) and flock(-1) are a ValueError
            call()


def test_stat_tells_files_directories_and_nothing_apart(place: Place) -> None:
    put(place.files, place / "f", b"abc")
    place.files.make_directory(place / "d")
    assert place.files.stat(place / "nothing") is None
    assert place.files.stat(place / "no/where") is None
    file, directory = place.files.stat(place / "f"), place.files.stat(place / "d")
    assert file is not None
    assert directory is not None
    assert (file.is_directory, file.size, directory.is_directory) == (False, 3, True)


def test_a_file_is_no_directory(place: Place) -> None:
    put(place.files, place / "f", b"abc")
    assert error_of(lambda: place.files.stat(place / "f/below")) == errno.ENOTDIR
    assert error_of(lambda: place.files.list_names(place / "f")) == errno.ENOTDIR
    assert error_of(lambda: place.files.make_directory(place / "f")) == errno.EEXIST
    assert error_of(lambda: place.files.open(place.root)) == errno.EISDIR


def test_identity_is_of_the_file_and_not_of_its_name(place: Place) -> None:
    put(place.files, place / "f", b"abc")
    file = place.files.open(place / "f")
    place.files.rename(place / "f", place / "g")
    found = place.files.stat(place / "g")
    assert found is not None
    assert found.identity == file.identity()
    put(place.files, place / "f", b"abc")
    other = place.files.stat(place / "f")
    assert other is not None
    assert other.identity != file.identity()
    file.close()


def test_names_are_listed_in_order(place: Place) -> None:
    for name in ("b", "a", "c"):
        put(place.files, place / name, b"")
    place.files.make_directory(place / "aa")
    assert place.files.list_names(place.root) == ["a", "aa", "b", "c"]
    assert error_of(lambda: place.files.list_names(place / "no")) == errno.ENOENT


def test_rename_never_replaces(place: Place) -> None:
    put(place.files, place / "f", b"f")
    put(place.files, place / "g", b"g")
    assert error_of(lambda: place.files.rename(place / "f", place / "g")) == errno.EEXIST
    assert error_of(lambda: place.files.rename(place / "no", place / "h")) == errno.ENOENT
    place.files.rename(place / "f", place / "h")
    assert {name: content(place.files, place / name) for name in place.files.list_names(place.root)} == {
        "g": b"g",
        "h": b"f",
    }


def test_link_gives_a_file_one_more_name_and_never_replaces(place: Place) -> None:
    put(place.files, place / "f", b"abc")
    place.files.link(place / "f", place / "g")
    first, second = place.files.stat(place / "f"), place.files.stat(place / "g")
    assert first is not None
    assert second is not None
    assert first.identity == second.identity
    place.files.unlink(place / "f")
    assert content(place.files, place / "g") == b"abc"
    put(place.files, place / "h", b"x")
    assert error_of(lambda: place.files.link(place / "g", place / "h")) == errno.EEXIST
    assert error_of(lambda: place.files.link(place / "no", place / "i")) == errno.ENOENT


def test_unlink_takes_the_name_and_open_files_stay(place: Place) -> None:
    put(place.files, place / "f", b"abc")
    file = place.files.open(place / "f")
    place.files.unlink(place / "f")
    assert place.files.stat(place / "f") is None
    assert file.read(0, 3) == b"abc"
    assert error_of(lambda: place.files.unlink(place / "f")) == errno.ENOENT
    file.close()


def test_a_lock_belongs_to_one_open_file_until_it_is_closed(place: Place) -> None:
    put(place.files, place / "LOCK", b"")
    first, second = place.files.open(place / "LOCK"), place.files.open(place / "LOCK", write=False)
    assert first.lock()
    assert first.lock(), "taking it again is no harm"
    assert not second.lock()
    first.close()
    assert second.lock()
    second.close()


def test_syncing_a_directory_that_is_not_there_is_an_error(place: Place) -> None:
    place.files.sync_directory(place.root)
    assert error_of(lambda: place.files.sync_directory(place / "no")) == errno.ENOENT


# ---- write_all -------------------------------------------------------------------------------------------------------


class Chewing:
    """A file that takes at most three bytes at a time."""

    def __init__(self, bite: int):
        self.bite, self.image = bite, bytearray(32)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        part = bytes(data[: self.bite])
        self.image[offset : offset + len(part)] = part
        return len(part)


def test_a_short_write_without_an_error_is_continued() -> None:
    file = Chewing(3)
    write_all(file, 2, b"0123456789")  # type: ignore[arg-type]
    assert bytes(file.image[:14]) == b"\0\x000123456789\0\0"


def test_a_write_that_takes_nothing_is_an_error_and_no_endless_loop() -> None:
    assert error_of(lambda: write_all(Chewing(0), 0, b"x")) == errno.EIO  # type: ignore[arg-type]


# ---- what a power cut leaves -----------------------------------------------------------------------------------------


def synced_file(disk: MemoryFileSystem, data: bytes, path: str = "/f") -> None:
    put(disk, path, data)


def test_unsynced_bytes_are_seen_by_readers_and_lost_in_a_power_cut() -> None:
    disk = MemoryFileSystem()
    synced_file(disk, b"old")
    file = disk.open("/f")
    file.write(0, b"new!")
    assert content(disk, "/f") == b"new!"
    assert content(disk.durable_copy(), "/f") == b"old"
    file.datasync()
    assert content(disk.durable_copy(), "/f") == b"new!"
    file.truncate(1)
    assert content(disk.durable_copy(), "/f") == b"new!"


def test_a_name_is_durable_once_its_directory_was_synced() -> None:
    disk = MemoryFileSystem()
    file = disk.open("/f", create=True)
    file.write(0, b"abc")
    file.datasync()
    assert tree(disk.durable_copy()) == {}
    disk.sync_directory("/")
    assert tree(disk.durable_copy()) == {"/f": b"abc"}
    disk.rename("/f", "/g")
    assert tree(disk.durable_copy()) == {"/f": b"abc"}
    disk.sync_directory("/")
    assert tree(disk.durable_copy()) == {"/g": b"abc"}
    disk.unlink("/g")
    assert tree(disk.durable_copy()) == {"/g": b"abc"}
    disk.sync_directory("/")
    assert tree(disk.durable_copy()) == {}


def test_a_directory_is_durable_once_its_parent_was_synced() -> None:
    disk = MemoryFileSystem()
    disk.make_directory("/d")
    put(disk, "/d/f", b"abc")
    assert tree(disk.durable_copy()) == {}
    disk.sync_directory("/")
    assert tree(disk.durable_copy()) == {"/d": None, "/d/f": b"abc"}


def test_a_copy_is_another_disk_and_knows_no_lock() -> None:
    disk = MemoryFileSystem()
    synced_file(disk, b"abc")
    assert disk.open("/f").lock()
    for copy in (disk.durable_copy(), clone(disk)):
        file = copy.open("/f")
        assert file.lock()
        file.write(0, b"xyz")
        file.datasync()
    assert content(disk, "/f") == b"abc"


def test_a_crash_copy_lies_between_all_lost_and_all_kept() -> None:
    disk = MemoryFileSystem()
    synced_file(disk, b"a" * 2048)
    put(disk, "/gone", b"x")
    file = disk.open("/f")
    file.write(100, b"b" * 1500)
    disk.unlink("/gone")
    disk.open("/new", create=True)
    lost, kept = disk.crash_copy(lambda n: 0), disk.crash_copy(lambda n: 1)
    assert tree(lost) == tree(disk.durable_copy())
    assert tree(kept) == tree(disk)
    dice = random.Random(3)
    seen: set[bytes] = set()
    for _ in range(200):
        image = tree(disk.crash_copy(dice.randrange))
        data = image["/f"]
        assert data is not None
        seen.add(data)
        for at in range(0, 2048, 512):  # a sector has its old bytes or its new ones, never some of each
            assert data[at : at + 512] in (b"a" * 512, content(disk, "/f")[at : at + 512])
        assert image.keys() - {"/gone", "/new"} == {"/f"}
    assert len(seen) == 16, "each of the four sectors may have made it or not"


def test_a_crash_copy_may_keep_a_later_write_without_an_earlier_one() -> None:
    disk = MemoryFileSystem()
    synced_file(disk, bytes(1024))
    file = disk.open("/f")
    file.write(0, b"first")
    file.write(512, b"second")
    dice = random.Random(4)
    seen = {
        tuple(w in content(disk.crash_copy(dice.randrange), "/f") for w in (b"first", b"second")) for _ in range(60)
    }
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_what_was_synced_survives_every_crash() -> None:
    disk = MemoryFileSystem()
    synced_file(disk, b"safe" * 300)
    disk.open("/f").write(5000, b"unsafe")
    dice = random.Random(5)
    for _ in range(50):
        assert content(disk.crash_copy(dice.randrange), "/f").startswith(b"safe" * 300)


def test_a_crash_copy_is_the_same_for_the_same_choices() -> None:
    disk = MemoryFileSystem()
    for n in range(5):
        disk.open(f"/{n}", create=True).write(0, bytes([n + 1]) * 3000)
    images = [tree(disk.crash_copy(random.Random(seed).randrange)) for seed in (1, 1, 2)]
    assert images[0] == images[1] != images[2]


def test_two_names_of_one_file_are_one_file_in_the_copy() -> None:
    disk = MemoryFileSystem()
    put(disk, "/f", b"abc")
    disk.rename("/f", "/g")  # unsynced: a power cut may leave both names
    left = iter([0, 1])  # keep the old name, take the new one
    copy = disk.crash_copy(lambda n: next(left))
    first, second = copy.stat("/f"), copy.stat("/g")
    assert first is not None
    assert second is not None
    assert first.identity == second.identity


def test_a_failed_sync_loses_what_was_written_and_not_that_the_file_was_cut() -> None:
    """The size of a file is in its inode; what was read before the failed sync is still read."""
    disk = MemoryFileSystem()
    put(disk, "/f", b"0123456789")
    file = disk.open("/f")
    file.truncate(4)
    file.write(4, b"abc")
    file.lose_unsynced()
    file.datasync()
    assert content(disk, "/f") == b"0123abc"
    assert content(clone(disk), "/f") == b"0123456789"


@pytest.mark.parametrize(
    "path", ["/made//below", "/made/./below", "/made/other/../below", "//made/below", "///made/below"]
)
def test_a_path_may_be_written_in_several_ways(path: str) -> None:
    disk = MemoryFileSystem()
    disk.make_directory("/made")
    disk.make_directory("/made/below")
    disk.sync_directory("/")
    disk.sync_directory("/made")
    put(disk, "/made/below/f", b"abc")
    assert disk.list_names(path) == ["f"]
    assert content(disk, f"{path}/f") == b"abc"
    assert disk.stat(f"{path}/g") is None
    put(disk, f"{path}/g", b"def")
    disk.rename(f"{path}/g", f"{path}/h")
    assert tree(disk.durable_copy())["/made/below/f"] == b"abc"
    disk.sync_directory(path)
    assert tree(disk.durable_copy())["/made/below/h"] == b"def"


def test_what_is_not_there_is_an_error_however_many_slashes_lead_to_it() -> None:
    disk = MemoryFileSystem()
    for path in ("//absent", "//absent/f", "//"):
        assert error_of(functools.partial(disk.open, path)) == errno.ENOENT
    assert disk.list_names("//") == []


def test_the_watching_layer_counts_every_call_and_changes_nothing() -> None:
    disk = MemoryFileSystem()
    seen: list[Call] = []
    files = WatchedFiles(disk, seen.append)
    put(files, "/f", b"abc")
    assert [call.operation for call in seen] == ["stat", "create", "truncate", "write", "datasync", "sync_directory"]
    assert [call.number for call in seen] == list(range(1, 7))
    assert tree(disk.durable_copy()) == {"/f": b"abc"}


def test_a_watched_file_layer_shows_each_call_before_it_is_made() -> None:
    disk, seen = MemoryFileSystem(), list[str]()
    there: list[bool] = []

    def before(call: watched_files.Call) -> None:
        seen.append(str(call))
        there.append(disk.stat("/b") is not None)

    files = watched_files.WatchedFiles(disk, before)
    file = files.open("/a", create=True)
    file.write(0, b"x")
    files.link("/a", "/b")
    file.datasync()
    file.close()
    assert seen == ["create a", "write a", "link b", "datasync a"]
    assert there == [False, False, False, True]
    assert files.changes == 4


def test_what_is_no_file_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    """Opening a pipe waits for somebody at its other end: whoever put one there could stop an opening for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        for write in (False, True):
            with pytest.raises(OSError, match="not a regular file") as caught:
                OsFileSystem().open(str(tmp_path / name), write=write)
            assert caught.value.filename == str(tmp_path / name)


def test_a_read_that_the_system_gives_in_pieces_is_put_together(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POSIX lets any read be short, not only the one at the end of a file."""
    path, real = str(tmp_path / "f"), os.pread
    put(OsFileSystem(), path, b"in small pieces")
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: real(descriptor, min(size, 4), offset))
    file = OsFileSystem().open(path, write=False)
    try:
        assert file.read(3, 9) == b"small pie"
        assert file.read(3, 100) == b"small pieces"
    finally:
        file.close()
