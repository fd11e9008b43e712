"""Going on in other files."""

from __future__ import annotations

from contextlib import suppress

import trio
import trio.testing

from stepstore.errors import Closed
from stepstore.journal import Journal
from stepstore.journal.contract import append
from stepwell.testing.journal_contract.place import (
    A,
    JournalPlace,
    PlaceOfJournal,
    cancel_after,
    everything,
    not_running,
    running,
    sequence,
    take,
    texts,
)


class RotatingContract(PlaceOfJournal):
    """Going on in other files."""

    async def test_rotating_loses_nothing_and_may_be_asked_at_any_time(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await journal.rotate()
            await append(journal, A, texts(3), expected_seq=0)
            for _ in range(3):
                await journal.rotate()
            async with trio.open_nursery() as nursery:
                for seq in range(3, 30):
                    await append(journal, A, [b"%d" % seq * 50], expected_seq=seq)
                    nursery.start_soon(journal.rotate)
            assert sequence(await everything(journal, A)) == list(range(1, 31))
            async with journal.follow() as slices:
                assert sequence(await take(slices, 30)) == list(range(1, 31))

    async def test_rotating_is_a_checkpoint_on_every_path(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            with trio.testing.assert_checkpoints():
                await journal.rotate()
            await append(journal, A, texts(3), expected_seq=0)
            with trio.testing.assert_checkpoints():
                await journal.rotate()

    async def test_a_rotation_that_waits_when_the_journal_is_cancelled_does_not_wait_for_ever(
        self,
        lasting_place: JournalPlace,
    ) -> None:
        async def rotate(journal: Journal) -> None:
            with suppress(Closed):  # it may have come to the footers, which nobody needs
                await journal.rotate()

        for checkpoints in range(12):
            async with not_running(lasting_place) as journal, trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def run(scope: trio.CancelScope = scope, journal: Journal = journal) -> None:
                    with scope:
                        await journal.run()

                nursery.start_soon(run)
                last = journal.last_seq(A)
                await append(journal, A, [b"x"], expected_seq=last)
                nursery.start_soon(rotate, journal)
                nursery.start_soon(cancel_after, scope, checkpoints)
                nursery.cancel_scope.deadline = trio.current_time() + 5
            assert not nursery.cancel_scope.cancelled_caught, checkpoints
