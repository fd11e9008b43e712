"""What to do better after an episode, as lines for a person or a prompt."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.learning.facts import Facts, most_frequent
from stepwell.learning.text import counted, explained, name, names, span
from stepwell.model.episode import Episode
from stepwell.model.outcome import Failure, PartialSuccess

REPEATED_FAILURES = 2
REPEATED_ERRORS = 2
LONG_SECONDS = 300.0
MANY_STEPS = 50
BOTTLENECK_TIMES_MEAN = 3.0
BOTTLENECK_MS = 1_000.0
REPETITIVE_CALLS = 5
MANY_FAILED_STEPS = 3
PARALLEL_MIN_STEPS = 4
PARALLEL_MIN_REPEATS = 2
MANY_TOKENS = 10_000
NAMES_SHOWN = 3


def improvements(episode: Episode, facts: Facts) -> Iterator[str]:
    """The lines, most basic first."""
    basic = list(_basic(episode, facts))
    if not basic and isinstance(episode.outcome, Failure | PartialSuccess):
        basic.append("Review the approach: no step shows why the task was not done in full")
    yield from basic
    yield from _advanced(facts)


def _basic(episode: Episode, facts: Facts) -> Iterator[str]:
    match episode.outcome:
        case Failure(reason=reason):
            yield explained("Task failed", reason)
        case PartialSuccess(failed=failed) if failed:
            yield f"{counted(len(failed), 'subtask')} failed: {names(failed, NAMES_SHOWN)}"
        case _:
            pass
    if facts.failed:
        yield f"Reduce failed steps: {facts.failed:,} of {counted(facts.steps, 'step')} failed"
    tool, failures = most_frequent(facts.failed_tools)
    if failures >= REPEATED_FAILURES:
        yield f"Look into '{name(tool)}', which failed {counted(failures, 'time')}"
    if facts.seconds is not None and facts.seconds > LONG_SECONDS:
        yield f"Save time: this took {span(facts.seconds)}"
    if facts.steps > MANY_STEPS:
        yield f"Look for a shorter path: this took {counted(facts.steps, 'step')}"
    error, times = most_frequent(facts.errors)
    if times >= REPEATED_ERRORS:
        yield explained(f"Same error {counted(times, 'time')}", error)
    if facts.loops:
        yield f"Change a call that failed before making it again: {counted(facts.loops, 'step')} did not"


def _advanced(facts: Facts) -> Iterator[str]:
    yield from _bottleneck(facts)
    tool, calls = most_frequent(facts.tools)
    if calls >= REPETITIVE_CALLS:
        yield f"'{name(tool)}' was called {counted(calls, 'time')}; batching or another approach may need fewer calls"
    if facts.failed >= MANY_FAILED_STEPS:
        if len(facts.failed_tools) == 1:
            tool, failures = most_frequent(facts.failed_tools)
            yield f"Systematic trouble with '{name(tool)}': all {failures:,} failures are its own; check its setup"
        else:
            tools = names(list(facts.failed_tools), NAMES_SHOWN)
            count = counted(len(facts.failed_tools), "tool")
            yield f"Failures in {count} ({tools}); check what the approach takes for granted"
    if facts.steps >= PARALLEL_MIN_STEPS and facts.repeats >= PARALLEL_MIN_REPEATS:
        yield "Calls of the same tool follow each other; they might run in parallel"
    if facts.tokens > MANY_TOKENS:
        yield f"High token use: {facts.tokens:,.0f}; narrower prompts or caching may need fewer"


def _bottleneck(facts: Facts) -> Iterator[str]:
    mean = facts.mean_latency
    if mean is None:
        return
    step, slowest = max(facts.latencies, key=lambda item: item[1])
    if slowest > BOTTLENECK_TIMES_MEAN * mean and slowest > BOTTLENECK_MS:
        yield f"Bottleneck: '{name(step.tool)}' took {span(slowest / 1000)}, {slowest / mean:,.1f} times the mean"
