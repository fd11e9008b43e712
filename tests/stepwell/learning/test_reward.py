"""The reward of an episode: every factor worked out by hand from the formula (reference system, section 1.5).

The constants are repeated here as numbers on purpose: a test that read them from the code would agree with any change.
"""

from __future__ import annotations

from math import exp
from typing import Any

import pytest
from hypothesis import given

from stepwell.learning.reward import reward_of
from stepwell.model.analysis import RewardScore
from stepwell.model.context import Complexity
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome
from stepwell.model.step import StepResult
from tests.stepwell.learning.builders import BAD, CUT, LATE, OK, calls_of, episode, step, steps_of
from tests.stepwell.learning.strategies import episodes


def score(scored: Episode, *, patterns: int = 0) -> RewardScore:
    reward = reward_of(scored, patterns=patterns)
    assert reward is not None
    return reward


# --- worked examples -------------------------------------------------------------------------------------------------


def test_a_flawless_moderate_success() -> None:
    scored = episode(
        calls_of("grep", "edit", "pytest", "edit", "pytest"),
        Success("done", ["fix.py", "test_fix.py", "notes.md"]),
        seconds=120,
        complexity="moderate",
    )
    reward = score(scored)
    # efficiency .5(.5 + e^-1) + .5(.5 + e^-.25) = .5 + .183940 + .389400
    assert reward.efficiency == pytest.approx(1.073340, abs=1e-6)
    assert reward.base == 1.0
    assert reward.complexity_bonus == 1.1
    assert reward.quality_multiplier == pytest.approx(1.25)  # 1 + .1 test artifact + .05 three artifacts + .1 no error
    assert reward.learning_bonus == pytest.approx(0.3)  # .1 three tools + .2 reliable; 120 s is not quick
    assert reward.abstention_score == 0.0
    assert reward.total == pytest.approx(1.0733403 * 1.1 * 1.25 + 0.3, abs=1e-6)


def test_a_partial_success_with_a_recovery() -> None:
    scored = episode(
        steps_of(OK, BAD, OK, OK), PartialSuccess("", ["a", "b", "c"], ["d"]), seconds=20, complexity="complex"
    )
    reward = score(scored)
    efficiency = 0.5 * (0.5 + exp(-1 / 6)) + 0.5 * (0.5 + exp(-0.2))
    assert reward.base == 0.75
    assert reward.quality_multiplier == pytest.approx(0.9)  # error rate .25
    assert reward.learning_bonus == pytest.approx(0.25)  # .15 recovery + .1 quick
    assert reward.total == pytest.approx(0.75 * efficiency * 1.2 * 0.9 + 0.25)


def test_an_early_abstention_beats_a_late_failure() -> None:
    abstained = score(episode(steps_of(BAD, BAD), Abstained("no access", 2), seconds=10))
    failed = score(episode(steps_of(*[BAD] * 12), Failure("no access"), seconds=10))
    # (.3 + .5) x (.5 + .5 e^(-1/12) + .5 e^-.1) x 1 x .8 + .1 quick
    assert abstained.total == pytest.approx(0.8 * (0.5 + 0.5 * exp(-1 / 12) + 0.5 * exp(-0.1)) * 0.8 + 0.1)
    assert failed.total == 0.0
    assert failed.abstention_score == -0.2


# --- base and abstention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "base"),
    [
        (Success("done"), 1.0),
        (PartialSuccess("", ["a"], ["b", "c", "d"]), 0.25),
        (PartialSuccess("", ["a"], []), 1.0),
        (PartialSuccess("", [], ["a"]), 0.0),
        (PartialSuccess("half"), 0.5),
        (Failure("no"), 0.0),
        (Abstained("no", 5), 0.3),
        (None, 0.0),
    ],
)
def test_the_base_depends_on_the_outcome(outcome: TaskOutcome | None, base: float) -> None:
    assert score(episode(outcome=outcome)).base == base


@pytest.mark.parametrize("cause", ["cancelled", "abandoned"])
def test_an_interrupted_episode_has_no_reward(cause: str) -> None:
    assert reward_of(episode(steps_of(OK, OK, OK), Interrupted("SIGINT", cause))) is None


