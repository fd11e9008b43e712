"""Text to terms: folding, stop words, and the stemmer, held against the one of SQLite's full text."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.ranking import analyse, stem, words
from stepwell.learning.ranking.analysis import ANALYSED_CHARACTERS, LONGEST_TERM
from stepwell.learning.ranking.stop_words import STOP_WORDS

ROOT = Path(__file__).parents[3]
BARE = {"sses", "ies", "eed"}
"""Endings with nothing before them, which are no words: there SQLite's stemmer is not that of the paper."""


@pytest.mark.parametrize(
    ("word", "expected"),
    [  # from the paper, step by step
        ("caresses", "caress"), ("ponies", "poni"), ("ties", "ti"), ("cats", "cat"),
        ("feed", "feed"), ("agreed", "agre"), ("plastered", "plaster"), ("bled", "bled"), ("motoring", "motor"),
        ("sing", "sing"), ("conflated", "conflat"), ("troubled", "troubl"), ("sized", "size"), ("hopping", "hop"),
        ("tanned", "tan"), ("falling", "fall"), ("hissing", "hiss"), ("fizzed", "fizz"), ("failing", "fail"),
        ("filing", "file"), ("happy", "happi"), ("sky", "sky"), ("relational", "relat"), ("conditional", "condit"),
        ("rational", "ration"), ("digitizer", "digit"), ("vietnamization", "vietnam"), ("predication", "predic"),
        ("operator", "oper"), ("feudalism", "feudal"), ("decisiveness", "decis"), ("sensitiviti", "sensit"),
        ("triplicate", "triplic"), ("formative", "form"), ("electrical", "electr"), ("hopefulness", "hope"),
        ("goodness", "good"), ("revival", "reviv"), ("allowance", "allow"), ("airliner", "airlin"),
        ("adjustable", "adjust"), ("replacement", "replac"), ("adjustment", "adjust"), ("dependent", "depend"),
        ("adoption", "adopt"), ("communism", "commun"), ("effective", "effect"), ("probate", "probat"),
        ("rate", "rate"), ("cease", "ceas"), ("controll", "control"), ("roll", "roll"),
        ("generalizations", "gener"), ("oscillators", "oscil"),
        ("psychology", "psycholog"), ("possibly", "possibl"),  # the departures
    ],
)  # fmt: skip
def test_the_examples_of_porters_paper(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_the_stemmer_is_that_of_sqlite() -> None:
    """Over every English word of this project's own documents and sources."""
    texts = [path.read_text() for folder in ("docs", "actors") for path in (ROOT / folder).rglob("*.[mp][dy]")]
    found = sorted({word for text in texts for word in re.findall("[a-z]{3,60}", text.lower())} - BARE)
    assert len(found) > 3_000
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE texts USING fts5(word, tokenize='porter unicode61')")
    connection.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(texts, instance)")
    connection.executemany("INSERT INTO texts(rowid, word) VALUES (?, ?)", list(enumerate(found)))
    theirs = {found[row]: term for term, row in connection.execute("SELECT term, doc FROM terms")}
    connection.close()
    assert {word: stem(word) for word in found} == theirs


def test_what_is_no_english_word_keeps_its_ending() -> None:
    for word in ("is", "q42s", "http2ing", "naïves", "größen", "x" * 65 + "s"):
        assert stem(word) == word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fix the flaky test!", ["fix", "the", "flaky", "test"]),
        ("file_reader db:world_1 HTTP/2 a-b", ["file", "reader", "db", "world", "1", "http", "2", "a", "b"]),
        ("don't won’t O'Neil 'APG'", ["dont", "wont", "oneil", "apg"]),
        ("Café CAFE\u0301 ｃａｆé Straße ﬁle", ["cafe", "cafe", "cafe", "strasse", "file"]),
        ("Ωμέγα Йод", ["ωμεγα", "иод"]),
        ("東京タワー in 2024", ["東京", "京タ", "タワ", "ワー", "in", "2024"]),
        ("猫x犬", ["猫", "x", "犬"]),
        ("한국어", ["한국어"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("🛠\ufe0f fix ❤\ufe0f 1\ufe0f\u20e3 👍🏽", ["fix", "1"]),
        ("", []),
        (" \x00\ud800 -- … ", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_stop_words_go_and_words_of_quantity_stay() -> None:
    assert analyse("Hello, could you please count the students who are not in each class?") == [
        "count", "student", "not", "each", "class",
    ]  # fmt: skip
    assert not {"more", "not", "each", "before", "same"} & STOP_WORDS
    assert all(words(word) == [word] for word in STOP_WORDS)  # or folding would hide them


def test_a_text_of_stop_words_alone_keeps_them() -> None:
    assert analyse("Who are they?") == ["who", "ar", "thei"]


def test_only_so_much_of_a_text_and_of_a_word_is_read() -> None:
    assert analyse("x" * 1_000_000) == ["x" * LONGEST_TERM]
    assert len(analyse("ab " * 1_000_000)) == ANALYSED_CHARACTERS // 3 + 1


@given(st.text(max_size=200))
def test_any_text_has_terms_that_do_not_change_when_its_spelling_does_not_matter(text: str) -> None:
    terms = analyse(text)
    assert terms == analyse(text)
    assert all(term and len(term) <= LONGEST_TERM for term in terms)
    assert bool(terms) == bool(words(text))
    assert analyse(" " + text + "\n") == terms


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=100))
def test_case_does_not_count(text: str) -> None:
    assert analyse(text.upper()) == analyse(text.lower())
