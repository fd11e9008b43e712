"""Cleaning up after a crash: in which order, what it leaves if it crashes or fails itself, what it may not touch."""

from __future__ import annotations

import errno
import posixpath
import random
from collections.abc import Callable

import pytest

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log.footer import HEAD_BYTES, TRAILER_BYTES, parse_trailer
from stepstore.log.frame import MAX_FRAME_BYTES
from stepstore.log.memory_files import MemoryFile, MemoryFileSystem
from stepstore.log.opening import open_log
from stepstore.log.records import Record
from stepstore.log.repair import put_on_medium
from tests.stepstore.log_lab import (
    CHANGES,
    LOG,
    SMALL,
    A,
    B,
    Call,
    Stopped,
    WatchedFiles,
    clone,
    content,
    failing_at,
    flip,
    frames_of,
    header_of,
    payload,
    put,
    remove,
    reopen,
    segments,
    stopping_at,
    tree,
    with_nul_runs,
    write_log,
)


class Torn:
    """Two segments, the newest torn: its last frame lost a sector. And a temporary file, for good measure."""

    def __init__(self) -> None:
        self.disk = MemoryFileSystem()
        groups = [
            [(A, [payload(9000)])],
            [(A, [payload(8000, 2)])],
            [(B, [b"small"])],
            [(A, [payload(900), with_nul_runs(2500)])],
        ]
        self.kept: list[Record] = write_log(self.disk, groups)[:-2]
        put(self.disk, f"{LOG}/spare.tmp", b"half a header")
        self.segment = segments(self.disk)[-1]
        assert header_of(self.disk, self.segment).seq == 2
        *_others, before, last = frames_of(self.disk, self.segment)
        self.cut, self.last_sound = before.end, before
        put(self.disk, self.segment, bytes(512), at=(last.at // 512 + 1) * 512)
        self.sound = content(self.disk, self.segment)[: self.cut]
        self.leftover = content(self.disk, self.segment)[self.cut :].rstrip(b"\0")

    def check_repaired(self, disk: MemoryFileSystem, after: object) -> None:
        """Opening gives what was acknowledged; the cut is named, made, and what it cut off is in quarantine."""
        found, _report = reopen(disk)
        assert found == self.kept, after
        third = segments(disk)[2:]
        assert [posixpath.basename(segment) for segment in third] == ["00000003-0000000000000004.0.seg"], after
        header = header_of(disk, third[0])
        assert (header.prev_seq, header.prev_end_offset, header.prev_end_lsn) == (2, self.cut, 3), after
        assert header.prev_chain == self.last_sound.head.header_crc, after
        assert content(disk, self.segment) == self.sound, after
        quarantined = [content(disk, f"{LOG}/quarantine/{name}") for name in disk.list_names(f"{LOG}/quarantine")]
        assert self.leftover in quarantined, after
        assert not [name for name in disk.list_names(LOG) if name.endswith(".tmp")], after
        reopen(disk)  # cuts the zeros of the successor, in which nothing was written
        before = tree(disk)
        assert reopen(disk)[0] == self.kept
        assert tree(disk) == before, "there was nothing left to do"


@pytest.fixture
def torn() -> Torn:
    return Torn()


def test_an_uninterrupted_repair_does_all_of_it(torn: Torn) -> None:
    torn.check_repaired(torn.disk, "nothing happened")


def position(calls: list[Call], operation: str, path: Callable[[str], bool], *, last: bool = False) -> int:
    found = [call.number for call in calls if call.operation == operation and path(call.path)]
    return found[-1 if last else 0]


def test_the_order_of_a_repair_survives_a_crash_anywhere(torn: Torn) -> None:
    files = WatchedFiles(torn.disk)
    open_log(files, LOG, SMALL).release()

    def is_quarantined(path: str) -> bool:
        return path.startswith(f"{LOG}/quarantine/")

    def is_segment(path: str) -> bool:
        return path == torn.segment

    calls = files.calls
    order = [
        position(calls, "create", is_quarantined),
        position(calls, "write", is_quarantined),
        position(calls, "datasync", is_quarantined),
        position(calls, "sync_directory", lambda path: path == f"{LOG}/quarantine"),
        position(calls, "datasync", is_segment),
        position(calls, "will_not_need", is_segment),
        position(calls, "write", is_segment),
        position(calls, "will_not_need", is_segment, last=True),
        position(calls, "create", lambda path: path == f"{LOG}/spare.tmp"),
        position(calls, "datasync", lambda path: path == f"{LOG}/spare.tmp", last=True),
        position(calls, "rename", lambda path: path.endswith(".seg")),
        position(calls, "sync_directory", lambda path: path == LOG, last=True),
        position(calls, "truncate", is_segment),
        position(calls, "datasync", is_segment, last=True),
    ]
    assert order == sorted(order)
    assert len({*order}) == len(order)


def test_a_process_that_dies_at_any_call_of_a_repair_can_be_followed_by_another(torn: Torn) -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        disk = clone(torn.disk)
        files = WatchedFiles(disk, stopping_at(number))
        try:
            open_log(files, LOG, SMALL).release()
            finished = True
        except Stopped:
            torn.check_repaired(disk, files.calls[number - 1])
    assert number > 40


def test_a_power_cut_at_any_call_of_a_repair_and_of_the_repair_after_it_loses_nothing(torn: Torn) -> None:
    dice = random.Random(17)
    images: list[tuple[Call, MemoryFileSystem]] = []

    def crash(call: Call) -> None:
        images.extend((call, image) for image in (disk.durable_copy(), disk.crash_copy(dice.randrange)))

    disk = clone(torn.disk)
    open_log(WatchedFiles(disk, crash), LOG, SMALL).release()
    assert len(images) > 80
    for call, image in images:
        second: list[MemoryFileSystem] = []
        at = dice.randrange(1, 90)

        def crash_again(
            call: Call,
            at: int = at,
            image: MemoryFileSystem = image,
            second: list[MemoryFileSystem] = second,
        ) -> None:
            if call.number == at:
                second.append(image.crash_copy(dice.randrange))

        open_log(WatchedFiles(image, crash_again), LOG, SMALL).release()
        for again in (image, *second):
            torn.check_repaired(again, call)


TOLD = {
    f"cannot {doing}"
    for doing in (
        *("look into", "open for writing", "list", "look for the keys of", "open", "read", "clean up"),
        *("quarantine the cut tail in", "make durable what was recovered in", "begin a segment in", "cut"),
    )
}
"""What an opening can be about when a call of it fails."""


@pytest.mark.parametrize("error_number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_row_18_an_error_at_any_call_is_declared_and_costs_nothing(torn: Torn, error_number: int) -> None:
    """In front of the first change nothing at all is different; behind it, the next opening goes on."""
    before = tree(torn.disk)
    number, refused, seen_change, finished = 0, 0, False, False
    told: set[str] = set()
    while not finished:
        number += 1
        disk = clone(torn.disk)
        files = WatchedFiles(disk, failing_at(number, error_number))
        try:
            open_log(files, LOG, SMALL).release()
            finished = len(files.calls) < number
        except RecoveryFailed as error:
            refused += 1
            assert error.file.startswith(LOG)
            assert error.errno in (error_number, errno.EIO)
            told.add(str(error).partition(" '")[0])
            assert isinstance(error.__cause__, OSError)
            failed = files.calls[number - 1]
            seen_change = seen_change or (failed.operation in CHANGES and not failed.path.endswith("LOCK"))
            if not seen_change:
                assert tree(disk) == before, failed
        if not finished:
            torn.check_repaired(disk, files.calls[number - 1])
    assert refused > 40
    assert told == TOLD


def test_row_18_a_read_error_names_the_file_the_place_and_the_errno() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(9000, n)])] for n in range(3)])
    first = segments(disk)[0]
    before = tree(disk)

    def bad_block(call: Call) -> None:
        if call.operation == "read" and call.path == first and call.offset == offset:
            raise OSError(errno.EIO, "Input/output error")

    for offset in (512, len(content(disk, first)) - TRAILER_BYTES):
        files = WatchedFiles(disk, bad_block)
        with pytest.raises(RecoveryFailed) as caught:
            open_log(files, LOG, SMALL)
        assert (caught.value.file, caught.value.offset, caught.value.errno) == (first, offset, errno.EIO)
        assert str(caught.value).startswith(f"cannot read {first!r} at offset {offset}: ")
        assert (files.changes(), tree(disk)) == ([], before)


