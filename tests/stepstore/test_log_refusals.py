"""A refusal says where: the file, the offset and the records, so that nobody has to look for it with a hex editor."""

from __future__ import annotations

import dataclasses
import errno
from typing import Any

import pytest
import trio

from stepstore.errors import CorruptLog, RecoveryFailed, StepwellError
from stepstore.log import frame as fr
from stepstore.log.files import FileSystem
from stepstore.log.footer import TRAILER_BYTES, encode_trailer, parse_trailer
from stepstore.log.manifest import encode_manifest
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log, open_log_read_only
from stepstore.log.sealing import sidecar_path
from stepstore.log.segment_header import encode_segment_header
from stepstore.log.verify import verify_log
from tests.stepstore.compaction_lab import (
    QUIET,
    a_log_with_dead_records,
    compact,
    manifest_paths,
    newest,
)
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    clone,
    content,
    flip,
    frames_of,
    header_of,
    payload,
    put,
    remove,
    reopen,
    segments,
    write_log,
)

CUT = dataclasses.replace(SMALL, tail="cut")


def refusal(disk: FileSystem) -> tuple[int, str, int, int, int | None]:
    """How an opening refuses: row, file, offset, first and last LSN."""
    with pytest.raises(CorruptLog) as caught:
        open_log(disk, LOG, QUIET)
    error = caught.value
    assert error.file in str(error), "the message names the place as well"
    return error.row, error.file, error.offset, error.first_lsn, error.last_lsn


def a_closed_log() -> MemoryFileSystem:
    """Some sealed segments."""
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(7000, n)])] for n in range(7)], close=True, care=True)
    assert len(segments(disk)) >= 3
    assert all(trailer_of(disk, path) for path in segments(disk))
    return disk


def a_compacted_log() -> MemoryFileSystem:
    async def main() -> MemoryFileSystem:
        disk = MemoryFileSystem()
        kept = await a_log_with_dead_records(disk)
        await compact(disk, kept)
        return disk

    return trio.run(main)


def trailer_of(disk: MemoryFileSystem, path: str) -> Any:
    return parse_trailer(content(disk, path)[-TRAILER_BYTES:])


def with_header(disk: MemoryFileSystem, path: str, **changed: int) -> None:
    header = header_of(disk, path)._replace(**changed)  # type: ignore[arg-type]
    put(disk, path, encode_segment_header(header)[0], at=0)


@pytest.mark.parametrize("by", [-600, 600])
def test_row_02_a_trailer_and_a_successor_that_contradict_each_other_name_what_lies_between_them(by: int) -> None:
    disk = a_closed_log()
    first, second = segments(disk)[:2]
    said = trailer_of(disk, first)
    with_header(disk, second, prev_end_offset=said.end_offset + by)
    assert refusal(disk) == (2, first, min(said.end_offset, said.end_offset + by), said.end_lsn + 1, said.end_lsn)


@pytest.mark.parametrize("by", [-1, 3])
def test_row_02_a_trailer_and_a_successor_that_name_different_ends_name_the_records_between_them(by: int) -> None:
    disk = a_closed_log()
    first, second = segments(disk)[:2]
    said = trailer_of(disk, first)
    with_header(disk, second, prev_end_lsn=said.end_lsn + by)
    ends = sorted((said.end_lsn, said.end_lsn + by))
    assert refusal(disk) == (2, first, said.end_offset, ends[0] + 1, ends[1])


def test_row_07_a_segment_that_continues_another_one_names_the_records_that_are_missing() -> None:
    disk = a_closed_log()
    *_, before, last = segments(disk)
    end_lsn = trailer_of(disk, before).end_lsn
    header = header_of(disk, last)
    remove(disk, last)
    moved = f"{LOG}/{header.seq:08x}-{end_lsn + 6:016x}.0.seg"
    put(disk, moved, encode_segment_header(header._replace(first_lsn=end_lsn + 6))[0])
    assert refusal(disk) == (7, moved, 0, end_lsn + 1, end_lsn + 5)


