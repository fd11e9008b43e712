"""Snapshots of a stream: beside its records, found again, and of no concern to readers and followers."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stepstore.errors import InvalidInput, InvalidState
from stepstore.journal.contract import FLAG_CLOSES, FLAG_SNAPSHOT, Batch, Record, append, delete, store_snapshot
from stepwell.testing.journal_contract.place import (
    A,
    B,
    C,
    JournalPlace,
    PlaceOfJournal,
    everything,
    followed,
    not_running,
    running,
    sequence,
    take,
    texts,
)


class SnapshotsContract(PlaceOfJournal):
    """Snapshots of a stream: beside its records, found again, and of no concern to readers and followers."""

    async def test_a_snapshot_takes_an_lsn_and_no_number_of_its_stream(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            assert await journal.read_snapshot(A) is None
            assert await store_snapshot(journal, A, b"as of 2", through_seq=2) == 4
            assert await journal.read_snapshot(A) == Record(A, 2, 4, b"as of 2")
            assert (journal.last_seq(A), journal.durable_seq(A), journal.durable_lsn) == (3, 3, 4)
            assert (await append(journal, A, [b"next"], expected_seq=3)).first_lsn == 5
            assert [record.payload for record in await everything(journal, A)] == [*texts(3), b"next"]
            assert await journal.read_snapshot(B) is None

    async def test_the_newest_snapshot_counts_whatever_it_covers(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(5), expected_seq=0)
            await append(journal, B, texts(2), expected_seq=0)
            for through_seq in (2, 5, 1, 3):
                await store_snapshot(journal, A, b"as of %d" % through_seq, through_seq=through_seq)
                found = await journal.read_snapshot(A)
                assert found is not None
                assert (found.seq, found.payload) == (through_seq, b"as of %d" % through_seq)
            await store_snapshot(journal, B, b"of another stream", through_seq=2)
            found = await journal.read_snapshot(A)
            assert found is not None
            assert found.payload == b"as of 3"

    @pytest.mark.parametrize("through_seq", [-1, 0, 4, 10])
    async def test_a_snapshot_covers_what_its_stream_has(self, place: JournalPlace, through_seq: int) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            with pytest.raises(InvalidState):
                await store_snapshot(journal, A, b"x", through_seq=through_seq)
            with pytest.raises(InvalidState):
                await store_snapshot(journal, B, b"x", through_seq=1)
            assert await journal.read_snapshot(A) is None
            assert list(journal.streams()) == [A]

    async def test_a_snapshot_is_one_record(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            with pytest.raises(InvalidInput):
                journal.submit([Batch(A, 2, texts(2), FLAG_SNAPSHOT)])

    async def test_a_snapshot_may_cover_what_is_queued_before_it(self, place: JournalPlace) -> None:
        async with not_running(place) as journal, trio.open_nursery() as nursery:
            first = journal.submit([Batch(A, 1, texts(3), 0), Batch(A, 3, [b"as of 3"], FLAG_SNAPSHOT)])
            journal.submit([Batch(A, 4, [b"next"], 0)])
            assert journal.last_seq(A) == 4
            nursery.start_soon(journal.run)
            await first.wait()
            await append(journal, A, [b"last"], expected_seq=4)
            assert await journal.read_snapshot(A) == Record(A, 3, 4, b"as of 3")
            assert sequence(await everything(journal, A)) == [1, 2, 3, 4, 5]
            journal.finish()

    async def test_a_follower_does_not_see_a_snapshot_and_may_begin_behind_one(self, place: JournalPlace) -> None:
        async with running(place) as journal, journal.follow() as slices:
            await append(journal, A, texts(2), expected_seq=0)
            lsn = await store_snapshot(journal, A, b"snapshot", through_seq=2)
            async with journal.follow(lsn) as later:
                await append(journal, A, [b"next"], expected_seq=2)
                assert [(record.seq, record.lsn) for record in await take(slices, 3)] == [(1, 1), (2, 2), (3, 4)]
                assert await take(later, 1) == [Record(A, 3, 4, b"next")]
            await store_snapshot(journal, A, b"snapshot", through_seq=3)
            with trio.move_on_after(0.01) as waiting:
                await slices.receive()
            assert waiting.cancelled_caught

    async def test_a_snapshot_is_found_after_rotation_and_reopening(self, lasting_place: JournalPlace) -> None:
        async with running(lasting_place) as journal:
            for seq in range(40):
                await append(journal, A, [b"x" * 500], expected_seq=seq)
                if seq in (10, 20):
                    await store_snapshot(journal, A, b"as of %d" % seq, through_seq=seq)
                if seq in (5, 15, 30):
                    await journal.rotate()
            await append(journal, B, texts(2), expected_seq=0)
            await store_snapshot(journal, B, b"b" * 3000, through_seq=2)
            await append(journal, C, texts(2), expected_seq=0)
            snapshot = await journal.read_snapshot(A)
            assert snapshot is not None
            assert (snapshot.seq, snapshot.payload) == (20, b"as of 20")
            lsn = journal.durable_lsn
        for _ in range(2):
            async with running(lasting_place) as journal:
                assert await journal.read_snapshot(A) == snapshot
                found = await journal.read_snapshot(B)
                assert found is not None
                assert found.payload == b"b" * 3000
                assert await journal.read_snapshot(C) is None
                assert (journal.durable_lsn, journal.durable_seq(A), journal.durable_seq(B)) == (lsn, 40, 2)
                journal.finish()
                assert [record.seq for record in await followed(journal) if record.stream == A] == list(range(1, 41))

    async def test_a_snapshot_survives_a_power_cut_as_soon_as_it_has_returned(
        self, cutting_place: JournalPlace
    ) -> None:
        assert cutting_place.after_power_cut is not None
        async with running(cutting_place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            await store_snapshot(journal, A, b"as of 3", through_seq=3)
            survivor = cutting_place.after_power_cut()
            try:
                assert await survivor.read_snapshot(A) == Record(A, 3, 4, b"as of 3")
                assert [record.payload for record in await everything(survivor, A)] == texts(3)
            finally:
                survivor.release()

    async def test_a_deleted_stream_has_no_snapshot(self, lasting_place: JournalPlace) -> None:
        async with running(lasting_place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            await store_snapshot(journal, A, b"as of 3", through_seq=3)
            await journal.rotate()
            await delete(journal, A, b"gone")
            assert await journal.read_snapshot(A) is None
        async with running(lasting_place) as journal:
            assert await journal.read_snapshot(A) is None

    async def test_an_ended_stream_may_still_get_a_snapshot_and_stays_ended(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0, flags=FLAG_CLOSES)
            await store_snapshot(journal, A, b"as of 3", through_seq=3)
            assert list(journal.open_streams()) == []

    async def test_snapshots_are_checkpoints_on_every_path(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            with trio.testing.assert_checkpoints():
                await journal.read_snapshot(A)
            with trio.testing.assert_checkpoints():
                await store_snapshot(journal, A, b"x", through_seq=1)
            with trio.testing.assert_checkpoints():
                await journal.read_snapshot(A)
            with trio.testing.assert_checkpoints(), pytest.raises(InvalidState):
                await store_snapshot(journal, A, b"x", through_seq=9)
