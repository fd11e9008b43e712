"""The keys of a log that is written: on the medium before they are used, gone once their stream is deleted."""

from __future__ import annotations

import errno

import pytest

from stepstore.errors import KeyDestroyed
from stepstore.log.frame import FLAG_TOMBSTONE, Batch
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.key_provider import LocalKeyProvider
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log
from stepstore.log.records import Record
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import StreamReader
from stepstore.log.verify import verify_log
from tests.stepstore.log_lab import (
    LOG,
    A,
    B,
    Call,
    WatchedFiles,
    clone,
    content,
    flip,
    put,
    read_stream,
    records_of,
    segments,
    store,
    stream_id,
    writing,
)

ENCRYPTED = LogOptions(segment_bytes=16 * 1024, key_provider=LocalKeyProvider(b"master key of 32 bytes, no more!"))


async def test_the_new_streams_of_a_group_get_their_keys_with_one_sync_before_their_frame_is_written() -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, ENCRYPTED)) as writer:
        await store(writer, (A, [b"first"]))
        files.calls.clear()
        await store(writer, *((stream_id(str(n)), [b"%d" % n]) for n in range(20)))
        done = [
            (call.operation, call.path.rpartition("/")[2])
            for call in files.calls
            if call.operation in ("write", "datasync")
        ]
        segment = segments(disk)[-1].rpartition("/")[2]
        assert done == [("write", "KEYS-1"), ("datasync", "KEYS-1"), ("write", segment), ("datasync", segment)]


@pytest.mark.parametrize("operation", ["write", "datasync"])
async def test_a_file_of_keys_that_fails_is_left_for_another_and_nothing_is_refused(operation: str) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    failed: list[str] = []

    def fail_once(call: Call) -> None:
        if call.operation == operation and "/KEYS-" in call.path and not failed:
            failed.append(call.path)
            raise OSError(errno.EIO, "Input/output error", call.path)

    async with writing(open_log(files, LOG, ENCRYPTED)) as writer:
        stored = records_of(await store(writer, (A, [b"first"])))
        files.before = fail_once
        stored += records_of(await store(writer, (B, [b"second"]), (A, [b"third"])))
        assert failed == [f"{LOG}/keys/KEYS-1"]
    assert disk.list_names(f"{LOG}/keys") == ["KEYS-2"]
    for image in (clone(disk), disk.durable_copy()):
        log = open_log(image, LOG, ENCRYPTED)
        reader = FrameReader(log.reading, log.index, log.codec.decode)
        assert reader.read_frames(FramePosition(0), 10, 10)[0] == stored
        log.release()


async def test_what_stands_beside_the_keys_and_is_none_of_them_is_not_looked_into_by_verify() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, ENCRYPTED), close=True) as writer:
        await store(writer, (A, [b"first"]))
    for name in ("KEYS-2.tmp", "KEYS-0", "KEYS-1.bak", "README"):
        put(disk, f"{LOG}/keys/{name}", b"not keys")
    assert verify_log(LOG, files=disk).problems == []
    flip(disk, f"{LOG}/keys/KEYS-1", 20)
    (problem,) = verify_log(LOG, files=disk).problems
    assert problem.file == f"{LOG}/keys/KEYS-1"


async def test_whatever_a_power_cut_leaves_of_a_group_its_keys_are_there_if_it_is() -> None:
    disk = MemoryFileSystem()
    images: list[MemoryFileSystem] = []

    def crash(call: Call) -> None:
        for item in disk.unsynced():
            images.append(disk.image({item.number: (1 << item.pieces) - 1}))

    files = WatchedFiles(disk)
    async with writing(open_log(files, LOG, ENCRYPTED)) as writer:
        stored = records_of(await store(writer, (A, [b"first"])))
        files.before = crash
        stored += records_of(await store(writer, (B, [b"second"])))
    seen: set[int] = set()
    for image in [*images, clone(disk)]:
        log = open_log(image, LOG, ENCRYPTED)
        reader = StreamReader(log.reading, log.index, log.codec.decode)
        found = [record for stream in streams_of(log.index) for record in read_stream(reader, stream)]
        assert found == stored[: len(found)]
        seen.add(len(found))
        log.release()
    assert seen == {1, 2}


async def test_the_next_opening_destroys_the_key_of_a_deletion_that_a_crash_interrupted() -> None:
    """The tombstone is durable, and the process died before the key was destroyed."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, ENCRYPTED)) as writer:
        await store(writer, (A, [b"secret"]), (B, [b"kept"]))
        deletion = writer.submit([Batch(A, 2, [b"deleted"], FLAG_TOMBSTONE)])
        await deletion.wait()
        assert deletion.error is None
    keys = content(disk, f"{LOG}/keys/KEYS-1")
    assert A in keys
    log = open_log(disk, LOG, ENCRYPTED)
    assert log.keys is not None
    assert A not in log.keys
    assert B in log.keys
    assert disk.list_names(f"{LOG}/keys") == ["KEYS-2"]
    assert A not in content(disk, f"{LOG}/keys/KEYS-2")
    with pytest.raises(KeyDestroyed):
        log.keys.key(A)
    log.release()


async def test_a_tombstone_is_readable_when_the_key_of_its_stream_is_gone_and_other_streams_are_too() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, ENCRYPTED)) as writer:
        await store(writer, (A, [b"secret"]))
        await writer.submit([Batch(A, 2, [b"deleted"], FLAG_TOMBSTONE), Batch(B, 1, [b"kept"], 0)]).wait()
    log = open_log(disk, LOG, ENCRYPTED)
    reader = FrameReader(log.reading, log.index, log.codec.decode)
    found, _place = reader.read_frames(FramePosition(0), log.end_lsn, 100)
    assert found == [Record(A, 2, 2, b"deleted"), Record(B, 1, 3, b"kept")]
    assert b"secret" not in content(disk, segments(disk)[0])
    log.release()
