"""Reading streams, and which there are."""

from __future__ import annotations

import pytest
import trio

from stepstore.journal import Journal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS, SLICE_BYTES, SLICE_RECORDS, Batch, append
from stepwell.testing.journal_contract.cancelling import cancelled_at_step
from stepwell.testing.journal_contract.place import (
    A,
    B,
    C,
    JournalPlace,
    PlaceOfJournal,
    everything,
    running,
    sequence,
    texts,
)


class ReadingContract(PlaceOfJournal):
    """Reading streams, and which there are."""

    async def test_a_reader_sees_durable_records_only(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            submission = journal.submit([Batch(A, 1, texts(3), FLAG_OPENS)])
            early = journal.read(A)
            assert (list(journal.streams()), list(journal.open_streams())) == ([], [])
            await submission.wait()
            assert await early.next_slice() == []
            assert sequence(await journal.read(A).next_slice()) == [1, 2, 3]

    async def test_a_reader_stops_where_the_stream_ended_when_it_was_asked_for(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            slices = journal.read(A)
            await append(journal, A, texts(3), expected_seq=3)
            assert sequence(await slices.next_slice()) == [1, 2, 3]
            assert await slices.next_slice() == []
            assert await slices.next_slice() == []

    @pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 9, 10, 11, 2**62])
    async def test_a_reader_begins_behind_any_seq(self, place: JournalPlace, after: int) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(5), expected_seq=0)
            await append(journal, B, texts(5), expected_seq=0)
            await append(journal, A, texts(5), expected_seq=5)
            assert sequence(await everything(journal, A, after)) == list(range(after + 1, 11))

    async def test_a_long_stream_comes_in_bounded_slices(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            for start in range(0, 1000, 50):
                await append(journal, A, texts(50, f"{start}+"), expected_seq=start)
            slices, sizes, found = journal.read(A, after=25), [], []
            while part := await slices.next_slice():
                sizes.append(len(part))
                found += part
            assert sequence(found) == list(range(26, 1001))
            assert max(sizes) <= SLICE_RECORDS
            assert len(sizes) <= 8  # and not in crumbs

    async def test_a_batch_larger_than_a_slice_bounds_the_slice(self, place: JournalPlace) -> None:
        large = SLICE_RECORDS * 2 + 7
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            await append(journal, A, texts(large), expected_seq=3)
            await append(journal, A, texts(3), expected_seq=3 + large)
            slices, sizes = journal.read(A), []
            while part := await slices.next_slice():
                sizes.append(len(part))
            assert sum(sizes) == large + 6
            assert max(sizes) <= large

    async def test_a_stream_of_large_records_comes_in_slices_of_bounded_bytes(self, place: JournalPlace) -> None:
        payload = b"x" * (SLICE_BYTES // 4 - 100)
        async with running(place) as journal:
            for seq in range(9):
                await append(journal, A, [payload], expected_seq=seq)
            slices, sizes = journal.read(A), []
            while part := await slices.next_slice():
                sizes.append(sum(len(record.payload) for record in part))
            assert sum(sizes) == 9 * len(payload)
            assert max(sizes) <= SLICE_BYTES

    async def test_a_reader_that_is_cancelled_goes_on_where_it_was(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            for start in range(0, 600, 100):
                await append(journal, A, texts(100), expected_seq=start)
            slices = journal.read(A)
            found = await slices.next_slice()
            with trio.CancelScope() as scope:
                scope.cancel()
                await slices.next_slice()
            assert scope.cancelled_caught

            async def read_on() -> None:
                found.extend(await slices.next_slice())

            for attempt in range(100):  # cancelled before its first checkpoint, before its second, and so on
                await cancelled_at_step(attempt % 5, read_on)
                if len(found) == 600:
                    break
            assert sequence(found) == list(range(1, 601))

    async def test_many_readers_and_a_writer_at_once(self, place: JournalPlace) -> None:
        async def read(journal: Journal) -> None:
            upto = journal.durable_seq(A)
            assert sequence(await everything(journal, A)) == list(range(1, upto + 1))

        async with running(place) as journal:
            async with trio.open_nursery() as nursery:
                for seq in range(40):
                    await append(journal, A, [b"x" * 500], expected_seq=seq)
                    if seq % 4 == 0:
                        nursery.start_soon(read, journal)

    async def test_streams_stand_in_the_order_of_first_appearance(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            for stream, seq in ((C, 0), (A, 0), (C, 1), (B, 0), (A, 1)):
                await append(journal, stream, [b"x"], expected_seq=seq)
            assert list(journal.streams()) == [C, A, B]
            before = journal.streams()
            await append(journal, bytes(16), [b"x"], expected_seq=0)
            assert list(before) == [C, A, B]

    async def test_a_stream_is_open_from_its_opening_batch_to_its_closing_one(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, B, [b"x"], expected_seq=0)
            await append(journal, C, [b"x"], expected_seq=0, flags=FLAG_OPENS)
            await append(journal, A, [b"x"], expected_seq=0, flags=FLAG_OPENS)
            assert list(journal.open_streams()) == [C, A]
            await append(journal, B, [b"x"], expected_seq=1, flags=FLAG_OPENS)
            await append(journal, C, texts(4), expected_seq=1)
            assert list(journal.open_streams()) == [C, A, B]
            await append(journal, C, [b"x"], expected_seq=5, flags=FLAG_CLOSES)
            assert list(journal.open_streams()) == [A, B]
            await append(journal, C, [b"a record behind the end"], expected_seq=6)
            await append(journal, bytes(16), [b"all of it"], expected_seq=0, flags=FLAG_OPENS | FLAG_CLOSES)
            assert list(journal.open_streams()) == [A, B]
            assert list(journal.streams()) == [B, C, A, bytes(16)]
