"""BM25 against values worked out by hand, and its bounds; fusion; diversity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from math import log
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.ranking import Bm25, CorpusStatistics, diversify, fuse, overlap, rank_texts

TEXTS = [["cat", "sat", "mat"], ["cat", "cat", "dog"], ["dog"], ["bird", "sang", "song", "dog", "mat"]]
TERMS = st.sampled_from(["cat", "dog", "bird", "mat", "sat", "eel"])


def score_of(query: list[str], text: list[str], *, k1: float = 1.5, b: float = 0.75) -> float:
    return Bm25(query, CorpusStatistics.of(TEXTS), k1=k1, b=b).score(Counter(text), len(text))


def test_scores_worked_out_by_hand() -> None:
    # Four texts, twelve terms: mean length 3. idf(cat) = ln(1 + 2.5 / 2.5), idf(bird) = ln(1 + 3.5 / 1.5).
    assert score_of(["cat"], TEXTS[0]) == pytest.approx(log(2) * 1 * 2.5 / (1 + 1.5))
    assert score_of(["cat"], TEXTS[1]) == pytest.approx(log(2) * 2 * 2.5 / (2 + 1.5))
    assert score_of(["cat", "cat"], TEXTS[0]) == pytest.approx(2 * log(2))
    assert score_of(["bird", "eel"], TEXTS[3]) == pytest.approx(
        log(1 + 3.5 / 1.5) * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 5 / 3))
    )
    assert score_of(["eel"], TEXTS[0]) == 0
    # Without saturation and length only the idf is left.
    assert score_of(["cat", "dog"], TEXTS[1], k1=0) == pytest.approx(log(2) + log(1 + 1.5 / 3.5))


def test_an_explanation_adds_up_to_the_score_largest_part_first() -> None:
    bm25 = Bm25(["dog", "mat", "eel", "bird"], CorpusStatistics.of(TEXTS))
    parts = bm25.explain(Counter(TEXTS[3]), 5)
    assert [part.term for part in parts] == ["bird", "mat", "dog"]
    assert sum(part.score for part in parts) == pytest.approx(bm25.score(Counter(TEXTS[3]), 5))
    assert parts[0].score == pytest.approx(log(1 + 3.5 / 1.5) * 2.5 / (1 + 1.5 * 1.5))


@given(st.lists(TERMS, max_size=6), st.lists(TERMS, max_size=12))
def test_a_score_is_bounded_and_0_only_without_a_shared_term(query: list[str], text: list[str]) -> None:
    score = score_of(query, text)
    assert (score > 0) == bool(set(query) & set(text))
    assert 0 <= score <= 2.5 * Bm25(query, CorpusStatistics.of(TEXTS)).ideal + 1e-9


@given(st.lists(TERMS, max_size=6), st.permutations(["cat", "dog", "bird", "mat"]))
def test_the_order_of_words_changes_no_bit_of_a_score(query: list[str], text: list[str]) -> None:
    assert score_of(query, text) == score_of(sorted(query), sorted(text))


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_idf_is_above_0_and_falls_with_frequency(documents: int, found: int) -> None:
    def idf(count: int) -> float:
        return CorpusStatistics(documents, 1.0, {"word": count}).idf("word")

    assert 0 < idf(found) <= idf(0)
    assert idf(found + 1) <= idf(found)


def test_no_texts_at_all() -> None:
    nothing = CorpusStatistics.of([])
    assert Bm25(["cat"], nothing).score({"cat": 1}, 1) > 0
    assert rank_texts("cat", []) == []


@pytest.mark.parametrize(("k1", "b"), [(-0.1, 0.5), (1.2, -0.1), (1.2, 1.1)])
def test_parameters_out_of_bounds_are_refused(k1: float, b: float) -> None:
    with pytest.raises(ValueError, match="k1 must be at least 0 and b from 0 to 1"):
        Bm25(["cat"], CorpusStatistics.of(TEXTS), k1=k1, b=b)


def test_texts_are_ranked_by_what_they_share_with_the_query() -> None:
    texts = ["Count the students", "Which airlines fly to Boston?", "How many flights go to Boston or Denver?", "…"]
    ranked = rank_texts("flights arriving in Boston", texts)
    assert [place for place, _score in ranked] == [2, 1]
    assert ranked[0][1] > ranked[1][1] > 0


def test_fusing_is_the_weighted_mean_and_what_is_missing_counts_0() -> None:
    fused = fuse({"words": {"a": 1.0, "b": 0.5}, "meaning": {"b": 0.9, "c": 0.6}}, {"words": 3, "meaning": 1})
    assert fused == {"a": 0.75, "b": pytest.approx(0.6), "c": pytest.approx(0.15)}
    assert fuse({"words": {"a": 0.4}}, {"words": 0.1, "meaning": 9}) == {"a": 0.4}


@pytest.mark.parametrize("weights", [{}, {"words": -1}, {"words": 0}])
def test_weights_that_say_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        fuse({"words": {"a": 1.0}}, weights)


class Hit(NamedTuple):
    score: float
    terms: Set[str]


def test_what_repeats_a_better_one_stands_back_for_what_does_not() -> None:
    first, copy, other, poor = Hit(1.0, {"a", "b"}), Hit(1.0, {"a", "b"}), Hit(0.8, {"c"}), Hit(0.1, {"d"})
    assert diversify([first, copy, other, poor], 3, 0.5) == [first, other, copy]
    assert diversify([first, copy, other, poor], 3, 0.0) == [first, copy, other]
    assert diversify([first, copy, other, poor], 3, 1.0) == [first, other, poor]


@given(st.lists(st.builds(Hit, st.floats(0, 1), st.frozensets(TERMS)), max_size=8), st.integers(0, 9), st.floats(0, 1))
def test_diversity_drops_nothing_and_keeps_the_best_first(hits: list[Hit], limit: int, penalty: float) -> None:
    ranked = sorted(hits, key=lambda hit: -hit.score)
    picked = diversify(ranked, limit, penalty)
    assert len(picked) == min(limit, len(ranked))
    assert picked[:1] == ranked[: min(1, limit)]
    assert all(picked.count(hit) <= ranked.count(hit) for hit in picked)
    assert picked == diversify(ranked, limit, penalty)


def test_overlap() -> None:
    assert overlap(set(), set()) == 1.0
    assert overlap({"a"}, set()) == 0.0
    assert overlap({"a", "b", "c"}, {"b", "c", "d"}) == 0.5


def test_a_penalty_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="penalty must be from 0 to 1"):
        diversify([], 1, 1.5)
