"""What was noticed in an episode, as lines for a person or a prompt."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.learning.facts import Facts
from stepwell.learning.text import counted, explained, known_steps, name, names, percent, remedy, span
from stepwell.model.context import Complexity
from stepwell.model.episode import Episode
from stepwell.model.outcome import PartialSuccess, Success

MIN_STEPS = 2
RELIABLE_RATE = 0.8
UNRELIABLE_RATE = 0.5
BROAD_TOOLS = 6
SINGLE_TOOL_MIN_STEPS = 4
SLOW_MEAN_MS = 5_000.0
EXPECTED_STEPS: dict[Complexity, int] = {"simple": 5, "moderate": 15, "complex": 30}
QUICK_SECONDS = 120.0
TOOLS_ADVISED = 3


def insights(episode: Episode, facts: Facts, patterns: int = 0) -> Iterator[str]:
    """The lines, most basic first; none for less than two steps."""
    if facts.steps >= MIN_STEPS:
        yield from _basic(episode, facts)
        yield from _contextual(episode, facts, patterns)


def _basic(episode: Episode, facts: Facts) -> Iterator[str]:
    yield from _reliability(facts)
    if facts.recoveries:
        yield f"Recovered from a failure with '{name(facts.recoveries[0][1].tool)}'"
    context = episode.context
    yield f"A {context.complexity} task in the {name(context.domain)} domain"
    if len(facts.tools) >= BROAD_TOOLS:
        yield f"The task needed a broad set of tools ({len(facts.tools):,})"
    elif len(facts.tools) == 1 and facts.steps >= SINGLE_TOOL_MIN_STEPS:
        yield f"One tool, '{name(next(iter(facts.tools)))}', did all the steps: a candidate for automation"
    mean = facts.mean_latency
    if mean is not None and mean > SLOW_MEAN_MS:
        yield f"Slow steps: {span(mean / 1000)} on average"


def _reliability(facts: Facts) -> Iterator[str]:
    if facts.success_rate is None:
        return
    steps = known_steps(facts.known, facts.steps)
    share = percent(facts.succeeded, facts.known)
    if facts.failed == 0:
        yield f"Reliable: all {steps} succeeded"
    elif facts.success_rate >= RELIABLE_RATE:
        yield f"Mostly reliable: {facts.succeeded:,} of {steps} succeeded ({share})"
    elif facts.success_rate < UNRELIABLE_RATE:
        yield f"Unreliable: only {facts.succeeded:,} of {steps} succeeded ({share})"


def _contextual(episode: Episode, facts: Facts, patterns: int) -> Iterator[str]:
    complexity = episode.context.complexity
    expected = EXPECTED_STEPS[complexity]
    if 2 * facts.steps < expected:
        yield f"Fewer steps than a {complexity} task usually takes: {facts.steps} against about {expected}"
    elif facts.steps > 2 * expected:
        yield f"More steps than a {complexity} task usually takes: {facts.steps:,} against about {expected}"
    if facts.recoveries:
        failed, recovered = facts.recoveries[0]
        yield explained(f"Worth remembering: {remedy(failed.tool, recovered.tool)}", failed.error_text or "")
    elif patterns:
        yield f"Worth remembering: {counted(patterns, 'pattern')} to compare with other episodes"
    yield from _advice(episode, facts)


def _advice(episode: Episode, facts: Facts) -> Iterator[str]:
    if facts.success_rate is not None and facts.seconds is not None:
        share = percent(facts.succeeded, facts.known)
        if facts.success_rate < UNRELIABLE_RATE:
            yield f"Try another strategy next time: a success rate of {share} is low"
        elif (
            facts.success_rate > RELIABLE_RATE
            and facts.seconds < QUICK_SECONDS
            and isinstance(episode.outcome, Success | PartialSuccess)
        ):
            yield f"A strategy to repeat: a success rate of {share} in {span(facts.seconds)}"
    if isinstance(episode.outcome, Success) and facts.succeeded_tools:
        yield f"For similar tasks, start with {names(_proven_tools(facts)[:TOOLS_ADVISED], TOOLS_ADVISED)}"


def _proven_tools(facts: Facts) -> list[str]:
    """The tools that succeeded, the most used first, in order of first appearance among equals."""
    counts: dict[str, int] = {}
    for tool in facts.succeeded_tools:
        counts[tool] = counts.get(tool, 0) + 1
    return sorted(counts, key=lambda tool: -counts[tool])