@pytest.mark.parametrize(
    ("stopped_at_step", "abstention"),
    [
        (0, 0.5),
        (1, 0.5),
        (3, 0.5),
        (4, 0.5 - 0.8 / 7),
        (5, 0.5 - 1.6 / 7),
        (6, 0.5 - 2.4 / 7),
        (7, 0.5 - 3.2 / 7),
        (9, 0.5 - 4.8 / 7),
        (10, -0.3),
        (11, -0.3),
        (10**6, -0.3),
    ],
)
def test_an_abstention_is_worth_less_the_later_it_comes(stopped_at_step: int, abstention: float) -> None:
    assert score(episode(outcome=Abstained("no", stopped_at_step))).abstention_score == pytest.approx(abstention)


def test_the_step_of_an_abstention_counts_and_not_the_number_of_steps() -> None:
    assert score(episode(steps_of(*[OK] * 12), Abstained("no", 2))).abstention_score == 0.5


@pytest.mark.parametrize(("steps", "abstention"), [(0, 0.0), (9, 0.0), (10, 0.0), (11, -0.2), (30, -0.2)])
def test_a_failure_after_more_than_ten_steps_should_have_abstained(steps: int, abstention: float) -> None:
    assert score(episode(steps_of(*[OK] * steps), Failure("no"))).abstention_score == abstention


@pytest.mark.parametrize("outcome", [Success(), PartialSuccess(), None])
def test_long_episodes_that_did_not_fail_are_not_late(outcome: TaskOutcome | None) -> None:
    assert score(episode(steps_of(*[OK] * 30), outcome)).abstention_score == 0.0


def test_a_penalty_below_zero_takes_nothing_from_the_learning_bonus() -> None:
    reward = score(episode(steps_of(*[OK] * 11), Failure("no")))
    assert reward.total == reward.learning_bonus == pytest.approx(0.2)


# --- efficiency and complexity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "of_duration"),
    [
        (None, 1.0),
        (-5.0, 1.5),
        (0.0, 1.5),
        (0.5, 0.5 + exp(-0.5 / 120)),
        (1.0, 0.5 + exp(-1 / 120)),
        (29.9, 0.5 + exp(-29.9 / 120)),
        (60.0, 0.5 + exp(-0.5)),
        (120.0, 0.5 + exp(-1.0)),
        (1e9, 0.5),
    ],
)
def test_half_of_the_efficiency_comes_from_the_duration(seconds: float | None, of_duration: float) -> None:
    # Ten steps give .5 + e^-.5.
    efficiency = 0.5 * of_duration + 0.5 * (0.5 + exp(-0.5))
    assert score(episode(steps_of(*[OK] * 10), seconds=seconds)).efficiency == pytest.approx(efficiency, abs=1e-9)


@pytest.mark.parametrize(
    ("steps", "of_steps"), [(0, 0.5), (1, 0.5 + exp(-0.05)), (20, 0.5 + exp(-1)), (1000, 0.5 + exp(-50))]
)
def test_half_of_the_efficiency_comes_from_the_number_of_steps(steps: int, of_steps: float) -> None:
    efficiency = 0.5 * 1.5 + 0.5 * of_steps
    assert score(episode(steps_of(*[OK] * steps), seconds=0)).efficiency == pytest.approx(efficiency)


def test_steps_without_a_result_are_steps_all_the_same() -> None:
    unknown, known = steps_of(*[None] * 10), steps_of(*[OK] * 10)
    assert score(episode(unknown)).efficiency == score(episode(known)).efficiency


@pytest.mark.parametrize(("complexity", "bonus"), [("simple", 1.0), ("moderate", 1.1), ("complex", 1.2)])
def test_harder_tasks_earn_more(complexity: Complexity, bonus: float) -> None:
    assert score(episode(complexity=complexity)).complexity_bonus == bonus


# --- quality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "quality"),
    [
        ([], 1.0),
        ([OK], 1.1),
        ([OK] * 9 + [BAD], 1.0),  # error rate .1
        ([OK] * 8 + [BAD], 0.9),  # .111
        ([OK] * 7 + [BAD] * 3, 0.9),  # .3
        ([OK] * 7 + [LATE] * 3, 0.9),
        ([OK] * 2 + [BAD], 0.8),  # .333
        ([BAD], 0.8),
        ([OK] * 19 + [BAD], 1.0),  # .05
    ],
)
def test_quality_falls_with_the_error_rate(results: list[StepResult | None], quality: float) -> None:
    assert score(episode(steps_of(*results))).quality_multiplier == pytest.approx(quality)


