"""Compaction: what it leaves out, what it keeps, what it may not touch, and crashes and errors at every call of it."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import posixpath
import random
import zlib
from collections.abc import Callable
from importlib import resources
from typing import Any

import cbor2
import pytest
import trio
import trio.testing
from cddl_verifier import Validator

import stepstore.log
from stepstore.errors import Closed, CorruptLog, InvalidInput, InvalidState, RecoveryFailed, StepwellError, Unavailable
from stepstore.log import compaction_output
from stepstore.log import frame as fr
from stepstore.log.compaction_policy import Weight, choose
from stepstore.log.dead_records import DeadRecords
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.index import INDEX_BYTES
from stepstore.log.live_index import STREAM_FORKED
from stepstore.log.manifest import Manifest, encode_manifest, parse_manifest
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log, open_log_read_only
from stepstore.log.records import Gap, Record
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import Position, StreamReader
from stepstore.log.verify import verify_log
from tests.stepstore.compaction_lab import (
    QUIET,
    Kept,
    PowerCuts,
    a_log_with_dead_records,
    compact,
    delete,
    life,
    manifest_paths,
    newest,
    put,
)
from tests.stepstore.log_lab import (
    LOG,
    A,
    B,
    C,
    Call,
    Checkpoints,
    Forgetful,
    WatchedFiles,
    a_segment,
    clone,
    content,
    failing_at,
    flip,
    follow_log,
    frames_of,
    header_of,
    payload,
    read_stream,
    segments,
    stream_id,
)
from tests.stepstore.log_lab import put as put_file

# ---- what is left ----------------------------------------------------------------------------------------------------


async def test_compaction_leaves_out_what_is_dead_and_keeps_every_number_of_the_rest() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    before = sum(len(content(disk, path)) for path in segments(disk))
    assert kept.dead
    report = await compact(disk, kept)
    assert report.streams_removed == 2
    assert report.records_removed > len(kept.dead)  # superseded snapshots, too
    assert report.bytes_before - report.bytes_after == before - sum(len(content(disk, p)) for p in segments(disk))
    assert report.bytes_after < report.bytes_before / 2
    kept.check_reopened(disk, compacted=True)
    dead = {record.payload for record in kept.dead} - {record.payload for record in kept.alive}
    assert not [path for path in segments(disk) for one in dead if one in content(disk, path)]


async def test_compacting_again_finds_nothing_to_do() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    before = {path: content(disk, path) for path in segments(disk) + manifest_paths(disk)}
    report = await compact(disk, kept)
    assert (report.files_rewritten, report.records_removed, report.bytes_before) == (0, 0, 0)
    assert {path: content(disk, path) for path in segments(disk) + manifest_paths(disk)} == before


async def test_a_compacted_log_is_written_to_compacted_and_opened_again_and_again() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    rewritten = 0
    for part in range(4):
        rewritten += (await compact(disk, kept, close=part % 2 == 0)).files_rewritten
        async with life(disk, kept, close=part % 2 == 1) as (writer, _caretaker, _log):
            own = stream_id(f"part {part}")
            await put(writer, kept, (A, [payload(3000, part)], FLAG_SNAPSHOT), (A, [payload(2000, part)], 0))
            await put(writer, kept, (own, [payload(4000, part)], FLAG_OPENS))
            await put(writer, kept, (own, [payload(9000, part)], FLAG_CLOSES))
            if part:
                await delete(writer, kept, stream_id(f"part {part - 1}"))
        kept.check_reopened(disk, part)
    assert rewritten > 6
    await compact(disk, kept)
    kept.check_reopened(disk, compacted=True)
    async with life(disk, kept) as (writer, caretaker, _log):
        await delete(writer, kept, A, C)
        await caretaker.compact()
    kept.check_reopened(disk, compacted=True)
    assert max(header_of(disk, path).generation for path in segments(disk)) > 1


async def test_a_rewritten_file_names_what_it_stands_for_and_is_one_cbor_sequence() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    old = {header_of(disk, path).seq: header_of(disk, path) for path in segments(disk)}
    await compact(disk, kept)
    after = None
    for path in segments(disk):
        header = header_of(disk, path)
        first, last = old[header.seq], old[header.seq_last]
        assert posixpath.basename(path) == f"{header.seq:08d}-{header.first_lsn:016x}.1.seg"
        assert (header.generation, header.first_lsn, header.epoch) == (1, first.first_lsn, last.epoch)
        assert (header.prev_seq, header.prev_end_offset, header.prev_chain) == (
            first.prev_seq,
            first.prev_end_offset,
            first.prev_chain,
        )
        assert header.segment_tag not in {other.segment_tag for other in old.values()}
        if header.seq_last + 1 in old:
            follower = old[header.seq_last + 1]
            assert (header.orig_end_offset, header.orig_end_lsn, header.orig_chain) == (
                follower.prev_end_offset,
                follower.prev_end_lsn,
                follower.prev_chain,
            )
        frames = [found.head for found in frames_of(disk, path)]
        lsn = header.first_lsn
        for head in frames:
            assert head.first_lsn == lsn
            lsn = head.last_lsn + 1
        assert lsn == header.orig_end_lsn + 1
        assert after is None or header.first_lsn == after + 1
        after = header.orig_end_lsn
        reading = io.BytesIO(content(disk, path))
        decoder = cbor2.CBORDecoder(reading)
        while reading.tell() < len(content(disk, path)):
            decoder.decode()


async def test_the_manifest_is_one_cbor_item_that_lists_the_files() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    paths = manifest_paths(disk)
    assert len(paths) == 2
    assert content(disk, paths[-1]).startswith(b"\xd9\xd9\xf7")  # the self-described-CBOR tag
    magic, version, number, log_uuid, branch_uuid, files, epochs, _crc = cbor2.loads(content(disk, paths[-1]))
    manifest = newest(disk)
    assert (magic, version, number) == ("stepmani", 1, manifest.number)
    assert (log_uuid, branch_uuid) == (manifest.log_uuid, manifest.branch_uuid)
    assert [tuple(file) for file in files] == [tuple(file) for file in manifest.files]
    assert [tuple(epoch) for epoch in epochs] == kept.epoch_ends
    assert [f"{LOG}/{file.name}" for file in manifest.files] == segments(disk)
    schema = Validator(resources.files(stepstore.log).joinpath("format.cddl").read_text())
    assert schema.validate(content(disk, paths[-1]), root_type="manifest").valid
    assert not schema.validate(cbor2.dumps([*cbor2.loads(content(disk, paths[-1])), 1]), root_type="manifest").valid


async def test_a_file_in_which_everything_is_dead_becomes_one_frame_without_records() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, _log):
        await put(writer, kept, (A, [payload(9000)], 0))
        await writer.rotate()
        for n in range(3):
            await put(writer, kept, (B, [payload(3000, n)], 0))
        await writer.rotate()
        await put(writer, kept, (A, [payload(9000, 7)], 0))
        await delete(writer, kept, B)
        report = await caretaker.compact()
        assert (report.files_rewritten, report.records_removed) == (1, 3)
    path = segments(disk)[1]
    frames = [found.head for found in frames_of(disk, path)]
    assert [(head.kind, head.first_lsn, head.lsn_span, head.record_count) for head in frames] == [
        (fr.KIND_DATA, 2, 3, 0),
        (fr.KIND_FOOTER, 5, 0, 0),
        (fr.KIND_CLOSE, 5, 0, 0),
    ]
    kept.check_reopened(disk, compacted=True)


async def test_holes_longer_than_a_frame_can_span_are_covered_by_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_output, "MAX_SPAN", 5)
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, _log):
        for n in range(4):
            await put(writer, kept, (B, [payload(300, n)] * 4, 0))
            await put(writer, kept, (A, [payload(10, n)] * (n + 1), 0))
        await put(writer, kept, (B, [payload(300)] * 13, 0))
        await writer.rotate()
        await delete(writer, kept, B)
        await caretaker.compact()
        heads = [found.head for found in frames_of(disk, segments(disk)[0]) if found.head.kind == fr.KIND_DATA]
        assert max(head.lsn_span for head in heads) == 5
        assert [head.record_count for head in heads].count(0) > 2
    kept.check_reopened(disk, compacted=True)


async def test_frames_are_joined_up_to_a_bound_and_a_large_batch_has_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compaction_output, "FRAME_BYTES", 2000)
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept, options=LogOptions(segment_bytes=64 * 1024)) as (writer, caretaker, _log):
        for n in range(10):
            await put(writer, kept, (A, [payload(350, n)], 0))
            await put(writer, kept, (B, [payload(900, n)], 0))
        await put(writer, kept, (C, [payload(4000)], 0), (A, [b"small"], 0))
        await writer.rotate()
        await delete(writer, kept, B)
        await caretaker.compact()
        heads = [found.head for found in frames_of(disk, segments(disk)[0]) if found.head.kind == fr.KIND_DATA]
        assert [head.record_count for head in heads] == [5, 5, 1, 2]
    kept.check_reopened(disk, compacted=True)


async def test_small_neighbours_become_one_file_although_nothing_in_them_is_dead() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    for n in range(5):
        async with life(disk, kept, close=True) as (writer, _caretaker, _log):
            await put(writer, kept, (A, [payload(300, n)], 0), (stream_id(f"{n}"), [b"x"], FLAG_OPENS))
    report = await compact(disk, kept)
    assert (report.files_rewritten, report.files_written, report.records_removed) == (5, 1, 0)
    assert [posixpath.basename(path) for path in segments(disk)] == ["00000001-0000000000000001.1.seg"]
    kept.check_reopened(disk, compacted=True)


async def test_epochs_that_headers_of_merged_files_named_are_kept() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    for n in range(5):
        async with life(disk, kept, close=n != 2) as (writer, _caretaker, _log):
            await put(writer, kept, (A, [payload(100, n)] * (n + 1), 0))
    ends = [(1, 1), (2, 3), (3, 6), (4, 10), (5, 15)]
    assert kept.epoch_ends == ends
    await compact(disk, kept)
    assert len(segments(disk)) == 1
    async with life(disk, kept) as (writer, _caretaker, log):
        assert log.epoch_ends() == ends
        await put(writer, kept, (B, [b"more"], 0))
        assert log.epoch_ends() == [*ends, (6, 16)]
    log = open_log_read_only(disk, LOG)
    assert log.epoch_ends() == [*ends, (6, 16)]
    log.release()


async def test_a_deleted_stream_stays_deleted_when_only_its_tombstone_is_left() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    async with life(disk, kept) as (writer, _caretaker, log):
        for stream in kept.deleted:
            assert log.index.locate(stream).parts == ()
            with pytest.raises(InvalidState, match="deleted"):
                writer.submit([Batch(stream, writer.queue.last_seq(stream) + 1, [b"x"], 0)])


async def test_a_snapshot_is_superseded_by_a_later_one_in_whichever_file_that_is() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, log):
        for n in range(3):
            await put(writer, kept, (A, [payload(20, n)], 0))
            await put(writer, kept, (A, [payload(6000, n)], FLAG_SNAPSHOT), (B, [payload(4000, n)], 0))
            await writer.rotate()
        report = await caretaker.compact()
        assert (report.files_rewritten, report.records_removed) == (2, 2)
        reader = StreamReader(log.reading, log.index)
        assert reader.read_snapshot(A) == Record(A, 3, 8, payload(6000, 2))
    kept.check_reopened(disk, compacted=True)


# ---- what compaction does not look into ------------------------------------------------------------------------------


async def test_batches_are_copied_as_they_are_stored_whatever_their_flags_say() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, log):
        writer._group_commit._encode = lambda stream, first_seq, payloads: (payload(77, first_seq), 16 | 32)
        await put(writer, kept, (A, [b"one", b"two"], FLAG_OPENS), (B, [payload(2000)], 0))
        await writer.rotate()
        writer._group_commit._encode = None
        await delete(writer, kept, B)
        batches = log.index.batches_after(A, 0)
        before = [log.reading.read(batch.segment.path, batch.payload_at, batch.size) for batch in batches]
        old_path = batches[0].segment.path
        await caretaker.compact()
        batches = log.index.batches_after(A, 0)
        assert batches[0].segment.path != old_path
        after = [log.reading.read(batch.segment.path, batch.payload_at, batch.size) for batch in batches]
        assert before == after == [payload(77, 1)]
        assert [(batch.flags, batch.records, batch.first_lsn) for batch in batches] == [(16 | 32 | FLAG_OPENS, 2, 1)]
        assert log.reading.read(batches[0].segment.path, batches[0].lengths_at, 8) == (3).to_bytes(4, "big") * 2


# ---- readers ---------------------------------------------------------------------------------------------------------


async def test_readers_in_the_middle_go_on_in_the_rewritten_files() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(disk, kept) as (_writer, caretaker, log):
        reader = StreamReader(log.reading, log.index)
        frame_reader = FrameReader(log.reading, log.index)
        slow, position = reader.read_slice(A, Position(0), log.end_lsn, 4, 2000)
        followed, place = frame_reader.read_frames(FramePosition(0), log.end_lsn, 20)
        streams = streams_of(log.index)
        seen = [next(streams)]
        await caretaker.compact()
        while True:
            found, position = reader.read_slice(A, position, log.end_lsn, 4, 2000)
            if not found:
                break
            slow += found
        assert slow == [record for record in kept.alive if record.stream == A]
        while True:
            items, place = frame_reader.read_frames(place, log.end_lsn, 20)
            if not items:
                break
            followed += items
        reached = 20
        assert [item for item in followed if isinstance(item, Record) and item not in kept.dead] == kept.alive
        assert not [item for item in followed[reached + 20 :] if item in kept.dead]
        assert [*seen, *streams] == [A, C, b"another stream.."]


async def test_a_follower_that_reads_up_to_the_middle_of_a_joined_frame_misses_nothing_behind_it() -> None:
    """It asks up to where the log is durable, and compaction joins that frame with later ones before it reads."""
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(disk, kept) as (_writer, caretaker, log):
        await caretaker.compact()
        end = log.index.segments[-1].end_lsn
        for upto in range(1, end):
            reader = FrameReader(log.reading, log.index)
            found: list[Record | Gap] = []
            place = FramePosition(0)
            for limit in (upto, end):
                while place.after < limit:
                    items, place = reader.read_frames(place, limit, 20)
                    found += items
                    assert place.after <= limit
            assert [item for item in found if item not in kept.dead] == kept.alive, upto


async def test_files_are_let_go_of_when_they_are_replaced() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    async with life(files, kept) as (_writer, caretaker, log):
        old = log.paths
        kept.check(log)
        assert {file.path for file in files.open_files} & {*old}
        await caretaker.compact()
        assert not {file.path for file in files.open_files} & {*old}
        kept.check(log, compacted=True)


async def test_a_log_opened_for_reading_finds_the_rewritten_files() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    looking = open_log_read_only(disk, LOG)
    reader = StreamReader(looking.reading, looking.index)
    frame_reader = FrameReader(looking.reading, looking.index)
    first, position = reader.read_slice(A, Position(0), looking.end_lsn, 2, 100)
    _items, place = frame_reader.read_frames(FramePosition(0), looking.end_lsn, 10)
    streams = streams_of(looking.index)
    assert next(streams) == A
    await compact(disk, kept)
    looking.reading.close()  # what it had open would still be readable
    rest, _position = reader.read_slice(A, position, looking.end_lsn, 1000, 10**6)
    assert first + rest == [record for record in kept.alive if record.stream == A]
    followed, _place = frame_reader.read_frames(place, looking.end_lsn, 1000)
    assert [item for item in kept.alive if item.lsn > place.after] == followed
    assert list(streams) == [C, b"another stream.."]
    kept.check(looking, compacted=True)
    looking.release()


@pytest.mark.parametrize("first_asked", ["snapshots", "streams"])
async def test_whatever_is_asked_first_after_a_compaction_finds_the_rewritten_files(first_asked: str) -> None:
    """A log opened for reading: the files that its index names are gone."""
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    looking = open_log_read_only(disk, LOG)
    reader = StreamReader(looking.reading, looking.index)
    await compact(disk, kept)
    looking.reading.close()  # what it had open would still be readable
    if first_asked == "snapshots":
        assert [reader.read_snapshot(stream) for stream in (A, C)] == [kept.snapshots[A], kept.snapshots[C]]
    else:
        assert list(streams_of(looking.index)) == [A, C, b"another stream.."]
    assert looking.paths == segments(disk)
    kept.check(looking, compacted=True)
    looking.release()


async def test_row_18_a_read_error_of_a_snapshot_is_declared() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    looking = open_log_read_only(files, LOG)
    reader = StreamReader(looking.reading, looking.index)
    assert reader.read_snapshot(A) == kept.snapshots[A]

    def before(call: Call) -> None:
        if call.operation == "read":
            raise OSError(errno.EIO, "Input/output error", call.path)

    files.before = before
    with pytest.raises(RecoveryFailed) as caught:
        reader.read_snapshot(A)
    assert caught.value.errno == errno.EIO
    assert caught.value.file in segments(disk)
    files.before = None
    assert reader.read_snapshot(A) == kept.snapshots[A]
    looking.release()


async def test_an_opening_for_reading_while_files_are_replaced_lists_them_again() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    compacted = clone(disk)
    await compact(compacted, kept)
    replaced = 0

    def replace_at(number: int) -> WatchedFiles:
        def before(call: Call) -> None:
            if call.number == number:
                files.inner = compacted

        files = WatchedFiles(disk, before)
        return files

    number, calls = 0, 10**6
    while number < calls:
        number += 1
        files = replace_at(number)
        log = open_log_read_only(files, LOG)
        calls = len(files.calls)
        try:
            kept.check(log, number)
            replaced += bool(log.manifest)
        finally:
            log.release()
    assert replaced > 20


async def test_verifying_while_files_are_replaced_finds_no_fault() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    compacted = clone(disk)
    await compact(compacted, kept)
    number, calls = 0, 10**6
    while number < calls:
        number += 1

        def before(call: Call, number: int = number) -> None:
            if call.number == number:
                files.inner = compacted  # noqa: B023

        files = WatchedFiles(disk, before)
        report = verify_log(LOG, files=files)
        calls = len(files.calls)
        assert report.problems == [], number


# ---- crashes and errors ----------------------------------------------------------------------------------------------


async def test_a_power_cut_at_any_call_of_a_compaction_leaves_everything_alive_once() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk, close=False)
    cuts = PowerCuts(disk, 23)
    files = WatchedFiles(disk, cuts)
    async with life(files, kept) as (_writer, caretaker, _log):
        await caretaker.compact()
        assert len(cuts.images) > 200
    files.before = None
    seen = set()
    for call, image in cuts.images:
        kept.check_reopened(image, call)
        seen.add(tuple(posixpath.basename(path) for path in segments(image)))
    assert len(seen) > 3
    print(f"{len(cuts.images)} images, {len(seen)} kinds of directory")


async def test_a_process_that_dies_at_any_call_of_a_compaction_and_a_power_cut_behind_the_next_opening() -> None:
    """What the dead process had not synced, the next one sees; it must not act on it as if it were durable."""
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    images: list[tuple[Call, MemoryFileSystem]] = []

    def die(call: Call) -> None:
        if call.operation in ("rename", "unlink", "sync_directory", "datasync"):
            images.append((call, disk.page_cache_copy()))

    async with life(WatchedFiles(disk, die), kept) as (_writer, caretaker, _log):
        await caretaker.compact()
    assert len(images) > 40
    for call, image in images:
        cuts = PowerCuts(image, 7, at_random=1)
        open_log(WatchedFiles(image, cuts), LOG, QUIET).release()
        for second, left in [*cuts.images, (call, image.durable_copy())]:
            kept.check_reopened(left, (call, second))


def lie_about_the_new_file(files: WatchedFiles) -> None:
    files.lying = "compact.tmp"


def lie_about_the_manifest(files: WatchedFiles) -> None:
    files.lying = "MANIFEST.tmp"


def lie_about_directories(files: WatchedFiles) -> None:
    files.sync_directory = lambda path: None  # type: ignore[method-assign]


def remove_too_early(files: WatchedFiles) -> None:
    """The old files go when the new one gets its name, before the manifest does."""
    rename = files.rename

    def renaming(source: str, target: str) -> None:
        rename(source, target)
        if source.endswith("compact.tmp"):
            header = header_of(files.inner, target)
            for path in segments(files.inner):
                if path != target and header.seq <= header_of(files.inner, path).seq <= header.seq_last:
                    files.inner.unlink(path)
            files.inner.sync_directory(LOG)

    files.rename = renaming  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "spoil", [lie_about_the_new_file, lie_about_the_manifest, lie_about_directories, remove_too_early]
)
async def test_the_power_cuts_object_to_a_compaction_that_does_not_sync(spoil: Callable[[WatchedFiles], None]) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    cuts = PowerCuts(disk, 3)
    files = WatchedFiles(disk, cuts)
    with contextlib.suppress(BaseExceptionGroup):  # what was removed too early may be missed at once
        async with life(files, kept) as (_writer, caretaker, _log):
            spoil(files)
            await caretaker.compact()
    objected = 0
    for call, image in cuts.images:
        try:
            kept.check_reopened(image, call)
        except (AssertionError, StepwellError):
            objected += 1
    assert objected > 0


async def test_a_power_cut_at_any_call_of_an_opening_that_removes_leftovers_loses_nothing() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    half = clone(disk)
    await compact(disk, kept)
    for path in [*segments(disk), *manifest_paths(disk)]:  # as if nothing that was replaced had been removed
        file = half.open(path, create=True)
        file.write(0, content(disk, path))
        file.datasync()
        file.close()
    half.sync_directory(LOG)
    old = [path for path in segments(half) if path not in segments(disk)]
    assert len(old) > 3
    report = verify_log(LOG, files=half)
    assert report.problems == []
    left = [note for note in report.notes if "left over from a compaction" in note]
    assert len([note for note in left if ".seg" in note]) == len(old)
    assert len([note for note in left if ".idx" in note]) == 1
    looking = open_log_read_only(half, LOG)
    kept.check(looking, compacted=True)
    looking.release()
    assert {*old} < {*segments(half)}
    cuts = PowerCuts(half, 5)
    open_log(WatchedFiles(half, cuts), LOG, QUIET).release()
    assert segments(half) == segments(disk)
    for call, image in cuts.images:
        kept.check_reopened(image, call, compacted=True)


TAKES_ROOM = {"create", "write", "truncate", "allocate", "rename", "link", "datasync", "sync_directory"}


@pytest.mark.parametrize("error_number", [errno.EIO, errno.ENOSPC])
async def test_an_error_at_any_call_of_a_compaction_loses_nothing_and_the_log_goes_on(error_number: int) -> None:
    start = MemoryFileSystem()
    stored = await a_log_with_dead_records(start)
    armed_from = [0]

    def arm(files: WatchedFiles, number: int) -> None:
        armed_from[0] = len(files.calls)
        files.before = failing_at(armed_from[0] + number, error_number)

    files = WatchedFiles(clone(start))
    async with life(files, stored) as (_writer, caretaker, _log):
        opened = len(files.calls)
        await caretaker.compact()
        calls = files.calls[opened:]
    number, failed, finished = 0, 0, False
    while not finished:
        number += 1
        disk = clone(start)
        kept = Kept(list(stored.stored), dict(stored.snapshots), set(stored.deleted), list(stored.tombstones))
        kept.open_streams = dict(stored.open_streams)
        if error_number == errno.ENOSPC and number <= len(calls) and calls[number - 1].operation not in TAKES_ROOM:
            continue
        files = WatchedFiles(disk)
        async with life(files, kept, close=True) as (writer, caretaker, log):
            arm(files, number)
            try:
                await caretaker.compact()
            except (Unavailable, StepwellError):
                failed += 1
            finished = len(files.calls) < armed_from[0] + number
            files.before = None
            await put(writer, kept, (A, [b"afterwards"], 0))
            kept.check(log, number)
            try:
                report = await caretaker.compact()
            except Unavailable as error:
                assert "open it again" in str(error), number
            else:
                assert report.left_alone == ()
                kept.check(log, number, compacted=True)
        kept.check_reopened(disk, number)
        await compact(disk, kept)
        kept.check_reopened(disk, number, compacted=True)
    assert failed > 40
    print(f"{number - 1} calls, {failed} of them failed the compaction")


async def test_a_damaged_file_is_left_as_it_is_and_the_others_are_compacted() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    damaged = segments(disk)[2]
    frame = frames_of(disk, damaged)[3]
    flip(disk, damaged, frame.end - 5)
    before = content(disk, damaged)
    async with life(disk, kept) as (_writer, caretaker, log):
        report = await caretaker.compact()
        assert report.left_alone == (damaged,)
        assert report.files_rewritten == 6
        assert caretaker.compactor.errors == 1
        assert damaged in log.paths
    assert content(disk, damaged) == before
    assert {problem.file for problem in verify_log(LOG, files=disk).problems} == {damaged}


# ---- the manifest ----------------------------------------------------------------------------------------------------


def refused(disk: MemoryFileSystem, row: int) -> CorruptLog:
    for options in (QUIET, LogOptions(segment_bytes=16 * 1024, tail="cut")):
        with pytest.raises(CorruptLog) as caught:
            open_log(disk, LOG, options)
        assert caught.value.row == row
    with pytest.raises(CorruptLog):
        open_log_read_only(disk, LOG)
    assert verify_log(LOG, files=disk).problems
    return caught.value


async def a_compacted_log() -> tuple[MemoryFileSystem, Kept]:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    return disk, kept


async def test_row_07_every_flipped_bit_of_the_newest_manifest_is_refused() -> None:
    disk, _kept = await a_compacted_log()
    path = manifest_paths(disk)[-1]
    data = content(disk, path)
    assert parse_manifest(data) is not None
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert parse_manifest(bytes(flipped)) is None
    for cut in range(len(data)):
        assert parse_manifest(data[:cut]) is None
    assert parse_manifest(data + b"\0") is None
    flip(disk, path, len(data) // 2)
    assert refused(disk, 7).file == path


def with_checksum(data: bytes) -> bytes:
    """A manifest of these bytes: as if its writer had meant them."""
    return data + b"\x1a" + zlib.crc32(data).to_bytes(4, "big")


def edited(data: bytes, at: int, byte: int) -> bytes:
    return with_checksum(data[:at] + bytes([byte]) + data[at + 1 : -5])


_HEAD_AT, _FILES_AT, _FILE_BYTES = 13, 61, 63


@pytest.mark.parametrize(
    "edit",
    [
        lambda m, data: with_checksum(data[:_HEAD_AT]),
        lambda m, data: with_checksum(data[:_FILES_AT]),
        lambda m, data: b"another" + with_checksum(data[7:-5]),
        lambda m, data: edited(data, _HEAD_AT, 0x1B),
        lambda m, data: edited(data, _HEAD_AT + 4, 2),
        lambda m, data: edited(data, _FILES_AT, 0x9B),
        lambda m, data: edited(data, _FILES_AT + 1, 0xFF),
        lambda m, data: edited(data, _FILES_AT + 5, 0x87),
        lambda m, data: edited(data, _FILES_AT + 6, 0x1A),
        lambda m, data: edited(data, _FILES_AT + 5 + _FILE_BYTES * len(m.files), 0x9B),
        lambda m, data: edited(data, len(data) - 5 - 19 * len(m.epochs), 0x83),
        lambda m, data: with_checksum(data[:-6]),
        lambda m, data: with_checksum(data[:-5] + b"\0"),
        lambda m, data: encode_manifest(m._replace(files=())),
        lambda m, data: encode_manifest(m._replace(files=m.files[1:])),
        lambda m, data: encode_manifest(m._replace(files=(m.files[0]._replace(first_lsn=2), *m.files[1:]))),
        lambda m, data: encode_manifest(m._replace(files=(*m.files, m.files[-1]))),
        lambda m, data: encode_manifest(with_last_file(m, seq_last=m.files[-1].seq - 1)),
        lambda m, data: encode_manifest(with_last_file(m, end_lsn=m.files[-1].first_lsn - 2)),
        lambda m, data: encode_manifest(m._replace(epochs=())),
        lambda m, data: encode_manifest(m._replace(epochs=(m.epochs[-1], *m.epochs))),
        lambda m, data: encode_manifest(m._replace(epochs=m.epochs[:-1])),
    ],
    ids=[
        "it ends behind its name",
        "it ends behind its head",
        "another name",
        "type of the version",
        "another version",
        "type of the files",
        "more files than bytes",
        "type of a file",
        "type of a field of a file",
        "type of the epochs",
        "type of an epoch",
        "a byte less",
        "a byte more",
        "no files",
        "the first file left out",
        "not from the first record",
        "a file twice",
        "segments backwards",
        "records backwards",
        "no epochs",
        "an epoch backwards",
        "epochs end before the files",
    ],
)
async def test_row_07_a_manifest_with_a_right_checksum_that_says_what_none_can_say_is_refused(
    edit: Callable[[Manifest, bytes], bytes],
) -> None:
    disk, _kept = await a_compacted_log()
    path = manifest_paths(disk)[-1]
    data = content(disk, path)
    assert with_checksum(data[:-5]) == data
    put_file(disk, path, edit(newest(disk), data))
    error = refused(disk, 7)
    assert error.file == path


def with_last_file(manifest: Manifest, **change: Any) -> Manifest:
    """Its last file says something else, and the epochs go with it."""
    last = manifest.files[-1]._replace(**change)
    epochs = ((1, last.end_lsn),)
    return manifest._replace(files=(*manifest.files[:-1], last), epochs=epochs)


async def test_a_power_cut_that_keeps_the_name_of_a_manifest_keeps_those_of_the_files_that_it_lists() -> None:
    start = MemoryFileSystem()
    kept = await a_log_with_dead_records(start)
    disk, images = clone(start), list[MemoryFileSystem]()

    def before(call: Call) -> None:
        if call.operation == "sync_directory":
            names = {item.number: -1 for item in disk.unsynced() if item.kind == "name" and "MANIFEST-" in item.path}
            if names:
                images.append(disk.image(names))

    async with life(WatchedFiles(disk, before), kept) as (_writer, caretaker, _log):
        await caretaker.compact()
    assert len(images) > 3
    for number, image in enumerate(images):
        kept.check_reopened(image, number)


async def test_an_older_manifest_that_is_damaged_does_not_matter() -> None:
    disk, kept = await a_compacted_log()
    older = manifest_paths(disk)[0]
    flip(disk, older, 40)
    log = open_log(disk, LOG, QUIET)
    kept.check(log, compacted=True)
    log.release()
    assert [problem.file for problem in verify_log(LOG, files=disk).problems] == [older]


async def test_row_07_a_missing_manifest_beside_a_rewritten_file_is_refused() -> None:
    disk, _kept = await a_compacted_log()
    for path in manifest_paths(disk):
        disk.unlink(path)
    disk.sync_directory(LOG)
    error = refused(disk, 7)
    assert error.file == segments(disk)[0]
    assert "MANIFEST" in str(error)


async def test_row_07_a_missing_newest_manifest_is_refused_and_not_answered_with_the_one_before() -> None:
    disk, _kept = await a_compacted_log()
    disk.unlink(manifest_paths(disk)[-1])
    disk.sync_directory(LOG)
    error = refused(disk, 7)
    assert "missing" in str(error)


@pytest.mark.parametrize("place", [0, 1, -1])
async def test_row_07_a_file_that_the_manifest_lists_is_missed(place: int) -> None:
    disk, _kept = await a_compacted_log()
    path = segments(disk)[place]
    listed = newest(disk).files[place]
    disk.unlink(path)
    disk.sync_directory(LOG)
    error = refused(disk, 7)
    assert (error.file, error.first_lsn, error.last_lsn) == (path, listed.first_lsn, listed.end_lsn)


async def test_row_07_a_rewritten_file_behind_the_manifests_range_is_refused() -> None:
    disk, _kept = await a_compacted_log()
    last = newest(disk).files[-1]
    stray = f"{LOG}/{last.seq_last + 1:08d}-{last.end_lsn + 1:016x}.1.seg"
    file = disk.open(stray, create=True)
    file.write(0, content(disk, segments(disk)[-1]))
    file.datasync()
    file.close()
    disk.sync_directory(LOG)
    assert refused(disk, 7).file == stray


async def test_row_13_the_manifest_of_another_log_is_refused() -> None:
    disk, _kept = await a_compacted_log()
    other, _kept = await a_compacted_log()
    number = newest(disk).number + 1
    file = disk.open(f"{LOG}/MANIFEST-{number:08d}", create=True)
    file.write(0, encode_manifest(newest(other)._replace(number=number)))
    file.datasync()
    file.close()
    disk.sync_directory(LOG)
    refused(disk, 13)


async def test_row_02_the_manifest_proves_records_of_a_file_that_was_cut_after_it() -> None:
    """The newest file has no successor whose header would prove them."""
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept, close=True) as (writer, _caretaker, _log):
        await put(writer, kept, (A, [payload(8000)], 0))
        await writer.rotate()
        await put(writer, kept, (B, [payload(8000)], 0))
        await delete(writer, kept, A)
    async with life(disk, kept) as (writer, _caretaker, _log):
        await put(writer, kept, (B, [payload(300)], 0))
        await put(writer, kept, (B, [payload(300, 2)], 0))
    async with life(disk, kept) as (writer, caretaker, _log):
        await caretaker.compact()  # nothing is written, so the file of the crashed life is the newest that ended
    newest_file = segments(disk)[-1]
    assert header_of(disk, newest_file).generation == 0
    last = frames_of(disk, newest_file)[-1]
    disk.unlink(newest_file.replace(".0.seg", ".idx"))
    file = disk.open(newest_file)
    file.write(last.at, bytes(len(content(disk, newest_file)) - last.at))
    file.datasync()
    file.close()
    disk.sync_directory(LOG)
    error = refused(disk, 2)
    assert error.file == newest_file


async def test_row_02_a_rewritten_file_that_is_not_whole_is_refused() -> None:
    disk, kept = await a_compacted_log()
    path = segments(disk)[1]
    frame = next(found for found in frames_of(disk, path) if found.head.kind == fr.KIND_DATA)
    size = len(content(disk, path))
    image = clone(disk)
    file = image.open(path)
    file.truncate(frame.end - 1)
    file.datasync()
    file.close()
    assert refused(image, 2).file == path
    # Without its footer it is opened from its frames.
    image = clone(disk)
    file = image.open(path)
    file.write(size - 20, bytes(20))
    file.datasync()
    file.close()
    log = open_log(image, LOG, QUIET)
    kept.check(log, compacted=True)
    log.release()
    assert "footer" in verify_log(LOG, files=image).problems[0].text


async def test_a_read_error_of_the_manifest_is_recovery_failed() -> None:
    disk, _kept = await a_compacted_log()
    path = manifest_paths(disk)[-1]

    def before(call: Call) -> None:
        if call.operation == "read" and call.path == path:
            raise OSError(errno.EIO, "Input/output error", path)

    with pytest.raises(StepwellError) as caught:
        open_log(WatchedFiles(disk, before), LOG, QUIET)
    assert not isinstance(caught.value, CorruptLog)


# ---- in the background -----------------------------------------------------------------------------------------------


BUSY = LogOptions(segment_bytes=16 * 1024)


async def test_the_log_is_compacted_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    before = segments(disk)
    async with life(disk, kept, close=True, options=BUSY) as (writer, caretaker, log):
        await trio.sleep(60)
        assert caretaker.compactor.files_rewritten > 3
        assert caretaker.compactor.bytes_saved > 50_000
        kept.check(log)
        await put(writer, kept, (A, [b"more"], 0))
        await delete(writer, kept, C)
        await writer.rotate()
        await trio.sleep(60)
    assert segments(disk) != before
    kept.check_reopened(disk, options=BUSY, compacted=True)


async def test_background_compaction_keeps_to_its_rate(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    options = LogOptions(segment_bytes=16 * 1024, compaction_bytes_per_second=1000)
    async with life(files, kept, options=options) as (_writer, caretaker, _log):
        await trio.sleep(20)
        assert caretaker.compactor.files_rewritten == 0
        await trio.sleep(60)
        assert caretaker.compactor.files_rewritten > 0
        asked = trio.current_time()
        await caretaker.compact()
        assert trio.current_time() == asked  # whoever waits for it does not wait for the rate
    kept.check_reopened(disk, compacted=True)


async def test_nothing_is_compacted_in_the_background_while_the_disk_is_full(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    full = True

    def before(call: Call) -> None:
        if full and call.operation in ("write", "allocate") and not call.path.endswith("compact.tmp"):
            raise OSError(errno.ENOSPC, "No space left on device", call.path)

    files = WatchedFiles(disk)
    async with life(files, kept, options=BUSY) as (writer, caretaker, _log):
        files.before = before
        submission = writer.submit([Batch(A, writer.queue.last_seq(A) + 1, [b"x"], 0)])
        await submission.wait()
        assert submission.error is not None
        assert not writer.admission.gate.is_open
        done = caretaker.compactor.files_rewritten
        await trio.sleep(120)
        assert caretaker.compactor.files_rewritten <= done + 1
        full = False
        await trio.sleep(10)
        writer.admission.check_open()
        await trio.sleep(60)
        assert caretaker.compactor.files_rewritten > done + 1
    kept.check_reopened(disk, options=BUSY)


async def test_closing_gives_up_a_compaction_that_is_under_way(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    options = LogOptions(segment_bytes=16 * 1024, compaction_bytes_per_second=1)
    before = segments(disk)
    async with life(disk, kept, close=True, options=options) as (_writer, _caretaker, _log):
        await trio.sleep(10)
        assert disk.stat(f"{LOG}/compact.tmp") is not None
        began = trio.current_time()
    assert trio.current_time() - began < 1
    assert disk.stat(f"{LOG}/compact.tmp") is None
    assert segments(disk) == before
    kept.check_reopened(disk)


async def test_an_error_in_the_background_is_counted_and_ends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)

    def before(call: Call) -> None:
        if call.operation == "write" and call.path.endswith("compact.tmp"):
            raise OSError(errno.EIO, "Input/output error", call.path)

    files = WatchedFiles(disk, before)
    async with life(files, kept, close=True, options=BUSY) as (writer, caretaker, log):
        await trio.sleep(60)
        assert caretaker.compactor.errors > 0
        assert caretaker.compactor.files_rewritten == 0
        await put(writer, kept, (A, [b"more"], 0))
        kept.check(log)
    kept.check_reopened(disk, options=BUSY)


async def test_a_cancelled_request_leaves_the_log_as_it_was() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    total = 0
    async with life(clone(disk), kept) as (_writer, caretaker, log):
        with Checkpoints(None) as count:
            await caretaker.compact()
        total = count.seen
    assert total > 10
    for number in range(1, total + 1):
        copy = clone(disk)
        async with life(copy, kept) as (_writer, caretaker, log):
            with trio.CancelScope() as scope, Checkpoints(scope, number):
                await caretaker.compact()
            kept.check(log, number)
            await caretaker.compact()
            kept.check(log, number, compacted=True)
        kept.check_reopened(copy, number, compacted=True)


async def test_compacting_a_closed_log_is_refused() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(disk, kept, close=True) as (writer, caretaker, _log):
        writer.finish()
        with pytest.raises(Closed):
            await caretaker.compact()


# ---- what is chosen --------------------------------------------------------------------------------------------------


MIB = 1024 * 1024


def chosen(*weights: tuple[float, bool] | None, neighbours: int = 4, index_bytes: int = 100) -> list[int]:
    """The numbers of the segments that are chosen of these (alive MiB, dead enough), in 64 MiB segments."""
    made = [
        None if weight is None else Weight(a_segment(n, n), int(weight[0] * MIB), index_bytes, weight[1])
        for n, weight in enumerate(weights)
    ]
    return [segment.header.seq for segment in choose(made, 64 * MIB, neighbours=neighbours)]


def test_what_is_dead_enough_is_chosen_with_the_small_ones_beside_it() -> None:
    assert chosen() == []
    assert chosen((60, False), (60, False)) == []
    assert chosen((60, False), (30, True), (60, False)) == [1]
    assert chosen((60, False), (1, False), (30, True), (2, False), (60, False), (0, True)) == [1, 2, 3]
    assert chosen((63, True), (2, False)) == [0]
    assert chosen((100, True)) == [0]


def test_small_ones_are_chosen_when_there_are_enough_of_them() -> None:
    assert chosen((7, False), (7, False), (7, False)) == []
    assert chosen((7, False), (7, False), (7, False), neighbours=2) == [0, 1, 2]
    assert chosen((7, False), (7, False), (60, False), (7, False), (7, False), (7, False), (1, False)) == [3, 4, 5, 6]
    assert chosen(*[(7.9, False)] * 12) == list(range(8))


def test_no_file_is_chosen_across_one_that_has_to_stay() -> None:
    assert chosen((1, False), (1, False), None, (1, False), (1, False)) == []
    assert chosen((1, False), None, (1, False), (1, False), (1, False), (1, False)) == [2, 3, 4, 5]


def test_the_index_of_a_merged_file_stays_in_its_bounds() -> None:
    assert chosen(*[(1, False)] * 9, index_bytes=INDEX_BYTES // 5) == [0, 1, 2, 3, 4]


async def test_what_is_dead_is_counted_from_the_indexes_alone() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    files = WatchedFiles(disk)
    log = open_log(files, LOG, QUIET)
    dead = DeadRecords(log.index)
    reads = len(files.calls)
    while (segment := dead.next_unseen(log.ended_segments())) is not None:
        dead.take_up(segment)
    assert len(files.calls) - reads < 120
    assert set(dead.deleted) == kept.deleted
    by_segment = dict.fromkeys(log.paths, 0)
    for record in kept.dead:
        by_segment[log.index.segments[log.index.segment_of_lsn(record.lsn)].path] += len(record.payload)
    for found in log.index.segments:
        assert by_segment[found.path] <= dead[found].size <= found.index.payload_bytes
    total = sum(dead[segment].size for segment in log.index.segments)
    newest_snapshots = sum(len(record.payload) for record in kept.snapshots.values())
    every_snapshot = 18 * (300 + 50)
    assert total == sum(map(len, (record.payload for record in kept.dead))) + every_snapshot - newest_snapshots
    log.release()


@pytest.mark.parametrize("seed", range(6))
async def test_the_same_is_dead_in_whatever_order_segments_are_taken_up(seed: int) -> None:
    """A rewritten one is taken up again when those behind it were seen already."""
    disk = MemoryFileSystem()
    await a_log_with_dead_records(disk)
    log = open_log(disk, LOG, QUIET)
    ended = log.ended_segments()
    in_order, shuffled = DeadRecords(log.index), DeadRecords(log.index)
    for segment in ended:
        in_order.take_up(segment)
    for segment in random.Random(seed).sample(ended, len(ended)):
        shuffled.take_up(segment)
    expected = {segment.path: in_order[segment] for segment in ended}
    assert len([dead for dead in expected.values() if dead.batches]) > 4
    assert {segment.path: shuffled[segment] for segment in ended} == expected
    log.release()


@pytest.mark.parametrize(("seconds", "at_a_time"), [(0.0, 1), (math.inf, 1000)])
async def test_segments_are_taken_up_one_at_least_and_as_many_as_there_is_time_for(
    seconds: float, at_a_time: int
) -> None:
    disk = MemoryFileSystem()
    await a_log_with_dead_records(disk)
    log = open_log(disk, LOG, QUIET)
    ended = log.ended_segments()
    at_once, one_by_one = DeadRecords(log.index), DeadRecords(log.index)
    for number, segment in enumerate(ended):
        if number % at_a_time == 0:
            assert at_once.next_unseen(ended) is segment
            at_once.take_up_for(seconds, ended)
        one_by_one.take_up(segment)
    assert at_once.next_unseen(ended) is None
    assert [at_once[segment] for segment in ended] == [one_by_one[segment] for segment in ended]
    at_once.take_up_for(seconds, ended)
    log.release()


# ---- what may be submitted -------------------------------------------------------------------------------------------


async def test_row_11_a_forked_stream_is_forked_after_compaction_too() -> None:
    disk = MemoryFileSystem()
    kept = Kept()
    async with life(disk, kept) as (writer, caretaker, log):
        await put(writer, kept, (A, [b"one", b"two"], 0), (B, [payload(3000)], 0))
        log.index.segments[-1].index.tail = lambda stream: None  # type: ignore[method-assign]
        writer.submit([Batch(A, 1, [b"one", b"TWO"], 0)])
        await trio.testing.wait_all_tasks_blocked()
    for part in range(3):
        log = open_log(disk, LOG, QUIET)
        assert log.index.flags(A) & STREAM_FORKED
        assert [r.payload for r in read_stream(StreamReader(log.reading, log.index), A)] == [b"one", b"two"]
        assert len([item for item in follow_log(log) if isinstance(item, Record) and item.stream == A]) == 4
        log.release()
        async with life(disk, kept) as (writer, caretaker, log):
            await writer.rotate()
            if not part:
                await delete(writer, kept, B)
            await put(writer, kept, (C, [b"x"], 0))
            await caretaker.compact()
            assert log.index.flags(A) & STREAM_FORKED


async def test_row_10_a_batch_that_was_stored_twice_is_copied_once() -> None:
    disk = MemoryFileSystem()
    kept = Kept()
    async with life(disk, kept) as (writer, _caretaker, log):
        await put(writer, kept, (A, [b"one", b"two"], 0), (B, [payload(3000)], 0))
        log.index.segments[-1].index.tail = lambda stream: None  # type: ignore[method-assign]
        writer.submit([Batch(A, 1, [b"one", b"two"], 0)])
        await trio.testing.wait_all_tasks_blocked()
    async with life(disk, kept) as (writer, caretaker, log):
        await delete(writer, kept, B)
        await put(writer, kept, (A, [b"three"], 0))
        report = await caretaker.compact()
        assert report.records_removed == 1 + 2
    kept.check_reopened(disk, compacted=True)


async def test_a_snapshot_covers_what_is_there_and_moves_nothing() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, _caretaker, log):
        with pytest.raises(InvalidState, match="snapshot"):
            writer.submit([Batch(A, 1, [b"s"], FLAG_SNAPSHOT)])
        await put(writer, kept, (A, [b"one", b"two"], 0), (A, [b"s2"], FLAG_SNAPSHOT), (A, [b"three"], 0))
        assert writer.queue.last_seq(A) == log.index.last_seq(A) == 3
        with pytest.raises(InvalidState, match="snapshot"):
            writer.submit([Batch(A, 4, [b"s"], FLAG_SNAPSHOT)])
        with pytest.raises(InvalidState, match="snapshot"):
            writer.submit([Batch(A, 0, [b"s"], FLAG_SNAPSHOT)])
        for bad in (
            Batch(A, 3, [b"s", b"t"], FLAG_SNAPSHOT),
            Batch(A, 4, [b"s", b"t"], FLAG_TOMBSTONE),
            Batch(A, 4, [b"s"], FLAG_TOMBSTONE | FLAG_SNAPSHOT),
            Batch(A, 4, [b"s"], FLAG_TOMBSTONE << 4),
        ):
            with pytest.raises(InvalidInput):
                writer.submit([bad])
        await put(writer, kept, (A, [b"s3"], FLAG_SNAPSHOT))
        assert StreamReader(log.reading, log.index).read_snapshot(A) == Record(A, 3, 5, b"s3")
        kept.check(log)
    kept.check_reopened(disk)


async def test_nothing_follows_a_tombstone_neither_queued_nor_stored() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, _caretaker, _log):
        await put(writer, kept, (A, [b"one"], FLAG_OPENS))
        with pytest.raises(InvalidState, match="deleted"):
            writer.submit([Batch(A, 2, [b"gone"], FLAG_TOMBSTONE), Batch(A, 3, [b"more"], 0)])
        queued = writer.submit([Batch(A, 2, [b"gone"], FLAG_TOMBSTONE)])
        for batch in (
            Batch(A, 3, [b"more"], 0),
            Batch(A, 2, [b"s"], FLAG_SNAPSHOT),
            Batch(A, 3, [b""], FLAG_TOMBSTONE),
        ):
            with pytest.raises(InvalidState, match="deleted"):
                writer.submit([batch])
        await queued.wait()
        kept.take(queued)
        for batch in (Batch(A, 3, [b"more"], 0), Batch(A, 2, [b"s"], FLAG_SNAPSHOT), Batch(A, 1, [b"again"], 0)):
            with pytest.raises(InvalidState, match="deleted"):
                writer.submit([batch])
        await delete(writer, kept, B)  # an id that never was, and never will be
        with pytest.raises(InvalidState, match="deleted"):
            writer.submit([Batch(B, 1, [b"more"], 0)])
    kept.check_reopened(disk)


async def test_a_deletion_that_was_not_stored_deletes_nothing() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    fail = random.Random(1)

    def before(call: Call) -> None:
        if call.operation == "write" and call.path.endswith(".seg") and armed:
            armed.pop()
            raise OSError(errno.EIO, "Input/output error", call.path)

    armed: list[int] = []
    files = WatchedFiles(disk, before)
    async with life(files, kept) as (writer, _caretaker, _log):
        await put(writer, kept, (A, [b"one"], 0))
        armed.append(fail.randrange(9))
        submission = writer.submit([Batch(A, 2, [b"gone"], FLAG_TOMBSTONE)])
        await submission.wait()
        assert submission.error is not None
        await put(writer, kept, (A, [b"two"], 0))
    kept.check_reopened(disk)


async def test_a_file_is_not_rewritten_again_and_again_while_a_tombstone_is_in_the_newest_segment() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept, options=LogOptions(segment_bytes=16 * 1024, compaction_bytes_per_second=0)) as (
        writer,
        caretaker,
        log,
    ):
        await put(writer, kept, (A, [b"a"], 0), (A, [payload(4000, 1)], FLAG_SNAPSHOT), (B, [payload(8000)], 0))
        await writer.rotate()
        await put(writer, kept, (A, [b"b"], 0), (C, [payload(6000)], 0), (A, [payload(1000, 2)], FLAG_SNAPSHOT))
        await delete(writer, kept, B)
        await writer.rotate()
        await delete(writer, kept, A)  # in the segment that is being written
        object.__setattr__(log.options, "compaction_bytes_per_second", 10**9)
        caretaker.compactor.notice()
        await trio.sleep(0.5)
        assert caretaker.compactor.files_rewritten <= 3, segments(disk)


async def test_a_follower_meets_a_gap_where_the_index_of_a_rewritten_file_forgets_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compaction_output, "FRAME_BYTES", 3000)
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    await compact(disk, kept)
    log = open_log_read_only(disk, LOG)
    segment = log.index.segments[0]
    assert segment.header.generation
    frames = [segment.index.frame_place(n) for n in range(segment.index.frame_count)]
    segment.index = Forgetful(segment.index, frames[1:])  # type: ignore[assignment]
    assert [item for item in follow_log(log) if isinstance(item, Gap)]
