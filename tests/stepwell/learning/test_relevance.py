"""The score of an episode for a query: bounds, what its parts add up to, and what decides. Its words for a prompt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.prompt_text import told_for_a_prompt
from stepwell.learning.ranking import CorpusStatistics
from stepwell.learning.relevance import WEIGHTS, Described, Relevance
from stepwell.model.context import TaskContext
from stepwell.model.episode import Episode
from tests.stepwell.learning.strategies import episodes

TERMS = st.lists(st.sampled_from(["flight", "boston", "dog", "count"]), max_size=5)
contexts = st.none() | st.builds(
    TaskContext,
    domain=st.sampled_from(["general", "web"]),
    language=st.sampled_from([None, "python"]),
    tags=st.lists(st.sampled_from(["net", "Net", "cli"]), max_size=2),
)
described = st.builds(
    Described,
    episode_id=st.just("e"),
    terms=TERMS,
    labels=TERMS,
    domain=st.sampled_from(["general", "web"]),
    language=st.sampled_from([None, "python"]),
    framework=st.none(),
    tags=st.lists(st.sampled_from(["net", "cli"]), max_size=2),
    outcome=st.sampled_from(["success", "partial_success", "abstained", "failure"]),
    reward=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    age_seconds=st.floats(-1e9, 1e12),
)
CORPUS = CorpusStatistics(10, 3.0, {"flight": 3, "boston": 1, "dog": 9, "count": 10})


def relevance_of(query: list[str], context: TaskContext | None = None) -> Relevance:
    return Relevance(query, CORPUS, context, label_weight=0.2, spelled={"flight": "flights"})


def episode(**changes: Any) -> Described:
    plain = Described("e", ["flight", "boston"], [], "general", None, None, [], "success", 1.0, 0.0)
    return plain._replace(**changes)


@given(TERMS, contexts, described, st.none() | st.floats(-1, 1))
def test_a_score_is_from_0_to_1_and_the_sum_of_its_parts(
    query: list[str], context: TaskContext | None, it: Described, cosine: float | None
) -> None:
    relevance = relevance_of(query, context)
    score, parts = relevance.score(it, cosine), relevance.explain(it, cosine)
    assert 0 <= score <= 1
    assert sum(part.points for part in parts) == pytest.approx(score)
    assert all(0 <= part.value <= 1 and part.words for part in parts)
    if cosine is None:
        assert (score > 0) == bool(set(query) & {*it.terms, *it.labels})


def test_a_score_worked_out_by_hand() -> None:
    relevance = relevance_of(["flight", "boston"], TaskContext(domain="web", tags=["NET", "cli"]))
    found = relevance.score(
        episode(domain="web", tags=["net", "other"], outcome="partial_success", reward=3.0, age_seconds=30 * 86_400)
    )
    context = (0.35 * 1 + 0.25 / 3) / 0.6
    assert found == pytest.approx(0.80 + 0.08 * context + 0.06 * 0.5 + 0.03 * 0.75 + 0.03 * 0.5)
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"outcome": "success"}, {"outcome": "failure"}),
        ({"outcome": "partial_success"}, {"outcome": "abstained"}),
        ({"reward": 2.0}, {"reward": 0.5}),
        ({"age_seconds": 60.0}, {"age_seconds": 1e7}),
        ({"terms": ["flight", "boston"]}, {"terms": ["flight", "dog"]}),
        ({"terms": ["flight"]}, {"terms": [], "labels": ["flight"]}),
    ],
)
def test_what_ranks_higher(better: dict[str, Any], worse: dict[str, Any]) -> None:
    relevance = relevance_of(["flight", "boston"])
    assert relevance.score(episode(**better)) > relevance.score(episode(**worse))


def test_words_decide_before_everything_else_together() -> None:
    relevance = relevance_of(["flight", "boston"], TaskContext(domain="web"))
    close = episode(terms=["flight", "boston", "dog"], outcome="failure", reward=None, age_seconds=1e12)
    far = episode(terms=["dog", "flight"], domain="web", reward=1e9)
    assert relevance.score(close) > relevance.score(far)


def test_vectors_count_four_tenths() -> None:
    relevance = relevance_of(["flight"])
    values = [relevance.values(episode(terms=["flight"]), cosine)["relevance"] for cosine in (-1.0, 0.0, 0.5, 1.0)]
    assert values == pytest.approx([0.6, 0.6, 0.8, 1.0])


@given(episodes)
def test_any_episode_is_told_in_a_few_short_lines(it: Episode) -> None:
    lines = told_for_a_prompt(it).split("\n")
    assert 2 <= len(lines) <= 9
    assert all(len(line) < 1_100 for line in lines)
