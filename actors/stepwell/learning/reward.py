"""The reward of an episode: one number, and the factors it was made of.

total = max(0, base + abstention) x efficiency x complexity x quality + learning  (reference system, section 1.5)
"""

from __future__ import annotations

import math

from stepwell.learning.facts import Facts, facts_of
from stepwell.learning.figures import finite
from stepwell.model.analysis import RewardScore
from stepwell.model.context import Complexity
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome

BASE_SUCCESS = 1.0
BASE_PARTIAL_UNSPECIFIED = 0.5
BASE_FAILURE = 0.0
BASE_ABSTAINED = 0.3

EARLY_STOP_STEPS = 3
LATE_STOP_STEPS = 10
EARLY_STOP_BONUS = 0.5
LATE_STOP_PENALTY = -0.3
LATE_FAILURE_PENALTY = -0.2

DURATION_WEIGHT = 0.5
STEPS_WEIGHT = 0.5
TYPICAL_SECONDS = 60.0
TYPICAL_STEPS = 10
DECAY = 2.0
EFFICIENCY_UNKNOWN_DURATION = 1.0
EFFICIENCY_MIN = 0.5
EFFICIENCY_MAX = 1.5

COMPLEXITY_BONUS: dict[Complexity, float] = {"simple": 1.0, "moderate": 1.1, "complex": 1.2}

TEST_ARTIFACT_WORDS = ("coverage", "test")
TEST_ARTIFACT_BONUS = 0.1
MANY_ARTIFACTS = 3
MANY_ARTIFACTS_BONUS = 0.05
COVERAGE_KEY = "test_coverage"
HIGH_COVERAGE_PERCENT = 80.0
HIGH_COVERAGE_BONUS = 0.15
FAIR_COVERAGE_PERCENT = 60.0
FAIR_COVERAGE_BONUS = 0.1
HIGH_ERROR_RATE = 0.3
HIGH_ERROR_PENALTY = -0.2
SOME_ERROR_RATE = 0.1
SOME_ERROR_PENALTY = -0.1
NO_ERROR_BONUS = 0.1
WARNINGS_KEY = "clippy_warnings"
NO_WARNINGS_BONUS = 0.05
QUALITY_MIN = 0.5
QUALITY_MAX = 1.5

PATTERN_BONUS = 0.1
PATTERNS_BONUS_MAX = 0.3
VARIETY_MIN_STEPS = 3
WIDE_VARIETY_TOOLS = 5
WIDE_VARIETY_BONUS = 0.15
VARIETY_TOOLS = 3
VARIETY_BONUS = 0.1
RELIABLE_RATE = 0.9
RELIABLE_MIN_STEPS = 5
RELIABLE_BONUS = 0.2
FLAWLESS_MIN_STEPS = 3
FLAWLESS_BONUS = 0.15
RECOVERY_BONUS = 0.15
QUICK_SECONDS = 30.0
QUICK_MAX_STEPS = 9
QUICK_BONUS = 0.1
LEARNING_MAX = 0.5


def reward_of(episode: Episode, *, patterns: int = 0, facts: Facts | None = None) -> RewardScore | None:
    """The reward of an episode whose outcome and end time are set; None if it was interrupted.

    `patterns` is how many patterns the episode showed that say what to do (`extraction.lessons`); `facts` are those of
    the same episode, if they are at hand. Every factor is without unit.

    - base: success 1, partial success its completed share (0.5 if it names no subtasks), failure 0, abstained 0.3,
      no outcome 0.
    - abstention: abstained at step 3 or before +0.5, at step 10 or after -0.3, linear between; a failure after more
      than 10 steps -0.2; otherwise 0.
    - efficiency, 0.5 to 1.5: half from the duration, 0.5 + e^(-seconds/120) (1.5 for none or less, 1 if unknown), half
      from the number of steps, 0.5 + e^(-steps/20) (0.5 for no steps).
    - complexity: simple 1, moderate 1.1, complex 1.2.
    - quality, 0.5 to 1.5: 1, and for a success only +0.1 for an artifact named after tests or coverage, +0.05 for three
      artifacts, +0.15 for a `test_coverage` above 80 (percent) or +0.1 above 60; for any ending -0.2 for an error rate
      above 0.3 or -0.1 above 0.1 or +0.1 for none, and +0.05 if `clippy_warnings` is 0.
    - learning, at most 0.5: 0.1 for each pattern up to 0.3; +0.15 for five distinct tools in at least three steps or
      +0.1 for three; +0.2 for more than 90% success in at least five steps or +0.15 for no failure in at least three;
      +0.15 for a failed step directly followed by a succeeded one; +0.1 for 1 to 9 steps in less than 30 seconds.
      Added to failures too.

    Deviations from the reference system (section 1.5), and why:

    - A step without a result, or an interrupted one, is unknown and not failed: it is in no rate, it is no failure to
      recover from, and the least numbers of steps behind a success rate count known steps only. With no known step
      there is no error rate, hence neither bonus nor penalty. Silence is no evidence against a tool.
    - Only patterns that say what to do count: sequences, decisions, recoveries. Every episode shows base rates, and a
      loop is no merit. The reference system counts patterns before any are extracted, hence always 0.
    - Seconds keep their fraction. In whole seconds everything below one second counts as no time at all, and 29.9 s
      and 29 s are the same.
    - `test_coverage` and `clippy_warnings` may be numbers or text, with a percent sign or not, and stand in the
      metadata given with the ending or, failing that, in that of the episode: they are known only at the end. What is
      no number is as good as absent.
    - An interrupted episode has no reward: being cut off from outside says nothing about the agent. The reference
      system has no such outcome.
    - 64-bit floats instead of 32-bit ones.
    """
    if isinstance(episode.outcome, Interrupted):
        return None
    facts = facts or facts_of(episode)
    base = _base(episode.outcome)
    abstention = _abstention(episode.outcome, facts)
    efficiency = _efficiency(facts)
    complexity = COMPLEXITY_BONUS[episode.context.complexity]
    quality = _quality(episode, facts)
    learning = _learning(facts, patterns)
    return RewardScore(
        total=max(0.0, base + abstention) * efficiency * complexity * quality + learning,
        base=base,
        efficiency=efficiency,
        complexity_bonus=complexity,
        quality_multiplier=quality,
        learning_bonus=learning,
        abstention_score=abstention,
    )


