"""A segment log opened for reading, beside the one that writes."""

from __future__ import annotations

import pathlib

import pytest
import trio
import trio.testing

from stepstore.errors import Closed
from stepstore.journal import SegmentLogJournal
from stepstore.journal.contract import Batch, append, delete
from stepstore.log.memory_files import MemoryFileSystem
from stepwell.testing.journal_contract.deleting import looks_deleted
from stepwell.testing.journal_contract.place import A, B, C, everything, followed, running, sequence, texts
from stepwell.testing.journal_contract.reopening import fill
from tests.journal.places import ENCODED, segment_log_on, segment_log_on_disk


async def test_a_journal_opened_for_reading_reads_beside_the_writer_and_takes_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    async with running(segment_log_on_disk(path)) as journal:
        await fill(journal)
        reader = SegmentLogJournal.open_read_only(str(path))
        for stream in (A, B, C):
            assert await everything(reader, stream) == await everything(journal, stream)
        assert len(await followed(reader)) == 346
        assert not reader.gate.is_open
        with pytest.raises(Closed, match="read_only"):
            reader.submit([Batch(C, 5, [b"x"], 0)])
        with trio.testing.assert_checkpoints():
            with pytest.raises(Closed, match="read_only"):
                await append(reader, C, [b"x"], expected_seq=4)
        reader.finish()
        with trio.testing.assert_checkpoints():
            await reader.run()
        reader.release()
        assert (await append(journal, C, [b"x"], expected_seq=4)).first_seq == 5


async def test_a_journal_opened_for_reading_sees_deletions_and_makes_none() -> None:
    files = MemoryFileSystem()
    place = segment_log_on(files, ENCODED)
    async with running(place) as journal:
        await append(journal, A, texts(2), expected_seq=0)
        await append(journal, B, texts(2), expected_seq=0)
        await delete(journal, A, b"gone")
        reader = SegmentLogJournal.open_read_only("/log", ENCODED, files)
        try:
            await looks_deleted(reader, A, 3)
            for refused in (reader.forget(A), delete(reader, B, b"gone"), reader.rotate()):
                with trio.testing.assert_checkpoints(), pytest.raises(Closed, match="read_only"):
                    await refused
            assert sequence(await everything(reader, B)) == [1, 2]
        finally:
            reader.release()


async def test_a_reading_that_catches_up_sees_what_the_writer_has_stored_since_and_another_does_not() -> None:
    files = MemoryFileSystem()
    async with running(segment_log_on(files)) as journal:
        await append(journal, A, texts(2), expected_seq=0)
        reader = SegmentLogJournal.open_read_only("/log", files=files)
        try:
            await append(journal, A, [b"since"], expected_seq=2)
            before = reader.read(A)
            catching_up = reader.read(A, catch_up=True)
            assert sequence(await catching_up.next_slice()) == [1, 2, 3]
            assert await catching_up.next_slice() == []
            assert sequence(await before.next_slice()) == [1, 2]
            await append(journal, A, [b"later"], expected_seq=3)
            assert sequence(await reader.read(A, catch_up=True).next_slice()) == [1, 2, 3, 4]
        finally:
            reader.release()
