"""Footers, trailers and marks as a crash and a long life leave them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stepstore.errors import CorruptLog
from stepstore.log import frame as fr
from stepstore.log.footer import TRAILER_BYTES, Trailer, encode_head, encode_trailer, parse_head, parse_trailer
from stepstore.log.live_index import LiveIndex
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.open_files import OpenFiles
from stepstore.log.opening import LogOptions, open_log, open_log_read_only
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.records import Record
from stepstore.log.sealing import SIDECAR_INDEX_AT, find_seal, open_index, read_trailer, sidecar_path
from stepstore.log.verify import verify_log
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    Call,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    header_of,
    payload,
    put,
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


async def test_a_segment_that_was_left_half_empty_ends_with_its_trailer() -> None:
    disk = MemoryFileSystem()
    options = LogOptions(segment_bytes=64 * 1024)
    async with tended(open_log(disk, LOG, options)) as (writer, caretaker):
        await store(writer, (A, [b"little"]))
        await writer.rotate()
        await caretaker.wait_sealed()
    first = segments(disk)[0]
    data = content(disk, first)
    assert len(data) == frames_of(disk, first)[-1].end + TRAILER_BYTES < options.segment_bytes
    assert parse_trailer(data[-TRAILER_BYTES:]) is not None


@pytest.mark.parametrize("way", ["left", "closed"])
async def test_whatever_single_write_of_a_seal_a_power_cut_keeps_the_log_is_sound(way: str) -> None:
    """A trailer that is there without the footer it points to would be damage to the footer."""
    disk = MemoryFileSystem()
    images: list[tuple[Call, MemoryFileSystem]] = []

    def crash(call: Call) -> None:
        for item in disk.unsynced():
            images.append((call, disk.image({item.number: (1 << item.pieces) - 1})))

    files = WatchedFiles(disk)
    async with tended(open_log(files, LOG, SMALL), close=way == "closed") as (writer, caretaker):
        stored = records_of(await store(writer, (A, [payload(700)]), (B, [b"x"])))
        files.before = crash
        if way == "left":
            await writer.rotate()
            await caretaker.wait_sealed()
    assert {"datasync", "truncate", "write"} <= {call.operation for call, _image in images}
    for call, image in images:
        assert verify_log(LOG, files=image).problems == [], call
        assert reopen(image)[0] == stored, call
        assert verify_log(LOG, files=image).problems == [], call


def sealed_log() -> tuple[MemoryFileSystem, str, Trailer]:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(900)])], [(B, [b"x"])]], close=True)
    (segment,) = segments(disk)
    trailer = parse_trailer(content(disk, segment)[-TRAILER_BYTES:])
    assert trailer is not None
    return disk, segment, trailer


@pytest.mark.parametrize("field", ["index_bytes", "head_crc", "end_offset", "end_lsn", "chain", "records"])
def test_an_index_is_taken_only_under_the_trailer_that_names_it(field: str) -> None:
    disk, segment, trailer = sealed_log()
    reading = OpenFiles(disk)
    assert open_index(reading, segment, trailer).records == 2
    with pytest.raises(UnsoundIndex):
        open_index(reading, segment, trailer._replace(**{field: getattr(trailer, field) + 1}))
    reading.close()


def test_a_trailer_is_none_if_its_index_reaches_beyond_the_file_or_it_is_of_another_segment() -> None:
    disk, segment, trailer = sealed_log()
    file = disk.open(segment)
    size = file.size()
    assert read_trailer(file, size, trailer.segment_tag) == read_trailer(file, size, None) == trailer
    assert read_trailer(file, size, trailer.segment_tag ^ 1) is None
    for index_bytes, found in ((size - trailer.index_at, True), (size - trailer.index_at + 1, False)):
        file.write(size - TRAILER_BYTES, encode_trailer(trailer._replace(index_bytes=index_bytes)))
        assert (read_trailer(file, size, trailer.segment_tag) is not None) == found
    file.close()


# ---- sidecars --------------------------------------------------------------------------------------------------------


def crashed_with_a_sidecar(seed: int) -> tuple[MemoryFileSystem, list[Record], str, str]:
    """A segment that a crash left, cut at its end, and its sidecar. Whatever the seed, they are of one size."""
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [payload(900, seed)])], [(B, [payload(90, seed)])]])
    write_log(disk, [], care=True)
    (segment,) = segments(disk)
    return disk, stored, segment, sidecar_path(segment)


def test_a_sidecar_of_a_segment_of_another_log_is_not_taken_although_the_sizes_fit() -> None:
    disk, stored, segment, sidecar = crashed_with_a_sidecar(1)
    other, *_rest = crashed_with_a_sidecar(2)
    assert len(content(other, segment)) == len(content(disk, segment))
    put(disk, sidecar, content(other, sidecar))
    assert reopen(disk)[0] == stored


def test_a_sidecar_that_is_not_sound_is_written_again() -> None:
    disk, stored, segment, sidecar = crashed_with_a_sidecar(1)
    whole = content(disk, sidecar)
    header = header_of(disk, segment)
    reading = OpenFiles(disk)
    for place in (SIDECAR_INDEX_AT, SIDECAR_INDEX_AT + 100, len(whole) - 1):
        flip(disk, sidecar, place)
        assert reopen(disk)[0] == stored
        write_log(disk, [], care=True)
        assert content(disk, sidecar) == whole
    seal = find_seal(disk, reading, segment, header, sidecar=True)
    assert seal is not None
    assert seal.found is not None
    reading.close()


def test_verify_objects_to_a_sidecar_whose_index_lies_elsewhere_in_it() -> None:
    """Sound in itself, and not what is written: only a crafted file says so."""
    disk, stored, segment, sidecar = crashed_with_a_sidecar(1)
    assert verify_log(LOG, files=disk).problems == []
    data = content(disk, sidecar)
    trailer = parse_trailer(data[-TRAILER_BYTES:])
    assert trailer is not None
    moved = trailer._replace(index_at=SIDECAR_INDEX_AT + 8)
    put(disk, sidecar, bytes(8) + data[:-TRAILER_BYTES] + encode_trailer(moved))
    seal = find_seal(disk, OpenFiles(disk), segment, header_of(disk, segment), sidecar=True)
    assert seal is not None
    assert seal.found is not None
    (problem,) = verify_log(LOG, files=disk).problems
    assert (problem.file, "not what was written" in problem.text) == (sidecar, True)
    assert reopen(disk)[0] == stored


def test_a_left_over_of_a_sidecar_that_could_not_be_written_is_in_nobodys_way() -> None:
    """It is longer than the one that is written now, and would lie behind its end."""
    disk, stored, _segment, sidecar = crashed_with_a_sidecar(1)
    whole = content(disk, sidecar)
    remove(disk, sidecar)
    placed: list[str] = []

    def leave_one(call: Call) -> None:
        if call.operation == "stat" and call.path == f"{LOG}/sidecar.tmp" and not placed:
            placed.append(call.path)
            put(disk, call.path, payload(len(whole) + 5000))

    write_log(WatchedFiles(disk, leave_one), [], care=True)
    assert placed
    assert disk.stat(f"{LOG}/sidecar.tmp") is None
    assert content(disk, sidecar) == whole
    assert reopen(disk)[0] == stored


def test_a_sidecar_is_on_the_medium_when_it_has_its_name() -> None:
    disk, _stored, _segment, sidecar = crashed_with_a_sidecar(1)
    whole = content(disk, sidecar)
    remove(disk, sidecar)
    images: list[MemoryFileSystem] = []
    files = WatchedFiles(disk, lambda call: images.append(disk.durable_copy()))
    write_log(files, [], care=True)
    seen = [content(image, sidecar) for image in (*images, disk.durable_copy()) if image.stat(sidecar) is not None]
    assert seen
    assert set(seen) == {whole}


async def test_a_segment_is_left_before_its_index_outgrows_a_footer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small streams: their index takes more space than they do."""
    monkeypatch.setattr("stepstore.log.index.INDEX_BYTES", 1500)
    disk = MemoryFileSystem()
    stored: list[Record] = []
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for n in range(60):
            stored += records_of(await store(writer, (stream_id(str(n)), [b""])))
    log = open_log(disk, LOG, SMALL)
    sizes = [segment.index.size_so_far for segment in log.index.segments if isinstance(segment.index, LiveIndex)]
    log.release()
    assert len(sizes) == len(segments(disk)) == 5
    assert all(1500 <= size < 1700 for size in sizes[:-1])
    assert reopen(disk)[0] == stored


