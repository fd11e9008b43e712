"""Where the journals of this repository live, one function for each kind."""

from __future__ import annotations

import pathlib

from stepstore.journal import InMemoryJournal, SegmentLogJournal
from stepstore.log.batch_codec import Compression
from stepstore.log.files import FileSystem
from stepstore.log.key_provider import LocalKeyProvider
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from stepwell.testing import MemoryJournal
from stepwell.testing.journal_contract import JournalPlace

SMALL = LogOptions(segment_bytes=16 * 1024)
"""Small segments, so that most tests go over the end of one."""
ENCODED = LogOptions(
    segment_bytes=16 * 1024,
    compression=Compression("zstd"),
    key_provider=LocalKeyProvider(b"master key of 32 bytes, no more!"),
)


def in_memory() -> JournalPlace:
    return JournalPlace(InMemoryJournal, persistent=False)


def memory_journal() -> JournalPlace:
    medium = MemoryJournal()
    return JournalPlace(medium.open, after_power_cut=lambda: medium.after_crash().open())


def segment_log_on(files: FileSystem, options: LogOptions = SMALL) -> JournalPlace:
    return JournalPlace(lambda: SegmentLogJournal.open("/log", options, files))


def segment_log_in_memory() -> JournalPlace:
    files = MemoryFileSystem()
    return JournalPlace(
        lambda: SegmentLogJournal.open("/log", SMALL, files),
        after_power_cut=lambda: SegmentLogJournal.open("/log", SMALL, files.durable_copy()),
    )


def encoded_log_in_memory() -> JournalPlace:
    files = MemoryFileSystem()
    return JournalPlace(
        lambda: SegmentLogJournal.open("/log", ENCODED, files),
        after_power_cut=lambda: SegmentLogJournal.open("/log", ENCODED, files.durable_copy()),
        encrypts=True,
    )


def segment_log_on_disk(path: pathlib.Path) -> JournalPlace:
    return JournalPlace(lambda: SegmentLogJournal.open(str(path), SMALL))
