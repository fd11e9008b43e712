"""What the next opening finds."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stepstore.errors import InvalidState
from stepstore.journal import Journal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS, Appended, Batch, append
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


class ReopeningContract(PlaceOfJournal):
    """What the next opening finds."""

    async def test_after_reopening_everything_reads_as_before(self, lasting_place: JournalPlace) -> None:
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

    async def test_after_reopening_streams_and_numbers_go_on(self, lasting_place: JournalPlace) -> None:
        async with running(lasting_place) as journal:
            await fill(journal)
            last_lsn = journal.durable_lsn
        async with running(lasting_place) as journal:
            for misfit in (0, 3, 5):
                with pytest.raises(InvalidState):
                    await append(journal, C, [b"misfit"], expected_seq=misfit)
            assert await append(journal, C, [b"next"], expected_seq=4, flags=FLAG_CLOSES) == Appended(
                5, 5, last_lsn + 1
            )
            assert list(journal.open_streams()) == []
            async with journal.follow(last_lsn - 1) as slices:
                assert [(record.stream, record.seq) for record in await take(slices, 2)] == [(A, 42), (C, 5)]
        async with running(lasting_place) as journal:
            assert sequence(await everything(journal, C)) == [1, 2, 3, 4, 5]
            assert journal.durable_lsn == last_lsn + 1

    async def test_a_large_batch_and_a_small_one_read_back_after_reopening(self, lasting_place: JournalPlace) -> None:
        payloads = [b"x" * 3_000_000, b"", b"y"]
        async with running(lasting_place) as journal:
            await append(journal, A, payloads, expected_seq=0)
            await append(journal, A, [b"z"], expected_seq=3)
        async with running(lasting_place) as journal:
            assert [record.payload for record in await everything(journal, A)] == [*payloads, b"z"]

    async def test_a_power_cut_leaves_everything_that_was_done(self, cutting_place: JournalPlace) -> None:
        assert cutting_place.after_power_cut is not None
        async with running(cutting_place) as journal:
            await fill(journal)
            journal.submit([Batch(C, 5, [b"still on its way"], 0)])
            survivor = cutting_place.after_power_cut()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(survivor.run)
                assert [survivor.durable_seq(stream) for stream in (A, B, C)] == [42, 300, 4]
                assert sequence(await everything(survivor, B)) == list(range(1, 301))
                assert (await append(survivor, C, [b"another future"], expected_seq=4)).first_seq == 5
                survivor.finish()
            survivor.release()