@pytest.mark.parametrize("unknown", [None, CUT])
def test_unknown_steps_are_not_failures(unknown: StepResult | None) -> None:
    # The reference system has an error rate of 4/6 here, and takes the pair unknown -> succeeded for a recovery.
    reward = score(episode(steps_of(unknown, OK, unknown, unknown, OK, unknown), seconds=60))
    assert reward.quality_multiplier == pytest.approx(1.1)
    assert reward.learning_bonus == 0.0


def test_unknown_steps_do_not_dilute_failures() -> None:
    # One of three known steps failed: .333, not one of thirteen.
    assert score(episode(steps_of(OK, OK, BAD, *[None] * 10))).quality_multiplier == pytest.approx(0.8)


@pytest.mark.parametrize("unknown", [None, CUT])
def test_nothing_known_is_neither_good_nor_bad(unknown: StepResult | None) -> None:
    reward = score(episode(steps_of(*[unknown] * 6)))
    assert reward.quality_multiplier == 1.0
    assert reward.learning_bonus == 0.0


@pytest.mark.parametrize(
    ("artifacts", "quality"),
    [
        ([], 1.0),
        (["a", "b"], 1.0),
        (["a", "b", "c"], 1.05),
        (["coverage.xml"], 1.1),
        (["tests/login.py"], 1.1),
        (["test_a", "test_b", "coverage"], 1.15),
    ],
)
def test_artifacts_of_a_success_raise_its_quality(artifacts: list[str], quality: float) -> None:
    assert score(episode(outcome=Success("", artifacts))).quality_multiplier == pytest.approx(quality)


@pytest.mark.parametrize(
    ("coverage", "quality"),
    [
        ("85", 1.15),
        (85, 1.15),
        (80.1, 1.15),
        (" 85.5 % ", 1.15),
        (80, 1.1),
        ("80%", 1.1),
        (60.5, 1.1),
        (60, 1.0),
        ("0", 1.0),
        (-90, 1.0),
        ("", 1.0),
        ("high", 1.0),
        ("nan", 1.0),
        (float("inf"), 1.0),
        (float("nan"), 1.0),
        ("9" * 1_000_000, 1.0),
        (10**400, 1.0),
        (None, 1.0),
        (True, 1.0),
        ([90], 1.0),
        ({"line": 90}, 1.0),
        (b"90", 1.0),
        ("\0", 1.0),
        ("\ud800", 1.0),
    ],
)
def test_test_coverage_may_be_a_number_a_text_or_garbage(coverage: Any, quality: float) -> None:
    assert score(episode(metadata={"test_coverage": coverage})).quality_multiplier == pytest.approx(quality)


@pytest.mark.parametrize("outcome", [PartialSuccess("", ["test"], []), Failure(), Abstained(), None])
def test_artifacts_and_coverage_count_for_a_success_only(outcome: TaskOutcome | None) -> None:
    assert score(episode(outcome=outcome, metadata={"test_coverage": 99})).quality_multiplier == 1.0


@pytest.mark.parametrize(
    ("warnings", "quality"),
    [("0", 1.05), (0, 1.05), (0.0, 1.05), ("1", 1.0), (3, 1.0), ("", 1.0), ("none", 1.0), (None, 1.0), (False, 1.0)],
)
def test_no_warnings_raise_the_quality_of_any_ending(warnings: Any, quality: float) -> None:
    scored = episode(outcome=Failure(), metadata={"clippy_warnings": warnings})
    assert score(scored).quality_multiplier == pytest.approx(quality)


@pytest.mark.parametrize(
    ("at_start", "at_end", "quality"),
    [(50, 90, 1.15), (90, 50, 1.0), (90, "unknown", 1.15), (90, None, 1.15)],
)
def test_what_is_measured_at_the_end_goes_before_what_was_said_at_the_start(
    at_start: Any, at_end: Any, quality: float
) -> None:
    scored = episode(metadata={"test_coverage": at_start}, outcome_metadata={"test_coverage": at_end})
    assert score(scored).quality_multiplier == pytest.approx(quality)


