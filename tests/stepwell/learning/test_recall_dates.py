"""Dates in any common form become the words that people ask with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.recall.dates import date_words, days, with_plain_dates


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("on 2023-05-08.", "on 8 may 2023 ."),
        ("2023-05-08T13:56:01Z", "8 may 2023 T13:56:01Z"),
        ("in 2023-05", "in may 2023 "),
        ("Aug 3rd, 2023", "august 3, 2023"),
        ("the 22nd of Sept. 2021", "the 22 of september 2021"),
        ("Dec. 2021", "december 2021"),
        ("1:56 pm on 8 May, 2023", "1:56 pm on 8 May, 2023"),
        ("Jan said that mar is a verb", "Jan said that mar is a verb"),
        ("version 2023-13-01 of 1023-99", "version 2023-13-01 of 1023-99"),
        ("a 3rd try", "a 3 try"),
        ("12023-05-08x", "12023-05-08x"),
        ("", ""),
    ],
)
def test_dates_become_words(text: str, plain: str) -> None:
    assert with_plain_dates(text) == plain


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2023-05-08", "8 may 2023 "),
        (1683554160, "8 may 2023"),
        (1683554160.5, "8 may 2023"),
        (1683554160000, "8 may 2023"),
        (7, ""),
        (-1683554160, ""),
        (True, ""),
        (None, ""),
        (["2023-05-08"], ""),
        (10**400, ""),
        (float(10**300), ""),
    ],
)
def test_a_field_that_holds_a_time_becomes_words(value: object, words: str) -> None:
    assert date_words(value) == words


@pytest.mark.parametrize("time", ["1:56 pm on 8 May, 2023", "2023-05-08T13:56:01Z", "2023-05-08 08:15", 1683554160])
def test_the_day_of_a_time_does_not_depend_on_its_form_or_hour(time: object) -> None:
    assert days(date_words(time)) == ("8", "may", "2023")


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    assert with_plain_dates(with_plain_dates(text)) == with_plain_dates(text)
    days(date_words(text))