def _base(outcome: TaskOutcome | None) -> float:
    match outcome:
        case Success():
            return BASE_SUCCESS
        case PartialSuccess(completed=completed, failed=failed):
            named = len(completed) + len(failed)
            return len(completed) / named if named else BASE_PARTIAL_UNSPECIFIED
        case Abstained():
            return BASE_ABSTAINED
        case _:
            return BASE_FAILURE


def _abstention(outcome: TaskOutcome | None, facts: Facts) -> float:
    if isinstance(outcome, Failure):
        return LATE_FAILURE_PENALTY if facts.steps > LATE_STOP_STEPS else 0.0
    if not isinstance(outcome, Abstained):
        return 0.0
    if outcome.stopped_at_step <= EARLY_STOP_STEPS:
        return EARLY_STOP_BONUS
    if outcome.stopped_at_step >= LATE_STOP_STEPS:
        return LATE_STOP_PENALTY
    late = (outcome.stopped_at_step - EARLY_STOP_STEPS) / (LATE_STOP_STEPS - EARLY_STOP_STEPS)
    return EARLY_STOP_BONUS + (LATE_STOP_PENALTY - EARLY_STOP_BONUS) * late


def _efficiency(facts: Facts) -> float:
    if facts.seconds is None:
        of_duration = EFFICIENCY_UNKNOWN_DURATION
    else:
        of_duration = _decayed(max(facts.seconds, 0.0) / TYPICAL_SECONDS)
    of_steps = _decayed(facts.steps / TYPICAL_STEPS) if facts.steps else EFFICIENCY_MIN
    return _clamp(DURATION_WEIGHT * of_duration + STEPS_WEIGHT * of_steps, EFFICIENCY_MIN, EFFICIENCY_MAX)


def _decayed(ratio: float) -> float:
    """From the best efficiency at 0 down towards the worst one."""
    return EFFICIENCY_MIN + (EFFICIENCY_MAX - EFFICIENCY_MIN) * math.exp(-ratio / DECAY)


def _quality(episode: Episode, facts: Facts) -> float:
    quality = 1.0
    if isinstance(episode.outcome, Success):
        artifacts = episode.outcome.artifacts
        if any(word in artifact for artifact in artifacts for word in TEST_ARTIFACT_WORDS):
            quality += TEST_ARTIFACT_BONUS
        if len(artifacts) >= MANY_ARTIFACTS:
            quality += MANY_ARTIFACTS_BONUS
        coverage = _metadata_number(episode, COVERAGE_KEY)
        if coverage is not None and coverage > HIGH_COVERAGE_PERCENT:
            quality += HIGH_COVERAGE_BONUS
        elif coverage is not None and coverage > FAIR_COVERAGE_PERCENT:
            quality += FAIR_COVERAGE_BONUS
    if facts.error_rate is not None:
        if facts.error_rate > HIGH_ERROR_RATE:
            quality += HIGH_ERROR_PENALTY
        elif facts.error_rate > SOME_ERROR_RATE:
            quality += SOME_ERROR_PENALTY
        elif facts.failed == 0:
            quality += NO_ERROR_BONUS
    if _metadata_number(episode, WARNINGS_KEY) == 0:
        quality += NO_WARNINGS_BONUS
    return _clamp(quality, QUALITY_MIN, QUALITY_MAX)


def _learning(facts: Facts, patterns: int) -> float:
    bonus = min(PATTERN_BONUS * max(patterns, 0), PATTERNS_BONUS_MAX)
    if facts.steps >= VARIETY_MIN_STEPS:
        if len(facts.tools) >= WIDE_VARIETY_TOOLS:
            bonus += WIDE_VARIETY_BONUS
        elif len(facts.tools) >= VARIETY_TOOLS:
            bonus += VARIETY_BONUS
    if facts.success_rate is not None:
        if facts.success_rate > RELIABLE_RATE and facts.known >= RELIABLE_MIN_STEPS:
            bonus += RELIABLE_BONUS
        elif facts.failed == 0 and facts.known >= FLAWLESS_MIN_STEPS:
            bonus += FLAWLESS_BONUS
    if facts.recoveries:
        bonus += RECOVERY_BONUS
    if facts.seconds is not None and facts.seconds < QUICK_SECONDS and 1 <= facts.steps <= QUICK_MAX_STEPS:
        bonus += QUICK_BONUS
    return min(bonus, LEARNING_MAX)


def _metadata_number(episode: Episode, key: str) -> float | None:
    at_the_end = finite(episode.outcome_metadata.get(key))
    return finite(episode.metadata.get(key)) if at_the_end is None else at_the_end


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
