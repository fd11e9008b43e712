"""Following the whole journal: what a follower sees, how it ends, and what it leaves alone."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stepstore.journal import Gap, Journal
from stepstore.journal.contract import SLICE_RECORDS, Batch, Record, append
from stepwell.testing.journal_contract.cancelling import cancelled_at_step
from stepwell.testing.journal_contract.place import (
    A,
    B,
    JournalPlace,
    PlaceOfJournal,
    followed,
    not_running,
    running,
    sequence,
    sound,
    take,
    texts,
)


def sequence_of(part: list[Record | Gap]) -> list[int]:
    return [item.seq for item in part if isinstance(item, Record)]


class FollowingContract(PlaceOfJournal):
    """Following the whole journal: what a follower sees, how it ends, and what it leaves alone."""

    async def test_a_follower_sees_all_from_the_start_and_then_live_in_log_order(self, place: JournalPlace) -> None:
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
    async def test_a_follower_begins_behind_any_lsn(self, place: JournalPlace, after_lsn: int) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(4), expected_seq=0)
            await append(journal, B, texts(6), expected_seq=0)
            async with journal.follow(after_lsn) as slices:
                await append(journal, A, texts(4), expected_seq=4)
                assert [record.lsn for record in await take(slices, 14 - after_lsn)] == list(range(after_lsn + 1, 15))

    async def test_a_follower_sees_durable_records_only(self, place: JournalPlace) -> None:
        async with not_running(place) as journal:
            async with journal.follow() as slices, trio.open_nursery() as nursery:
                journal.submit([Batch(A, 1, [b"x"], 0)])
                with trio.move_on_after(0.02) as waiting:
                    await slices.receive()
                assert waiting.cancelled_caught
                nursery.start_soon(journal.run)
                assert sequence(await take(slices, 1)) == [1]
                journal.finish()

    async def test_a_follower_is_told_that_there_is_more_and_reads_nothing_by_that(self, place: JournalPlace) -> None:
        told: list[bool] = []
        async with not_running(place) as journal:
            async with journal.follow() as slices, trio.open_nursery() as nursery:
                submission = journal.submit([Batch(A, 1, texts(2), 0)])

                async def wait() -> None:
                    told.append(await slices.wait_for_more())

                nursery.start_soon(wait)
                with trio.move_on_after(0.02):
                    await submission.wait()
                assert told == []  # it is not durable
                nursery.start_soon(journal.run)
                await submission.wait()
                with trio.fail_after(5):
                    assert await slices.wait_for_more()
                    assert await slices.wait_for_more()
                assert sequence(await take(slices, 2)) == [1, 2]
                nursery.start_soon(wait)
                journal.finish()
        assert told == [True, False]

    async def test_waiting_for_more_is_a_checkpoint_and_can_be_cancelled(self, place: JournalPlace) -> None:
        async with running(place) as journal, journal.follow() as slices:
            with trio.CancelScope() as scope:
                scope.cancel()
                await slices.wait_for_more()
            assert scope.cancelled_caught
            await append(journal, A, texts(1), expected_seq=0)
            with trio.testing.assert_checkpoints():
                assert await slices.wait_for_more()

    async def test_digests_are_of_what_slices_are_of(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            for n in range(4):
                await append(journal, A, texts(3), expected_seq=3 * n)
                await append(journal, B, texts(2), expected_seq=2 * n)
            expected = await self._all_but_live(journal)
            async with journal.follow() as slices:
                found: list[Record] = []
                while slices.position < journal.durable_lsn:
                    more = await slices.next_digest(5, lambda items: [it for it in items if not isinstance(it, Gap)])
                    assert more is not None
                    for item in more:
                        payloads = enumerate(item.payloads)
                        found += [Record(item.stream, item.first_seq + n, item.first_lsn + n, it) for n, it in payloads]
            assert found == expected

    async def _all_but_live(self, journal: Journal) -> list[Record]:
        async with journal.follow() as slices:
            return await take(slices, journal.durable_lsn)

    async def test_two_followers_each_see_everything(self, place: JournalPlace) -> None:
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

    async def test_a_slow_follower_holds_nobody_up_and_loses_nothing(self, place: JournalPlace) -> None:
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

    async def test_a_large_batch_comes_to_a_follower_in_slices(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(SLICE_RECORDS * 3 + 5), expected_seq=0)
            async with journal.follow() as slices:
                assert sequence(await take(slices, SLICE_RECORDS * 3 + 5)) == list(range(1, SLICE_RECORDS * 3 + 6))

    async def test_following_ends_with_the_journal_and_misses_nothing_that_was_queued(
        self, place: JournalPlace
    ) -> None:
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

    async def test_a_busy_follower_still_gets_what_was_stored_while_the_journal_finished(
        self, place: JournalPlace
    ) -> None:
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

    async def test_a_follower_that_is_cancelled_leaves_nothing_behind(self, place: JournalPlace) -> None:
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

    async def test_what_the_body_raises_leaves_unchanged(self, place: JournalPlace) -> None:
        mine = ExceptionGroup("mine", [ValueError("one")])
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            try:
                async with journal.follow() as slices:
                    await slices.receive()
                    raise mine
            except ExceptionGroup as caught:
                assert caught is mine

    async def test_a_follower_that_lags_when_the_journal_is_released_comes_to_an_end(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(600), expected_seq=0)
            following = journal.follow()
            slices = await following.__aenter__()
            found = sequence_of(await slices.receive())
        with trio.fail_after(5):
            async for part in slices:
                found += sequence_of(part)
        await following.__aexit__(None, None, None)
        assert found == list(range(1, len(found) + 1))
        with pytest.raises(trio.EndOfChannel):
            async with journal.follow(600) as late:
                await late.receive()

    async def test_a_closed_follower_says_so_even_to_a_task_that_waits(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            ended: list[str] = []

            async def wait(slices: trio.abc.ReceiveChannel[list[Record | Gap]]) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await slices.receive()
                ended.append("told")

            async with trio.open_nursery() as nursery:
                async with journal.follow() as slices:
                    nursery.start_soon(wait, slices)
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert ended == ["told"]
            with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
                await slices.receive()
            async with journal.follow() as slices:
                with trio.testing.assert_checkpoints():
                    await slices.aclose()
                with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
                    await slices.receive()

    async def test_two_tasks_cannot_receive_from_one_follower_at_once(self, place: JournalPlace) -> None:
        async with running(place) as journal, journal.follow() as slices, trio.open_nursery() as nursery:
            got: list[list[Record | Gap]] = []

            async def receive() -> None:
                got.append(await slices.receive())

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.testing.assert_checkpoints(), pytest.raises(trio.BusyResourceError):
                await slices.receive()
            await append(journal, A, [b"x"], expected_seq=0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert got == [[Record(A, 1, 1, b"x")]]

    async def test_every_receive_is_a_checkpoint(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(700), expected_seq=0)
            async with journal.follow() as slices:
                for _ in range(3):
                    with trio.testing.assert_checkpoints():
                        await slices.receive()
                journal.finish()
                with trio.testing.assert_checkpoints(), pytest.raises(trio.EndOfChannel):
                    await slices.receive()

    async def test_a_cancelled_receive_skips_nothing(self, place: JournalPlace) -> None:
        """Cancelled at its first checkpoint, at its second, and so on, until it gets through."""
        async with running(place) as journal:
            await append(journal, A, texts(700), expected_seq=0)
            found: list[int] = []
            async with journal.follow() as slices:

                async def receive() -> None:
                    found.extend(sequence_of(await slices.receive()))

                for attempt in range(100):
                    with trio.move_on_after(1) as waiting:  # nothing comes any more if something was skipped
                        await cancelled_at_step(attempt % 7, receive)
                    if len(found) == 700 or waiting.cancelled_caught:
                        break
            assert found == list(range(1, 701))
