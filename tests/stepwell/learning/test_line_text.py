"""Short lines made of any text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.text import counted, first_words, name, names, percent, sentence, shorten, span, whole
from tests.stepwell.learning.strategies import texts


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("plain", "plain"),
        ("  two\n\t lines \r\n", "two lines"),
        ("a\0b\x1b[1m\x85d\u2028e", "a b [1m d e"),
        ("\0\0\n", ""),
        ("a\u202eb\u2066c", "abc"),
        ("a \u202e b", "a b"),
        ("\u202e", ""),
        ("bad \ud800 end", "bad \ufffd end"),
        ("12345678901", "12345678901"),
        ("123456789012", "1234567890…"),
        ("123456789 12", "123456789…"),  # no blank before the ellipsis
        ("\0" * 1_000_000 + "late", "late"),
    ],
)
def test_a_text_becomes_one_line(text: str, line: str) -> None:
    assert shorten(text, 11) == line


@pytest.mark.parametrize(
    ("whole_character", "what"),
    [
        ("e\u0301", "an accent"),
        ("👩🏽", "a skin tone"),
        ("👩\u200d👩\u200d👧", "a family"),
        ("🇩🇪", "a flag"),
        ("✌\ufe0f", "a variation selector"),
        ("\u1112\u1161\u11ab", "Hangul parts"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e007f", "a flag of tags"),
        ("कि", "a vowel sign"),
    ],
)
def test_a_cut_is_never_inside_a_character_as_it_is_seen(whole_character: str, what: str) -> None:
    for limit in range(12, 30):
        for before in range(10):
            line = shorten("x" * before + whole_character * 30, limit)
            assert line.endswith("…")
            assert len(line) <= limit
            body = line[before:-1]
            assert body == whole_character * (len(body) // len(whole_character)), what
            assert len(line) > limit - len(whole_character), "no more is cut than needed"


def test_a_character_longer_than_the_limit_is_cut_all_the_same() -> None:
    assert shorten("e" + "\u0301" * 1_000, 10) == "e" + "\u0301" * 8 + "…"


@given(texts, st.integers(min_value=2, max_value=100))
def test_any_text_becomes_a_short_line(text: str, limit: int) -> None:
    line = shorten(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in line)
    assert shorten(line, limit) == line


@given(st.text(alphabet=st.characters(categories=("L", "N", "P")), max_size=80))
def test_a_short_text_without_blanks_is_left_as_it_is(text: str) -> None:
    assert shorten(text) == text


def test_a_megabyte_is_shortened() -> None:
    assert shorten("ab" * 500_000) == ("ab" * 40)[:79] + "…"


def test_names_are_never_empty() -> None:
    assert name("\0 ") == "(unnamed)"
    assert names(["a", "", "c"], 3) == "a, (unnamed), c"
    assert names(["a", "b", "c"], 2) == "a, b, …"


def test_words_are_cut_on_a_boundary() -> None:
    assert first_words(" one\ttwo  three ", 3) == "one two three"
    assert first_words("one two three", 2) == "one two…"
    assert first_words("", 2) == ""


@pytest.mark.parametrize(
    ("text", "ended"), [("done", "done."), ("done.", "done."), ("done?", "done?"), ("cut…", "cut…"), ("好。", "好。")]
)
def test_a_sentence_ends_once(text: str, ended: str) -> None:
    assert sentence(text) == ended


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0 s"),
        (0.04, "0.0 s"),
        (0.45, "0.5 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (4_000_000, "1,111 h 6 min"),
    ],
)
def test_a_length_of_time_in_words(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_counts_and_shares() -> None:
    assert [counted(n, "step") for n in (0, 1, 2, 1_000)] == ["0 steps", "1 step", "2 steps", "1,000 steps"]
    assert [percent(*share) for share in ((0, 3), (1, 3), (199, 200), (3, 3))] == ["0%", "33%", "99%", "100%"]
    assert [whole(n) for n in (-1, 7, 10**15, 10**5_000)] == ["-1", "7", "1000000000000000", "(a huge number)"]


def test_a_length_of_time_stays_short_however_long_it_is() -> None:
    assert span(59.4) == "59 s"
    assert span(3.6e282) == "1.0e+279 h"
    assert all(len(span(10.0**power)) < 30 for power in range(300))
