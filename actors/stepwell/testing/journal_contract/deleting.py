"""Deleting a stream: no reader that comes later sees a record of it, and its id is taken for ever."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stepstore.errors import InvalidInput, InvalidState, KeyDestroyed
from stepstore.journal import Journal
from stepstore.journal.contract import (
    FLAG_CLOSES,
    FLAG_OPENS,
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    Batch,
    Record,
    append,
    delete,
    store_snapshot,
)
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

TOMBSTONE = FLAG_CLOSES | FLAG_TOMBSTONE


async def looks_deleted(journal: Journal, stream: bytes, last_seq: int) -> None:
    assert await journal.look_up(stream) == last_seq
    assert journal.is_deleted(stream)
    assert (journal.last_seq(stream), journal.durable_seq(stream)) == (last_seq, last_seq)
    assert await everything(journal, stream) == []
    assert await everything(journal, stream, after=2) == []
    assert stream not in journal.streams()
    assert stream not in journal.open_streams()
    assert await journal.read_snapshot(stream) is None


class DeletingContract(PlaceOfJournal):
    """Deleting a stream: no reader that comes later sees a record of it, and its id is taken for ever."""

    async def test_a_deleted_stream_has_no_record_and_the_others_have_theirs(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(5), expected_seq=0, flags=FLAG_OPENS)
            await append(journal, B, texts(3, "b"), expected_seq=0, flags=FLAG_OPENS)
            assert await journal.look_up(A) == 5
            assert not journal.is_deleted(A)
            await delete(journal, A, b"gone")
            await looks_deleted(journal, A, 6)
            assert list(journal.streams()) == list(journal.open_streams()) == [B]
            assert [record.payload for record in await everything(journal, B)] == texts(3, "b")
            assert (await append(journal, B, [b"next"], expected_seq=3)).first_lsn == 10

    async def test_a_deleted_stream_takes_nothing_any_more(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(2), expected_seq=0)
            await delete(journal, A, b"gone")
            for misfit in (Batch(A, 4, [b"x"], 0), Batch(A, 3, [b"x"], 0), Batch(A, 1, [b"x"], FLAG_OPENS)):
                with pytest.raises(InvalidState, match="deleted"):
                    journal.submit([Batch(B, 1, [b"with it"], 0), misfit])
            with pytest.raises(InvalidState, match="deleted"):
                await delete(journal, A, b"again")
            with pytest.raises(InvalidState, match="deleted"):
                await store_snapshot(journal, A, b"snapshot", through_seq=1)
            assert journal.last_seq(B) == 0
            await looks_deleted(journal, A, 3)

    async def test_nothing_follows_a_tombstone_that_is_still_queued(self, place: JournalPlace) -> None:
        async with not_running(place) as journal, trio.open_nursery() as nursery:
            journal.submit([Batch(A, 1, texts(2), 0)])
            journal.submit([Batch(A, 3, [b"gone"], TOMBSTONE)])
            for misfit in (Batch(A, 4, [b"x"], 0), Batch(A, 4, [b"x"], TOMBSTONE), Batch(A, 1, [b"x"], FLAG_SNAPSHOT)):
                with pytest.raises(InvalidState, match="deleted"):
                    journal.submit([misfit])
            nursery.start_soon(journal.run)
            await append(journal, B, [b"behind it"], expected_seq=0)
            await looks_deleted(journal, A, 3)
            journal.finish()

    @pytest.mark.parametrize(
        "behind", [Batch(A, 2, [b"x"], 0), Batch(A, 2, [b"x"], TOMBSTONE), Batch(A, 1, [b"x"], FLAG_SNAPSHOT)]
    )
    async def test_nothing_follows_a_tombstone_in_its_own_submission(self, place: JournalPlace, behind: Batch) -> None:
        async with running(place) as journal:
            with pytest.raises(InvalidState, match="deleted"):
                journal.submit([Batch(A, 1, [b"gone"], TOMBSTONE), behind])
            assert journal.last_seq(A) == 0
            await append(journal, A, [b"it is free"], expected_seq=0)

    @pytest.mark.parametrize("expected_seq", [0, 1, 3])
    async def test_a_tombstone_continues_its_stream_as_any_batch_does(
        self, place: JournalPlace, expected_seq: int
    ) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(2), expected_seq=0)
            with pytest.raises(InvalidState, match="seq 2"):
                await append(journal, A, [b"gone"], expected_seq=expected_seq, flags=TOMBSTONE)
            assert not journal.is_deleted(A)
            assert sequence(await everything(journal, A)) == [1, 2]

    async def test_a_tombstone_is_one_record_and_nothing_else(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(2), expected_seq=0)
            for bad in (Batch(A, 3, texts(2), TOMBSTONE), Batch(A, 3, [b"x"], TOMBSTONE | FLAG_SNAPSHOT)):
                with pytest.raises(InvalidInput):
                    journal.submit([bad])
            assert not journal.is_deleted(A)

    async def test_a_deletion_is_stored_together_with_what_was_submitted_with_it(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(2), expected_seq=0)
            submission = journal.submit(
                [Batch(B, 1, [b"b"], 0), Batch(A, 3, [b"gone"], TOMBSTONE), Batch(C, 1, [b"c"], 0)]
            )
            await submission.wait()
            assert submission.first_lsn == 3
            await looks_deleted(journal, A, 3)
            assert list(journal.streams()) == [B, C]

    async def test_a_reader_that_had_begun_is_not_cut_short(self, place: JournalPlace) -> None:
        """It gets what was there when it was asked for, or learns that it cannot; never an early end."""
        async with running(place) as journal:
            for start in range(0, 600, 100):
                await append(journal, A, texts(100), expected_seq=start)
            slices = journal.read(A)
            found = await slices.next_slice()
            assert len(found) < 600
            await delete(journal, A, b"gone")
            if place.encrypts:
                with pytest.raises(KeyDestroyed):
                    await slices.next_slice()
                return
            while part := await slices.next_slice():
                found += part
            assert sequence(found) == list(range(1, 601))

    async def test_a_follower_that_was_there_sees_the_records_and_the_tombstone(self, place: JournalPlace) -> None:
        async with running(place) as journal, journal.follow() as slices:
            await append(journal, A, texts(2), expected_seq=0)
            assert sequence(await take(slices, 2)) == [1, 2]
            await delete(journal, A, b"gone")
            assert await take(slices, 1) == [Record(A, 3, 3, b"gone")]
            await append(journal, B, [b"b"], expected_seq=0)
            assert await take(slices, 1) == [Record(B, 1, 4, b"b")]

    async def test_a_follower_that_comes_later_sees_the_tombstone_only(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            for seq in range(40):
                await append(journal, A, [b"x" * 400], expected_seq=seq)
                await append(journal, B, [b"y" * 400], expected_seq=seq)
            await delete(journal, A, b"gone")
            await append(journal, B, [b"end"], expected_seq=40)
            async with journal.follow() as slices:
                found = await take(slices, 42)
            assert [record for record in found if record.stream == A] == [Record(A, 41, 81, b"gone")]
            assert sequence([record for record in found if record.stream == B]) == list(range(1, 42))
            async with journal.follow(after_lsn=80) as slices:
                assert [(record.stream, record.seq) for record in await take(slices, 2)] == [(A, 41), (B, 41)]

    async def test_a_deletion_holds_over_rotation_and_reopening(self, lasting_place: JournalPlace) -> None:
        async with running(lasting_place) as journal:
            for seq in range(60):
                await append(journal, A, [b"x" * 500], expected_seq=seq, flags=0 if seq else FLAG_OPENS)
            await append(journal, B, [b"b"], expected_seq=0, flags=FLAG_OPENS)
            await journal.rotate()
            await delete(journal, A, b"gone")
            await journal.rotate()
            await append(journal, C, [b"c"], expected_seq=0)
        for _ in range(2):
            async with running(lasting_place) as journal:
                await looks_deleted(journal, A, 61)
                with pytest.raises(InvalidState, match="deleted"):
                    await append(journal, A, [b"x"], expected_seq=61)
                assert list(journal.streams()) == [B, C]
                assert list(journal.open_streams()) == [B]
                journal.finish()
                assert [(record.stream, record.seq) for record in await followed(journal)] == [(B, 1), (A, 61), (C, 1)]

    async def test_a_deletion_survives_a_power_cut_as_soon_as_it_has_returned(
        self, cutting_place: JournalPlace
    ) -> None:
        assert cutting_place.after_power_cut is not None
        async with running(cutting_place) as journal:
            await append(journal, A, texts(3), expected_seq=0, flags=FLAG_OPENS)
            await delete(journal, A, b"gone")
            survivor = cutting_place.after_power_cut()
            try:
                await looks_deleted(survivor, A, 4)
            finally:
                survivor.release()

    async def test_a_cancelled_deletion_that_was_queued_takes_place(self, place: JournalPlace) -> None:
        async with not_running(place) as journal, trio.open_nursery() as nursery:
            journal.submit([Batch(A, 1, texts(2), 0)])
            with trio.move_on_after(0.01) as waiting:
                await delete(journal, A, b"gone")
            assert waiting.cancelled_caught
            nursery.start_soon(journal.run)
            await append(journal, B, [b"b"], expected_seq=0)
            await looks_deleted(journal, A, 3)
            await journal.forget(A)
            journal.finish()

    async def test_a_key_is_forgotten_only_of_a_deleted_stream_and_again_if_asked_again(
        self, place: JournalPlace
    ) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(2), expected_seq=0)
            for stream in (A, B):
                with pytest.raises(InvalidState, match="not deleted"):
                    await journal.forget(stream)
            assert sequence(await everything(journal, A)) == [1, 2]
            await delete(journal, A, b"gone")
            await journal.forget(A)
            await journal.forget(A)
            await looks_deleted(journal, A, 3)

    async def test_deleting_and_forgetting_are_checkpoints_on_every_path(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(2), expected_seq=0)
            with trio.testing.assert_checkpoints():
                await journal.look_up(A)
            with trio.testing.assert_checkpoints():
                await journal.look_up(B)
            with trio.testing.assert_checkpoints(), pytest.raises(InvalidState):
                await journal.forget(A)
            with trio.testing.assert_checkpoints():
                await delete(journal, A, b"gone")
            with trio.testing.assert_checkpoints(), pytest.raises(InvalidState):
                await delete(journal, A, b"gone")
            with trio.testing.assert_checkpoints():
                await journal.forget(A)
