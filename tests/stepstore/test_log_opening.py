"""What an opening reads: of what is sealed next to nothing, of what a crash left everything, and that only once."""

from __future__ import annotations

import errno
from collections import Counter

import pytest
import trio
import trio.testing

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log import segment_header as sh
from stepstore.log.footer import HEAD_BYTES, TRAILER_BYTES, encode_trailer, parse_head, parse_trailer
from stepstore.log.frame import FLAG_OPENS, Batch
from stepstore.log.index_building import rebuild_index
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.open_files import OpenFiles
from stepstore.log.opening import OpenLog, open_log, open_log_read_only
from stepstore.log.packed_table import PAGE_BYTES
from stepstore.log.records import Record
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import SIDECAR_INDEX_AT, find_seal, read_trailer, sidecar_path
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import StreamReader
from stepstore.log.verify import verify_log
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    header_of,
    payload,
    put,
    read_log,
    read_stream,
    records_of,
    remove,
    reopen,
    segments,
    store,
    stream_id,
    tended,
    tree,
    write_log,
    writing,
)

FRAMES_FROM = sh.HEADER_BYTES


def read_bytes(files: WatchedFiles, ending: str = "") -> int:
    """How many bytes were asked of files whose path ends so."""
    return sum(call.size for call in files.calls if call.operation == "read" and call.path.endswith(ending))


def scanned(files: WatchedFiles) -> list[str]:
    """The segments whose frames were read."""
    return sorted(
        {
            call.path
            for call in files.calls
            if call.operation == "read" and call.path.endswith(".seg") and call.size > 8192
        }
    )


def many_groups(count: int, size: int = 7000) -> list[list[tuple[bytes, list[bytes]]]]:
    """Two of them fill a segment."""
    return [[(A, [payload(size, n)]), (stream_id(str(n % 7)), [b"%d" % n, b""])] for n in range(count)]


# ---- sealed segments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 40])
def test_opening_sealed_segments_reads_headers_trailers_heads_and_fingerprints(count: int) -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, many_groups(2 * count), close=True, care=True)
    assert len(segments(disk)) == count
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    try:
        reads = Counter(
            (call.path, call.size) for call in files.calls if call.operation == "read" and call.path.endswith(".seg")
        )
        expected = Counter[tuple[str, int]]()
        for segment in log.index.segments:
            assert isinstance(segment.index, SealedIndex)
            head = segment.index.head
            parts = [sh.HEADER_BYTES, TRAILER_BYTES, HEAD_BYTES, 4 * head.streams]
            expected.update((segment.path, size) for size in parts)
        newest = log.index.segments[-1]
        assert isinstance(newest.index, SealedIndex)
        expected[newest.path, 16 * newest.index.head.open_streams] += 1
        assert reads == expected
        assert read_bytes(files, ".seg") < 2100 * count, "of 16 KiB each"
        others = [call for call in files.calls if call.path.endswith(".seg") and call.operation != "read"]
        assert len(others) <= 7 * count, Counter(call.operation for call in others)
        assert read_log(log) == stored
    finally:
        log.release()


def test_looking_a_stream_up_in_a_sealed_log_reads_a_page_of_the_segments_that_have_it() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(stream_id(str(n)), [payload(7000, n)])] for n in range(40)], close=True, care=True)
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    files.calls.clear()
    assert log.index.last_seq(stream_id("7")) == 1
    assert log.index.last_seq(stream_id("none")) == 0
    reads = [(call.path, call.size) for call in files.calls if call.operation == "read"]
    assert reads == [(segments(disk)[3], PAGE_BYTES)]
    log.release()


def test_a_log_is_opened_for_writing_and_closed_without_reading_a_frame_of_it() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, many_groups(10), close=True, care=True)
    files = WatchedFiles(disk)
    more = write_log(files, [[(A, [b"more"])]], close=True, care=True)
    old = segments(disk)[:5]
    assert not [path for path in scanned(files) if path in old]
    assert reopen(disk)[0] == stored + more