def test_the_best_quality_adds_up() -> None:
    scored = episode(
        steps_of(OK), Success("", ["test", "b", "c"]), metadata={"test_coverage": 95, "clippy_warnings": "0"}
    )
    assert score(scored).quality_multiplier == pytest.approx(1.45)  # .1 + .05 + .15 + .1 + .05 over 1


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patterns", "bonus"), [(-1, 0.0), (0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (9, 0.3)])
def test_each_pattern_adds_to_the_learning_up_to_three(patterns: int, bonus: float) -> None:
    assert score(episode(), patterns=patterns).learning_bonus == pytest.approx(bonus)


@pytest.mark.parametrize(
    ("tools", "bonus"), [("ab", 0.0), ("aab", 0.0), ("abc", 0.1), ("abca", 0.1), ("abcd", 0.1), ("abcde", 0.15)]
)
def test_a_variety_of_tools_adds_to_the_learning(tools: str, bonus: float) -> None:
    # Steps without a result: a call is a call, and nothing else adds to the bonus.
    assert score(episode([step(None, tool) for tool in tools])).learning_bonus == pytest.approx(bonus)


@pytest.mark.parametrize(
    ("results", "bonus"),
    [
        ([OK] * 2, 0.0),
        ([OK] * 3, 0.15),
        ([OK] * 4, 0.15),
        ([OK] * 5, 0.2),
        ([OK] * 4 + [None], 0.15),  # five steps, of which four are known
        ([OK] * 2 + [None] * 5, 0.0),
        ([OK] * 9 + [BAD], 0.0),  # .9 is not more than .9
        ([OK] * 10 + [BAD], 0.2),  # .909
        ([OK] * 3 + [BAD], 0.0),
    ],
)
def test_reliable_steps_add_to_the_learning(results: list[StepResult | None], bonus: float) -> None:
    assert score(episode(steps_of(*results))).learning_bonus == pytest.approx(bonus)


@pytest.mark.parametrize(
    ("results", "bonus"),
    [
        ([BAD, OK], 0.15),
        ([LATE, OK], 0.15),
        ([BAD, OK, BAD, OK], 0.15),
        ([OK, BAD], 0.0),
        ([BAD, BAD], 0.0),
        ([BAD, None, OK], 0.0),
        ([None, OK], 0.0),
        ([CUT, OK], 0.0),
    ],
)
def test_a_failure_directly_followed_by_a_success_adds_to_the_learning(
    results: list[StepResult | None], bonus: float
) -> None:
    assert score(episode(steps_of(*results))).learning_bonus == pytest.approx(bonus)


@pytest.mark.parametrize(
    ("steps", "seconds", "bonus"),
    [(0, 1, 0.0), (1, 1, 0.1), (9, 29.999, 0.1), (9, 30, 0.0), (10, 1, 0.0), (1, None, 0.0)],
)
def test_few_steps_in_little_time_add_to_the_learning(steps: int, seconds: float | None, bonus: float) -> None:
    assert score(episode(steps_of(*[None] * steps), seconds=seconds)).learning_bonus == pytest.approx(bonus)


def test_learning_has_a_limit_and_is_added_to_failures_too() -> None:
    reward = score(episode([*steps_of(BAD), *calls_of(*"abcdefgh")], Failure("no"), seconds=5), patterns=3)
    assert reward.learning_bonus == 0.5
    assert reward.total == 0.5


# --- any episode -----------------------------------------------------------------------------------------------------


@given(episodes)
def test_every_reward_is_within_its_bounds_and_the_same_twice(scored: Episode) -> None:
    reward = reward_of(scored)
    assert reward == reward_of(scored)
    if isinstance(scored.outcome, Interrupted):
        assert reward is None
        return
    assert reward is not None
    assert 0.0 <= reward.base <= 1.0
    assert -0.3 <= reward.abstention_score <= 0.5
    assert 0.5 <= reward.efficiency <= 1.5
    assert reward.complexity_bonus in (1.0, 1.1, 1.2)
    assert 0.8 - 1e-9 <= reward.quality_multiplier <= 1.45 + 1e-9
    assert 0.0 <= reward.learning_bonus <= 0.5
    assert reward.total == pytest.approx(
        max(0.0, reward.base + reward.abstention_score)
        * reward.efficiency
        * reward.complexity_bonus
        * reward.quality_multiplier
        + reward.learning_bonus
    )