async def test_behind_a_mark_the_index_names_the_end_that_the_next_segment_names() -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        await store(writer, (A, [b"x"]))
        writer.want_mark()
        await trio.testing.wait_all_tasks_blocked()
        await writer.rotate()
        first, second = log.index.segments
        assert frames_of(disk, first.path)[-1].head.kind == fr.KIND_MARK
        named = second.header.prev_end_offset, second.header.prev_end_lsn, second.header.prev_chain
        assert first.named_end == named
        assert header_of(disk, second.path) == second.header


def test_every_flipped_bit_of_a_mark_is_a_problem_for_verify_and_costs_no_record() -> None:
    """A mark lies within one sector, so a part of one is no torn write."""

    async def main() -> None:
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            stored.extend(records_of(await store(writer, (A, [b"x"]))))
            writer.want_mark()
            await trio.testing.wait_all_tasks_blocked()

    disk = MemoryFileSystem()
    stored: list[Record] = []
    trio.run(main)
    (segment,) = segments(disk)
    mark = frames_of(disk, segment)[-1]
    assert mark.head.kind == fr.KIND_MARK
    for at in range(mark.at, mark.end):
        image = clone(disk)
        flip(image, segment, at, bit=at % 8)
        (problem,) = verify_log(LOG, files=image).problems
        assert problem.first_lsn is None, str(problem)
        assert reopen(image)[0] == stored


