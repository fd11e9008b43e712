"""A stream read from its end backwards, in chunks."""

from __future__ import annotations

import pytest
import trio

from stepstore.journal import InMemoryJournal
from stepstore.journal.contract import SLICE_RECORDS, append
from stepwell.runtime.stream_reading import BackwardRecords

STREAM = b"s" * 16


@pytest.mark.parametrize(
    ("first", "sizes"),
    [
        (1, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 976, 0]),
        (136, [136, SLICE_RECORDS, 512, 1_024, 71, 0]),  # not 272: that would be two turns of the reader's thread
        (SLICE_RECORDS, [SLICE_RECORDS, 512, 1_024, 207, 0]),
        (300, [300, 600, 1_024, 75, 0]),
    ],
)
async def test_chunks_from_the_end_grow_and_hold_every_record_once(first: int, sizes: list[int]) -> None:
    journal = InMemoryJournal()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await append(journal, STREAM, [b"%d" % n for n in range(1, 2_000)], expected_seq=0)
        records = BackwardRecords(journal, STREAM, 1_999, first)
        chunks = [await records.next_chunk() for _ in sizes]
        journal.finish()
    journal.release()
    assert [len(chunk) for chunk in chunks] == sizes
    assert [record.seq for chunk in reversed(chunks) for record in chunk] == list(range(1, 2_000))