def test_row_18_a_read_error_in_a_sealed_segment_names_the_place_of_its_index() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(9000)])]], close=True)
    (segment,) = segments(disk)
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    head = trailer.index_at
    for offset in (head, head + HEAD_BYTES):

        def bad_block(call: Call, offset: int = offset) -> None:
            if call.operation == "read" and call.path == segment and call.offset == offset:
                raise OSError(errno.EIO, "Input/output error")

        with pytest.raises(RecoveryFailed) as caught:
            open_log(WatchedFiles(disk, bad_block), LOG, SMALL)
        assert (caught.value.file, caught.value.offset, caught.value.errno) == (segment, offset, errno.EIO)


@pytest.mark.parametrize("left", [0.0, 0.5, 1.0])
def test_row_18_a_short_read_is_no_end_of_file(torn: Torn, left: float) -> None:
    """A read that gives too little, at any read of an opening: never taken for what the file holds, never a cut."""
    before = tree(torn.disk)
    files = WatchedFiles(clone(torn.disk))
    open_log(files, LOG, SMALL).release()
    first_change = files.changes()[0].number
    reads = [call.number for call in files.calls if call.operation == "read"]
    assert min(reads) < first_change < max(reads)
    for number in reads:
        disk = clone(torn.disk)
        short = WatchedFiles(disk)

        def spoil(call: Call, data: bytes, number: int = number) -> bytes:
            return data[: min(int(len(data) * left), len(data) - 1)] if call.number == number else data

        short.spoil_read = spoil
        with pytest.raises(RecoveryFailed) as caught:
            open_log(short, LOG, SMALL)
        if isinstance(cause := caught.value.__cause__, OSError):
            assert (cause.errno, caught.value.errno) == (errno.EIO, errno.EIO)
            assert "gave" in str(cause) or "ended after" in str(cause)
        if number < first_change:
            assert short.changes() == []
            assert tree(disk) == before
        assert content(disk, torn.segment) == before[torn.segment]
        torn.check_repaired(disk, short.calls[number - 1])


