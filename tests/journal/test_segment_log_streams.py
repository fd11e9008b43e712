"""How a stream of a segment log is read: few turns of the reader's thread, the same slices as ever."""

from __future__ import annotations

import errno

import pytest

from stepstore.errors import RecoveryFailed
from stepstore.journal import Journal
from stepstore.journal.contract import SLICE_RECORDS, append
from stepstore.journal.segment_log import AHEAD_RECORDS, SegmentLogJournal, StreamSlices
from stepstore.log.memory_files import MemoryFileSystem
from stepwell.testing.journal_contract.place import A, running, sequence, texts
from tests.journal.places import segment_log_on
from tests.support import HookedFileSystem

LONG = SLICE_RECORDS + AHEAD_RECORDS + 7
BATCH = SLICE_RECORDS // 4


async def _write_long(journal: Journal) -> None:
    for first in range(0, LONG, BATCH):
        await append(journal, A, texts(min(BATCH, LONG - first)), expected_seq=first)


async def test_a_long_stream_is_read_ahead_and_given_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(segment_log_on(MemoryFileSystem())) as journal:
        await _write_long(journal)
        assert isinstance(journal, SegmentLogJournal)
        reader, turns = journal._stream_reader, []
        read_slice = reader.read_slice

        def counted(*arguments: object) -> object:
            found = read_slice(*arguments)  # type: ignore[arg-type]
            turns.append(len(found[0]))
            return found

        monkeypatch.setattr(reader, "read_slice", counted)
        slices = journal.read(A)
        found = [await slices.next_slice() for _ in range(7)]
        assert [len(part) for part in found] == [SLICE_RECORDS] * 5 + [7, 0]
        assert sequence([record for part in found for record in part]) == list(range(1, LONG + 1))
        assert turns == [SLICE_RECORDS, AHEAD_RECORDS, 7]


async def test_whoever_wants_the_first_slice_has_no_more_read_than_that() -> None:
    async with running(segment_log_on(MemoryFileSystem())) as journal:
        await _write_long(journal)
        slices = journal.read(A)
        assert isinstance(slices, StreamSlices)
        await slices.next_slice()
        assert slices._ahead == []


async def test_a_read_error_behind_what_was_read_ahead_loses_nothing_of_it() -> None:
    failing = False

    def hook(call: str, path: str) -> None:
        if failing and call == "read" and path.endswith(".seg"):
            raise OSError(errno.EIO, "injected", path)

    async with running(segment_log_on(HookedFileSystem(MemoryFileSystem(), hook))) as journal:
        await _write_long(journal)
        slices = journal.read(A)
        found = [*await slices.next_slice(), *await slices.next_slice()]
        failing = True
        for _ in range(3):
            found += await slices.next_slice()
        for _ in range(2):
            with pytest.raises(RecoveryFailed, match="read"):
                await slices.next_slice()
        failing = False
        found += await slices.next_slice()
        assert sequence(found) == list(range(1, LONG + 1))
        assert await slices.next_slice() == []