def test_the_digest_of_a_sealed_segment_is_that_of_its_bytes_and_verify_compares_it() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(900)])], [(B, [b"x"])]], close=True)
    assert verify_log(LOG, digests=True, files=disk).problems == []
    (segment,) = segments(disk)
    data = bytearray(content(disk, segment))
    trailer = parse_trailer(bytes(data[-TRAILER_BYTES:]))
    assert trailer is not None
    head = parse_head(bytes(data[trailer.index_at :]))
    other = encode_head(head._replace(digest=bytes(32)))
    data[trailer.index_at : trailer.index_at + len(other)] = other
    data[-TRAILER_BYTES:] = encode_trailer(trailer._replace(head_crc=int.from_bytes(other[-4:], "big")))
    put(disk, segment, data)
    for digests in (False, True):
        found = [str(problem) for problem in verify_log(LOG, digests=digests, files=disk).problems]
        assert any("digest" in problem for problem in found) == digests, found


def test_row_02_a_file_shorter_than_its_sidecar_knows_is_refused() -> None:
    disk, _stored, segment, _sidecar = crashed_with_a_sidecar(1)
    whole = len(content(disk, segment))
    for size in (whole - 1, whole - 90, 600, 512):
        image = clone(disk)
        put(image, segment, b"", at=0, size=size)
        before = tree(image)
        with pytest.raises(CorruptLog) as caught:
            open_log(image, LOG, SMALL)
        assert (caught.value.row, caught.value.offset, caught.value.file) == (2, size, segment)
        with pytest.raises(CorruptLog):
            open_log_read_only(image, LOG)
        assert verify_log(LOG, files=image).problems
        assert {path: data for path, data in tree(image).items() if path != f"{LOG}/LOCK"} == {
            path: data for path, data in before.items() if path != f"{LOG}/LOCK"
        }