# ---- promise 5: made durable by writing it ---------------------------------------------------------------------------


def written_to(files: WatchedFiles, segment: str) -> list[tuple[int, bytes]]:
    return [(call.offset, call.data) for call in files.calls if call.operation == "write" and call.path == segment]


def test_the_frame_that_nothing_proves_durable_is_written_again() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(500, n)])] for n in range(4)])
    (segment,) = segments(disk)
    last = frames_of(disk, segment)[-1]
    data = content(disk, segment)
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    assert written_to(files, segment) == [(last.at, data[last.at : last.end])]
    operations = [call.operation for call in files.calls if call.path == segment]
    assert operations[operations.index("write") + 1] == "datasync"
    assert log.end_lsn == len(stored)
    log.release()


def test_what_lies_before_a_footer_is_not_written_again() -> None:
    """Every record before it had been acknowledged before it was written."""
    for damage in (False, True):
        disk = MemoryFileSystem()
        stored = write_log(disk, [[(A, [payload(500, n)])] for n in range(4)], close=True)
        (segment,) = segments(disk)
        if damage:
            flip(disk, segment, len(content(disk, segment)) - 1)
        files = WatchedFiles(disk)
        log = open_log(files, LOG, SMALL)
        assert log.end_lsn == len(stored)
        assert written_to(files, segment) == []
        log.release()


def test_what_is_written_again_is_synced_and_then_its_directory_before_anything_else_is_done() -> None:
    """The file ends with its last frame, so nothing is cut, and no other sync comes."""
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(500, n)])] for n in range(2)])
    (segment,) = segments(disk)
    last = frames_of(disk, segment)[-1]
    put(disk, segment, b"", at=0, size=last.end)
    files = WatchedFiles(disk)
    open_log(files, LOG, SMALL).release()
    made = [call.operation for call in files.calls if call.path == segment]
    again = ["datasync", "will_not_need", "write", "datasync", "will_not_need", "read"]
    assert made[made.index("datasync") :][: len(again)] == again
    compared = next(call.number for call in files.calls if call.operation == "write" and call.path == segment) + 3
    following = next(call for call in files.calls if call.number > compared)
    assert (following.operation, following.path) == ("sync_directory", LOG)


