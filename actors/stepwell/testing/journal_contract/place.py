"""Where the journals under test live, and what the tests of all of them need."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from stepstore.journal import Gap, Journal, Record
from stepstore.journal.contract import SLICE_RECORDS, records

A, B, C = b"A" * 16, b"B" * 16, b"C" * 16


@dataclass(frozen=True)
class JournalPlace:
    """One place where a journal keeps its streams.

    `open` opens the journal of this place, the same one each time; the one before has been released then.
    `persistent`: whether the next one finds what the one before has stored. `after_power_cut`, if the kind can tell:
    opens what a power cut at this moment would leave, while the journal at this place goes on. `encrypts`: whether
    deleting a stream destroys its key, so that a reader that had begun may be told `KeyDestroyed`.
    """

    open: Callable[[], Journal]
    persistent: bool = True
    after_power_cut: Callable[[], Journal] | None = None
    encrypts: bool = False


class PlaceOfJournal(abc.ABC):
    """What every part of the contract stands on: `new_place`, and the fixtures made of it."""

    @abc.abstractmethod
    def new_place(self, path: pathlib.Path) -> JournalPlace:
        """An empty place for journals of the kind under test. `path` does not exist yet and is this place's alone; it
        may become a directory or a file, or stay unused."""

    @pytest.fixture
    def place(self, tmp_path: pathlib.Path) -> JournalPlace:
        return self.new_place(tmp_path / "journal")

    @pytest.fixture
    def lasting_place(self, place: JournalPlace) -> JournalPlace:
        if not place.persistent:
            pytest.skip("this kind of journal keeps nothing for the next one")
        return place

    @pytest.fixture
    def cutting_place(self, place: JournalPlace) -> JournalPlace:
        if place.after_power_cut is None:
            pytest.skip("this kind of journal cannot tell what a power cut would leave")
        return place


@asynccontextmanager
async def running(place: JournalPlace) -> AsyncIterator[Journal]:
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
async def not_running(place: JournalPlace) -> AsyncIterator[Journal]:
    """An opened journal whose task the test starts itself."""
    journal = place.open()
    try:
        yield journal
    finally:
        journal.release()


async def everything(journal: Journal, stream: bytes, after: int = 0) -> list[Record]:
    """The records of a stream."""
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


async def take(channel: trio.abc.ReceiveChannel[list[Record | Gap]], count: int) -> list[Record]:
    """The next `count` records of a follower."""
    found: list[Record] = []
    with trio.fail_after(5):
        while len(found) < count:
            part = await channel.receive()
            assert 0 < len(part) <= SLICE_RECORDS
            found += sound(part)
    return found


def texts(count: int, prefix: str = "") -> list[bytes]:
    """Small payloads that tell their number."""
    return [f"{prefix}{n}".encode() for n in range(count)]


def sequence(found: Sequence[Record]) -> list[int]:
    """The numbers of records."""
    return [record.seq for record in found]


async def cancel_after(scope: trio.CancelScope, checkpoints: int) -> None:
    """Cancel a scope some steps of the scheduler from now."""
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def open_file_count() -> int:
    """How many files the process has open; always 0 where that cannot be told."""
    listing = pathlib.Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.is_dir() else 0
