"""Purge: nothing of a deleted stream is left but its tombstone, and the proof of that objects where something is."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, StepwellError, Unavailable
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.dead_records import Amount, DeadRecords
from stepstore.log.footer import TRAILER_BYTES, parse_trailer
from stepstore.log.frame import FLAG_OPENS, FLAG_SNAPSHOT
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from stepstore.log.purge import DeletionReport, Samples
from tests.stepstore.compaction_lab import (
    QUIET,
    Kept,
    PowerCuts,
    a_log_with_dead_records,
    delete,
    life,
    manifest_paths,
    put,
)
from tests.stepstore.log_lab import (
    LOG,
    A,
    B,
    C,
    Call,
    Checkpoints,
    WatchedFiles,
    clone,
    content,
    entry,
    failing_at,
    flip,
    frames_of,
    payload,
    segments,
    stream_id,
    tree,
)
from tests.stepstore.log_lab import put as put_file

SHORT = b"short-lived stre"


def secrets_of(kept: Kept) -> list[bytes]:
    alive = {record.payload for record in kept.alive} | {record.payload for record in kept.snapshots.values()}
    return [record.payload for record in kept.dead if len(record.payload) > 16 and record.payload not in alive]


def nothing_left(disk: MemoryFileSystem, kept: Kept) -> bool:
    """Looked for without the code under test: no payload of a deleted stream is anywhere on the disk."""
    files = [data for data in tree(disk, LOG).values() if data]
    return not any(secret in data for data in files for secret in secrets_of(kept))


async def purge(caretaker: LogCaretaker) -> DeletionReport:
    return await caretaker.compact(purge=True)


async def test_a_purge_leaves_nothing_but_tombstones_and_proves_it() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    assert len(secrets_of(kept)) > 20
    assert not nothing_left(disk, kept)
    async with life(disk, kept) as (writer, caretaker, log):
        await put(writer, kept, (A, [payload(50, 4)], 0))
        report = await purge(caretaker)
        assert report.is_proven
        assert (report.found, report.unreadable, report.left_alone) == ((), (), ())
        assert (report.streams_removed, report.streams_purged) == (2, 2)
        assert report.files_checked >= len(log.paths) + 4
        assert report.batches_checked >= len(kept.alive) / 3
        assert report.samples == 4
        assert report.bytes_searched > sum(len(content(disk, path)) for path in log.paths)
        assert any("archives" in text for text in report.out_of_reach)
        assert nothing_left(disk, kept)
        kept.check(log, compacted=True)
        again = await purge(caretaker)
        assert again.is_proven
        assert (again.files_rewritten, again.records_removed, again.streams_purged) == (0, 0, 2)
    kept.check_reopened(disk, compacted=True)


async def test_a_purge_rewrites_files_in_which_little_is_dead() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, log):
        for n in range(4):
            await put(writer, kept, (A, [payload(12_000, n)], 0), (B, [payload(100, n + 50)], 0))
            await writer.rotate()
        await delete(writer, kept, B)
        assert (await caretaker.compact()).records_removed == 0
        assert not nothing_left(disk, kept)
        report = await purge(caretaker)
        assert (report.records_removed, report.is_proven) == (4, True)
        assert nothing_left(disk, kept)
        kept.check(log, compacted=True)


async def test_records_without_a_byte_are_purged_too() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, log):
        await put(writer, kept, (A, [payload(3000)], 0), (B, [b"", b""], 0))
        await writer.rotate()
        await delete(writer, kept, B)
        report = await purge(caretaker)
        assert (report.records_removed, report.is_proven) == (2, True)
        kept.check(log, compacted=True)


async def test_a_snapshot_is_purged_from_a_file_that_has_nothing_else_of_its_stream() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    secret = payload(500, 9)
    async with life(disk, kept) as (writer, caretaker, log):
        await put(writer, kept, (A, [payload(9000)], 0), (B, [b"one"], 0))
        await writer.rotate()
        await put(writer, kept, (B, [secret], FLAG_SNAPSHOT), (A, [payload(9000, 2)], 0))
        await writer.rotate()
        await delete(writer, kept, B)
        report = await purge(caretaker)
        assert report.is_proven
        assert not [path for path in log.paths if secret in content(disk, path)]
        kept.check(log, compacted=True)


async def test_quarantine_loses_what_has_bytes_of_a_deleted_stream_and_nothing_else() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    folder = f"{LOG}/quarantine"
    disk.make_directory(folder)
    put_file(disk, f"{folder}/1-names-it", b"torn" + SHORT + b"torn")
    put_file(disk, f"{folder}/2-has-bytes-of-it", b"torn" + secrets_of(kept)[0] + b"torn")
    put_file(disk, f"{folder}/3-another-stream", b"torn" + A + payload(900, 1))
    async with life(disk, kept) as (_writer, caretaker, _log):
        report = await purge(caretaker)
        assert report.quarantine_removed == ("1-names-it", "2-has-bytes-of-it")
        assert report.is_proven
        assert (await purge(caretaker)).quarantine_removed == ()
    assert disk.durable_copy().list_names(folder) == ["3-another-stream"]


async def test_many_deleted_streams_are_looked_for_in_quarantine_at_once() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    names = [stream_id(f"{n}") for n in range(80)]
    disk.make_directory(LOG)
    async with life(disk, kept) as (writer, caretaker, _log):
        for name in names:
            await put(writer, kept, (name, [payload(40, names.index(name))], 0))
        await delete(writer, kept, *names)
        disk.make_directory(f"{LOG}/quarantine")
        put_file(disk, f"{LOG}/quarantine/1", bytes(999) + names[77])
        put_file(disk, f"{LOG}/quarantine/2", bytes(999) + names[77][:15])
        report = await purge(caretaker)
        assert (report.quarantine_removed, report.streams_purged, report.is_proven) == (("1",), 80, True)


async def test_what_a_salvage_has_set_aside_of_a_deleted_stream_goes_with_it_and_that_of_others_stays() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    folder = f"{LOG}/salvaged"
    disk.make_directory(folder)
    for stream in (A, B):
        put_file(disk, f"{folder}/{stream.hex()}.jsonl", b'{"seq": 9, "payload": "c2VjcmV0"}')
    put_file(disk, f"{folder}/REPORT.txt", b"Streams that are not whole: 2")
    async with life(disk, kept) as (_writer, caretaker, _log):
        report = await purge(caretaker)
        assert report.salvaged_removed == (f"{B.hex()}.jsonl",)
        assert report.is_proven
        assert any("salvaged/REPORT.txt" in text for text in report.out_of_reach)
        assert not any("is not the log's" in text for text in report.out_of_reach)
        assert disk.durable_copy().list_names(folder) == ["REPORT.txt", f"{A.hex()}.jsonl"]
        again = await purge(caretaker)
        assert (again.salvaged_removed, again.is_proven) == ((), True)


async def test_the_proof_finds_what_a_salvage_has_set_aside_of_a_deleted_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    disk.make_directory(f"{LOG}/salvaged")
    path = f"{LOG}/salvaged/{B.hex()}.jsonl"
    put_file(disk, path, b'{"seq": 9, "payload": "c2VjcmV0"}')
    monkeypatch.setattr("stepstore.log.purger.clean_salvaged", lambda _log, _deleted: [])
    async with life(disk, kept) as (_writer, caretaker, _log):
        report = await purge(caretaker)
        assert report.found == (f"{path}: records of a deleted stream, set aside by a salvage",)


async def test_a_purge_after_a_crash_behind_the_tombstone_does_it_all() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk, close=False)
    image = disk.durable_copy()
    async with life(image, kept) as (_writer, caretaker, log):
        assert (await purge(caretaker)).is_proven
        assert nothing_left(image, kept)
        kept.check(log, compacted=True)


async def test_a_power_cut_at_any_call_of_a_purge_is_answered_by_purging_again() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk, close=False)
    disk.make_directory(f"{LOG}/quarantine")
    disk.sync_directory(LOG)
    put_file(disk, f"{LOG}/quarantine/torn", SHORT)
    cuts = PowerCuts(disk, 31, at_random=1)
    async with life(WatchedFiles(disk, cuts), kept) as (_writer, caretaker, _log):
        await purge(caretaker)
    assert len(cuts.images) > 150
    for call, image in cuts.images:
        async with life(image, kept) as (_writer, caretaker, log):
            kept.check(log, call)
            report = await purge(caretaker)
            assert report.is_proven, (call, report)
            assert nothing_left(image, kept), call
            kept.check(log, call, compacted=True)
        assert image.list_names(f"{LOG}/quarantine") == [], call
    print(f"{len(cuts.images)} images")


async def test_an_error_at_a_call_of_a_purge_is_declared_and_a_purge_after_it_is_proven() -> None:
    start = MemoryFileSystem()
    kept = await a_log_with_dead_records(start)
    number, failed, finished = 0, 0, False
    while not finished:
        number += 3  # every call of a compaction has its turn in the tests of that
        disk = clone(start)
        files = WatchedFiles(disk)
        async with life(files, kept) as (_writer, caretaker, log):
            armed = len(files.calls) + number
            files.before = failing_at(armed, errno.EIO)
            try:
                report = await purge(caretaker)
            except (Unavailable, StepwellError, OSError):
                failed += 1
            else:
                assert not report.is_proven or nothing_left(disk, kept), number
            finished = len(files.calls) < armed
            files.before = None
            kept.check(log, number)
        async with life(disk, kept) as (_writer, caretaker, log):
            report = await purge(caretaker)
            assert report.is_proven, number
            assert nothing_left(disk, kept), number
            kept.check(log, number, compacted=True)
    assert failed > 20
    print(f"{number} calls, {failed} errors failed the purge")


async def test_a_cancelled_purge_is_finished_by_the_next() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(clone(disk), kept) as (_writer, caretaker, log):
        with Checkpoints(None) as count:
            await purge(caretaker)
    assert count.seen > 30
    for number in range(1, count.seen + 1):
        copy = clone(disk)
        async with life(copy, kept) as (_writer, caretaker, log):
            with trio.CancelScope() as scope, Checkpoints(scope, number):
                await purge(caretaker)
            kept.check(log, number)
            assert (await purge(caretaker)).is_proven, number
            assert nothing_left(copy, kept), number


# ---- the proof objects -----------------------------------------------------------------------------------------------


async def test_the_proof_finds_a_file_that_was_not_removed() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    old = content(disk, segments(disk)[0])
    async with life(disk, kept) as (_writer, caretaker, _log):
        await purge(caretaker)
        put_file(disk, f"{LOG}/00000001-0000000000000001.0.seg", old)
        report = await purge(caretaker)
        assert not report.is_proven
        assert all("00000001-0000000000000001.0.seg" in found for found in report.found)
        assert [found for found in report.found if "its index has records" in found]
        assert [found for found in report.found if "in the frame at" in found]


@pytest.mark.parametrize("name", ["reserve", "spare.tmp", "MANIFEST-00000000", "00000009-0000000000000099.idx", "LOCK"])
async def test_the_proof_finds_bytes_in_any_file_of_the_log(name: str) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    secret = next(record.payload for record in kept.dead if record.stream == B)
    async with life(disk, kept) as (_writer, caretaker, log):
        unlinked = log.files.unlink
        log.files.unlink = lambda path: None if path.endswith(name) else unlinked(path)  # type: ignore[method-assign]
        put_file(disk, f"{LOG}/{name}", bytes(5_000) + secret + b"behind")
        report = await purge(caretaker)
        assert report.found == (f"{LOG}/{name}: bytes of a deleted stream at offset 5000",)


async def test_the_proof_finds_bytes_where_two_blocks_of_the_search_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.log.purge._BLOCK", 1024)
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    secret = next(record.payload for record in kept.dead if record.stream == B)[:64]
    for offset in (1023, 1024, 1024 - 63, 1024 - 64, 2048, 0):
        image = clone(disk)
        async with life(image, kept) as (_writer, caretaker, _log):
            put_file(image, f"{LOG}/reserve", bytes(offset) + secret + bytes(3000))
            report = await purge(caretaker)
            assert report.found == (f"{LOG}/reserve: bytes of a deleted stream at offset {offset}",)


async def test_bytes_that_another_stream_holds_as_well_are_told_and_no_fault() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    common = payload(200, 3)
    async with life(disk, kept) as (writer, caretaker, log):
        await put(writer, kept, (A, [common] * 5, 0), (B, [common], FLAG_OPENS), (C, [payload(9000)], 0))
        await delete(writer, kept, B)
        report = await purge(caretaker)
        assert report.is_proven
        assert report.samples == 1
        assert report.shared == (f"{log.paths[0]}: stream {A.hex()}",)


async def test_what_an_index_has_not_told_is_found_in_the_frames_and_purged(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    monkeypatch.setattr(DeadRecords, "__getitem__", lambda self, segment: Amount())
    async with life(disk, kept) as (_writer, caretaker, log):
        report = await purge(caretaker)
        assert report.is_proven
        assert report.records_removed > 20
        assert nothing_left(disk, kept)
        kept.check(log)


async def test_a_damaged_file_cannot_be_purged_and_the_report_says_so() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    path = segments(disk)[2]
    flip(disk, path, frames_of(disk, path)[5].end - 9)
    async with life(disk, kept) as (_writer, caretaker, _log):
        report = await purge(caretaker)
        assert not report.is_proven
        assert report.left_alone == (path,)
        assert [text for text in report.unreadable if path in text]


STRAY = f"{LOG}/00000099-0000000000000999.0.seg"
"""A segment that is not listed, as a copy of one would be that somebody has put there."""


async def purge_beside(disk: MemoryFileSystem, kept: Kept, stray: bytes) -> tuple[list[str], list[str]]:
    """Purge, with a stray segment in the directory: what was found, and what could not be looked through."""
    async with life(disk, kept) as (_writer, caretaker, _log):
        put_file(disk, STRAY, stray)
        report = await purge(caretaker)
        assert not report.is_proven
        assert all(STRAY in text for text in (*report.found, *report.unreadable))
        return [text.removeprefix(STRAY) for text in report.found], list(report.unreadable)


async def test_bytes_in_a_segment_without_a_sound_header_are_found_although_nothing_tells_whose_they_are() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    stray = bytearray(content(disk, segments(disk)[0]))
    stray[:512] = bytes(512)
    secret = stray.index(next(record.payload for record in kept.dead if record.stream == B))
    found, unreadable = await purge_beside(disk, kept, bytes(stray))
    assert unreadable == [f"{STRAY}: its header is damaged"]
    assert f": bytes of a deleted stream at offset {secret}" in found


async def test_an_index_that_cannot_be_asked_is_told_and_the_frames_are_looked_through_all_the_same() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    stray = bytearray(content(disk, segments(disk)[0]))
    trailer = parse_trailer(bytes(stray[-TRAILER_BYTES:]))
    assert trailer is not None
    secret = stray.index(next(record.payload for record in kept.dead if record.stream == B))
    stray[trailer.index_at + 30] ^= 1
    found, unreadable = await purge_beside(disk, kept, bytes(stray))
    assert len(unreadable) == 1
    assert unreadable[0].startswith(f"{STRAY}: its index is damaged (")
    assert any(f"of {B.hex()} in the frame at" in text for text in found)
    assert f": bytes of a deleted stream at offset {secret}" in found


async def test_of_very_many_things_found_the_first_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    stray = content(disk, segments(disk)[0])
    everything, _unreadable = await purge_beside(clone(disk), kept, stray)
    assert len(everything) > 3
    monkeypatch.setattr("stepstore.log.purge.FOUND_TOLD", 3)
    assert await purge_beside(disk, kept, stray) == (everything[:3], [])


async def test_a_file_in_quarantine_that_names_a_deleted_stream_and_is_still_there_is_found() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    left = f"{LOG}/quarantine/1-torn"
    disk.make_directory(f"{LOG}/quarantine")
    put_file(disk, left, b"torn" + SHORT)
    async with life(disk, kept) as (_writer, caretaker, log):
        unlinked = log.files.unlink
        log.files.unlink = lambda path: None if path == left else unlinked(path)  # type: ignore[method-assign]
        report = await purge(caretaker)
        assert report.found == (f"{left}: it names a deleted stream",)
        assert not report.is_proven


async def test_a_temporary_file_that_got_its_name_meanwhile_does_not_end_the_proof() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    gone = f"{LOG}/index.tmp"
    asked: list[Call] = []

    def before(call: Call) -> None:
        if (call.operation, call.path) == ("open", gone):
            asked.append(call)
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", gone)

    async with life(WatchedFiles(disk, before), kept) as (_writer, caretaker, _log):
        put_file(disk, gone, b"renamed between the listing and the opening")
        report = await purge(caretaker)
        assert (len(asked), report.is_proven) == (1, True)
        assert nothing_left(disk, kept)


async def test_a_file_that_is_gone_when_its_turn_comes_does_not_end_the_proof() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    gone = f"{LOG}/index.tmp"
    asked: list[Call] = []

    def before(call: Call) -> None:
        if (call.operation, call.path) == ("stat", gone):
            asked.append(call)
            disk.unlink(gone)

    async with life(WatchedFiles(disk, before), kept) as (_writer, caretaker, _log):
        put_file(disk, gone, b"gone between the listing and the look at it")
        report = await purge(caretaker)
        assert (len(asked), report.is_proven) == (1, True)
        assert nothing_left(disk, kept)


async def test_a_file_that_is_not_the_logs_is_named_as_out_of_reach() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    put_file(disk, f"{LOG}/catalog.sqlite", b"whatever")
    disk.make_directory(f"{LOG}/keys")
    async with life(disk, kept) as (_writer, caretaker, _log):
        report = await purge(caretaker)
        assert report.is_proven
        assert report.out_of_reach[-1].endswith("catalog.sqlite, keys")


async def test_purging_a_log_without_a_deletion_finds_nothing_to_do() -> None:
    disk, kept = MemoryFileSystem(), Kept()
    async with life(disk, kept) as (writer, caretaker, _log):
        await put(writer, kept, (A, [payload(100)], 0))
        report = await purge(caretaker)
        assert (report.is_proven, report.streams_purged, report.files_rewritten, report.samples) == (True, 0, 0, 0)
    assert manifest_paths(disk) == []


async def test_a_purge_goes_on_beside_writers(autojump_clock: trio.testing.MockClock) -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(disk, kept, options=LogOptions(segment_bytes=16 * 1024)) as (writer, caretaker, log):
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for n in range(60):
                    await put(writer, kept, (A, [payload(700, n)], 0), (C, [payload(300, n)], 0))

            nursery.start_soon(write)
            for _ in range(3):
                assert (await purge(caretaker)).is_proven
        assert (await purge(caretaker)).is_proven
        kept.check(log, compacted=True)
    kept.check_reopened(disk, options=QUIET, compacted=True)


async def test_a_purge_of_a_log_that_closes_is_refused() -> None:
    disk = MemoryFileSystem()
    kept = await a_log_with_dead_records(disk)
    async with life(disk, kept, close=True) as (writer, caretaker, _log):
        writer.finish()
        with pytest.raises(Closed):
            await purge(caretaker)


def test_samples_are_taken_of_deleted_streams_only_and_of_each_a_few() -> None:
    samples = Samples({A, B})
    samples.take(entry(C, 1, 1), payload(100, 1))
    samples.take(entry(A, 1, 1), b"too short")
    for n in range(5):
        samples.take(entry(A, 1, 1), payload(100, n))
    samples.take(entry(B, 1, 1), payload(20, 9))
    samples.take(entry(B, 1, 1), payload(20, 9))
    assert samples.pieces == [payload(64, 0), payload(64, 1), payload(20, 9)]
    many = Samples({bytes([n]) * 16 for n in range(100)})
    for n in range(100):
        many.take(entry(bytes([n]) * 16, 1, 1), payload(50, n))
    assert len(many.pieces) == 32
