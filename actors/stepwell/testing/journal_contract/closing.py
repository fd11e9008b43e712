"""How a journal ends, and that every async function is a checkpoint on every path."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, InvalidState, OutcomeUnknown, Rejected
from stepstore.journal.contract import Batch, Submission, append
from stepwell.testing.journal_contract.place import (
    A,
    B,
    JournalPlace,
    PlaceOfJournal,
    everything,
    followed,
    not_running,
    open_file_count,
    running,
    sequence,
    texts,
)


class ClosingContract(PlaceOfJournal):
    """How a journal ends, and that every async function is a checkpoint on every path."""

    async def test_after_finish_nothing_is_taken(self, place: JournalPlace) -> None:
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

    async def test_after_release_reading_is_refused_and_opens_no_file_again(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(3), expected_seq=0)
            slices = journal.read(A)
        open_files = open_file_count()
        for late in (slices, journal.read(A), journal.read(A, after=1)):
            with trio.testing.assert_checkpoints():
                with pytest.raises(Closed, match="closed"):
                    await late.next_slice()
        assert open_file_count() == open_files

    async def test_finish_stores_everything_that_was_queued(self, place: JournalPlace) -> None:
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

    async def test_an_append_that_is_cancelled_is_stored_all_the_same(self, place: JournalPlace) -> None:
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

    async def test_an_append_cancelled_before_it_began_stores_nothing(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            with trio.CancelScope() as scope:
                scope.cancel()
                await append(journal, A, [b"x"], expected_seq=0)
            assert scope.cancelled_caught
            assert journal.last_seq(A) == 0

    async def test_a_journal_that_is_cancelled_says_of_all_it_holds_that_the_outcome_is_unknown(
        self, place: JournalPlace
    ) -> None:
        told: list[Submission] = []
        async with not_running(place) as journal:
            submissions = [journal.submit([Batch(A, n, [b"x"], 0)], on_done=told.append) for n in (1, 2, 3)]
            with trio.CancelScope() as scope:
                scope.cancel()
                await journal.run()
            assert told == submissions
            assert all(isinstance(submission.error, OutcomeUnknown) for submission in told)
            assert journal.last_seq(A) == journal.durable_seq(A)
            with trio.fail_after(1):
                await submissions[2].wait()
            with pytest.raises(Closed):
                journal.submit([Batch(B, 1, [b"x"], 0)])
            with trio.fail_after(1):
                assert len(await followed(journal)) == journal.durable_lsn

    async def test_every_async_function_is_a_checkpoint_on_every_path(self, place: JournalPlace) -> None:
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

    async def test_the_task_of_a_journal_that_is_finished_at_once_is_a_checkpoint(self, place: JournalPlace) -> None:
        for _opened_again in range(2):
            async with not_running(place) as journal:
                journal.finish()
                with trio.testing.assert_checkpoints():
                    await journal.run()
