"""Dates in a text, as the words that people ask with: `2023-05-08` as `8 may 2023`, `Aug 3rd` as `august 3`."""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache

MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_SHORT = {month[:3]: month for month in MONTHS} | {"sept": "september"}
_ISO = re.compile(r"\b(\d{4})-(0[1-9]|1[0-2])(?:-(0[1-9]|[12]\d|3[01]))?(?=\b|T\d)")
_ORDINAL = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)\b", re.IGNORECASE)
_MONTH = re.compile(r"\b(?:jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec)\b\.?", re.IGNORECASE)
# Only beside a number is it a month: "Jan" may be a person, "mar" is a word.
_NUMBER_BEFORE = re.compile(r"\b\d{1,2}\s+(?:of\s+)?$")
_NUMBER_BEHIND = re.compile(r"\s*,?\s*\d{1,4}\b")
_DIGIT = re.compile(r"[0-9]")
_DAYS = re.compile(rf"{'|'.join(MONTHS)}|(?<![\d:.])\b\d{{1,4}}\b(?!\s*[ap]m|:)")
_LONGEST = 10_000
"""Dates are looked for in so many first characters."""
_FIRST_YEAR_S, _LAST_YEAR_S = 10**8, 10**11


def with_plain_dates(text: str) -> str:
    """The text with its dates in plain words."""
    if _DIGIT.search(text) is None:
        return text
    head, rest = text[:_LONGEST], text[_LONGEST:]
    if "-" in head:
        head = _ISO.sub(_plain, head)
    head = _ORDINAL.sub(r"\1", head)
    if _may_have_month(head.lower()):
        head = _MONTH.sub(_whole_month, head)
    return head + rest


def _may_have_month(small: str) -> bool:
    """Far quicker than the pattern where there is none; and so written out, twice as quick as a loop."""
    return (
        "jan" in small
        or "feb" in small
        or "mar" in small
        or "apr" in small
        or "jun" in small
        or "jul" in small
        or "aug" in small
        or "sep" in small
        or "oct" in small
        or "nov" in small
        or "dec" in small
    )


def date_words(value: object) -> str:
    """A field that holds a time (text, or seconds or milliseconds since 1970) in plain words; "" if it holds none."""
    if isinstance(value, str):
        return _date_words_of_text(value[:100])
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value / 1000 if _LAST_YEAR_S <= value < 1000 * _LAST_YEAR_S else value
        if _FIRST_YEAR_S <= seconds < _LAST_YEAR_S:
            return day_words(dt.datetime.fromtimestamp(seconds, dt.UTC))
    return ""


@lru_cache(maxsize=1024)
def _date_words_of_text(text: str) -> str:
    return with_plain_dates(text)


def day_words(day: dt.date) -> str:
    """A day in plain words: `8 may 2023`."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def days(words: str) -> tuple[str, ...]:
    """The numbers and months of dates in words, without the time of day."""
    return tuple(_DAYS.findall(words.lower())) if words else ()


def _plain(found: re.Match[str]) -> str:
    year, month, day = found.groups()
    words = f"{MONTHS[int(month) - 1]} {year} "
    return f"{int(day)} {words}" if day else words


def _whole_month(found: re.Match[str]) -> str:
    text, start = found.string, found.start()
    if _NUMBER_BEFORE.search(text, max(start - 10, 0), start) or _NUMBER_BEHIND.match(text, found.end()):
        return _SHORT[found[0].rstrip(".").lower()]
    return found[0]