def test_what_was_only_in_the_page_cache_is_on_the_medium_before_it_is_served() -> None:
    """The process died between write and fdatasync; the next one sees the frame, and a power cut must not take it."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"durable"])]])
    (segment,) = segments(disk)
    liar = WatchedFiles(disk)
    liar.lying = ".seg"
    stored += write_log(liar, [[(A, [b"in the cache"])]])
    log = open_log(disk, LOG, SMALL)
    try:
        assert log.end_lsn == 2
        assert reopen(disk.durable_copy())[0] == stored
    finally:
        log.release()
    assert segment in segments(disk)


def test_pages_that_a_failed_sync_left_in_the_cache_are_dropped_before_they_are_written_again() -> None:
    """Ghosts: read, clean, never on the medium, and on ext4 no write through them puts them there."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"durable"])]])
    liar = WatchedFiles(disk)
    liar.lying = ".seg"
    stored += write_log(liar, [[(A, [payload(20_000)])]])
    newest = segments(disk)[-1]
    disk.open(newest).lose_unsynced()
    file = disk.open(newest)
    ghost = file.read(0, file.size())
    file.write(0, ghost)
    file.datasync()
    assert content(disk.durable_copy(), newest) != ghost, "the medium is one on which writing again is not enough"
    file.close()
    log = open_log(disk, LOG, SMALL)
    assert log.end_lsn == 2
    assert reopen(disk.durable_copy())[0] == stored
    log.release()


def test_where_pages_cannot_be_dropped_what_is_written_again_is_synced_and_compared_all_the_same() -> None:
    """Not every system has a call for that."""

    class Plain:
        def __init__(self, file: MemoryFile):
            self._file = file
            self.calls: list[str] = []

        def __getattr__(self, name: str) -> object:
            if name == "will_not_need":
                raise AttributeError(name)
            self.calls.append(name)
            return getattr(self._file, name)

    disk = MemoryFileSystem()
    put(disk, "/f", b"0123456789")
    file = Plain(disk.open("/f"))
    put_on_medium(file, [(2, b"ab"), (8, b"cd")])  # type: ignore[arg-type]
    assert content(disk.durable_copy(), "/f") == b"01ab4567cd"
    assert file.calls == ["datasync", "write", "write", "datasync", "read", "read"]


def test_what_is_not_there_when_it_is_read_back_is_not_served(torn: Torn) -> None:
    disk = clone(torn.disk)
    files = WatchedFiles(disk)
    written: list[Call] = []

    def changed(call: Call, data: bytes) -> bytes:
        if call.path == torn.segment:
            written.extend(other for other in files.calls if (other.operation, other.path) == ("write", call.path))
        return bytes(len(data)) if written else data

    files.spoil_read = changed
    with pytest.raises(RecoveryFailed, match="make durable") as caught:
        open_log(files, LOG, SMALL)
    assert "not on the medium" in str(caught.value.__cause__)
    assert written
    torn.check_repaired(disk, "reading back")


def test_frames_of_older_files_are_not_written_again() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(9000, n)])] for n in range(4)])
    files = WatchedFiles(disk)
    open_log(files, LOG, SMALL).release()
    *older, newest = segments(disk)
    assert not any(written_to(files, segment) for segment in older)
    assert len(written_to(files, newest)) == 1


@pytest.mark.parametrize("operation", ["write", "datasync"])
def test_recovered_frames_that_cannot_be_written_are_not_served(operation: str, torn: Torn) -> None:
    def fail(call: Call) -> None:
        if call.operation == operation and call.path == torn.segment:
            raise OSError(errno.EIO, "Input/output error", call.path)

    disk = clone(torn.disk)
    before = content(disk, torn.segment)
    with pytest.raises(RecoveryFailed) as caught:
        open_log(WatchedFiles(disk, fail), LOG, SMALL)
    assert caught.value.errno == errno.EIO
    assert content(disk, torn.segment) == before
    assert len(segments(disk)) == 2
    torn.check_repaired(disk, operation)


# ---- quarantine ------------------------------------------------------------------------------------------------------


