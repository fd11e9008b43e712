"""What a cursor is worth: every verdict, at every border between two epochs."""

from __future__ import annotations

import uuid

import pytest

from stepstore.log.cursor import Cursor, Verdict, epoch_of, judge_cursor, parse_cursor
from stepstore.log.directory import Identity

LOG_UUID, BRANCH, OTHER = (uuid.UUID(int=n, version=4) for n in (1, 2, 3))
IDENTITY = Identity(LOG_UUID, BRANCH)
ENDS = [(1, 3), (2, 5), (4, 9)]
"""Epoch 3 has left no segment: it wrote nothing, or what it wrote was cut."""


@pytest.mark.parametrize(
    ("lsn", "epoch"), [(0, 0), (1, 1), (3, 1), (4, 2), (5, 2), (6, 4), (9, 4), (10, 4)], ids=lambda value: str(value)
)
def test_the_epoch_of_a_record_is_the_first_that_reaches_so_far(lsn: int, epoch: int) -> None:
    assert epoch_of(lsn, ENDS) == epoch
    assert epoch_of(lsn, []) == 0


@pytest.mark.parametrize(
    ("epoch", "lsn", "verdict"),
    [
        (0, 0, "valid"),
        (7, 0, "valid"),
        (1, 3, "valid"),
        (1, 4, "a lost branch"),
        (1, 10, "a lost branch"),
        (2, 5, "valid"),
        (2, 6, "a lost branch"),
        (3, 4, "a lost branch"),
        (4, 9, "valid"),
        (4, 10, "beyond the end"),
        (5, 10, "beyond the end"),
        (5, 9, "a lost branch"),
    ],
)
def test_a_cursor_is_valid_as_far_as_its_epoch_reaches(epoch: int, lsn: int, verdict: Verdict) -> None:
    """Beyond the end of the log, in the newest epoch or a later one, it is a witness that records have vanished."""
    assert judge_cursor(Cursor(LOG_UUID, BRANCH, epoch, lsn), IDENTITY, ENDS, 9) == verdict


@pytest.mark.parametrize("lsn", [0, 1, 9, 99])
def test_a_cursor_of_another_log_or_branch_says_nothing_about_this_one(lsn: int) -> None:
    assert judge_cursor(Cursor(OTHER, BRANCH, 1, lsn), IDENTITY, ENDS, 9) == "another log"
    assert judge_cursor(Cursor(OTHER, OTHER, 1, lsn), IDENTITY, ENDS, 9) == "another log"
    assert judge_cursor(Cursor(LOG_UUID, OTHER, 1, lsn), IDENTITY, ENDS, 9) == "another branch"


def test_in_an_empty_log_only_the_start_is_valid() -> None:
    assert judge_cursor(Cursor(LOG_UUID, BRANCH, 0, 0), IDENTITY, [], 0) == "valid"
    assert judge_cursor(Cursor(LOG_UUID, BRANCH, 1, 1), IDENTITY, [], 0) == "beyond the end"


def test_a_cursor_is_a_text_and_back() -> None:
    cursor = Cursor(LOG_UUID, BRANCH, 4, 9)
    assert parse_cursor(str(cursor)) == cursor
    for text in ("", "x", f"{cursor}0x", f" {cursor}", f"{cursor}\n", str(cursor).replace("4", "-4"), str(cursor)[1:]):
        assert parse_cursor(text) is None
