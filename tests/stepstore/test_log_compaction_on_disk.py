"""Compaction, purge and archive on a real file system, with real threads, beside writers and readers."""

from __future__ import annotations

import os
import pathlib

import trio

from stepstore.log.archive import restore_archive
from stepstore.log.files import OsFileSystem
from stepstore.log.frame import FLAG_TOMBSTONE, Batch
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.opening import LogOptions, open_log, open_log_read_only
from stepstore.log.records import Gap, Record
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import Position, StreamReader
from stepstore.log.verify import verify_log
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import payload, stream_id, tended

OPTIONS = LogOptions(segment_bytes=64 * 1024, compaction_bytes_per_second=1024 * 1024)
STREAMS, ROUNDS = 12, 40


async def append(writer: LogWriter, stream: bytes, data: bytes, flags: int = 0) -> None:
    submission = writer.submit([Batch(stream, writer.queue.last_seq(stream) + 1, [data], flags)])
    await submission.wait()
    assert submission.error is None


async def test_everything_at_once_on_a_real_disk(tmp_path: pathlib.Path) -> None:
    path, archive, restored = (str(tmp_path / name) for name in ("log", "archive", "restored"))
    log = open_log(OsFileSystem(), path, OPTIONS)
    expected: dict[bytes, list[bytes]] = {stream_id(f"{n}"): [] for n in range(STREAMS)}
    kept, doomed = list(expected)[::2], list(expected)[1::2]
    written = 0
    async with tended(log, close=True) as (writer, caretaker):
        reader = StreamReader(log.reading, log.index)
        frame_reader = FrameReader(log.reading, log.index)
        limiter = trio.CapacityLimiter(1)
        half_written, finished = trio.Event(), trio.Event()

        async def write(stream: bytes) -> None:
            nonlocal written
            for n in range(ROUNDS):
                data = payload(900, n) + stream
                await append(writer, stream, data)
                expected[stream].append(data)
                written += 1
                if written > STREAMS * ROUNDS // 2:
                    half_written.set()
            if stream in doomed:
                await append(writer, stream, b"gone", FLAG_TOMBSTONE)

        async def follow() -> None:
            place, seen = FramePosition(0), 0
            while not (finished.is_set() and place.after >= writer.watermark.lsn):
                upto = writer.watermark.lsn
                items, place = await trio.to_thread.run_sync(frame_reader.read_frames, place, upto, 50, limiter=limiter)
                for item in items:
                    assert isinstance(item, Record)
                    assert item.lsn > seen
                    seen = item.lsn
                await trio.sleep(0.001)

        async def read_again_and_again() -> None:
            while not finished.is_set():
                for stream in kept:
                    position, found = Position(0), list[bytes]()
                    upto, before = writer.watermark.lsn, list(expected[stream])
                    while True:
                        records, position = await trio.to_thread.run_sync(
                            reader.read_slice, stream, position, upto, 7, 4000, limiter=limiter
                        )
                        if not records:
                            break
                        found += [record.payload for record in records]
                    assert found[: len(before)] == before

        async def tidy_up() -> None:
            await half_written.wait()
            await caretaker.compact()
            await caretaker.archive(archive)
            for _ in range(2):
                report = await caretaker.compact(purge=True)
                assert report.is_proven, report.found

        async with trio.open_nursery() as readers:
            readers.start_soon(follow)
            readers.start_soon(read_again_and_again)
            async with trio.open_nursery() as writers:
                writers.start_soon(tidy_up)
                for stream in expected:
                    writers.start_soon(write, stream)
            report = await caretaker.compact(purge=True)
            assert report.is_proven
            assert report.streams_purged == len(doomed)
            finished.set()
        assert not caretaker.compactor.errors
        assert not [name for name in os.listdir(path) if name.endswith(".archive.tmp")]
    gone = {data for stream in doomed for data in expected[stream]}
    left = b"".join((tmp_path / "log" / name).read_bytes() for name in os.listdir(path))
    assert not any(data in left for data in gone)
    assert verify_log(path, digests=True).problems == []
    log = open_log_read_only(OsFileSystem(), path)
    reader = StreamReader(log.reading, log.index)
    assert set(streams_of(log.index)) == set(kept)
    for stream in kept:
        found, _position = reader.read_slice(stream, Position(0), log.end_lsn, 10**6, 10**9)
        assert [record.payload for record in found] == expected[stream]
    log.release()
    archived = restore_archive(archive, restored)
    assert verify_log(restored, digests=True).records == archived.records
    log = open_log(OsFileSystem(), restored, OPTIONS)
    items, _place = FrameReader(log.reading, log.index).read_frames(FramePosition(0), log.end_lsn, 10**6)
    assert not [item for item in items if isinstance(item, Gap)]
    for item in items:
        assert isinstance(item, Record)
        if item.payload != b"gone":
            assert item.payload == expected[item.stream][item.seq - 1]
    log.release()
