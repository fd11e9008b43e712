"""Any course of submissions reads back as a plain list would."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS, Batch, Record
from stepwell.testing.journal_contract.place import (
    A,
    B,
    C,
    JournalPlace,
    PlaceOfJournal,
    everything,
    followed,
    running,
)

Part = tuple[bytes, list[bytes], int]
"""(stream, payloads, flags) of one batch."""

Course = Sequence[tuple[Sequence[Part], bool]]
"""The batches of each submission, and whether to wait for its result before the next."""


async def check_against_a_plain_list(place: JournalPlace, course: Course, after: int) -> None:
    """Submit a course to an empty place, and compare everything that can be read."""
    expected: list[Record] = []
    seqs: dict[bytes, int] = {}
    still_open: dict[bytes, None] = {}
    async with running(place) as journal:
        for parts, wait in course:
            batches: list[Batch] = []
            for stream, payloads, flag in parts:
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


def random_course(dice: random.Random) -> Course:
    """Up to 25 submissions of up to 3 batches."""

    def part() -> Part:
        payloads = [dice.randbytes(dice.randint(0, 40)) for _ in range(dice.randint(1, 4))]
        return dice.choice((A, B, C)), payloads, dice.choice((0, 0, FLAG_OPENS, FLAG_CLOSES))

    return [([part() for _ in range(dice.randint(1, 3))], dice.random() < 0.5) for _ in range(dice.randint(0, 25))]


class PlainListContract(PlaceOfJournal):
    """Any course of submissions reads back as a plain list would."""

    @pytest.mark.parametrize("seed", range(20))
    async def test_a_random_course_of_submissions_reads_back_as_a_plain_list_would(
        self, place: JournalPlace, seed: int
    ) -> None:
        dice = random.Random(seed)
        await check_against_a_plain_list(place, random_course(dice), dice.randint(0, 12))
