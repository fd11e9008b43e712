"""Hypothesis strategies: any episode the model allows, with texts of any kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome
from stepwell.model.step import EpisodeStep, StepError, StepInterrupted, StepResult, StepSuccess, StepTimeout
from tests.stepwell.learning.builders import episode, step

# Controls, NULs, right-to-left overrides, joiners, flags, marks, Hangul parts and lone surrogates come up often here.
_AWKWARD = "\0\x1b\n\t \u202e\u2066\u200d\u0301\u0903\u1100\u1161\u11a8🇩🇪👩🏽\U000e0067\ud800\udfff가e"
texts = st.one_of(
    st.text(max_size=30), st.text(alphabet=_AWKWARD, max_size=300), st.text(max_size=3).map(lambda t: t * 500)
)
_tools = st.one_of(st.sampled_from(["grep", "edit", "pytest", "ls", "cat", "git"]), texts)
_actions = st.one_of(st.just("decide what to do"), texts)
_lists = st.lists(texts, max_size=7)
_numbers = st.one_of(st.none(), st.floats(), st.floats(min_value=0, max_value=1e5))

outcomes: st.SearchStrategy[TaskOutcome | None] = st.one_of(
    st.none(),
    st.builds(Success, verdict=texts, artifacts=_lists),
    st.builds(PartialSuccess, verdict=texts, completed=_lists, failed=_lists),
    st.builds(Failure, reason=texts, error_details=st.none() | texts),
    st.builds(Abstained, reason=texts, stopped_at_step=st.integers()),
    st.builds(Interrupted, reason=texts, cause=texts),
)
results: st.SearchStrategy[StepResult | None] = st.one_of(
    st.none(),
    st.builds(StepSuccess, output=texts),
    st.builds(StepError, message=texts),
    st.builds(StepTimeout, message=texts),
    st.builds(StepInterrupted, message=texts),
)
steps: st.SearchStrategy[EpisodeStep] = st.builds(
    step,
    results,
    _tools,
    action=_actions,
    latency_ms=_numbers,
    tokens_used=st.none() | st.integers(),
    step_number=st.integers(),
)
_garbage: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.lists(st.integers(), max_size=2), st.just(10**400)
)
metadata: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(["test_coverage", "clippy_warnings", "other"]), _garbage
)
episodes: st.SearchStrategy[Episode] = st.builds(
    episode,
    st.lists(steps, max_size=25),
    outcomes,
    seconds=st.one_of(st.none(), st.floats(min_value=-10, max_value=1e6)),
    complexity=st.sampled_from(["simple", "moderate", "complex"]),
    language=st.none() | texts,
    framework=st.none() | texts,
    domain=texts,
    tags=_lists,
    description=texts,
    task_type=texts,
    metadata=metadata,
    outcome_metadata=metadata,
)
