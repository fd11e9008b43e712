"""The images of a crash: what is not synced is listed, any part of it can be kept, and the fates tried are the ones
worth trying."""

from __future__ import annotations

import pytest

from stepstore.log.memory_files import MemoryFileSystem, Unsynced
from tests.crash.fates import BYSTANDERS, describe, fates, image_of, torn


def content(disk: MemoryFileSystem, path: str) -> bytes | None:
    found = disk.stat(path)
    return None if found is None else disk.open(path, write=False).read(0, found.size)


def a_disk() -> MemoryFileSystem:
    """`/f` is durable as 1,500 bytes of x, then written at 400 (three sectors), cut to 1,200, and renamed to `/g`."""
    disk = MemoryFileSystem()
    file = disk.open("/f", create=True)
    file.write(0, b"x" * 1500)
    file.datasync()
    disk.sync_directory("/")
    file.write(400, b"y" * 800)
    file.truncate(1200)
    disk.rename("/f", "/g")
    return disk


def test_what_is_not_synced_is_listed_oldest_first() -> None:
    items = a_disk().unsynced()
    assert [(item.kind, item.path, item.pieces) for item in items] == [
        ("write", "/g", 3),
        ("size", "/g", 1),
        ("name", "/f", 1),
        ("name", "/g", 1),
    ]
    assert items == sorted(items)
    assert len({item.number for item in items}) == 4


@pytest.mark.parametrize("write", range(8))
@pytest.mark.parametrize("size", range(2))
def test_any_pieces_of_a_write_and_any_size_can_be_kept(write: int, size: int) -> None:
    disk = a_disk()
    items = disk.unsynced()
    expected = bytearray(b"x" * 1500)
    for piece, (start, end) in enumerate([(400, 512), (512, 1024), (1024, 1200)]):
        if write >> piece & 1:
            expected[start:end] = b"y" * (end - start)
    image = image_of(disk, items, (write, size, 0, 0))
    assert content(image, "/f") == bytes(expected[: 1200 if size else 1500])
    assert image.unsynced() == []
    assert image.durable_copy().list_names("/") == ["f"]


@pytest.mark.parametrize(("old", "new", "names"), [(0, 0, ["f"]), (0, 1, ["f", "g"]), (1, 0, []), (1, 1, ["g"])])
def test_names_are_kept_or_lost_each_by_itself(old: int, new: int, names: list[str]) -> None:
    disk = a_disk()
    assert image_of(disk, disk.unsynced(), (0, 0, old, new)).list_names("/") == names


def test_a_second_name_of_a_file_is_kept_or_lost_like_any_other() -> None:
    disk = MemoryFileSystem()
    disk.open("/f", create=True).write(0, b"abc")
    disk.open("/f").datasync()
    disk.sync_directory("/")
    disk.link("/f", "/g")
    assert [item[1:3] for item in disk.unsynced()] == [("name", "/g")]
    assert image_of(disk, disk.unsynced(), (0,)).list_names("/") == ["f"]
    kept = image_of(disk, disk.unsynced(), (1,))
    kept.open("/g").write(0, b"x")
    assert content(kept, "/f") == b"xbc"
    for name in ("/f", "/no"):
        with pytest.raises(OSError, match=r"File exists|No such file"):
            disk.link(name, "/g")


def test_all_lost_is_the_durable_copy_and_all_kept_is_what_is_seen() -> None:
    disk = a_disk()
    items = disk.unsynced()
    assert content(image_of(disk, items, (0, 0, 0, 0)), "/f") == content(disk.durable_copy(), "/f") == b"x" * 1500
    assert content(image_of(disk, items, (7, 1, 1, 1)), "/g") == content(disk, "/g")


def test_a_process_that_died_leaves_all_to_see_nothing_locked_and_as_much_to_lose() -> None:
    disk = a_disk()
    assert disk.open("/g").lock()
    copy = disk.page_cache_copy()
    assert copy.open("/g").lock()
    assert content(copy, "/g") == content(disk, "/g")
    assert [item[1:] for item in copy.unsynced()] == [item[1:] for item in disk.unsynced()]
    assert content(copy.durable_copy(), "/f") == b"x" * 1500
    file = copy.open("/g")
    file.write(0, b"later")
    assert copy.unsynced()[-1].kind == "write", "what comes later is listed later"
    file.datasync()
    copy.sync_directory("/")
    assert copy.unsynced() == []
    assert len(disk.unsynced()) == 4, "the copy is one"


