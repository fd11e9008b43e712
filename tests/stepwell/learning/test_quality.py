"""Quality and salient features: worked by hand from the reference's numbers (sections 1.7 and 1.8)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from stepwell.learning.facts import facts_of
from stepwell.learning.quality import quality_of
from stepwell.learning.reflection import reflect
from stepwell.learning.salience import salient_features
from stepwell.model.analysis import QualityScore, Reflection
from stepwell.model.episode import Episode
from stepwell.model.outcome import Failure, Interrupted, Success
from stepwell.model.step import EpisodeStep, StepError
from tests.stepwell.learning.builders import BAD, OK, calls_of, episode, step, steps_of
from tests.stepwell.learning.strategies import episodes

NO_LINES = Reflection(successes=[], improvements=[], insights=[])


def quality(scored: Episode, patterns: int = 0, lines: int = 0) -> QualityScore:
    reflection = Reflection(successes=["x"] * lines, improvements=[], insights=[])
    found = quality_of(scored, facts_of(scored), reflection, patterns)
    assert found is not None
    return found


def test_a_clean_success_of_five_steps_with_three_tools() -> None:
    found = quality(episode(calls_of("a", "b", "c", "a", "b")))
    assert (found.complexity, found.errors, found.reflection, found.novelty) == (0.5, 0.9, 0.0, 0.2)
    assert found.diversity == pytest.approx(0.6 / 5 + 0.12)
    assert found.score == pytest.approx(0.25 * 0.5 + 0.2 * 0.24 + 0.2 * 0.9 + 0.15 * 0.2)


@pytest.mark.parametrize(
    ("ok", "bad", "errors"), [(0, 0, 0.5), (3, 0, 0.9), (9, 1, 1.0), (7, 3, 0.6), (5, 5, 0.4), (4, 6, 0.2), (0, 2, 0.2)]
)
def test_some_errors_teach_more_than_none_and_many_less(ok: int, bad: int, errors: float) -> None:
    assert quality(episode(steps_of(*[OK] * ok, *[BAD] * bad))).errors == errors


@pytest.mark.parametrize(("lines", "value"), [(0, 0.0), (1, 0.3), (2, 0.3), (3, 0.6), (5, 0.6), (6, 0.8), (11, 1.0)])
def test_reflection_and_patterns_count(lines: int, value: float) -> None:
    assert quality(episode(), lines=lines).reflection == value


def test_what_came_of_a_step_that_is_not_known_is_no_error() -> None:
    assert quality(episode(steps_of(OK, None, None))).errors == 0.9


def test_an_interrupted_episode_has_no_quality() -> None:
    cut = episode(steps_of(OK), Interrupted("x"))
    assert quality_of(cut, facts_of(cut), reflect(cut), 0) is None


@given(episodes)
def test_quality_stays_in_bounds_and_more_patterns_never_lower_it(found: Episode) -> None:
    facts = facts_of(found)
    less, more = quality_of(found, facts, NO_LINES, 0), quality_of(found, facts, NO_LINES, 9)
    assert less is not None
    assert more is not None
    assert 0 <= less.score <= more.score <= 1


def test_what_a_reader_would_mark() -> None:
    chosen = msgspec.structs.replace(
        step(OK, "plan", action="Choose the index"), parameters={"strategy": "divide", "n": 1}
    )
    steps: list[EpisodeStep] = [chosen, step(OK, "grep"), step(StepError("ß" * 300), "edit"), step(OK, "read")]
    ended = episode(steps, Success("it works at last", ["a.py"]))
    found = salient_features(ended, facts_of(ended), reflect(ended))
    assert found.critical_decisions == ["Choose the index", "strategy: divide", "Outcome: it works at last"]
    assert found.tool_combinations == [["plan", "grep"]]
    assert found.error_recovery_patterns[0].startswith("'read' worked after 'edit' failed: ß")
    assert found.key_insights[-1] == "Produced 1 artifact: a.py"


def test_a_short_verdict_is_no_decision_and_a_reason_for_failing_is() -> None:
    assert salient_features(episode(), facts_of(episode()), None).critical_decisions == []
    failed = episode(outcome=Failure("no"))
    assert salient_features(failed, facts_of(failed), None).critical_decisions == ["Outcome: no"]


@given(episodes)
def test_there_are_never_more_than_so_many(found: Episode) -> None:
    features = salient_features(found, facts_of(found), reflect(found))
    sizes = tuple(map(len, (getattr(features, name) for name in features.__struct_fields__)))
    assert all(size <= most for size, most in zip(sizes, (10, 5, 10, 15), strict=True))
