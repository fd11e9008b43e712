"""Where the journals under test live, and what the tests of all of them need."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from stepstore.journal import Gap, InMemoryJournal, Journal, Record, SegmentLogJournal
from stepstore.journal.contract import SLICE_RECORDS, records
from stepstore.log.batch_codec import Compression
from stepstore.log.keys import LocalKeyProvider
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions

A, B, C = b"A" * 16, b"B" * 16, b"C" * 16
SMALL = LogOptions(segment_bytes=16 * 1024)
"""Small segments, so that most tests go over the end of one."""
ENCODED = LogOptions(
    segment_bytes=16 * 1024,
    compression=Compression("zstd"),
    key_provider=LocalKeyProvider(b"master key of 32 bytes, no more!"),
)


@dataclass(frozen=True)
class Place:
    """Where journals of one kind live. `open` opens the same one each time; `after_power_cut`, if the kind can tell,
    opens what a power cut at this moment would leave."""

    open: Callable[[], Journal]
    persistent: bool
    after_power_cut: Callable[[], Journal] | None = None
    encrypts: bool = False


def in_memory(_path: pathlib.Path | None) -> Place:
    return Place(InMemoryJournal, persistent=False)


def segment_log_in_memory(_path: pathlib.Path | None) -> Place:
    files = MemoryFileSystem()
    return Place(
        lambda: SegmentLogJournal.open("/log", SMALL, files),
        persistent=True,
        after_power_cut=lambda: SegmentLogJournal.open("/log", SMALL, files.durable_copy()),
    )


def encoded_log_in_memory(_path: pathlib.Path | None) -> Place:
    files = MemoryFileSystem()
    return Place(
        lambda: SegmentLogJournal.open("/log", ENCODED, files),
        persistent=True,
        after_power_cut=lambda: SegmentLogJournal.open("/log", ENCODED, files.durable_copy()),
        encrypts=True,
    )


def segment_log_on_disk(path: pathlib.Path | None) -> Place:
    return Place(lambda: SegmentLogJournal.open(str(path), SMALL), persistent=True)


PLACES = {
    "in memory": in_memory,
    "segment log in memory": segment_log_in_memory,
    "segment log, compressed and encrypted": encoded_log_in_memory,
    "segment log on disk": segment_log_on_disk,
}


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[Journal]:
    """An opened journal whose task runs; finished and released at the end."""
    journal = place.open()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            try:
                yield journal
            finally:
                journal.finish()
    finally:
        journal.release()


@asynccontextmanager
async def not_running(place: Place) -> AsyncIterator[Journal]:
    """An opened journal whose task the test starts itself."""
    journal = place.open()
    try:
        yield journal
    finally:
        journal.release()


async def everything(journal: Journal, stream: bytes, after: int = 0) -> list[Record]:
    return [record async for record in records(journal, stream, after)]


def sound(part: Sequence[Record | Gap]) -> list[Record]:
    """Nothing is damaged here, so nothing is missing."""
    found = [item for item in part if isinstance(item, Record)]
    assert len(found) == len(part)
    return found


async def followed(journal: Journal, after_lsn: int = 0) -> list[Record]:
    """All that a follower gets until the journal ends."""
    found: list[Record] = []
    async with journal.follow(after_lsn) as slices:
        async for part in slices:
            found += sound(part)
    return found


def texts(count: int, prefix: str = "") -> list[bytes]:
    return [f"{prefix}{n}".encode() for n in range(count)]


def sequence(found: Sequence[Record]) -> list[int]:
    return [record.seq for record in found]


def open_file_count() -> int:
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


async def take(channel: trio.abc.ReceiveChannel[list[Record | Gap]], count: int) -> list[Record]:
    """The next `count` records of a follower."""
    found: list[Record] = []
    with trio.fail_after(5):
        while len(found) < count:
            part = await channel.receive()
            assert 0 < len(part) <= SLICE_RECORDS
            found += sound(part)
    return found