@pytest.mark.parametrize("by", [-1, 2])
def test_row_02_a_file_that_ends_elsewhere_than_the_manifest_says_names_the_records_between(by: int) -> None:
    disk = a_compacted_log()
    manifest = newest(disk)
    *others, listed = manifest.files
    path = f"{LOG}/{listed.name}"
    other = listed._replace(end_lsn=listed.end_lsn + by)
    epochs = (*manifest.epochs[:-1], (manifest.epochs[-1][0], other.end_lsn))
    put(disk, manifest_paths(disk)[-1], encode_manifest(manifest._replace(files=(*others, other), epochs=epochs)))
    ends = sorted((listed.end_lsn, other.end_lsn))
    assert refusal(disk) == (2, path, trailer_of(disk, path).end_offset, ends[0] + 1, ends[1])


def a_rewritten_file(disk: MemoryFileSystem) -> str:
    return next(path for path in segments(disk) if header_of(disk, path).generation)


def test_row_02_a_rewritten_file_whose_trailer_ends_early_names_the_records_behind_it() -> None:
    disk = a_compacted_log()
    path = a_rewritten_file(disk)
    said = trailer_of(disk, path)
    early = encode_trailer(said._replace(end_lsn=said.end_lsn - 2))
    put(disk, path, content(disk, path)[:-TRAILER_BYTES] + early)
    assert refusal(disk) == (2, path, said.end_offset, said.end_lsn - 1, said.end_lsn)


def test_row_02_a_rewritten_file_that_is_cut_off_names_the_first_record_that_is_missing() -> None:
    disk = a_compacted_log()
    path = a_rewritten_file(disk)
    frame = next(found for found in frames_of(disk, path) if found.head.kind == fr.KIND_DATA)
    put(disk, path, b"", at=0, size=frame.end - 1)
    assert refusal(disk) == (2, path, frame.at, frame.head.first_lsn, frame.head.last_lsn)
    put(disk, path, b"", at=0, size=frame.at)
    assert refusal(disk) == (2, path, frame.at, frame.head.first_lsn, None)


def test_a_rewritten_file_without_its_trailer_is_whole_by_what_is_in_it() -> None:
    disk = a_compacted_log()
    path = a_rewritten_file(disk)
    put(disk, path, content(disk, path)[:-1])
    log = open_log(disk, LOG, QUIET)
    assert path in log.paths
    log.release()


def test_row_02_a_file_shorter_than_its_sidecar_names_the_last_record_that_was_there() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(900)])], [(B, [payload(90)])]])
    write_log(disk, [], care=True)
    (path,) = segments(disk)
    assert content(disk, sidecar_path(path))
    put(disk, path, content(disk, path)[:-1])
    assert refusal(disk) == (2, path, len(content(disk, path)), 0, len(stored))


def test_row_02_beside_a_writer_the_place_named_is_the_one_that_is_damaged() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(B, [payload(300, 7)])], [(A, [b"three"])]])
    (path,) = segments(disk)
    first, second, _third = frames_of(disk, path)
    flip(disk, path, second.at + 3)
    with pytest.raises(CorruptLog, match="a later frame proves that LSN 2 was durable") as caught:
        open_log_read_only(disk, LOG)
    error = caught.value
    assert (error.row, error.file, error.offset, error.first_lsn) == (2, path, first.end, 2)


# ---- what was cut off ------------------------------------------------------------------------------------------------


def test_the_note_of_a_torn_write_says_how_many_bytes_went_and_that_nothing_was_acknowledged() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(B, [payload(3000)])]])
    (path,) = segments(disk)
    first, last = frames_of(disk, path)
    put(disk, path, bytes(last.head.frame_len - 700), at=last.at + 700)
    left = len(content(disk, path)[first.end :].rstrip(b"\0"))
    (note,) = reopen(disk)[1].notes
    assert note.startswith(f"{path}: {left:,} bytes from offset {first.end} on went to quarantine and are cut")
    assert "nothing in it was ever acknowledged" in note


