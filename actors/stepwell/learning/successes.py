"""What went well in an episode, as lines for a person or a prompt."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.learning.facts import Facts
from stepwell.learning.text import counted, explained, known_steps, name, names, percent, span
from stepwell.model.episode import Episode
from stepwell.model.outcome import PartialSuccess, Success

HIGH_SUCCESS_RATE = 0.8
SMOOTH_SUCCESS_RATE = 0.9
SEQUENCE_TOOLS = 3
REFINEMENT_RECOVERIES = 2
FAMILIAR_MIN_SUCCEEDED = 6
QUICK_SECONDS = 30.0
EFFICIENT_SECONDS = 60.0
EFFICIENT_MAX_STEPS = 14
SHORT_PATH_SECONDS = 120.0
SHORT_PATH_MAX_STEPS = 4
FEW_TOKENS = 1_000
NAMES_SHOWN = 3


def successes(episode: Episode, facts: Facts) -> Iterator[str]:
    """The lines, most basic first."""
    yield from _basic(episode, facts)
    if _achieved(episode) and facts.steps:
        yield from _advanced(episode, facts)


def _achieved(episode: Episode) -> bool:
    return isinstance(episode.outcome, Success | PartialSuccess)


def _basic(episode: Episode, facts: Facts) -> Iterator[str]:
    match episode.outcome:
        case Success(verdict=verdict, artifacts=artifacts):
            yield explained("Task done", verdict)
            if artifacts:
                yield f"Produced {counted(len(artifacts), 'artifact')}: {names(artifacts, NAMES_SHOWN)}"
        case PartialSuccess(verdict=verdict, completed=completed):
            yield explained("Task partly done", verdict)
            if completed:
                yield f"Completed {counted(len(completed), 'subtask')}: {names(completed, NAMES_SHOWN)}"
        case _:
            pass
    if facts.success_rate is not None and facts.success_rate >= HIGH_SUCCESS_RATE:
        share = percent(facts.succeeded, facts.known)
        steps = known_steps(facts.known, facts.steps)
        yield f"High success rate: {facts.succeeded:,} of {steps} succeeded ({share})"
    if len(facts.succeeded_tools) >= SEQUENCE_TOOLS:
        sequence = " → ".join(name(tool) for tool in facts.succeeded_tools[:SEQUENCE_TOOLS])
        yield f"Tools that worked, in this order: {sequence}"
    if facts.seconds is not None and facts.seconds < QUICK_SECONDS and facts.steps and _achieved(episode):
        yield f"Finished quickly, in {span(facts.seconds)}"


def _advanced(episode: Episode, facts: Facts) -> Iterator[str]:
    yield from _strategy(facts)
    if facts.success_rate is not None and facts.success_rate > SMOOTH_SUCCESS_RATE:
        yield "Smooth flow: hardly a step failed"
    elif len(facts.recoveries) >= REFINEMENT_RECOVERIES:
        yield f"Iterative refinement: a failure was followed by a success {counted(len(facts.recoveries), 'time')}"
    language, tags = episode.context.language, episode.context.tags
    if language and facts.succeeded >= FAMILIAR_MIN_SUCCEEDED:
        yield f"At home with {name(language)} in the {name(episode.context.domain)} domain"
    elif tags:
        yield f"Knowledge that applied: {names(tags, NAMES_SHOWN)}"
    if facts.seconds is not None:
        if facts.seconds < EFFICIENT_SECONDS and facts.steps <= EFFICIENT_MAX_STEPS:
            yield f"Efficient: {counted(facts.steps, 'step')} in {span(facts.seconds)}"
        elif facts.seconds < SHORT_PATH_SECONDS and facts.steps <= SHORT_PATH_MAX_STEPS:
            yield f"Short path: {counted(facts.steps, 'step')} sufficed"
    if 0 < facts.tokens < FEW_TOKENS:
        yield f"Sparing with tokens: {facts.tokens:,.0f} in all"


def _strategy(facts: Facts) -> Iterator[str]:
    if facts.succeeded < SEQUENCE_TOOLS:
        return
    distinct = list(dict.fromkeys(facts.succeeded_tools))
    shown = names(distinct, NAMES_SHOWN)
    if len(distinct) == facts.succeeded:
        yield f"Diverse strategy: {counted(len(distinct), 'tool')}, each used once with success ({shown})"
    else:
        steps = counted(facts.succeeded, "successful step")
        yield f"Focused strategy: {steps} with {counted(len(distinct), 'tool')} ({shown})"
