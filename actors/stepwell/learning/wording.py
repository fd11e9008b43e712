"""Patterns in words, for a person or a prompt."""

from __future__ import annotations

from stepwell.learning.text import counted, shorten
from stepwell.model.pattern import (
    ContextPattern,
    Counts,
    DeadEnd,
    DecisionPoint,
    ErrorRecovery,
    Interval,
    Loop,
    Pattern,
    PatternContent,
    ToolSequence,
)

ERROR_SHOWN = 100
"""So many characters of an error stand in advice."""


def pattern_text(content: PatternContent) -> str:
    """What a pattern says, without its figures."""
    match content:
        case ToolSequence(operations=operations):
            return " → ".join(operations)
        case DecisionPoint(condition=condition, operation=operation, then=then):
            return f"{condition} ({operation})" + (f", then {then}" if then else "")
        case ErrorRecovery(error=error, operation=operation, remedy=remedy):
            how = "the same again, changed," if remedy == operation else f"'{remedy}'"
            return f"after '{operation}' failed with: {error}: {how} worked"
        case ContextPattern(features=features, approach=approach):
            return ", ".join(features) + (f", task type {approach}" if approach else "")
        case Loop(operation=operation, error=error):
            return f"'{operation}' called again unchanged after it failed with: {error}"
        case DeadEnd(operation=operation, error=error):
            return f"'{operation}' fails with: {error}"


def advice_text(pattern: Pattern) -> str:
    """What to do, or to avoid, because of a pattern."""
    match pattern.content:
        case ToolSequence(operations=operations):
            return f"Work in this order: {' → '.join(operations)}"
        case DecisionPoint(condition=condition, then=then):
            return f"Look first: {condition}" + (f"; then {then}" if then else "")
        case ErrorRecovery(error=error, operation=operation, remedy=remedy):
            if remedy == operation:
                return f"If '{operation}' fails with «{shorten(error, ERROR_SHOWN)}», change the call; it worked then"
            return f"If '{operation}' fails with «{shorten(error, ERROR_SHOWN)}», try '{remedy}' next; it worked then"
        case ContextPattern():
            return f"Know your odds: {pattern_text(pattern.content)}"
        case Loop(operation=operation, error=error):
            return f"Do not call '{operation}' again unchanged after «{shorten(error, ERROR_SHOWN)}»"
        case DeadEnd(operation=operation, error=error):
            return f"Avoid what makes '{operation}' fail with «{shorten(error, ERROR_SHOWN)}»"


def figures_text(pattern: Pattern) -> str:
    """The figures of a pattern in one clause."""
    seen = f"seen in {counted(pattern.episodes, 'episode')}"
    parts = [seen]
    if isinstance(pattern.content, DeadEnd):
        parts.append(f"in {pattern.failed:,} of them nothing worked any more after it")
    elif isinstance(pattern.content, Loop):
        parts.append(f"{counted(pattern.occurrences, 'time')} in all")
    if pattern.success is not None:
        done = f"{share(pattern.success)} of {'these' if pattern.trials == pattern.episodes else f'{pattern.trials:,}'}"
        parts.append(f"{done} solved the task ({interval_text(pattern.interval)})")
    return ", ".join(parts)


def base_text(features: str, counts: Counts) -> str:
    """A base rate in one clause."""
    success = counts.wins / 1_000 / counts.trials
    return f"{features}: {share(success)} of {counted(counts.trials, 'episode')} solved"


def share(value: float) -> str:
    """A share in whole percent."""
    return f"{100 * value:.0f} %"


def interval_text(interval: Interval) -> str:
    """An interval in whole percent."""
    return f"95 % interval {100 * interval.low:.0f}–{100 * interval.high:.0f} %"