def test_a_tail_that_reaches_far_is_copied_up_to_its_last_byte(torn: Torn) -> None:
    put(torn.disk, torn.segment, b"\x07", at=torn.cut + MAX_FRAME_BYTES - 512)
    torn.leftover = content(torn.disk, torn.segment)[torn.cut :]
    torn.check_repaired(torn.disk, "far")


def test_an_earlier_copy_in_quarantine_will_do_but_only_if_it_is_whole(torn: Torn) -> None:
    for part, copies in [(torn.leftover, 1), (torn.leftover[:-1], 2), (torn.leftover[:-1] + b"?", 2), (b"", 2)]:
        disk = clone(torn.disk)
        disk.make_directory(f"{LOG}/quarantine")
        put(disk, f"{LOG}/quarantine/early-{posixpath.basename(torn.segment)}-{torn.cut}", part)
        torn.check_repaired(disk, part)
        assert len(disk.list_names(f"{LOG}/quarantine")) == copies


def test_what_lies_behind_the_cut_of_an_older_file_is_never_lost_in_a_power_cut(torn: Torn) -> None:
    """No segment is begun for it, so nothing else makes the name of the quarantine durable before the file is cut."""
    open_log(torn.disk, LOG, SMALL).release()
    put(torn.disk, torn.segment, torn.leftover, at=torn.cut)
    for name in torn.disk.list_names(f"{LOG}/quarantine"):
        remove(torn.disk, f"{LOG}/quarantine/{name}")
    disk = MemoryFileSystem()
    for path, data in tree(torn.disk).items():
        if data is None and not path.endswith("quarantine"):
            disk.make_directory(path)
            disk.sync_directory(posixpath.dirname(path))
        elif data is not None:
            put(disk, path, data)
    images: list[tuple[Call, MemoryFileSystem]] = []
    open_log(WatchedFiles(disk, lambda call: images.append((call, disk.durable_copy()))), LOG, SMALL).release()
    images.append((images[-1][0], disk.durable_copy()))
    cut = 0
    for call, image in images:
        if len(content(image, torn.segment)) > torn.cut:
            continue
        cut += 1
        folder = f"{LOG}/quarantine"
        assert [content(image, f"{folder}/{name}") for name in image.list_names(folder)] == [torn.leftover], call
    assert cut


def test_two_crashes_leave_two_entries_in_quarantine(torn: Torn) -> None:
    torn.check_repaired(torn.disk, "the first")
    stored = torn.kept + write_log(torn.disk, [[(B, [b"more"])], [(B, [payload(900)])]])
    newest = segments(torn.disk)[-1]
    put(torn.disk, newest, b"", at=0, size=frames_of(torn.disk, newest)[-1].end - 1)
    found, report = reopen(torn.disk)
    assert found == stored[:-1]
    assert len(report.quarantined) == 1
    assert len(torn.disk.list_names(f"{LOG}/quarantine")) == 2
    epochs = [header_of(torn.disk, segment).epoch for segment in segments(torn.disk)]
    assert epochs == sorted(epochs)
    assert epochs[-1] > epochs[0]


def test_a_log_goes_on_behind_a_cut(torn: Torn) -> None:
    reopen(torn.disk)
    stored = torn.kept + write_log(torn.disk, [[(A, [b"behind"])], [(B, [b"the cut"])]], close=True)
    assert [record.lsn for record in stored] == [1, 2, 3, 4, 5]
    assert reopen(torn.disk)[0] == stored


def test_no_file_of_an_earlier_incarnation_is_appended_to() -> None:
    disk = MemoryFileSystem()
    for n in range(4):
        before = {segment: content(disk, segment).rstrip(b"\0") for segment in segments(disk)} if n else {}
        write_log(disk, [[(A, [payload(100, n)])]])
        after = {segment: content(disk, segment).rstrip(b"\0") for segment in segments(disk)}
        assert {segment: after[segment] for segment in before} == before
        assert len(after) == n + 1
    assert [header_of(disk, segment).epoch for segment in segments(disk)] == [1, 2, 3, 4]


def test_a_flipped_bit_in_a_repaired_log_is_not_forgiven(torn: Torn) -> None:
    reopen(torn.disk)
    flip(torn.disk, torn.segment, torn.cut - 1)
    with pytest.raises(CorruptLog, match="proves it durable") as caught:
        open_log(torn.disk, LOG, SMALL)
    assert caught.value.row == 2
