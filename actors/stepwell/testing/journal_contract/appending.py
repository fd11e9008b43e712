"""Numbers, what is refused, and submissions."""

from __future__ import annotations

import pytest
import trio

from stepstore.errors import InvalidInput, InvalidState, Rejected, TooLarge
from stepstore.journal.contract import Appended, Batch, Record, Submission, append
from stepstore.log.frame import MAX_BATCH_BYTES, batch_cost
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


class AppendingContract(PlaceOfJournal):
    """Numbers, what is refused, and submissions."""

    async def test_records_of_a_stream_are_numbered_from_1_without_gaps(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            assert await append(journal, A, [b"one"], expected_seq=0) == Appended(1, 1, 1)
            assert await append(journal, A, [b"two", b"three"], expected_seq=1) == Appended(2, 3, 2)
            assert await append(journal, A, [b"four"], expected_seq=3) == Appended(4, 4, 4)
            found = await everything(journal, A)
            assert found == [
                Record(A, 1, 1, b"one"),
                Record(A, 2, 2, b"two"),
                Record(A, 3, 3, b"three"),
                Record(A, 4, 4, b"four"),
            ]

    async def test_all_records_of_the_journal_are_numbered_in_one_order(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            assert (await append(journal, A, texts(2), expected_seq=0)).first_lsn == 1
            assert (await append(journal, B, texts(3), expected_seq=0)).first_lsn == 3
            assert (await append(journal, A, texts(1), expected_seq=2)).first_lsn == 6
            assert [record.lsn for record in await everything(journal, A)] == [1, 2, 6]
            assert [record.lsn for record in await everything(journal, B)] == [3, 4, 5]
            assert journal.durable_lsn == 6

    async def test_payloads_come_back_byte_for_byte(self, place: JournalPlace) -> None:
        payloads = [b"", b"\0", bytes(range(256)), b"\xff" * 5000, b"\xd9\xd9\xf7", "🪜".encode()]
        async with running(place) as journal:
            await append(journal, A, payloads, expected_seq=0)
            assert [record.payload for record in await everything(journal, A)] == payloads

    async def test_an_unknown_stream_is_empty(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            assert journal.last_seq(A) == 0
            assert journal.durable_seq(A) == 0
            assert await everything(journal, A) == []
            assert await everything(journal, A, after=5) == []

    @pytest.mark.parametrize("expected_seq", [-1, 0, 2, 4, 10])
    async def test_an_append_behind_another_seq_than_the_last_is_refused(
        self, place: JournalPlace, expected_seq: int
    ) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            with pytest.raises(InvalidState, match="seq 3"):
                await append(journal, A, [b"misfit"], expected_seq=expected_seq)
            assert journal.last_seq(A) == journal.durable_seq(A) == journal.durable_lsn == 3
            assert (await append(journal, A, [b"fits"], expected_seq=3)).first_seq == 4
            assert [record.payload for record in await everything(journal, A)] == [*texts(3), b"fits"]

    async def test_what_is_queued_counts_for_the_expected_seq(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            journal.submit([Batch(A, 1, texts(2), 0)])
            assert (journal.last_seq(A), journal.durable_seq(A)) == (2, 0)
            with pytest.raises(InvalidState):
                journal.submit([Batch(A, 1, [b"misfit"], 0)])
            later = journal.submit([Batch(A, 3, [b"fits"], 0)])
            await later.wait()
            assert [record.payload for record in await everything(journal, A)] == [b"0", b"1", b"fits"]

    @pytest.mark.parametrize("bad", [Batch(B, 2, [b"x"], 0), Batch(A, 1, [b"x"], 0), Batch(A, 4, [b"x"], 0)])
    async def test_one_batch_that_does_not_fit_refuses_the_whole_submission(
        self, place: JournalPlace, bad: Batch
    ) -> None:
        async with running(place) as journal:
            told: list[Submission] = []
            with pytest.raises(InvalidState):
                journal.submit([Batch(A, 1, texts(2), 0), Batch(C, 1, [b"c"], 0), bad], on_done=told.append)
            await append(journal, C, [b"later"], expected_seq=0)
            assert told == []
            assert [journal.last_seq(stream) for stream in (A, B, C)] == [0, 0, 1]
            assert list(journal.streams()) == [C]
            assert [record.payload for record in await everything(journal, C)] == [b"later"]

    @pytest.mark.parametrize("bad", [Batch(b"short", 1, [b"x"], 0), Batch(A + b"!", 1, [b"x"], 0), Batch(A, 1, [], 0)])
    async def test_a_batch_without_a_whole_stream_id_or_without_a_record_is_refused(
        self, place: JournalPlace, bad: Batch
    ) -> None:
        async with running(place) as journal:
            with pytest.raises(InvalidInput):
                journal.submit([Batch(B, 1, [b"b"], 0), bad])
            assert list(journal.streams()) == []
            assert journal.last_seq(B) == 0

    async def test_a_batch_of_the_largest_size_is_taken_and_one_byte_more_is_too_large(
        self, place: JournalPlace
    ) -> None:
        largest = MAX_BATCH_BYTES - batch_cost(0, 1)
        async with running(place) as journal:
            with pytest.raises(TooLarge) as refused:
                await append(journal, A, [b"x" * (largest + 1)], expected_seq=0)
            assert isinstance(refused.value, Rejected)
            assert journal.last_seq(A) == 0
            await append(journal, A, [b"x" * largest], expected_seq=0)
            (found,) = await everything(journal, A)
            assert len(found.payload) == largest

    async def test_batches_of_one_submission_are_too_large_together(self, place: JournalPlace) -> None:
        half = b"x" * (MAX_BATCH_BYTES // 2)
        async with running(place) as journal:
            with pytest.raises(TooLarge):
                journal.submit([Batch(A, 1, [half], 0), Batch(B, 1, [half], 0)])
            assert list(journal.streams()) == []
            assert (journal.last_seq(A), journal.last_seq(B)) == (0, 0)

    async def test_one_batch_needs_no_list_around_it(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            with pytest.raises(InvalidState):
                journal.submit(Batch(A, 2, [b"too early"], 0))
            submission = journal.submit(Batch(A, 1, texts(2), 0))
            assert [batch.first_seq for batch in submission.batches] == [1]
            await submission.wait()
            assert (submission.done, submission.error, submission.first_lsn) == (True, None, 1)
            assert [record.payload for record in await everything(journal, A)] == texts(2)

    async def test_batches_of_several_streams_are_stored_together_in_their_order(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            submission = journal.submit(
                [Batch(B, 1, texts(2, "b"), 0), Batch(A, 1, texts(1, "a"), 0), Batch(B, 3, [b"b2"], 0)]
            )
            await submission.wait()
            assert (submission.done, submission.error, submission.first_lsn) == (True, None, 1)
            assert journal.durable_lsn == 4
            assert await everything(journal, B) == [
                Record(B, 1, 1, b"b0"),
                Record(B, 2, 2, b"b1"),
                Record(B, 3, 4, b"b2"),
            ]
            assert await everything(journal, A) == [Record(A, 1, 3, b"a0")]

    async def test_a_submission_is_done_when_its_records_are_durable_and_not_earlier(self, place: JournalPlace) -> None:
        seen: list[tuple[int, int, list[bytes]]] = []

        async with running(place) as journal:

            def look(submission: Submission) -> None:
                kept: list[bytes] = []
                if place.after_power_cut is not None:
                    survivor = place.after_power_cut()
                    kept = list(survivor.streams())
                    survivor.release()
                seen.append((journal.durable_seq(A), journal.durable_lsn, kept))

            submission = journal.submit([Batch(A, 1, texts(3), 0), Batch(B, 1, texts(1), 0)], on_done=look)
            assert not submission.done
            assert (journal.durable_seq(A), journal.durable_lsn) == (0, 0)
            await submission.wait()
            survivors = [] if place.after_power_cut is None else [A, B]
            assert seen == [(3, 4, survivors)]

    async def test_after_a_power_cut_a_submission_is_there_as_a_whole_or_not_at_all(
        self, cutting_place: JournalPlace
    ) -> None:
        cut = cutting_place.after_power_cut
        assert cut is not None
        left: list[tuple[int, int]] = []
        async with running(cutting_place) as journal:
            for n in range(1, 30):
                submission = journal.submit([Batch(A, n, [b"a" * 700], 0), Batch(B, n, [b"b" * 700], 0)])
                while not submission.done:
                    survivor = cut()
                    left.append((survivor.durable_seq(A), survivor.durable_seq(B)))
                    survivor.release()
                    await trio.lowlevel.checkpoint()
                survivor = cut()
                assert (survivor.durable_seq(A), survivor.durable_seq(B)) == (n, n)
                survivor.release()
        assert left
        assert all(a == b for a, b in left)

    async def test_on_done_runs_once_synchronously_before_any_waiter(self, place: JournalPlace) -> None:
        happened: list[str] = []

        def told(submission: Submission) -> None:
            assert submission.done
            happened.append("told")

        async def wait(submission: Submission) -> None:
            await submission.wait()
            happened.append("waiter")

        async with running(place) as journal:
            submission = journal.submit([Batch(A, 1, [b"x"], 0)], on_done=told)
            assert happened == []
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait, submission)
            await submission.wait()
            await append(journal, A, [b"y"], expected_seq=1)
        assert happened == ["told", "waiter", "waiter", "waiter"]

    async def test_results_come_in_the_order_of_submission(self, place: JournalPlace) -> None:
        told: list[int] = []

        def remember(submission: Submission) -> None:
            told.append(submission.first_lsn)

        async with running(place) as journal:
            for n in range(100):
                journal.submit([Batch((A, B, C)[n % 3], n // 3 + 1, [b"%d" % n], 0)], on_done=remember)
            await append(journal, bytes(16), [b"last"], expected_seq=0)
            assert told == list(range(1, 101))
            assert [record.payload for record in await everything(journal, B)] == [b"%d" % n for n in range(1, 100, 3)]

    async def test_on_done_may_submit_what_comes_next(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            last = trio.Event()

            def go_on(submission: Submission) -> None:
                seq = submission.batches[0].first_seq
                if seq < 20:
                    journal.submit([Batch(A, seq + 1, [b"%d" % seq], 0)], on_done=go_on)
                else:
                    last.set()

            journal.submit([Batch(A, 1, [b"0"], 0)], on_done=go_on)
            await last.wait()
            assert sequence(await everything(journal, A)) == list(range(1, 21))

    async def test_counts_tell_what_was_stored(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            assert (journal.stats.groups, journal.stats.records) == (0, 0)
            await append(journal, A, texts(3), expected_seq=0)
            await append(journal, B, texts(1), expected_seq=0)
            assert (journal.stats.groups, journal.stats.records, journal.stats.largest_group) == (2, 4, 3)
            assert journal.has_room
            assert journal.failed is None
            assert (journal.report.records, journal.report.open_streams) == (0, 0)
