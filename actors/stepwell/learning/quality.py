"""How much an episode has to teach, as a label: five terms from 0 to 1, weighed.

score = 0.25 x complexity + 0.20 x diversity + 0.20 x errors + 0.20 x reflection + 0.15 x novelty
(reference system, section 1.7)
"""

from __future__ import annotations

from stepwell.learning.facts import Facts
from stepwell.model.analysis import QualityScore, Reflection
from stepwell.model.episode import Episode

COMPLEXITY_WEIGHT = 0.25
DIVERSITY_WEIGHT = 0.20
ERRORS_WEIGHT = 0.20
REFLECTION_WEIGHT = 0.20
NOVELTY_WEIGHT = 0.15
ACTION_CHARACTERS = 1_000
"""Actions are told apart by this many leading characters."""

_STEPS = ((2, 0.1), (5, 0.25), (10, 0.35), (20, 0.45))
_TOOLS = ((1, 0.1), (3, 0.25), (6, 0.35), (10, 0.45))
_MOST_OF_A_HALF = 0.5
_REFLECTION = ((0, 0.0), (2, 0.3), (5, 0.6), (10, 0.8))
_NOVELTY = ((0, 0.2), (2, 0.5), (5, 0.75))


def quality_of(episode: Episode, facts: Facts, reflection: Reflection | None, patterns: int) -> QualityScore | None:
    """The quality of an ended episode; None if it was interrupted.

    `patterns`: how many patterns it showed that say what to do, as for the reward.

    - complexity: by steps (up to 2, 5, 10, 20, more: .1, .25, .35, .45, .5) plus by distinct tools (up to 1, 3, 6, 10,
      more: the same).
    - diversity: 0.6 x distinct actions / steps + 0.4 x (0.5 if steps both succeeded and failed, else 0.3); 0 without
      steps.
    - errors: 0.5 without known steps, 0.9 if none failed, 1 if less than 20 % failed and fewer than succeeded, 0.6
      below 40 %, 0.4 below 60 % with a success, else 0.2: some errors teach more than none.
    - reflection: by its lines (0, up to 2, 5, 10, more: 0, .3, .6, .8, 1).
    - novelty: by patterns (0, up to 2, 5, more: .2, .5, .75, 1).

    Deviations from the reference system (section 1.7), and why:

    - It is a label, never a gate: there a score below 0.7 refuses the completion, and loses the episode.
    - It is worked out behind patterns and reflection, not before them, so that all five terms count. There the best
      possible score is 0.64.
    - A step without a result is unknown: it is a step, and in no share of errors.
    - Diversity is 0.3 for one kind of result also where that is not known of any step.
    """
    if reflection is None:
        return None
    lines = len(reflection.successes) + len(reflection.improvements) + len(reflection.insights)
    complexity = _bucket(facts.steps, _STEPS, _MOST_OF_A_HALF) + _bucket(len(facts.tools), _TOOLS, _MOST_OF_A_HALF)
    diversity = _diversity(episode, facts)
    errors = _errors(facts)
    reflected = _bucket(lines, _REFLECTION, 1.0)
    novelty = _bucket(patterns, _NOVELTY, 1.0)
    score = (
        COMPLEXITY_WEIGHT * complexity
        + DIVERSITY_WEIGHT * diversity
        + ERRORS_WEIGHT * errors
        + REFLECTION_WEIGHT * reflected
        + NOVELTY_WEIGHT * novelty
    )
    return QualityScore(
        score=min(max(score, 0.0), 1.0),
        complexity=complexity,
        diversity=diversity,
        errors=errors,
        reflection=reflected,
        novelty=novelty,
    )


def _bucket(count: int, buckets: tuple[tuple[int, float], ...], more: float) -> float:
    return next((value for upto, value in buckets if count <= upto), more)


def _diversity(episode: Episode, facts: Facts) -> float:
    if not facts.steps:
        return 0.0
    distinct = len({step.action[:ACTION_CHARACTERS] for step in episode.steps})
    return 0.6 * distinct / facts.steps + 0.4 * (0.5 if facts.succeeded and facts.failed else 0.3)


def _errors(facts: Facts) -> float:
    if facts.error_rate is None:
        return 0.5
    if facts.failed == 0:
        return 0.9
    if facts.error_rate < 0.2 and facts.succeeded > facts.failed:
        return 1.0
    if facts.error_rate < 0.4:
        return 0.6
    return 0.4 if facts.error_rate < 0.6 and facts.succeeded else 0.2