# ---- what a crash left -----------------------------------------------------------------------------------------------


def test_a_segment_that_a_crash_left_is_scanned_once_and_then_has_a_sidecar() -> None:
    disk = MemoryFileSystem()
    stored = write_log(disk, many_groups(5))
    first = WatchedFiles(disk)
    write_log(first, [], care=True)
    assert scanned(first) == segments(disk)
    assert [disk.stat(sidecar_path(segment)) is not None for segment in segments(disk)] == [True] * 3
    second = WatchedFiles(disk)
    log = open_log(second, LOG, SMALL)
    assert scanned(second) == []
    assert not log.unindexed
    for segment in log.index.segments:
        assert segment.index_path == sidecar_path(segment.path)
        assert not segment.sealed
    assert read_log(log) == stored
    log.release()
    assert verify_log(LOG, files=disk).problems == []


def test_a_segment_that_was_left_unsealed_by_its_writer_is_scanned_once_too() -> None:
    """The crash came after the rotation and before the footer: its successor names where it ends."""
    disk = MemoryFileSystem()
    stored = write_log(disk, many_groups(6))
    stored += write_log(disk, [[(B, [b"in the next life"])]], care=True)
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    newest = segments(disk)[-1]
    assert scanned(files) == [newest]
    assert read_log(log) == stored
    log.release()


def test_the_open_streams_are_carried_through_a_sidecar() -> None:
    disk = MemoryFileSystem()
    write_open_streams(disk)
    write_log(disk, [], care=True)
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    assert scanned(files) == []
    assert list(log.index.streams_still_open()) == [B, A]
    assert log.report.open_streams == 2
    log.release()


def write_open_streams(disk: MemoryFileSystem) -> None:
    async def main() -> None:
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            await writer.submit([Batch(A, 1, [b"x"], 0)]).wait()
            await writer.submit([Batch(B, 1, [b"x"], FLAG_OPENS)]).wait()
            await writer.submit([Batch(A, 2, [b"x"], FLAG_OPENS)]).wait()

    trio.run(main)


def crashed_with_a_sidecar(groups: int = 1) -> tuple[MemoryFileSystem, list[Record], str, str]:
    """A disk, what is stored, the newest segment, its sidecar."""
    disk = MemoryFileSystem()
    stored = write_log(disk, many_groups(groups, 9000))
    write_log(disk, [], care=True)
    segment = segments(disk)[-1]
    assert disk.stat(sidecar_path(segment)) is not None
    return disk, stored, segment, sidecar_path(segment)


def test_a_flipped_byte_anywhere_in_a_sidecar_costs_time_and_no_record_and_verify_finds_it() -> None:
    disk, stored, _segment, sidecar = crashed_with_a_sidecar()
    size = len(content(disk, sidecar))
    remove(disk, f"{LOG}/reserve")
    for at in [*range(SIDECAR_INDEX_AT + 20), *range(SIDECAR_INDEX_AT + 20, size - 70, 61), *range(size - 70, size)]:
        image = clone(disk)
        flip(image, sidecar, at, at % 8)
        (problem,) = verify_log(LOG, files=image).problems
        assert sidecar in str(problem), at
        found, report = reopen(image)
        assert (found, report.notes, report.quarantined) == (stored, (), ()), at


@pytest.mark.parametrize("left", [0, 1, 63, 64, 65, 500, -1])
def test_a_sidecar_cut_short_costs_time_and_no_record(left: int) -> None:
    disk, stored, segment, sidecar = crashed_with_a_sidecar()
    put(disk, sidecar, b"", at=0, size=left if left >= 0 else len(content(disk, sidecar)) - 1)
    assert len(verify_log(LOG, files=disk).problems) == 1
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    assert scanned(files) == [segment]
    assert read_log(log) == stored
    log.release()
    write_log(disk, [], care=True)
    assert verify_log(LOG, files=disk).problems == [], "it was written again"