def test_the_note_of_a_group_that_was_given_up_says_that_acknowledged_steps_may_be_in_it() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(B, [payload(300)])]])
    (path,) = segments(disk)
    first, last = frames_of(disk, path)
    flip(disk, path, last.end - 1)
    assert refusal(clone(disk))[0] == 5
    (note,) = reopen(disk, LOG, CUT)[1].notes
    assert note.startswith(f"{path}: {last.end - first.end:,} bytes from offset {first.end} on")
    assert 'given up with tail="cut"' in note
    assert "acknowledged steps may have been among them" in note


# ---- what is opened for writing --------------------------------------------------------------------------------------


class ForReading(MemoryFileSystem):
    """A medium that was mounted for reading: nothing opens for writing."""

    @classmethod
    def of(cls, disk: MemoryFileSystem) -> ForReading:
        made = cls()
        made.__dict__.update(clone(disk).__dict__)
        return made

    def open(self, path: str, *, create: bool = False, write: bool = True) -> Any:
        if create or write is not False:
            raise OSError(errno.EROFS, "Read-only file system", path)
        return super().open(path, write=False)


@pytest.mark.parametrize("damage", ["none", "torn", "header"])
def test_a_log_on_a_medium_that_is_mounted_for_reading_can_be_read(damage: str) -> None:
    disk = a_closed_log()
    first = segments(disk)[0]
    if damage == "torn":
        write_log(disk, [[(B, [payload(3000)])]])
        path = segments(disk)[-1]
        put(disk, path, bytes(700), at=frames_of(disk, path)[-1].end - 700)
    elif damage == "header":
        flip(disk, first, 20)  # the copy in the footer does
    log = open_log_read_only(ForReading.of(disk), LOG)
    assert log.index.segments[0].path == first
    assert log.index.last_seq(A) == 7
    log.release()


def test_a_segment_that_is_larger_than_any_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that claims a terabyte, and has no byte of it on the medium, kept an opening busy for hours."""
    from stepstore.log import segment_header
    from stepstore.log.salvage import salvage_log

    disk = MemoryFileSystem()
    log = open_log(disk, LOG)
    log.release()
    (path,) = segments(disk)
    size = len(content(disk, path))
    monkeypatch.setattr(segment_header, "LARGEST_SEGMENT_BYTES", size)
    open_log_read_only(disk, LOG).release()
    monkeypatch.setattr(segment_header, "LARGEST_SEGMENT_BYTES", size - 1)
    for attempt in (
        lambda: open_log_read_only(disk, LOG),
        lambda: open_log(disk, LOG),
        lambda: verify_log(LOG, files=disk),
        lambda: salvage_log(LOG, "/new", files=disk),
    ):
        with pytest.raises(RecoveryFailed, match="no segment has more than") as caught:
            attempt()
        assert caught.value.file == path


def test_lists_that_are_larger_than_any_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepstore.log import keys_file, manifest

    disk = MemoryFileSystem()
    open_log(disk, LOG).release()
    put(disk, f"{LOG}/MANIFEST-00000009", b"x" * 100)
    monkeypatch.setattr(manifest, "_LARGEST_BYTES", 99)
    assert manifest.read_manifest(disk, f"{LOG}/MANIFEST-00000009") is None
    disk.unlink(f"{LOG}/MANIFEST-00000009")
    disk.make_directory(f"{LOG}/keys")
    put(disk, f"{LOG}/keys/KEYS-1", b"x" * 100)
    monkeypatch.setattr(keys_file, "_LARGEST_FILE_BYTES", 99)
    with pytest.raises(StepwellError, match="File too large"):
        open_log_read_only(disk, LOG)
