"""Rules of thumb: patterns read as "when this, then that"."""

from __future__ import annotations

from collections.abc import Iterable

from stepwell.model.pattern import DecisionPoint, ErrorRecovery, Loop, Pattern
from stepwell.model.recommendation import Heuristic

MIN_SAMPLES = 2


def heuristic_of(pattern: Pattern) -> Heuristic | None:
    """The rule that a pattern is, None if it is none, or if less than two episodes stand behind it.

    The reference system (section 1.13) makes them of the conditional steps of one episode, needs two equal ones in it,
    and never adds up episodes; its confidence is the success rate times the root of the number of samples, which goes
    above 1. Here a rule is a way to read a pattern, so its samples are episodes, failed ones too, and its confidence is
    the lower bound of their success. Recoveries and loops are rules as well.
    """
    if pattern.episodes < MIN_SAMPLES:
        return None
    match pattern.content:
        case DecisionPoint(condition=condition, operation=operation, then=then):
            rule = (condition, then or operation)
        case ErrorRecovery(error=error, operation=operation, remedy=remedy):
            rule = (
                f"'{operation}' failed with: {error}",
                f"change the call of '{remedy}'" if remedy == operation else f"use '{remedy}'",
            )
        case Loop(operation=operation, error=error):
            rule = (f"'{operation}' failed with: {error}", "do not call it again unchanged")
        case _:
            return None
    condition, action = rule
    return Heuristic(
        pattern_id=pattern.pattern_id,
        condition=condition,
        action=action,
        domain=pattern.domain,
        samples=pattern.episodes,
        success=pattern.success,
        confidence=pattern.confidence,
    )


def heuristics_of(patterns: Iterable[Pattern]) -> list[Heuristic]:
    """The rules that patterns are, the most confident first."""
    rules = [rule for pattern in patterns if (rule := heuristic_of(pattern)) is not None]
    return sorted(rules, key=lambda rule: (-rule.confidence, -rule.samples, rule.pattern_id))
