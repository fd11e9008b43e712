"""What every journal promises, asked of each implementation in turn.

A new implementation joins by one more `Place` in `places.PLACES`; it has to pass everything here as it stands.
"""

from __future__ import annotations

import pathlib

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstore.errors import Closed, InvalidInput, InvalidState, OutcomeUnknown, Rejected, TooLarge
from stepstore.journal import SegmentLogJournal
from stepstore.journal.contract import (
    FLAG_CLOSES,
    FLAG_OPENS,
    SLICE_BYTES,
    SLICE_RECORDS,
    Appended,
    Batch,
    Journal,
    Record,
    Submission,
    append,
)
from stepstore.log.frame import MAX_BATCH_BYTES, batch_cost
from tests.journal.places import (
    PLACES,
    SMALL,
    A,
    B,
    C,
    Place,
    everything,
    followed,
    not_running,
    open_file_count,
    running,
    segment_log_in_memory,
    sequence,
    sound,
    take,
    texts,
)

steady = settings(derandomize=True, database=None, deadline=None, max_examples=40)

# ---- numbers ---------------------------------------------------------------------------------------------------------


async def test_records_of_a_stream_are_numbered_from_1_without_gaps(place: Place) -> None:
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


async def test_all_records_of_the_journal_are_numbered_in_one_order(place: Place) -> None:
    async with running(place) as journal:
        assert (await append(journal, A, texts(2), expected_seq=0)).first_lsn == 1
        assert (await append(journal, B, texts(3), expected_seq=0)).first_lsn == 3
        assert (await append(journal, A, texts(1), expected_seq=2)).first_lsn == 6
        assert [record.lsn for record in await everything(journal, A)] == [1, 2, 6]
        assert [record.lsn for record in await everything(journal, B)] == [3, 4, 5]
        assert journal.durable_lsn == 6


async def test_payloads_come_back_byte_for_byte(place: Place) -> None:
    payloads = [b"", b"\0", bytes(range(256)), b"\xff" * 5000, b"\xd9\xd9\xf7", "🪜".encode()]
    async with running(place) as journal:
        await append(journal, A, payloads, expected_seq=0)
        assert [record.payload for record in await everything(journal, A)] == payloads


async def test_an_unknown_stream_is_empty(place: Place) -> None:
    async with running(place) as journal:
        assert journal.last_seq(A) == 0
        assert journal.durable_seq(A) == 0
        assert await everything(journal, A) == []
        assert await everything(journal, A, after=5) == []


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected_seq", [-1, 0, 2, 4, 10])
async def test_an_append_behind_another_seq_than_the_last_is_refused(place: Place, expected_seq: int) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(3), expected_seq=0)
        with pytest.raises(InvalidState, match="seq 3"):
            await append(journal, A, [b"misfit"], expected_seq=expected_seq)
        assert journal.last_seq(A) == journal.durable_seq(A) == journal.durable_lsn == 3
        assert (await append(journal, A, [b"fits"], expected_seq=3)).first_seq == 4
        assert [record.payload for record in await everything(journal, A)] == [*texts(3), b"fits"]


async def test_what_is_queued_counts_for_the_expected_seq(place: Place) -> None:
    async with running(place) as journal:
        journal.submit([Batch(A, 1, texts(2), 0)])
        assert (journal.last_seq(A), journal.durable_seq(A)) == (2, 0)
        with pytest.raises(InvalidState):
            journal.submit([Batch(A, 1, [b"misfit"], 0)])
        later = journal.submit([Batch(A, 3, [b"fits"], 0)])
        await later.wait()
        assert [record.payload for record in await everything(journal, A)] == [b"0", b"1", b"fits"]


@pytest.mark.parametrize("bad", [Batch(B, 2, [b"x"], 0), Batch(A, 1, [b"x"], 0), Batch(A, 4, [b"x"], 0)])
async def test_one_batch_that_does_not_fit_refuses_the_whole_submission(place: Place, bad: Batch) -> None:
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
async def test_a_batch_without_a_whole_stream_id_or_without_a_record_is_refused(place: Place, bad: Batch) -> None:
    async with running(place) as journal:
        with pytest.raises(InvalidInput):
            journal.submit([Batch(B, 1, [b"b"], 0), bad])
        assert list(journal.streams()) == []
        assert journal.last_seq(B) == 0


