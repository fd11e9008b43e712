"""Cursors: places that outlive the process."""

from __future__ import annotations

import pathlib

import pytest

from stepstore.errors import InvalidInput
from stepstore.journal.contract import append, store_snapshot
from stepwell.testing.journal_contract.place import A, JournalPlace, PlaceOfJournal, running, take, texts


class CursorsContract(PlaceOfJournal):
    """Cursors: places that outlive the process."""

    async def test_a_cursor_stands_for_its_place(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(5), expected_seq=0)
            await store_snapshot(journal, A, b"snapshot", through_seq=5)
            cursors = [journal.cursor(lsn) for lsn in range(7)]
            assert len(set(cursors)) == 7
            assert [journal.check_cursor(text) for text in cursors] == list(range(7))
            async with journal.follow(journal.check_cursor(cursors[3])) as slices:
                assert [record.lsn for record in await take(slices, 2)] == [4, 5]

    async def test_cursors_hold_over_reopening_whoever_wrote_in_between(self, lasting_place: JournalPlace) -> None:
        cursors: dict[int, str] = {}
        for opening in range(4):
            async with running(lasting_place) as journal:
                assert {lsn: journal.check_cursor(text) for lsn, text in cursors.items()} == {
                    lsn: lsn for lsn in cursors
                }
                assert {lsn: journal.cursor(lsn) for lsn in cursors} == cursors
                for seq in range(opening * 20, opening * 20 + 20):
                    await append(journal, A, [b"x" * 600], expected_seq=seq)
                cursors |= {lsn: journal.cursor(lsn) for lsn in range(journal.durable_lsn + 1)}
        assert len(cursors) == len(set(cursors.values())) == 81

    async def test_a_text_that_is_no_cursor_is_invalid_input(self, place: JournalPlace) -> None:
        async with running(place) as journal:
            await append(journal, A, texts(5), expected_seq=0)
            good = journal.cursor(3)
            for bad in ("", "3", "nonsense", good + ".", good + "\n", " " + good, good[:-2]):
                with pytest.raises(InvalidInput, match="cursor"):
                    journal.check_cursor(bad)

    async def test_a_cursor_of_another_journal_is_invalid_input(
        self, place: JournalPlace, tmp_path: pathlib.Path
    ) -> None:
        async with running(self.new_place(tmp_path / "another")) as other:
            await append(other, A, texts(5), expected_seq=0)
            others = [other.cursor(0), other.cursor(3)]
        async with running(place) as journal:
            await append(journal, A, texts(5), expected_seq=0)
            for text in others:
                with pytest.raises(InvalidInput, match="another"):
                    journal.check_cursor(text)