def test_a_missing_sidecar_is_written_again() -> None:
    disk, stored, _segment, sidecar = crashed_with_a_sidecar()
    whole = content(disk, sidecar)
    remove(disk, sidecar)
    assert verify_log(LOG, files=disk).problems == []
    assert reopen(disk)[0] == stored
    write_log(disk, [], care=True)
    assert content(disk, sidecar) == whole


def test_a_sidecar_of_another_segment_is_not_taken() -> None:
    disk, stored, _segment, sidecar = crashed_with_a_sidecar()
    write_log(disk, [[(B, [payload(9000)])]])
    write_log(disk, [], care=True)
    other = sidecar_path(segments(disk)[-1])
    put(disk, sidecar, content(disk, other))
    found, _report = reopen(disk)
    assert found[: len(stored)] == stored
    assert len(verify_log(LOG, files=disk).problems) == 1


def test_a_sidecar_of_a_newest_segment_that_has_grown_is_not_taken() -> None:
    """Nothing of ours appends to a file of an earlier life; what stands there may be anything, so it is looked at."""
    disk, stored, segment, sidecar = crashed_with_a_sidecar()
    end = len(content(disk, segment))
    put(disk, segment, b"", at=0, size=end + 3000)
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    assert scanned(files) == [segment]
    assert read_log(log) == stored
    log.release()
    assert disk.stat(sidecar) is None
    disk, stored, segment, sidecar = crashed_with_a_sidecar()
    put(disk, segment, b"something", at=end + 100)
    with pytest.raises(CorruptLog):
        open_log(disk, LOG, SMALL)
    assert disk.stat(sidecar) is not None, "a refused opening changes nothing"