def test_what_a_failed_sync_left_clean_no_later_sync_puts_on_the_medium() -> None:
    disk = a_disk()
    file = disk.open("/g")
    file.lose_unsynced()
    assert [item.kind for item in disk.unsynced()] == ["name", "name"]
    file.datasync()
    assert content(disk, "/g") == b"x" * 400 + b"y" * 800
    assert content(disk.durable_copy(), "/f") == b"x" * 1500
    assert content(disk.page_cache_copy().durable_copy(), "/f") == b"x" * 1500
    file.write(0, b"z" * 1200)
    file.datasync()
    assert content(disk.durable_copy(), "/f") == b"z" * 1200 + b"x" * 300, "only writing it again does"


# ---- which fates are tried -------------------------------------------------------------------------------------------


def items(*pieces: int, names: tuple[str, ...] = ()) -> list[Unsynced]:
    paths = names or tuple(f"/f{n}" for n in range(len(pieces)))
    return [Unsynced(n, "write", path, count) for n, (path, count) in enumerate(zip(paths, pieces, strict=True))]


def test_nothing_everything_and_each_prefix_are_tried_of_any_list() -> None:
    for pieces in [(), (1,), (1, 2, 1), (3, 1, 4, 1, 5, 9, 2, 6)]:
        whole = [(1 << count) - 1 for count in pieces]
        tried = fates(items(*pieces))
        for kept in range(len(pieces) + 1):
            assert (*whole[:kept], *[0] * (len(pieces) - kept)) in tried
        assert len(set(tried)) == len(tried)
        assert tried == fates(items(*pieces))


def test_each_subset_of_few_items_is_tried_and_some_of_many() -> None:
    assert set(fates(items(1, 1, 1, 1))) == {tuple(subset >> n & 1 for n in range(4)) for subset in range(16)}
    assert 12 < len(fates(items(*[1] * 10))) < 40


def test_each_tear_of_a_small_write_is_tried_with_the_rest_kept_and_with_the_rest_lost() -> None:
    tried = fates(items(2, 3))
    assert {(3, mask) for mask in range(8)} | {(0, mask) for mask in range(8)} <= set(tried)
    assert {(mask, 7) for mask in range(4)} | {(mask, 0) for mask in range(4)} <= set(tried)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 9, 40, 300])
def test_a_tear_keeps_something_and_loses_something(pieces: int) -> None:
    masks = torn(pieces)
    assert all(0 < mask < (1 << pieces) - 1 for mask in masks)
    assert len(masks) == len(set(masks)) <= 16
    if pieces > 1:
        assert 1 in masks, "only the first sector"
        assert (1 << pieces) - 2 in masks, "all but the first"
        assert (1 << pieces) - 1 >> 1 in masks, "all but the last"


def test_bystanders_do_not_crowd_out_the_others() -> None:
    crowd = [*BYSTANDERS, "a", "b", "c", "d"]
    tried = fates(items(*[1] * len(crowd), names=tuple(f"/log/{name}" for name in crowd)))
    core = {tuple(mask for name, mask in zip(crowd, fate, strict=True) if name not in BYSTANDERS) for fate in tried}
    assert len(core) == 16


def test_a_medium_that_keeps_the_order_leaves_prefixes_only() -> None:
    assert fates(items(1, 3, 1), in_order=True) == [(0, 0, 0), (1, 0, 0), (1, 7, 0), (1, 1, 0), (1, 3, 0), (1, 7, 1)]


def test_a_fate_is_described_by_what_becomes_of_each_item() -> None:
    text = describe(items(2, 2, 2, names=("/log/a", "/log/b", "/log/c")), (0, 3, 2))
    assert text == ("write of a lost, write of b kept, write of c torn to 10 (the last bit is the first sector)")
    assert describe([], ()) == "nothing was unsynced"
