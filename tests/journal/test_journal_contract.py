"""The journals of this repository pass the contract; and so they do whatever course hypothesis thinks of."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.testing.journal_contract import JournalContract, JournalPlace
from stepwell.testing.journal_contract.place import A, B, C
from stepwell.testing.journal_contract.plain_list import Course, check_against_a_plain_list
from tests.journal.places import (
    encoded_log_in_memory,
    in_memory,
    memory_journal,
    segment_log_in_memory,
    segment_log_on_disk,
)


class TestInMemory(JournalContract):
    def new_place(self, path: pathlib.Path) -> JournalPlace:
        return in_memory()


class TestMemoryJournal(JournalContract):
    def new_place(self, path: pathlib.Path) -> JournalPlace:
        return memory_journal()


class TestSegmentLogInMemory(JournalContract):
    def new_place(self, path: pathlib.Path) -> JournalPlace:
        return segment_log_in_memory()


class TestSegmentLogCompressedAndEncrypted(JournalContract):
    def new_place(self, path: pathlib.Path) -> JournalPlace:
        return encoded_log_in_memory()


class TestSegmentLogOnDisk(JournalContract):
    def new_place(self, path: pathlib.Path) -> JournalPlace:
        return segment_log_on_disk(path)


_parts = st.tuples(
    st.sampled_from([A, B, C]),
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.sampled_from([0, 0, 1, 2]),
)


@pytest.mark.parametrize("make", [in_memory, memory_journal, segment_log_in_memory, encoded_log_in_memory])
@settings(derandomize=True, database=None, deadline=None, max_examples=40)
@given(
    course=st.lists(st.tuples(st.lists(_parts, min_size=1, max_size=3), st.booleans()), max_size=25),
    after=st.integers(0, 12),
)
async def test_any_course_of_submissions_reads_back_as_a_plain_list_would(
    make: Callable[[], JournalPlace], course: Course, after: int
) -> None:
    await check_against_a_plain_list(make(), course, after)