def test_a_stale_sidecar_beside_a_segment_with_a_successor_is_written_anew() -> None:
    """It says another end than the next segment does: it is of an earlier state of the file."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(9000)])], [(A, [payload(3000)])]])
    stored += write_log(disk, [[(B, [b"in the next one"])]])
    segment = segments(disk)[0]
    earlier = clone(disk)
    for newer in segments(earlier)[1:]:
        remove(earlier, newer)
    last = frames_of(earlier, segment)[-1]
    put(earlier, segment, bytes(last.head.frame_len), at=last.at)
    write_log(earlier, [], care=True)
    put(disk, sidecar_path(segment), content(earlier, sidecar_path(segment)))
    assert "another state" in str(verify_log(LOG, files=disk).problems[0])
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    assert segment in scanned(files)
    assert read_log(log) == stored
    log.release()
    write_log(disk, [], care=True)
    assert verify_log(LOG, files=disk).problems == []


def test_what_lies_behind_the_end_that_a_sidecar_knows_is_quarantined_and_cut() -> None:
    """The cut of an earlier opening did not last, and its index did."""
    disk, stored, segment, _sidecar = crashed_with_a_sidecar()
    end = len(content(disk, segment))
    stored += write_log(disk, [[(B, [b"in the next one"])]])
    put(disk, segment, b"left over", at=end + 40)
    put(disk, segment, b"", at=0, size=end + 4000)
    found, report = reopen(disk)
    assert found == stored
    (name,) = report.quarantined
    assert content(disk, f"{LOG}/quarantine/{name}") == bytes(40) + b"left over"
    assert len(content(disk, segment)) == end
    put(disk, segment, b"", at=0, size=end + 4000)  # only zeros this time
    found, report = reopen(disk)
    assert (found, report.quarantined) == (stored, ())
    assert len(content(disk, segment)) == end


# ---- an index that is unsound ----------------------------------------------------------------------------------------


def sealed_log() -> tuple[MemoryFileSystem, list[Record]]:
    disk = MemoryFileSystem()
    stored = write_log(disk, many_groups(6), close=True, care=True)
    assert len(segments(disk)) == 3
    remove(disk, f"{LOG}/reserve")
    return disk, stored


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("part", ["head", "fingerprints", "frames", "streams", "batches", "all of them"])
def test_a_segment_whose_footer_is_unsound_is_read_from_its_frames(part: str, number: int) -> None:
    disk, stored = sealed_log()
    segment = segments(disk)[number]
    whole = content(disk, segment)
    trailer = parse_trailer(whole[-TRAILER_BYTES:])
    assert trailer is not None
    head = parse_head(whole[trailer.index_at :])
    places = {
        "head": 30,
        "fingerprints": head.fingerprints_at + 1,
        "frames": head.frames_at + 7,
        "streams": head.streams_at + 7,
        "batches": head.batches_at + 7,
    }
    for at in places.values() if part == "all of them" else [places[part]]:
        flip(disk, segment, trailer.index_at + at)
    before = tree(disk)
    log = open_log(disk, LOG, SMALL)
    assert read_log(log) == stored
    assert isinstance(log.index.segments[number].index, LiveIndex)
    assert sum(isinstance(other.index, LiveIndex) for other in log.index.segments) == 1
    assert next(iter(streams_of(log.index))) == A
    log.release()
    after = tree(disk)
    assert {path: after[path] for path in before} == before, "what is damaged stays as it is"
    problems = verify_log(LOG, files=disk).problems
    assert problems
    assert all(segment in str(problem) for problem in problems)


def test_an_unsound_open_set_of_the_newest_footer_is_made_up_for_at_the_opening() -> None:
    disk = MemoryFileSystem()
    write_open_streams(disk)
    write_log(disk, [[(A, [payload(9000)])], [(A, [payload(9000)])]], close=True, care=True)
    newest = segments(disk)[-1]
    whole = content(disk, newest)
    trailer = parse_trailer(whole[-TRAILER_BYTES:])
    assert trailer is not None
    head = parse_head(whole[trailer.index_at :])
    assert head.open_streams == 2
    flip(disk, newest, trailer.index_at + head.open_at + 3)
    for also_the_streams in (False, True):
        if also_the_streams:
            flip(disk, newest, trailer.index_at + head.streams_at + 3)
        log = open_log(disk, LOG, SMALL)
        assert list(log.index.streams_still_open()) == [B, A]
        log.release()


def test_an_unsound_index_and_damaged_frames_together_are_refused_and_named() -> None:
    """Which streams are concerned cannot be told; `salvage` saves what can be read."""
    disk, _stored = sealed_log()
    segment = segments(disk)[1]
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    second = frames_of(disk, segment)[1]
    flip(disk, segment, trailer.index_at + 30)
    flip(disk, segment, second.at + 300)
    with pytest.raises(CorruptLog) as caught:
        open_log(disk, LOG, SMALL)
    assert (caught.value.file, caught.value.row, caught.value.offset) == (segment, 8, frames_of_end(disk, segment))
    assert (caught.value.first_lsn, caught.value.last_lsn) == (second.head.first_lsn, trailer.end_lsn)


def frames_of_end(disk: MemoryFileSystem, segment: str) -> int:
    """Behind the first frame."""
    return frames_of(disk, segment)[0].end


def test_damage_that_shows_only_when_the_index_is_read_is_contained() -> None:
    disk, stored = sealed_log()
    log = open_log(disk, LOG, SMALL)
    segment = log.index.segments[0]
    assert isinstance(segment.index, SealedIndex)
    flip(disk, segment.path, segment.index._base + segment.index.head.streams_at + 5)
    reader = StreamReader(log.reading, log.index)
    assert read_stream(reader, A) == [record for record in stored if record.stream == A]
    assert log.index.index_rebuilds == 1
    log.release()


def test_row_18_an_io_error_in_an_index_is_no_damage() -> None:
    disk, _stored = sealed_log()
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)

    def bad_block(call: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    files.before = bad_block
    with pytest.raises(RecoveryFailed) as caught:
        log.index.last_seq(A)
    assert caught.value.errno == errno.EIO
    assert log.index.index_rebuilds == 0
    files.before = None
    assert log.index.last_seq(A) == 6
    log.release()


def test_a_trailer_that_names_another_end_than_the_next_segment_is_refused() -> None:
    disk, _stored = sealed_log()
    segment = segments(disk)[1]
    size = len(content(disk, segment))
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    for changed in (trailer._replace(chain=trailer.chain ^ 1), trailer._replace(end_lsn=trailer.end_lsn - 1)):
        put(disk, segment, encode_trailer(changed), at=size - TRAILER_BYTES)
        with pytest.raises(CorruptLog) as caught:
            open_log(disk, LOG, SMALL)
        assert (caught.value.file, caught.value.row) == (segment, 2)
        assert verify_log(LOG, files=disk).problems


@pytest.mark.parametrize("lies", [False, True], ids=["as it was written", "of another end"])
def test_a_footer_that_comes_to_end_its_file_by_a_cut_is_asked_and_goes_if_it_lies(lies: bool) -> None:
    disk, stored = sealed_log()
    segment = segments(disk)[-1]
    size = len(content(disk, segment))
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    if lies:
        put(disk, segment, encode_trailer(trailer._replace(end_lsn=trailer.end_lsn + 1)), at=size - TRAILER_BYTES)
    put(disk, segment, bytes(4096), at=size)  # so the trailer is not where a file ends, and the frames are scanned
    log = open_log(disk, LOG, SMALL)
    assert read_log(log) == stored
    number = [it.path for it in log.index.segments].index(segment)
    assert isinstance(log.index.segments[number].index, LiveIndex if lies else SealedIndex)
    log.release()
    assert len(content(disk, segment)) == (trailer.end_offset if lies else size)
    again = open_log(disk, LOG, SMALL)
    assert read_log(again) == stored
    again.release()


def test_a_head_that_is_not_the_one_its_trailer_names_is_unsound() -> None:
    """An old footer under a new trailer, or the other way round."""
    disk, stored = sealed_log()
    segment = segments(disk)[1]
    size = len(content(disk, segment))
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    for changed in (trailer._replace(head_crc=trailer.head_crc ^ 1), trailer._replace(records=trailer.records + 1)):
        put(disk, segment, encode_trailer(changed), at=size - TRAILER_BYTES)
        assert reopen(disk)[0] == stored


def test_a_trailer_that_points_outside_of_its_file_is_none() -> None:
    disk, stored = sealed_log()
    segment = segments(disk)[2]
    size = len(content(disk, segment))
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    put(disk, segment, encode_trailer(trailer._replace(index_bytes=size)), at=size - TRAILER_BYTES)
    files = WatchedFiles(disk)
    log = open_log(files, LOG, SMALL)
    assert scanned(files) == [segment]
    assert read_log(log) == stored
    log.release()


def test_row_18_a_short_read_of_a_trailer_is_no_missing_trailer() -> None:
    disk, _stored = sealed_log()
    files = WatchedFiles(disk)
    file = files.open(segments(disk)[0], write=False)
    files.spoil_read = lambda call, data: data[:-1]
    with pytest.raises(OSError, match="63"):
        read_trailer(file, file.size(), None)
    with pytest.raises(RecoveryFailed):
        find_seal(files, OpenFiles(files), segments(disk)[0], header_of(disk, segments(disk)[0]))


# ---- the copy of the header ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 60, 300, 511])
def test_row_16_an_older_sealed_segment_is_read_with_the_copy_of_its_header(at: int) -> None:
    disk, stored = sealed_log()
    for segment in segments(disk)[:2]:
        image = clone(disk)
        flip(image, segment, at)
        assert reopen(image)[0] == stored
        (problem,) = verify_log(LOG, files=image).problems
        assert "header" in str(problem)
        assert segment in str(problem)


def test_row_16_without_a_sound_copy_it_is_refused() -> None:
    disk, _stored = sealed_log()
    segment = segments(disk)[0]
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    flip(disk, segment, 60)
    for place in (trailer.index_at + 100, len(content(disk, segment)) - 20):
        image = clone(disk)
        flip(image, segment, place)
        with pytest.raises(CorruptLog) as caught:
            open_log(image, LOG, SMALL)
        assert (caught.value.row, caught.value.file) == (16, segment)


def test_row_18_an_io_error_in_the_copy_of_a_header_is_no_damage() -> None:
    disk, _stored = sealed_log()
    segment = segments(disk)[0]
    flip(disk, segment, 60)

    def bad_block(call: object) -> None:
        if getattr(call, "path", "") == segment and getattr(call, "offset", 0):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(RecoveryFailed) as caught:
        open_log(WatchedFiles(disk, bad_block), LOG, SMALL)
    assert (caught.value.file, caught.value.errno) == (segment, errno.EIO)


# ---- files that stay open --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_an_opening_that_fails_at_any_call_leaves_no_file_open(read_only: bool) -> None:
    disk = MemoryFileSystem()
    write_log(disk, many_groups(4), close=True, care=True)
    write_log(disk, many_groups(2))
    torn = frames_of(disk, segments(disk)[-1])[-1]
    put(disk, segments(disk)[-1], bytes(512), at=torn.at // 512 * 512 + 512)
    number, failed = 0, 0
    while True:
        number += 1
        image = clone(disk)
        files = WatchedFiles(image)

        def fail(call: object, number: int = number) -> None:
            if getattr(call, "number", 0) == number:
                raise OSError(errno.EIO, "Input/output error")

        files.before = fail
        try:
            log = open_log_read_only(files, LOG) if read_only else open_log(files, LOG, SMALL)
        except RecoveryFailed:
            failed += 1
            assert files.open_files == [], files.calls[number - 1]
            continue
        log.release()
        assert files.open_files == []
        if len(files.calls) < number:
            break
    assert failed > (15 if read_only else 50)


def test_a_refused_log_leaves_no_file_open() -> None:
    disk, _stored = sealed_log()
    put(disk, segments(disk)[-1], b"\x01", at=len(content(disk, segments(disk)[-1])) + 100)
    files = WatchedFiles(disk)
    with pytest.raises(CorruptLog):
        open_log(files, LOG, SMALL)
    assert files.open_files == []


# ---- building an index again -----------------------------------------------------------------------------------------


async def test_the_index_of_a_segment_is_the_same_from_its_frames() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with tended(log) as (writer, _caretaker):
        for n in range(9):
            records_of(await store(writer, (A, [payload(n * 400, n)]), (stream_id(str(n)), [b"x"] * (n + 1))))
        await writer.rotate()
        await trio.testing.wait_all_tasks_blocked()
        compare_with_frames(disk, log)


def compare_with_frames(disk: MemoryFileSystem, log: OpenLog) -> None:
    compared = 0
    for segment in log.index.segments[:-1]:
        index, again = segment.index, rebuild_index(disk, segment)
        assert isinstance(index, SealedIndex)
        assert [entry._replace(first_batch=0) for entry in index.streams()] == sorted(again.streams())
        assert [index.frame_place(n) for n in range(index.frame_count)] == [
            again.frame_place(n) for n in range(again.frame_count)
        ]
        compared += again.records
    assert compared == log.index.records


def test_a_segment_object_compares_by_identity() -> None:
    """Segments are looked up among their neighbours; two with the same content are two."""
    one = IndexedSegment("x", header_of(*a_header()), 0, LiveIndex(), 0, 0, 0)
    assert one != IndexedSegment("x", one.header, 0, one.index, 0, 0, 0)
    assert one.named_end == (0, 0, 0)
    rewritten = one.header._replace(generation=1, orig_end_offset=7, orig_end_lsn=8, orig_chain=9)
    assert IndexedSegment("x", rewritten, 0, one.index, 1, 2, 3).named_end == (7, 8, 9)


def a_header() -> tuple[MemoryFileSystem, str]:
    disk = MemoryFileSystem()
    open_log(disk, LOG, SMALL).release()
    return disk, segments(disk)[0]
