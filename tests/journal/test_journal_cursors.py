"""Cursors: places that outlive the process, and notice when the record they stand behind is gone."""

from __future__ import annotations

import uuid

import pytest

from stepstore.errors import CorruptLog, InvalidInput, InvalidState
from stepstore.journal import InMemoryJournal, Journal, SegmentLogJournal
from stepstore.journal.contract import Record, append, store_snapshot
from stepstore.log.memory_files import MemoryFileSystem
from tests.journal.places import PLACES, SMALL, A, B, Place, followed, not_running, running, take, texts


def on(files: MemoryFileSystem) -> Place:
    return Place(lambda: SegmentLogJournal.open("/log", SMALL, files), persistent=True)


async def test_a_cursor_stands_for_its_place(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(5), expected_seq=0)
        await store_snapshot(journal, A, b"snapshot", through_seq=5)
        cursors = [journal.cursor(lsn) for lsn in range(7)]
        assert len(set(cursors)) == 7
        assert [journal.check_cursor(text) for text in cursors] == list(range(7))
        async with journal.follow(journal.check_cursor(cursors[3])) as slices:
            assert [record.lsn for record in await take(slices, 2)] == [4, 5]


async def test_cursors_hold_over_reopening_whoever_wrote_in_between(lasting_place: Place) -> None:
    cursors: dict[int, str] = {}
    for opening in range(4):
        async with running(lasting_place) as journal:
            assert {lsn: journal.check_cursor(text) for lsn, text in cursors.items()} == {lsn: lsn for lsn in cursors}
            assert {lsn: journal.cursor(lsn) for lsn in cursors} == cursors
            for seq in range(opening * 20, opening * 20 + 20):
                await append(journal, A, [b"x" * 600], expected_seq=seq)
            cursors |= {lsn: journal.cursor(lsn) for lsn in range(journal.durable_lsn + 1)}
    assert len(cursors) == len(set(cursors.values())) == 81


async def test_a_text_that_is_no_cursor_is_invalid_input(place: Place) -> None:
    async with running(place) as journal:
        await append(journal, A, texts(5), expected_seq=0)
        good = journal.cursor(3)
        log, branch, epoch, lsn = good.split(".")
        for bad in (
            "",
            "3",
            "nonsense",
            good + ".",
            good + "\n",
            " " + good,
            good.upper() if good.upper() != good else "X" + good,
            f"{log}.{branch}.{epoch}",
            f"{log}.{branch}.{epoch}.-1",
            f"{log}.{branch}.{epoch}.٣",
            f"{log[:-1]}.{branch}.{epoch}.{lsn}",
            f"{log}.{branch}.{epoch}." + "1" * 21,
        ):
            with pytest.raises(InvalidInput, match="cursor"):
                journal.check_cursor(bad)


async def test_a_cursor_of_another_log_is_invalid_input(place: Place) -> None:
    others: list[str] = []
    for make in (PLACES["in memory"], PLACES["segment log in memory"]):
        async with running(make(None)) as other:
            await append(other, A, texts(5), expected_seq=0)
            others += [other.cursor(0), other.cursor(3)]
    async with running(place) as journal:
        await append(journal, A, texts(5), expected_seq=0)
        for text in others:
            with pytest.raises(InvalidInput, match="another"):
                journal.check_cursor(text)


async def test_a_journal_that_keeps_nothing_has_no_place_behind_its_end() -> None:
    async with running(PLACES["in memory"](None)) as journal:
        assert isinstance(journal, InMemoryJournal)
        await append(journal, A, texts(5), expected_seq=0)
        with pytest.raises(InvalidInput):
            journal.check_cursor(journal.cursor(6))


async def test_a_cursor_of_another_branch_is_invalid_state(lasting_place: Place) -> None:
    async with running(lasting_place) as journal:
        await append(journal, A, texts(5), expected_seq=0)
        log, _branch, epoch, lsn = journal.cursor(3).split(".")
        with pytest.raises(InvalidState, match="another branch"):
            journal.check_cursor(f"{log}.{uuid.uuid4().hex}.{epoch}.{lsn}")


async def lost_tail() -> tuple[MemoryFileSystem, str, str]:
    """A log that was put back to its first six records, and the cursors behind record 6 and record 9 of before."""
    files = MemoryFileSystem()
    async with running(on(files)) as journal:
        await append(journal, A, texts(6), expected_seq=0)
        earlier = files.durable_copy()
        await append(journal, A, texts(4), expected_seq=6)
        return earlier, journal.cursor(6), journal.cursor(9)


async def test_a_cursor_behind_the_end_says_that_durable_records_have_vanished() -> None:
    files, sound, beyond = await lost_tail()
    async with running(on(files)) as journal:
        assert journal.check_cursor(sound) == 6
        with pytest.raises(CorruptLog, match=r"record 9.*ends with 6") as caught:
            journal.check_cursor(beyond)
        assert (caught.value.row, caught.value.first_lsn, caught.value.last_lsn) == (2, 7, 9)
    reader = SegmentLogJournal.open_read_only("/log", SMALL, files)
    with pytest.raises(CorruptLog):
        reader.check_cursor(beyond)
    reader.release()


async def test_a_cursor_is_refused_once_its_lsn_is_another_records() -> None:
    files, sound, lost = await lost_tail()

    async def check(journal: Journal) -> None:
        assert journal.check_cursor(sound) == 6
        with pytest.raises(InvalidState, match="lost branch"):
            journal.check_cursor(lost)

    async with running(on(files)) as journal:
        await append(journal, B, [b"another future"], expected_seq=0)
        await check(journal)  # its LSN is behind the end
        await append(journal, B, texts(9), expected_seq=1)
        await check(journal)  # its LSN is there again
        assert journal.check_cursor(journal.cursor(9)) == 9
    async with not_running(on(files)) as journal:
        await check(journal)
        journal.finish()
        await journal.run()
        assert (await followed(journal, journal.check_cursor(sound)))[0] == Record(B, 1, 7, b"another future")