async def test_a_batch_of_the_largest_size_is_taken_and_one_byte_more_is_too_large(place: Place) -> None:
    largest = MAX_BATCH_BYTES - batch_cost(0, 1)
    async with running(place) as journal:
        with pytest.raises(TooLarge) as refused:
            await append(journal, A, [b"x" * (largest + 1)], expected_seq=0)
        assert isinstance(refused.value, Rejected)
        assert journal.last_seq(A) == 0
        await append(journal, A, [b"x" * largest], expected_seq=0)
        (found,) = await everything(journal, A)
        assert len(found.payload) == largest


async def test_batches_of_one_submission_are_too_large_together(place: Place) -> None:
    half = b"x" * (MAX_BATCH_BYTES // 2)
    async with running(place) as journal:
        with pytest.raises(TooLarge):
            journal.submit([Batch(A, 1, [half], 0), Batch(B, 1, [half], 0)])
        assert list(journal.streams()) == []
        assert (journal.last_seq(A), journal.last_seq(B)) == (0, 0)


# ---- submissions -----------------------------------------------------------------------------------------------------


async def test_batches_of_several_streams_are_stored_together_in_their_order(place: Place) -> None:
    async with running(place) as journal:
        submission = journal.submit(
            [Batch(B, 1, texts(2, "b"), 0), Batch(A, 1, texts(1, "a"), 0), Batch(B, 3, [b"b2"], 0)]
        )
        await submission.wait()
        assert (submission.done, submission.error, submission.first_lsn) == (True, None, 1)
        assert journal.durable_lsn == 4
        assert await everything(journal, B) == [Record(B, 1, 1, b"b0"), Record(B, 2, 2, b"b1"), Record(B, 3, 4, b"b2")]
        assert await everything(journal, A) == [Record(A, 1, 3, b"a0")]


async def test_a_submission_is_done_when_its_records_are_durable_and_not_earlier(place: Place) -> None:
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


async def test_after_a_power_cut_a_submission_is_there_as_a_whole_or_not_at_all() -> None:
    place = segment_log_in_memory(None)
    assert place.after_power_cut is not None
    left: list[tuple[int, int]] = []
    async with running(place) as journal:
        for n in range(1, 30):
            submission = journal.submit([Batch(A, n, [b"a" * 700], 0), Batch(B, n, [b"b" * 700], 0)])
            while not submission.done:
                survivor = place.after_power_cut()
                left.append((survivor.durable_seq(A), survivor.durable_seq(B)))
                survivor.release()
                await trio.lowlevel.checkpoint()
            survivor = place.after_power_cut()
            assert (survivor.durable_seq(A), survivor.durable_seq(B)) == (n, n)
            survivor.release()
    assert left
    assert all(a == b for a, b in left)


async def test_on_done_runs_once_synchronously_before_any_waiter(place: Place) -> None:
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


async def test_results_come_in_the_order_of_submission(place: Place) -> None:
    told: list[int] = []

    def remember(submission: Submission) -> None:
        told.append(submission.first_lsn)

    async with running(place) as journal:
        for n in range(100):
            journal.submit([Batch((A, B, C)[n % 3], n // 3 + 1, [b"%d" % n], 0)], on_done=remember)
        await append(journal, bytes(16), [b"last"], expected_seq=0)
        assert told == list(range(1, 101))
        assert [record.payload for record in await everything(journal, B)] == [b"%d" % n for n in range(1, 100, 3)]


async def test_on_done_may_submit_what_comes_next(place: Place) -> None:
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


async def test_counts_tell_what_was_stored(place: Place) -> None:
    async with running(place) as journal:
        assert (journal.stats.groups, journal.stats.records) == (0, 0)
        await append(journal, A, texts(3), expected_seq=0)
        await append(journal, B, texts(1), expected_seq=0)
        assert (journal.stats.groups, journal.stats.records, journal.stats.largest_group) == (2, 4, 3)
        assert journal.has_room
        assert journal.failed is None
        assert (journal.report.records, journal.report.open_streams) == (0, 0)


# ---- reading ---------------------------------------------------------------------------------------------------------


async def test_a_reader_sees_durable_records_only(place: Place) -> None:
    async with running(place) as journal:
        submission = journal.submit([Batch(A, 1, texts(3), FLAG_OPENS)])
        early = journal.read(A)
        assert (list(journal.streams()), list(journal.open_streams())) == ([], [])
        await submission.wait()
        assert await early.next_slice() == []
        assert sequence(await journal.read(A).next_slice()) == [1, 2, 3]


async def test_a_reader_stops_where_the_stream_ended_when_it_was_asked_for(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(3), expected_seq=0)
        slices = journal.read(A)
        await append(journal, A, texts(3), expected_seq=3)
        assert sequence(await slices.next_slice()) == [1, 2, 3]
        assert await slices.next_slice() == []
        assert await slices.next_slice() == []


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 9, 10, 11, 2**62])
async def test_a_reader_begins_behind_any_seq(place: Place, after: int) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(5), expected_seq=0)
        await append(journal, B, texts(5), expected_seq=0)
        await append(journal, A, texts(5), expected_seq=5)
        assert sequence(await everything(journal, A, after)) == list(range(after + 1, 11))


async def test_a_long_stream_comes_in_bounded_slices(place: Place) -> None:
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


async def test_a_batch_larger_than_a_slice_bounds_the_slice(place: Place) -> None:
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


async def test_a_stream_of_large_records_comes_in_slices_of_bounded_bytes(lasting_place: Place) -> None:
    payload = b"x" * (SLICE_BYTES // 4 - 100)
    async with running(lasting_place) as journal:
        for seq in range(9):
            await append(journal, A, [payload], expected_seq=seq)
        slices, sizes = journal.read(A), []
        while part := await slices.next_slice():
            sizes.append(sum(len(record.payload) for record in part))
        assert sum(sizes) == 9 * len(payload)
        assert max(sizes) <= SLICE_BYTES


async def test_a_reader_that_is_cancelled_goes_on_where_it_was(place: Place) -> None:
    async with running(place) as journal:
        for start in range(0, 600, 100):
            await append(journal, A, texts(100), expected_seq=start)
        slices = journal.read(A)
        found = await slices.next_slice()
        with trio.CancelScope() as scope:
            scope.cancel()
            await slices.next_slice()
        assert scope.cancelled_caught
        while part := await slices.next_slice():
            found += part
        assert sequence(found) == list(range(1, 601))


async def test_many_readers_and_a_writer_at_once(place: Place) -> None:
    async def read(journal: Journal) -> None:
        upto = journal.durable_seq(A)
        assert sequence(await everything(journal, A)) == list(range(1, upto + 1))

    async with running(place) as journal:
        async with trio.open_nursery() as nursery:
            for seq in range(40):
                await append(journal, A, [b"x" * 500], expected_seq=seq)
                if seq % 4 == 0:
                    nursery.start_soon(read, journal)


# ---- streams ---------------------------------------------------------------------------------------------------------


async def test_streams_stand_in_the_order_of_first_appearance(place: Place) -> None:
    async with running(place) as journal:
        for stream, seq in ((C, 0), (A, 0), (C, 1), (B, 0), (A, 1)):
            await append(journal, stream, [b"x"], expected_seq=seq)
        assert list(journal.streams()) == [C, A, B]
        before = journal.streams()
        await append(journal, bytes(16), [b"x"], expected_seq=0)
        assert list(before) == [C, A, B]


async def test_a_stream_is_open_from_its_opening_batch_to_its_closing_one(place: Place) -> None:
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


# ---- following -------------------------------------------------------------------------------------------------------


async def test_a_follower_sees_all_from_the_start_and_then_live_in_log_order(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, B, texts(2), expected_seq=0)
        await append(journal, A, texts(2), expected_seq=0)
        async with journal.follow() as slices:
            assert [(r.stream, r.seq, r.lsn) for r in await take(slices, 4)] == [
                (B, 1, 1),
                (B, 2, 2),
                (A, 1, 3),
                (A, 2, 4),
            ]
            for n in range(3):
                await append(journal, A, [b"live %d" % n], expected_seq=2 + n)
                assert await take(slices, 1) == [Record(A, 3 + n, 5 + n, b"live %d" % n)]
            await journal.submit([Batch(B, 3, texts(2), 0), Batch(A, 6, texts(1), 0)]).wait()
            assert [(r.stream, r.seq, r.lsn) for r in await take(slices, 3)] == [(B, 3, 8), (B, 4, 9), (A, 6, 10)]


@pytest.mark.parametrize("after_lsn", [0, 1, 3, 4, 5, 9, 10, 12])
async def test_a_follower_begins_behind_any_lsn(place: Place, after_lsn: int) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(4), expected_seq=0)
        await append(journal, B, texts(6), expected_seq=0)
        async with journal.follow(after_lsn) as slices:
            await append(journal, A, texts(4), expected_seq=4)
            assert [record.lsn for record in await take(slices, 14 - after_lsn)] == list(range(after_lsn + 1, 15))


async def test_a_follower_sees_durable_records_only(place: Place) -> None:
    async with not_running(place) as journal:
        async with journal.follow() as slices, trio.open_nursery() as nursery:
            journal.submit([Batch(A, 1, [b"x"], 0)])
            with trio.move_on_after(0.02) as waiting:
                await slices.receive()
            assert waiting.cancelled_caught
            nursery.start_soon(journal.run)
            assert sequence(await take(slices, 1)) == [1]
            journal.finish()


async def test_two_followers_each_see_everything(place: Place) -> None:
    got: list[list[Record]] = []

    async def follow(journal: Journal) -> None:
        got.append(await followed(journal))

    async with trio.open_nursery() as nursery:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            nursery.start_soon(follow, journal)
            await append(journal, B, texts(3), expected_seq=0)
            nursery.start_soon(follow, journal)
            await append(journal, A, texts(3), expected_seq=3)
            journal.finish()
            await trio.testing.wait_all_tasks_blocked(0.02)
    assert len(got) == 2
    assert got[0] == got[1]
    assert [(record.stream, record.lsn) for record in got[0]] == [
        (stream, lsn) for lsn, stream in enumerate([A] * 3 + [B] * 3 + [A] * 3, 1)
    ]


async def test_a_slow_follower_holds_nobody_up_and_loses_nothing(place: Place) -> None:
    async with running(place) as journal:
        async with journal.follow() as slow, journal.follow() as quick:
            await append(journal, A, [b"first"], expected_seq=0)
            found = await take(slow, 1)
            with trio.fail_after(5):
                for start in range(1, 501, 20):
                    await append(journal, A, texts(20), expected_seq=start)
                    await take(quick, 1 if start == 1 else 20)
            assert journal.durable_seq(A) == 501
            found += await take(slow, 500)
            assert sequence(found) == list(range(1, 502))
            await append(journal, A, [b"live again"], expected_seq=501)
            assert sequence(await take(slow, 1)) == [502]


async def test_a_large_batch_comes_to_a_follower_in_slices(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(SLICE_RECORDS * 3 + 5), expected_seq=0)
        async with journal.follow() as slices:
            assert sequence(await take(slices, SLICE_RECORDS * 3 + 5)) == list(range(1, SLICE_RECORDS * 3 + 6))


async def test_following_ends_with_the_journal_and_misses_nothing_that_was_queued(place: Place) -> None:
    async with not_running(place) as journal:
        got: list[Record] = []

        async def follow() -> None:
            got.extend(await followed(journal))

        async with trio.open_nursery() as nursery:
            for seq in range(1, 31):
                journal.submit([Batch(A, seq, [b"x" * 900], 0)])
            journal.finish()
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(journal.run)
        assert sequence(got) == list(range(1, 31))
        assert sequence(await followed(journal)) == list(
            range(1, 31)
        )  # one that comes after the end: all, then the end


async def test_a_busy_follower_still_gets_what_was_stored_while_the_journal_finished(place: Place) -> None:
    async with not_running(place) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await append(journal, A, [b"1"], expected_seq=0)
        async with journal.follow() as slices:
            found = await take(slices, 1)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for seq in range(2, 12):
                journal.submit([Batch(A, seq, [b"x"], 0)])
            journal.finish()
            async for part in slices:
                found += sound(part)
        assert sequence(found) == list(range(1, 12))


async def test_a_follower_that_is_cancelled_leaves_nothing_behind(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(600), expected_seq=0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = trio.lowlevel.current_statistics().tasks_living
        for received in range(3):  # cancelled with slices to come, and while it waits for new ones
            with trio.CancelScope() as scope:
                async with journal.follow(after_lsn=100) as slices:
                    for _ in range(received):
                        await slices.receive()
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    scope.cancel()
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            assert trio.lowlevel.current_statistics().tasks_living == before
        with trio.move_on_after(0.02):
            await followed(journal)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert trio.lowlevel.current_statistics().tasks_living == before
        await append(journal, A, [b"goes on"], expected_seq=600)
        assert journal.durable_seq(A) == 601


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_after_finish_nothing_is_taken(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, A, [b"x"], expected_seq=0)
        journal.check_open()
        gate_was_open = journal.gate.is_open
        journal.finish()
        assert (gate_was_open, journal.gate.is_open) == (True, False)
        with pytest.raises(Closed):
            journal.check_open()
        with pytest.raises(Closed):
            journal.check_open(critical=True)
        with pytest.raises(Closed) as refused:
            journal.submit([Batch(A, 2, [b"y"], 0)], critical=True)
        assert isinstance(refused.value, Rejected)
        with pytest.raises(Closed):
            await append(journal, A, [b"y"], expected_seq=1)
        assert journal.last_seq(A) == 1
        journal.finish()  # again is nothing


async def test_after_release_reading_is_refused_and_opens_no_file_again(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(3), expected_seq=0)
        slices = journal.read(A)
    open_files = open_file_count()
    for late in (slices, journal.read(A), journal.read(A, after=1)):
        with trio.testing.assert_checkpoints():
            with pytest.raises(Closed, match="closed"):
                await late.next_slice()
    assert open_file_count() == open_files


async def test_finish_stores_everything_that_was_queued(place: Place) -> None:
    told: list[Submission] = []
    async with not_running(place) as journal:
        for seq in range(1, 51):
            journal.submit([Batch(A, seq, [b"x" * 500], 0)], on_done=told.append)
        journal.finish()
        await journal.run()
        assert [(submission.error, submission.first_lsn) for submission in told] == [
            (None, lsn) for lsn in range(1, 51)
        ]
        assert sequence(await everything(journal, A)) == list(range(1, 51))


async def test_an_append_that_is_cancelled_is_stored_all_the_same(place: Place) -> None:
    async with not_running(place) as journal:

        async def agent(scope: trio.CancelScope) -> None:
            with scope:
                await append(journal, A, texts(3), expected_seq=0)

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(agent, scope)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert scope.cancelled_caught
            assert (journal.last_seq(A), journal.durable_seq(A)) == (3, 0)
            nursery.start_soon(journal.run)
            assert (await append(journal, A, [b"next"], expected_seq=3)).first_seq == 4
            journal.finish()
        assert [record.payload for record in await everything(journal, A)] == [*texts(3), b"next"]


async def test_an_append_cancelled_before_it_began_stores_nothing(place: Place) -> None:
    async with running(place) as journal:
        with trio.CancelScope() as scope:
            scope.cancel()
            await append(journal, A, [b"x"], expected_seq=0)
        assert scope.cancelled_caught
        assert journal.last_seq(A) == 0


async def test_a_journal_that_is_cancelled_says_of_all_it_holds_that_the_outcome_is_unknown(place: Place) -> None:
    told: list[Submission] = []
    async with not_running(place) as journal:
        submissions = [journal.submit([Batch(A, n, [b"x"], 0)], on_done=told.append) for n in (1, 2, 3)]
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.run()
        assert told == submissions
        assert all(isinstance(submission.error, OutcomeUnknown) for submission in told)
        with trio.fail_after(1):
            await submissions[2].wait()
        with pytest.raises(Closed):
            journal.submit([Batch(B, 1, [b"x"], 0)])
        with trio.fail_after(1):
            assert len(await followed(journal)) == journal.durable_lsn


# ---- checkpoints -----------------------------------------------------------------------------------------------------


async def test_every_async_function_is_a_checkpoint_on_every_path(place: Place) -> None:
    async with not_running(place) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            with trio.testing.assert_checkpoints():
                await journal.wait_room()
            with trio.testing.assert_checkpoints():
                await append(journal, A, texts(3), expected_seq=0)
            with trio.testing.assert_checkpoints():
                with pytest.raises(InvalidState):
                    await append(journal, A, [b"x"], expected_seq=9)
            submission = journal.submit([Batch(A, 4, [b"x"], 0)])
            with trio.testing.assert_checkpoints():
                await submission.wait()
            with trio.testing.assert_checkpoints():
                await submission.wait()
            slices = journal.read(A)
            with trio.testing.assert_checkpoints():
                assert len(await slices.next_slice()) == 4
            with trio.testing.assert_checkpoints():
                assert await slices.next_slice() == []
            with trio.testing.assert_checkpoints():
                assert await everything(journal, B) == []
            with trio.testing.assert_checkpoints():
                async with journal.follow() as following:
                    with trio.testing.assert_checkpoints():
                        assert await following.receive()
            journal.finish()
            with trio.testing.assert_checkpoints():
                with pytest.raises(Closed):
                    await append(journal, A, [b"x"], expected_seq=4)
        with trio.testing.assert_checkpoints():
            await journal.wait_room()
        with trio.testing.assert_checkpoints():
            await followed(journal)


async def test_the_task_of_a_journal_that_is_finished_at_once_is_a_checkpoint(place: Place) -> None:
    for _opened_again in range(2):
        async with not_running(place) as journal:
            journal.finish()
            with trio.testing.assert_checkpoints():
                await journal.run()


# ---- against a model -------------------------------------------------------------------------------------------------

_batches = st.lists(
    st.tuples(
        st.sampled_from([A, B, C]),
        st.lists(st.binary(max_size=40), min_size=1, max_size=4),
        st.sampled_from([0, 0, 1, 2]),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("kind", [name for name in PLACES if not name.endswith("on disk")])
@steady
@given(plan=st.lists(st.tuples(_batches, st.booleans()), max_size=25), after=st.integers(0, 12))
async def test_any_course_of_submissions_reads_back_as_a_plain_list_would(
    kind: str, plan: list[tuple[list[tuple[bytes, list[bytes], int]], bool]], after: int
) -> None:
    place = PLACES[kind](None)
    expected: list[Record] = []
    seqs: dict[bytes, int] = {}
    still_open: dict[bytes, None] = {}
    async with running(place) as journal:
        for chosen, wait in plan:
            batches: list[Batch] = []
            for stream, payloads, flag in chosen:
                batches.append(Batch(stream, seqs.get(stream, 0) + 1, payloads, flag))
                if flag & FLAG_CLOSES:
                    still_open.pop(stream, None)
                elif flag & FLAG_OPENS:
                    still_open[stream] = None
                for payload in payloads:
                    seqs[stream] = seqs.get(stream, 0) + 1
                    expected.append(Record(stream, seqs[stream], len(expected) + 1, payload))
            submission = journal.submit(batches)
            if wait:
                await submission.wait()
        assert {stream: journal.last_seq(stream) for stream in seqs} == seqs
        journal.finish()
        assert await followed(journal, after) == expected[after:]
        assert list(journal.streams()) == list(seqs)
        assert list(journal.open_streams()) == list(still_open)
        for stream in (A, B, C):
            mine = [record for record in expected if record.stream == stream]
            assert await everything(journal, stream, after) == mine[after:]


# ---- after reopening -------------------------------------------------------------------------------------------------


async def fill(journal: Journal) -> None:
    """Three streams over several segments; C is open, A is closed."""
    await append(journal, C, texts(2, "c"), expected_seq=0, flags=FLAG_OPENS)
    await append(journal, A, [b"a0"], expected_seq=0, flags=FLAG_OPENS)
    for seq in range(1, 41):
        await append(journal, A, [b"%d" % seq * 400], expected_seq=seq)
    await journal.submit([Batch(B, 1, texts(300, "b"), 0), Batch(C, 3, texts(2, "cc"), 0)]).wait()
    await append(journal, A, [b"end"], expected_seq=41, flags=FLAG_CLOSES)


async def picture(journal: Journal) -> dict[str, object]:
    """All that can be read of a finished journal."""
    return {
        "streams": list(journal.streams()),
        "open": list(journal.open_streams()),
        "lsn": journal.durable_lsn,
        "seqs": [(journal.last_seq(stream), journal.durable_seq(stream)) for stream in (A, B, C)],
        "records": [await everything(journal, stream) for stream in (A, B, C)],
        "after": [await everything(journal, stream, 17) for stream in (A, B, C)],
        "log": await followed(journal),
        "behind": await followed(journal, 111),
    }


async def test_after_reopening_everything_reads_as_before(lasting_place: Place) -> None:
    async with not_running(lasting_place) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await fill(journal)
        journal.finish()
        await trio.testing.wait_all_tasks_blocked(0.02)
        before = await picture(journal)
    assert before["open"] == [C]
    assert before["seqs"] == [(42, 42), (300, 300), (4, 4)]
    async with not_running(lasting_place) as journal:
        assert (journal.report.records, journal.report.open_streams) == (346, 1)
        journal.finish()
        await journal.run()
        assert await picture(journal) == before


async def test_after_reopening_streams_and_numbers_go_on(lasting_place: Place) -> None:
    async with running(lasting_place) as journal:
        await fill(journal)
        last_lsn = journal.durable_lsn
    async with running(lasting_place) as journal:
        for misfit in (0, 3, 5):
            with pytest.raises(InvalidState):
                await append(journal, C, [b"misfit"], expected_seq=misfit)
        assert await append(journal, C, [b"next"], expected_seq=4, flags=FLAG_CLOSES) == Appended(5, 5, last_lsn + 1)
        assert list(journal.open_streams()) == []
        async with journal.follow(last_lsn - 1) as slices:
            assert [(record.stream, record.seq) for record in await take(slices, 2)] == [(A, 42), (C, 5)]
    async with running(lasting_place) as journal:
        assert sequence(await everything(journal, C)) == [1, 2, 3, 4, 5]
        assert journal.durable_lsn == last_lsn + 1


async def test_a_large_batch_and_a_small_one_read_back_after_reopening(lasting_place: Place) -> None:
    payloads = [b"x" * 3_000_000, b"", b"y"]
    async with running(lasting_place) as journal:
        await append(journal, A, payloads, expected_seq=0)
        await append(journal, A, [b"z"], expected_seq=3)
    async with running(lasting_place) as journal:
        assert [record.payload for record in await everything(journal, A)] == [*payloads, b"z"]


async def test_a_power_cut_leaves_everything_that_was_done() -> None:
    place = segment_log_in_memory(None)
    assert place.after_power_cut is not None
    async with running(place) as journal:
        await fill(journal)
        journal.submit([Batch(C, 5, [b"still on its way"], 0)])
        survivor = place.after_power_cut()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(survivor.run)
            assert [survivor.durable_seq(stream) for stream in (A, B, C)] == [42, 300, 4]
            assert sequence(await everything(survivor, B)) == list(range(1, 301))
            assert (await append(survivor, C, [b"another future"], expected_seq=4)).first_seq == 5
            survivor.finish()
        survivor.release()


async def test_a_journal_opened_for_reading_reads_beside_the_writer_and_takes_nothing(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")
    async with running(Place(lambda: SegmentLogJournal.open(path, SMALL), persistent=True)) as journal:
        await fill(journal)
        reader = SegmentLogJournal.open_read_only(path)
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
