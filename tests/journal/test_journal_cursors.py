"""Cursors of our journals: their form, and how they notice that the record they stand behind is gone."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from stepstore.errors import CorruptLog, InvalidInput, InvalidState
from stepstore.journal import InMemoryJournal, Journal, SegmentLogJournal
from stepstore.journal.contract import Record, append
from stepstore.log.memory_files import MemoryFileSystem
from stepwell.testing.journal_contract import JournalPlace
from stepwell.testing.journal_contract.place import A, B, followed, not_running, running, texts
from tests.journal.places import (
    SMALL,
    encoded_log_in_memory,
    in_memory,
    memory_journal,
    segment_log_in_memory,
    segment_log_on,
)

KINDS = [in_memory, memory_journal, segment_log_in_memory, encoded_log_in_memory]


@pytest.mark.parametrize("make", KINDS)
async def test_a_text_that_is_no_cursor_is_invalid_input(make: Callable[[], JournalPlace]) -> None:
    async with running(make()) as journal:
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


@pytest.mark.parametrize("make", KINDS)
async def test_a_cursor_of_another_log_is_invalid_input(
    make: Callable[[], JournalPlace],
) -> None:
    others: list[str] = []
    for make_other in (in_memory, segment_log_in_memory):
        async with running(make_other()) as other:
            await append(other, A, texts(5), expected_seq=0)
            others += [other.cursor(0), other.cursor(3)]
    async with running(make()) as journal:
        await append(journal, A, texts(5), expected_seq=0)
        for text in others:
            with pytest.raises(InvalidInput, match="another"):
                journal.check_cursor(text)


async def test_a_journal_that_keeps_nothing_has_no_place_behind_its_end() -> None:
    async with running(in_memory()) as journal:
        assert isinstance(journal, InMemoryJournal)
        await append(journal, A, texts(5), expected_seq=0)
        with pytest.raises(InvalidInput):
            journal.check_cursor(journal.cursor(6))


@pytest.mark.parametrize("make", KINDS)
async def test_a_cursor_of_another_branch_is_invalid_state(make: Callable[[], JournalPlace]) -> None:
    async with running(make()) as journal:
        await append(journal, A, texts(5), expected_seq=0)
        log, _branch, epoch, lsn = journal.cursor(3).split(".")
        with pytest.raises(InvalidState, match="another branch"):
            journal.check_cursor(f"{log}.{uuid.uuid4().hex}.{epoch}.{lsn}")


async def lost_tail() -> tuple[MemoryFileSystem, str, str]:
    """A log that was put back to its first six records, and the cursors behind record 6 and record 9 of before."""
    files = MemoryFileSystem()
    async with running(segment_log_on(files)) as journal:
        await append(journal, A, texts(6), expected_seq=0)
        earlier = files.durable_copy()
        await append(journal, A, texts(4), expected_seq=6)
        return earlier, journal.cursor(6), journal.cursor(9)


async def test_a_cursor_behind_the_end_says_that_durable_records_have_vanished() -> None:
    files, sound, beyond = await lost_tail()
    async with running(segment_log_on(files)) as journal:
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

    async with running(segment_log_on(files)) as journal:
        await append(journal, B, [b"another future"], expected_seq=0)
        await check(journal)  # its LSN is behind the end
        await append(journal, B, texts(9), expected_seq=1)
        await check(journal)  # its LSN is there again
        assert journal.check_cursor(journal.cursor(9)) == 9
    async with not_running(segment_log_on(files)) as journal:
        await check(journal)
        journal.finish()
        await journal.run()
        assert (await followed(journal, journal.check_cursor(sound)))[0] == Record(B, 1, 7, b"another future")
