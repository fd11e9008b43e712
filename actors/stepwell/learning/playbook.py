"""A playbook: an ordered way to go about a task, put together from a recommendation with templates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from stepwell.learning.text import shorten
from stepwell.learning.wording import ERROR_SHOWN, figures_text, share
from stepwell.model.pattern import DeadEnd, DecisionPoint, ErrorRecovery, Loop, ToolSequence
from stepwell.model.recommendation import Advice, Pitfall, Playbook, PlaybookStep, Recommendation

SUCCESS_WEIGHT, CONTEXT_WEIGHT = 0.6, 0.4
CONFIDENCE_SUCCESS, CONFIDENCE_EPISODES, CONFIDENCE_SOURCES = 0.4, 0.3, 0.1
EPISODES_ENOUGH = 3
MOST_PITFALLS = 5
LIKELY, POSSIBLE = 0.7, 0.5


def playbook_of(recommendation: Recommendation, *, max_steps: int) -> Playbook | None:
    """The playbook that a recommendation makes; None if nothing in it says what to do.

    As in the reference system (section 1.20): patterns give the steps in the order of their rank; match = 0.6 x mean
    success + 0.4 x share of the patterns whose context is that of the task; confidence = 0.4 x mean success + 0.3 x
    min(episodes, 3) / 3 + 0.1 x ln(sources), at most 1.

    Deviations: the steps are the checks, then the best sequence as a whole (there, at most half of the steps, so that
    a sequence loses its end), then the remedies, which say for which error they are. A task for which nothing was
    learned has no playbook instead of an empty one. Loops and dead ends are pitfalls, and what got past a dead end is
    its mitigation. Mean success is over patterns that say what to do.
    """
    positive = [it for it in recommendation.advice if not isinstance(it.pattern.content, Loop | DeadEnd)]
    steps = _numbered(positive, max_steps)
    if not steps:
        return None
    known = [it.pattern.success for it in positive if it.pattern.success is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    in_context = sum(it.parts.context > 0 for it in recommendation.advice) / len(recommendation.advice)
    sources = len(recommendation.advice) + len(recommendation.episodes)
    confidence = (
        CONFIDENCE_SUCCESS * mean
        + CONFIDENCE_EPISODES * min(len(recommendation.episodes), EPISODES_ENOUGH) / EPISODES_ENOUGH
        + CONFIDENCE_SOURCES * math.log(sources)
    )
    return Playbook(
        recommendation_id=recommendation.id,
        task=recommendation.task,
        match=SUCCESS_WEIGHT * mean + CONTEXT_WEIGHT * in_context,
        confidence=min(1.0, confidence),
        why=_why(recommendation),
        when_to_apply=_each_once(_when(recommendation)),
        when_not_to_apply=_each_once(_when_not(recommendation)),
        steps=steps,
        pitfalls=list(_pitfalls(recommendation.advice))[:MOST_PITFALLS],
        expected=_expected(mean, known),
        pattern_ids=[it.pattern_id for it in recommendation.advice],
        episode_ids=[it.episode_id for it in recommendation.episodes],
    )


def _numbered(advice: list[Advice], max_steps: int) -> list[PlaybookStep]:
    first: list[tuple[str, str, str]] = []
    checks: list[tuple[str, str, str]] = []
    remedies: list[tuple[str, str, str]] = []
    for it in advice:
        because = figures_text(it.pattern)
        match it.pattern.content:
            case ToolSequence(operations=operations) if not first:
                first = [(f"Use '{operation}'", operation, because) for operation in operations]
            case DecisionPoint(condition=condition, operation=operation):
                checks.append((condition, operation, because))
            case ErrorRecovery(error=error, operation=operation, remedy=remedy):
                how = "change the call" if remedy == operation else f"use '{remedy}'"
                remedies.append(
                    (f"If '{operation}' fails with «{shorten(error, ERROR_SHOWN)}», {how}", remedy, because)
                )
            case _:
                pass
    planned = [*checks, *first, *remedies][:max_steps]
    return [
        PlaybookStep(order=order, action=action, tool_hint=tool, because=because)
        for order, (action, tool, because) in enumerate(planned, 1)
    ]


def _why(recommendation: Recommendation) -> str:
    solved = len(recommendation.episodes)
    rates = [
        f"{rate.features}: {share(rate.success)} of {rate.episodes:,} solved" for rate in recommendation.base_rates
    ]
    were = "similar task was" if solved == 1 else "similar tasks were"
    return "; ".join([f"{solved} {were} solved before", *rates])


def _when(recommendation: Recommendation) -> Iterator[str]:
    for it in recommendation.advice:
        match it.pattern.content:
            case ToolSequence():
                yield f"the task is in the domain {it.pattern.domain}"
            case ErrorRecovery(error=error):
                yield f"this error comes up: {shorten(error, ERROR_SHOWN)}"
            case _:
                pass


def _when_not(recommendation: Recommendation) -> Iterator[str]:
    sequences = [it.pattern.content for it in recommendation.advice if isinstance(it.pattern.content, ToolSequence)]
    for sequence in sequences[:1]:
        yield f"these are not at hand: {', '.join(dict.fromkeys(sequence.operations))}"
    for it in recommendation.advice:
        match it.pattern.content:
            case DeadEnd(error=error):
                yield f"it ends up here again: {shorten(error, ERROR_SHOWN)}"
            case _:
                pass


def _pitfalls(advice: Iterable[Advice]) -> Iterator[Pitfall]:
    for it in advice:
        if isinstance(it.pattern.content, Loop | DeadEnd):
            example = it.example
            mitigation = f"what worked instead: {example.worked}" if example is not None and example.worked else ""
            yield Pitfall(warning=it.text, reason=figures_text(it.pattern), mitigation=mitigation)


def _expected(mean: float, known: list[float]) -> str:
    if not known:
        return "nothing is known yet of how such tasks end"
    if mean > LIKELY:
        return f"success is likely ({share(mean)} of the tasks behind this were solved)"
    if mean > POSSIBLE:
        return f"success is possible ({share(mean)} of the tasks behind this were solved)"
    return f"success is not likely ({share(mean)} of the tasks behind this were solved): check the result"


def _each_once(lines: Iterable[str]) -> list[str]:
    return sorted(set(lines))
