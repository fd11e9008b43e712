"""A log that is opened on a full disk: what a crash left there may need room to be cleaned up."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, Fenced, LogFull, RecoveryFailed
from stepstore.log.admission import RETRY_FULL_SECONDS
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log
from stepstore.log.records import Record
from stepstore.log.sealing import sidecar_path
from stepstore.log.stream_reader import StreamReader
from stepstore.log.verify import verify_log
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    Call,
    FullDisk,
    WatchedFiles,
    clone,
    content,
    frames_of,
    payload,
    put,
    read_log,
    read_stream,
    records_of,
    remove,
    reopen,
    segments,
    store,
    submit,
    tended,
    write_log,
)


class Torn:
    """A log whose last write a crash tore, on a disk that is full, the reserve already spent."""

    def __init__(self) -> None:
        self.disk = MemoryFileSystem()
        self.stored: list[Record] = write_log(self.disk, [[(A, [b"kept"])], [(A, [payload(30_000)])]])[:-1]
        (_first, self.segment) = segments(self.disk)
        (torn,) = frames_of(self.disk, self.segment)
        put(self.disk, self.segment, bytes(512), at=torn.at // 512 * 512 + 512)
        remove(self.disk, f"{LOG}/reserve")
        self.left = content(self.disk, self.segment)
        self.files = WatchedFiles(self.disk)
        self.full = FullDisk(self.disk, 0)
        self.full.room = self.full.used()
        self.files.before = self.full


@pytest.fixture
def torn() -> Torn:
    return Torn()


def is_full(writer: LogWriter) -> bool:
    return writer.admission.is_full


async def test_a_torn_log_on_a_full_disk_is_read_and_written_to_once_there_is_room(
    torn: Torn, autojump_clock: trio.testing.MockClock
) -> None:
    disk, stored = torn.disk, torn.stored
    log = open_log(torn.files, LOG, SMALL)
    assert any("full" in note for note in log.report.notes)
    assert read_log(log) == stored
    assert content(disk, torn.segment) == torn.left, "nothing is cut before there is a copy of it"
    async with tended(log) as (writer, _caretaker):
        for critical in (False, True):
            with pytest.raises(LogFull):
                submit(writer, (A, [b"refused"]), critical=critical)
        await trio.sleep(10 * RETRY_FULL_SECONDS)
        assert is_full(writer)
        assert content(disk, torn.segment) == torn.left
        torn.full.room += 1_000_000
        await trio.sleep(RETRY_FULL_SECONDS + 0.1)
        assert not is_full(writer)
        stored += records_of(await store(writer, (A, [b"there is room"]), (B, [b"again"])))
        assert read_stream(StreamReader(log.reading, log.index), A) == [r for r in stored if r.stream == A]
    assert len(disk.list_names(f"{LOG}/quarantine")) == 1
    for image in (clone(disk), disk.durable_copy()):
        assert verify_log(LOG, files=image).problems == []
        assert reopen(image)[0] == stored


async def test_nothing_is_indexed_before_the_log_is_repaired(
    torn: Torn, autojump_clock: trio.testing.MockClock
) -> None:
    """A sidecar says that what it names is durable; what was recovered is so once it was written again."""
    disk, stored = torn.disk, torn.stored
    torn.full.room += 28_000  # enough for two sidecars, and not for a copy of the torn group
    log = open_log(torn.files, LOG, SMALL)
    assert log.pending_repair is not None
    async with tended(log) as (writer, caretaker):
        await trio.sleep(3 * RETRY_FULL_SECONDS)
        assert not [name for name in disk.list_names(LOG) if name.endswith(".idx")]
        torn.full.room += 1_000_000
        await trio.sleep(2 * RETRY_FULL_SECONDS)
        assert not is_full(writer)
        assert disk.stat(sidecar_path(torn.segment)) is not None
        assert caretaker.errors == 0
        stored += records_of(await store(writer, (A, [b"goes on"])))
    assert reopen(disk)[0] == stored


def test_the_reserve_makes_room_for_a_repair(torn: Torn) -> None:
    disk = torn.disk
    put(disk, f"{LOG}/reserve", bytes(64 * 1024))
    torn.full.room = torn.full.used()
    log = open_log(torn.files, LOG, SMALL)
    assert log.pending_repair is None
    assert len(disk.list_names(f"{LOG}/quarantine")) == 1
    log.release()
    assert reopen(disk)[0] == torn.stored


async def test_a_repair_that_begins_no_segment_is_made_up_for_as_well(
    torn: Torn, autojump_clock: trio.testing.MockClock
) -> None:
    """A crash came after the next segment was begun and before the torn file was cut, which has no copy yet."""
    disk, stored = torn.disk, torn.stored
    open_log(disk, LOG, SMALL).release()
    for name in disk.list_names(f"{LOG}/quarantine"):
        remove(disk, f"{LOG}/quarantine/{name}")
    remove(disk, f"{LOG}/reserve")
    put(disk, torn.segment, torn.left)
    before = segments(disk)
    torn.full.room = torn.full.used()
    log = open_log(torn.files, LOG, SMALL)
    assert log.pending_repair is not None
    async with tended(log) as (writer, _caretaker):
        await trio.sleep(3 * RETRY_FULL_SECONDS)
        assert is_full(writer)
        assert content(disk, torn.segment) == torn.left
        torn.full.room += 1_000_000
        await trio.sleep(2 * RETRY_FULL_SECONDS)
        assert not is_full(writer)
        assert len(content(disk, torn.segment)) < len(torn.left)
        assert len(disk.list_names(f"{LOG}/quarantine")) == 1
        assert segments(disk) == before
        stored += records_of(await store(writer, (A, [b"goes on"])))
    assert reopen(disk)[0] == stored


@pytest.mark.parametrize("operation", ["write", "datasync", "read back"])
def test_what_was_recovered_on_a_full_disk_and_cannot_be_made_durable_is_not_served(operation: str) -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"kept"])], [(B, [b"kept too"])], [(A, [payload(3000)])]])[:-1]
    (segment,) = segments(disk)
    last = frames_of(disk, segment)[-1]
    put(disk, segment, bytes(512), at=last.at // 512 * 512 + 512)
    remove(disk, f"{LOG}/reserve")
    files = WatchedFiles(disk)
    full = FullDisk(disk, 0)
    full.room = full.used()

    def before(call: Call) -> None:
        full(call)
        if call.operation == operation and call.path == segment:
            raise OSError(errno.EIO, "Input/output error", call.path)

    synced: list[int] = []

    def spoil(call: Call, data: bytes) -> bytes:
        synced[:] = [c.number for c in files.calls if c.operation == "datasync" and c.path == segment]
        return data[:-1] + b"?" if operation == "read back" and len(synced) == 2 and call.path == segment else data

    files.before, files.spoil_read = before, spoil
    with pytest.raises(RecoveryFailed, match="make durable what was recovered") as caught:
        open_log(files, LOG, SMALL)
    assert (caught.value.file, caught.value.errno) == (LOG, errno.EIO)
    assert files.open_files == []
    assert reopen(disk)[0] == stored


async def test_a_lock_that_was_taken_away_while_the_repair_was_pending_is_the_end(
    torn: Torn, autojump_clock: trio.testing.MockClock
) -> None:
    log = open_log(torn.files, LOG, SMALL)
    async with tended(log) as (writer, _caretaker):
        remove(torn.disk, f"{LOG}/LOCK")
        torn.full.room += 1_000_000
        await trio.sleep(2 * RETRY_FULL_SECONDS)
        assert isinstance(writer.admission.failed, Fenced)
        with pytest.raises(Closed):
            submit(writer, (A, [b"refused"]))
    assert reopen(torn.disk)[0] == torn.stored


async def test_a_log_that_is_closed_before_it_was_repaired_is_left_as_it_was(
    torn: Torn, autojump_clock: trio.testing.MockClock
) -> None:
    log = open_log(torn.files, LOG, SMALL)
    async with tended(log, close=True):
        await trio.sleep(3 * RETRY_FULL_SECONDS)
    assert content(torn.disk, torn.segment) == torn.left
    assert torn.files.open_files == []
    assert reopen(torn.disk)[0] == torn.stored


@pytest.mark.parametrize("failures", [1, 2, 3])
async def test_a_repair_that_fails_behind_the_segment_it_began_begins_no_other_one(
    torn: Torn, autojump_clock: trio.testing.MockClock, failures: int
) -> None:
    """Else the manifest of the next compaction would name a segment that does not follow the one before it."""
    disk, stored = torn.disk, torn.stored
    left = failures

    def no_room_to_cut(call: Call) -> None:
        nonlocal left
        if left and call.operation == "truncate" and call.path == torn.segment:
            left -= 1
            raise OSError(errno.ENOSPC, "No space left on device", call.path)

    torn.files.before = no_room_to_cut
    log = open_log(torn.files, LOG, SMALL)
    assert (log.pending_repair is None) == (failures == 1)
    async with tended(log) as (writer, caretaker):
        await trio.sleep(3 * RETRY_FULL_SECONDS)
        assert not is_full(writer)
        stored += records_of(await store(writer, (A, [b"goes on"]), (B, [b"for a while"])))
        for _ in range(3):
            stored += records_of(await store(writer, (B, [payload(3000)])))
        await caretaker.compact(purge=True)
    assert len(segments(disk)) == len({name.rsplit("/", 1)[1][:8] for name in segments(disk)})
    assert verify_log(LOG, files=disk).problems == []
    assert reopen(disk)[0] == stored


async def test_a_repair_that_is_never_finished_leaves_no_file_open(torn: Torn) -> None:
    def no_room_to_cut(call: Call) -> None:
        if call.operation == "truncate" and call.path == torn.segment:
            raise OSError(errno.ENOSPC, "No space left on device", call.path)

    torn.files.before = no_room_to_cut
    log = open_log(torn.files, LOG, SMALL)
    assert log.pending_repair is not None
    log.release()
    assert torn.files.open_files == []
    assert reopen(torn.disk)[0] == torn.stored
