"""A disk rebuilt from a recording is what a power cut may leave: all that was flushed, and any part of the rest."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.block_device import SECTOR, DiskImage, Operation
from tests.crash.media import BLOCK
from tests.crash.power_cuts import Cut, choose_cuts

FLUSH = Operation("flush", 0, b"")


def write(offset: int, fill: int, size: int = BLOCK) -> Operation:
    return Operation("write", offset, bytes([fill]) * size)


def disk_of(*operations: Operation, blocks: int = 4) -> DiskImage:
    disk = DiskImage(bytes(blocks * BLOCK))
    for operation in operations:
        disk.apply(operation)
    return disk


def saved(disk: DiskImage, writes: list[tuple[int, bytes]], path: Path) -> bytes:
    disk.save(path, writes)
    return path.read_bytes()


def test_a_cut_leaves_everything_that_was_flushed_whatever_the_knife(tmp_path: Path) -> None:
    disk = disk_of(write(0, 1), write(2 * BLOCK, 2), FLUSH, write(BLOCK, 3))
    rng = random.Random(1)
    for cut in [Cut(0, kind) for kind in ("prefix", "subset", "torn")] * 20:
        image = saved(disk, cut.writes(disk, rng), tmp_path / "image")
        assert len(image) == 4 * BLOCK
        assert image[:BLOCK] == b"\1" * BLOCK
        assert image[2 * BLOCK : 3 * BLOCK] == b"\2" * BLOCK


def test_a_write_that_is_no_whole_block_changes_nothing_beside_it(tmp_path: Path) -> None:
    disk = disk_of(write(0, 1, 3 * BLOCK), FLUSH, write(BLOCK - SECTOR, 2, 2 * SECTOR))
    image = saved(disk, disk.everything(), tmp_path / "image")
    assert image == b"\1" * (BLOCK - SECTOR) + b"\2" * 2 * SECTOR + b"\1" * (2 * BLOCK - SECTOR) + bytes(BLOCK)


def test_a_subset_keeps_writes_whole_and_finds_every_combination(tmp_path: Path) -> None:
    disk = disk_of(write(0, 1), write(BLOCK, 2))
    rng = random.Random(1)
    seen = {tuple(offset for offset, _data in disk.subset(rng)) for _ in range(200)}
    assert seen == {(), (0,), (BLOCK,), (0, BLOCK)}


def test_a_torn_write_keeps_some_of_the_sectors_it_changes() -> None:
    before = write(BLOCK, 1)
    after = Operation("write", BLOCK, b"\2" * 3 * SECTOR + before.data[3 * SECTOR :])
    disk = disk_of(before, FLUSH, after)
    rng = random.Random(1)
    seen = {tuple((offset - BLOCK) // SECTOR for offset, _data in disk.torn(rng)) for _ in range(500)}
    assert seen == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}


def test_the_superblock_is_never_torn() -> None:
    disk = disk_of(write(0, 1))
    rng = random.Random(1)
    assert {len(disk.torn(rng)) for _ in range(200)} == {0, BLOCK // SECTOR}


@pytest.mark.parametrize("count", [3, 10, 25])
def test_cuts_lie_behind_writes_only_and_are_spread_over_all_of_them(count: int) -> None:
    operations = [write(0, 1), FLUSH, Operation("marker", 0, b"[]")] * 10
    cuts = choose_cuts(operations, count, random.Random(1))
    places = [cut.place for cut in cuts]
    assert len(places) == count
    assert places == sorted(places)
    assert all(operations[place].kind == "write" for place in places)
    assert len(set(places)) == min(count, 10)
