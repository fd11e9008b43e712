"""Spoilt files, as the crash suites found them: each as small as it gets."""

from __future__ import annotations

import trio

from stepstore.log.memory_files import MemoryFileSystem
from tests.crash.readback import compare, read_writable, verify_outcome
from tests.crash.specimen import Specimen, compacted, disk_with, encrypted, unclean_logs


def with_a_flipped_bit(log: Specimen, path: str, offset: int) -> MemoryFileSystem:
    data = bytearray(log.files[path])
    data[offset] ^= 1
    return disk_with({**log.image, path: bytes(data)})


def test_a_flipped_bit_in_the_zeros_before_a_mark_costs_no_acknowledged_record() -> None:
    """The last group lies behind a mark, whole and sound. A bit among the zeros between the group before the mark and
    the mark is flipped: the place of the next header is all zero, something follows within one frame, and no later
    frame says that the last group was durable, so row 4 cuts it. `verify` knows better."""
    log = unclean_logs(1)[1]
    first = log.frames[log.newest][0]
    disk = with_a_flipped_bit(log, log.newest, first.end + 300)
    assert verify_outcome(disk) == "problem"
    assert compare(log, trio.run(read_writable, disk, log.options)).kind in ("refused", "identical")


def test_verify_finds_a_flipped_bit_in_the_keys() -> None:
    log = encrypted(1)
    (keys,) = [path for path in log.files if "/keys/" in path]
    disk = with_a_flipped_bit(log, keys, 600)
    assert trio.run(read_writable, disk, log.options).refused is not None
    assert verify_outcome(disk) != "nothing"


def test_verify_finds_a_flipped_bit_in_the_manifest_that_is_kept_for_people() -> None:
    log = compacted(1)
    older, _newest = sorted(path for path in log.files if "/MANIFEST-" in path)
    assert verify_outcome(with_a_flipped_bit(log, older, 100)) != "nothing"
