"""The salient features of an episode: what a reader would mark in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice

from stepwell.learning.decisions import decision_places
from stepwell.learning.facts import Facts
from stepwell.learning.text import counted, explained, name, names, remedy, shorten
from stepwell.model.analysis import Reflection, SalientFeatures
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, PartialSuccess, Success

MOST_DECISIONS = 10
MOST_COMBINATIONS = 5
MOST_RECOVERIES = 10
MOST_INSIGHTS = 15
COMBINATION_MIN_STEPS = 2
COMBINATION_TOOLS = 10
VERDICT_MIN_CHARACTERS = 11
MOST_ARTIFACTS = 5
_PARAMETERS = ("strategy", "approach", "method", "algorithm")


def salient_features(episode: Episode, facts: Facts, reflection: Reflection | None) -> SalientFeatures:
    """At most 10 decisions, 5 tool combinations, 10 recoveries and 15 insights (reference system, section 1.8).

    Decisions: actions that speak of a choice, text parameters named after a strategy, approach, method or algorithm,
    and what was said of the outcome (a verdict of success only if it has more than 10 characters). Combinations: runs
    of steps that succeeded, at least two, each once. Recoveries: every failed step directly followed by a success.
    Insights: those of the reflection, and the artifacts of a success.

    Deviations: quotations are cut between characters, where the reference system cuts bytes and dies of multibyte
    text; insights come from the reflection, which there does not exist yet; a failure followed by more than one success
    is one recovery and not two.
    """
    return SalientFeatures(
        critical_decisions=list(islice(_each_once(_decisions(episode)), MOST_DECISIONS)),
        tool_combinations=list(islice(_combinations(episode), MOST_COMBINATIONS)),
        error_recovery_patterns=list(islice(_each_once(_recoveries(facts)), MOST_RECOVERIES)),
        key_insights=list(islice(_insights(episode, reflection), MOST_INSIGHTS)),
    )


def _each_once(lines: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for line in lines:
        if line not in seen:
            seen.add(line)
            yield line


def _decisions(episode: Episode) -> Iterator[str]:
    for place in decision_places(episode):
        yield shorten(episode.steps[place].action)
    for step in episode.steps:
        for key, value in step.parameters.items():
            if isinstance(value, str) and any(word in key.lower() for word in _PARAMETERS):
                yield explained(name(key), value)
    match episode.outcome:
        case Success(verdict=text) | PartialSuccess(verdict=text) if len(text) >= VERDICT_MIN_CHARACTERS:
            yield explained("Outcome", text)
        case Failure(reason=text) | Abstained(reason=text):
            yield explained("Outcome", text)
        case _:
            pass


def _combinations(episode: Episode) -> Iterator[list[str]]:
    seen: set[tuple[str, ...]] = set()
    for succeeded, run in groupby(episode.steps, key=lambda step: step.succeeded):
        tools = tuple(name(step.tool) for step in islice(run, COMBINATION_TOOLS)) if succeeded else ()
        if len(tools) >= COMBINATION_MIN_STEPS and tools not in seen:
            seen.add(tools)
            yield list(tools)


def _recoveries(facts: Facts) -> Iterator[str]:
    for failed, succeeded in facts.recoveries:
        yield explained(remedy(failed.tool, succeeded.tool), failed.error_text or "")


def _insights(episode: Episode, reflection: Reflection | None) -> Iterator[str]:
    if reflection is not None:
        yield from reflection.insights
    if isinstance(episode.outcome, Success) and episode.outcome.artifacts:
        artifacts = episode.outcome.artifacts
        yield f"Produced {counted(len(artifacts), 'artifact')}: {names(artifacts, MOST_ARTIFACTS)}"
