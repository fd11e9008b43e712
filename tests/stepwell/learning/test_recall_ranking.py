"""The ranking of facts against a plain one that scores every fact by the formula of docs/recall.md."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.learning.recall.collection import FactCollection, Wanted
from stepwell.learning.recall.index import FactIndex, Indexed
from stepwell.learning.recall.passage import membership, searched_text
from stepwell.learning.recall.settings import DEFAULT_SETTINGS, RecallSettings
from stepwell.learning.recall.words import document_words, query_words
from stepwell.model.fact_records import Forgotten, Remembered
from stepwell.model.scope import Scope

WORDS = ["ape", "bee", "cat", "dog", "elk"]
EXACT = msgspec.structs.replace(DEFAULT_SETTINGS, candidates=10_000, most_postings=10**9)

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
sessions = st.sampled_from([None, {"session": 1}, {"session": 2}])
facts = st.lists(st.tuples(texts, sessions), min_size=1, max_size=25)


def index_of(kept: list[tuple[str, Any]], ranking: RecallSettings = EXACT) -> FactIndex:
    index = FactIndex(ranking)
    for number, (text, metadata) in enumerate(kept, 1):
        index.place(number, text, metadata)
        index.add(Indexed(number, text, metadata))
    return index


def plainly(kept: list[tuple[str, Any]], query: str, k1: float = 0.9, b: float = 0.3) -> dict[int, float]:
    """The score of every fact whose conversation, within two places, holds a word of the query."""

    def bm25(documents: list[list[str]], lengths: list[int], words: list[str]) -> list[float]:
        mean = sum(lengths) / len(lengths)
        scores = [0.0] * len(documents)
        for word in words:
            n = sum(word in document for document in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            for place, document in enumerate(documents):
                tf = document.count(word)
                scores[place] += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[place] / mean)) if tf else 0
        return scores

    words = query_words(query)
    documents = [document_words(text) for text, _ in kept]
    own = bm25(documents, [len(document) for document in documents], words)
    members: dict[int, list[int]] = defaultdict(list)
    for place, (_, metadata) in enumerate(kept):
        if metadata:
            members[metadata["session"]].append(place)
    talks = list(members.values())
    said = [[word for place in talk for word in set(documents[place])] for talk in talks]
    of_talk = bm25(said, [len(talk) for talk in talks], words) if talks else []
    result: dict[int, float] = {}
    for place, score in enumerate(own):
        near = 0.0
        total = score
        for talk, talk_score in zip(talks, of_talk, strict=True):
            if place in talk:
                at = talk.index(place)
                for distance, before, after in ((1, 0.5, 0.3), (2, 0.25, 0.15)):
                    near += before * own[talk[at - distance]] if at >= distance else 0
                    near += after * own[talk[at + distance]] if at + distance < len(talk) else 0
                total += near + 0.5 * talk_score
        if score or near:
            result[place + 1] = total
    return result


@given(facts, texts)
@settings(max_examples=200, deadline=None)
def test_every_score_is_that_of_the_formula(kept: list[tuple[str, Any]], query: str) -> None:
    expected = plainly(kept, query)
    found = index_of(kept).search(query, 1_000)
    assert {item.number for item in found} == set(expected)
    for item in found:
        assert item.score == pytest.approx(expected[item.number])
        assert sum(item.words.values()) + item.neighbours + item.conversation == pytest.approx(item.score)
    order = [(-item.score, -item.number) for item in found]
    assert order == sorted(order)


@given(facts, texts, st.integers(0, 12))
@settings(deadline=None)
def test_the_best_k_are_the_first_k_of_all(kept: list[tuple[str, Any]], query: str, k: int) -> None:
    index = index_of(kept)
    assert index.search(query, k) == index.search(query, 1_000)[:k]


def test_a_bounded_search_finds_what_an_unbounded_one_does() -> None:
    """Where common words are not read, they still add to what the rare ones find."""
    kept = [
        (f"common {'often' if number % 3 else 'rare'} word{number}", {"session": number // 7}) for number in range(700)
    ]
    bounded = msgspec.structs.replace(DEFAULT_SETTINGS, most_postings=300, candidates=40)
    for query in ("common rare word123", "common often word7", "common"):
        expected = index_of(kept).search(query, 3)
        found = index_of(kept, bounded).search(query, 3)
        assert found[0].number == expected[0].number
        assert found[0].words == pytest.approx(expected[0].words)


@given(
    st.lists(st.one_of(st.tuples(texts, sessions, st.integers(0, 3)), st.integers(1, 20)), min_size=1, max_size=25),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_what_was_kept_ranks_as_what_is_rebuilt(changes: list[Any], data: st.DataObject) -> None:
    """Facts come, are superseded and forgotten; one index is asked all the time, the other one is made at the end."""
    kept, rebuilt = FactCollection(Scope.GLOBAL, 1), FactCollection(Scope.GLOBAL, 1)
    log: list[Remembered | Forgotten] = []
    for change in changes:
        if isinstance(change, int):
            log.append(Forgotten(change))
        else:
            text, metadata, back = change
            speaks = data.draw(st.booleans())
            supersedes = len(log) - back if back else None
            log.append(Remembered(f"Ann: {text}" if speaks else text, metadata, supersedes=supersedes))
        kept.apply(len(log), log[-1], len(log))
        if data.draw(st.booleans()):
            while kept.index_some(1):
                pass
            kept.search("ape bee", 5, Wanted(0))
    for number, made in enumerate(log, 1):
        rebuilt.apply(number, made, number)
    for collection in (kept, rebuilt):
        while collection.index_some(3):
            pass
    for query in ("ape", "bee cat dog", "elk ape"):
        assert kept.search(query, 100, Wanted(0)) == rebuilt.search(query, 100, Wanted(0))
    assert list(kept.facts(Wanted(0))) == list(rebuilt.facts(Wanted(0)))


@given(facts, st.data())
@settings(deadline=None)
def test_what_was_removed_has_left_every_list(kept: list[tuple[str, Any]], data: st.DataObject) -> None:
    index = index_of(kept)
    gone = data.draw(st.sets(st.integers(1, len(kept))))
    for number in sorted(gone, reverse=data.draw(st.booleans())):
        index.remove(Indexed(number, *kept[number - 1]))
        index.displace(number)
    postings = index._postings
    left = [text for number, (text, _) in enumerate(kept, 1) if number not in gone]
    counted = Counter(word for text in left for word in set(document_words(text)))
    assert {word: postings.frequency(word) for word in {*postings._facts, *postings._noted}} == counted
    assert postings._facts.keys() == postings._counts.keys() == counted.keys()
    assert not gone & {number for held in postings._facts.values() for number in held}
    assert postings.size == len(left)
    assert postings.total_length == sum(len(document_words(text)) for text in left)


# ---- what is searched, and what is a conversation --------------------------------------------------------------------


def test_metadata_is_not_searched_but_for_times_and_speakers() -> None:
    metadata = {
        "secret": "alpha",
        "speaker": "Beth",
        "session_date": "2023-05-08",
        "updatedAt": 1683554160,
        "n": "gamma",
    }
    words = document_words(searched_text("hello there", metadata))
    assert "alpha" not in words
    assert "gamma" not in words
    assert {"beth", *document_words("8 May 2023")} <= set(words)


@pytest.mark.parametrize("name", ["update", "candidate", "sometimes", "format", "what", "runtime_id", "whenever"])
def test_a_field_whose_name_only_sounds_like_a_time_holds_none(name: str) -> None:
    assert searched_text("x", {name: "2023-05-08"}) == "x"


@pytest.mark.parametrize(
    ("text", "metadata", "is_turn"),
    [
        ("Ann: hi", None, True),
        ("[8 May 2023] Ann Lee: hi", None, True),
        ("hi", {"speaker": "Ann"}, True),
        ("hi", {"author": "Ann"}, True),
        ("hi", None, False),
        ("http://x.org: down", None, False),
        ("at 10:30 they came", None, False),
        ("the result of all these long computations was this: 5", None, False),
        ("Ann: hi", {"session": 1}, False),
    ],
)
def test_a_turn_is_what_somebody_says_where_no_conversation_is_named(text: str, metadata: Any, is_turn: bool) -> None:
    assert membership(text, metadata).is_turn is is_turn


def test_turns_of_another_day_are_another_conversation() -> None:
    kept = [
        ("Ann: holidays?", {"date": "8 May, 2023"}),
        ("Bob: at the lake", {"date": "8 May, 2023"}),
        ("Ann: nothing new", {"date": "9 May, 2023"}),
    ]
    found = index_of(kept).search("holidays", 10)
    assert [item.number for item in found] == [1, 2]


def test_a_conversation_is_named_by_all_fields_that_name_one() -> None:
    one = membership("x", {"conversation": "c", "session": 1})
    assert one.shared == (("conversation", "c"), ("session", 1))
    assert membership("x", {"session": True}).shared is None
    assert membership("x", {"session": ""}).shared is None
