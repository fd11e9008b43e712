"""The summary of an episode: a short account made from a template, without a language model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from stepwell.learning.concepts import UNINFORMATIVE_DOMAIN, key_concepts
from stepwell.learning.decisions import decision_places
from stepwell.learning.facts import Facts, facts_of
from stepwell.learning.text import counted, explained, first_words, name, names, remedy, sentence, shorten, span, whole
from stepwell.model.analysis import EpisodeSummary
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success
from stepwell.model.step import EpisodeStep, StepError, StepInterrupted, StepTimeout

MOST_WORDS = 200
MOST_KEY_STEPS = 5
MOST_ARTIFACTS = 5
TASK_CHARACTERS = 600
OUTCOME_CHARACTERS = 200


def summarise(episode: Episode, *, facts: Facts | None = None) -> EpisodeSummary:
    """The summary of an episode (reference system, section 1.9), whatever its outcome.

    `facts` are those of the same episode, if they are at hand.

    The parts of the text, in order: the task; its context; how many steps, with what result, in what time; the key
    steps; a decision, a recovery and the artifacts, as far as there are any; the outcome. At most 200 words, separated
    by blanks. Key steps are at most five, in order: the first, the last, the failed ones, those whose action speaks of
    a choice.

    Deviations from the reference system, and why:

    - Quotations are cut between characters as a reader sees them, never inside one: the reference system slices bytes
      and dies of multibyte text.
    - What is over 200 words is cut before the outcome, not from the end: how it ended is the last thing to leave out.
      A script without blanks has few "words", so every part has a limit of characters too.
    - Decisions are looked for in actions, as whole words, and `SELECT` alone is none. Parameters named after a method
      or an approach count there as decisions, but are more often an HTTP verb than a choice.
    - The slot for an insight names the artifacts, which is what it amounts to in the reference system.
    - A step without a result is told as such, and is not one of the failed ones.
    - Key concepts are ranked (see `concepts`). There is no slot for an embedding.
    """
    facts = facts or facts_of(episode)
    decisions = list(islice(decision_places(episode), MOST_KEY_STEPS))
    steps = [_told(episode.steps[position]) for position in _key_steps(episode, decisions)]
    outcome = sentence(_outcome(episode))
    account = " ".join(sentence(part) for part in _parts(episode, facts, steps, decisions))
    room = MOST_WORDS - len(outcome.split())
    return EpisodeSummary(
        summary_text=f"{first_words(account, room)} {outcome}",
        key_concepts=key_concepts(episode, facts),
        key_steps=steps,
    )


def _parts(episode: Episode, facts: Facts, steps: list[str], decisions: list[int]) -> Iterator[str]:
    yield f"Task: {shorten(episode.task_description, TASK_CHARACTERS) or '(no description)'}"
    context = episode.context
    domain = "" if context.domain == UNINFORMATIVE_DOMAIN else context.domain
    labels = [label for label in (context.language, context.framework, domain) if label and shorten(label)]
    if labels:
        yield f"Context: {names(labels, len(labels))}"
    yield _counts(facts)
    if steps:
        yield f"Key steps: {'; '.join(steps)}"
    if decisions:
        yield f"Decision: {shorten(episode.steps[decisions[0]].action)}"
    if facts.recoveries:
        failed, recovered = facts.recoveries[0]
        yield f"Recovery: {remedy(failed.tool, recovered.tool)}"
    if isinstance(episode.outcome, Success) and episode.outcome.artifacts:
        yield f"Produced: {names(episode.outcome.artifacts, MOST_ARTIFACTS)}"


def _counts(facts: Facts) -> str:
    results = [
        f"{count:,} {kind}"
        for count, kind in (
            (facts.succeeded, "succeeded"),
            (facts.failed, "failed"),
            (facts.steps - facts.known, "without a result"),
        )
        if count
    ]
    counts = f"{counted(facts.steps, 'step')}: {', '.join(results)}" if results else "No steps"
    return counts if facts.seconds is None else f"{counts}, in {span(facts.seconds)}"


def _key_steps(episode: Episode, decisions: list[int]) -> list[int]:
    """The positions of the key steps, in order. The last step keeps its place however many failed before it."""
    if not episode.steps:
        return []
    failed = (position for position, step in enumerate(episode.steps) if step.failed)
    ranked = chain((0, len(episode.steps) - 1), islice(failed, MOST_KEY_STEPS), decisions)
    return sorted(islice(dict.fromkeys(ranked), MOST_KEY_STEPS))


def _told(step: EpisodeStep) -> str:
    told = explained(f"Step {whole(step.step_number)}", name(step.tool))
    action = shorten(step.action)
    if action:
        told = f"{told} – {action}"
    match step.result:
        case StepError(message=message):
            return f"{told} ({explained('failed', message)})"
        case StepTimeout(message=message):
            return f"{told} ({explained('timed out', message)})"
        case StepInterrupted():
            return f"{told} (interrupted)"
        case None:
            return f"{told} (no result)"
        case _:
            return told


def _outcome(episode: Episode) -> str:
    match episode.outcome:
        case None:
            return "Not ended yet"
        case Success(verdict=text):
            line = "Ended in success"
        case PartialSuccess(verdict=text, completed=completed, failed=failed):
            line = f"Ended in partial success, with {len(completed):,} done and {len(failed):,} failed"
            line = line if completed or failed else "Ended in partial success"
        case Failure(reason=text):
            line = "Ended in failure"
        case Abstained(reason=text, stopped_at_step=step):
            line = f"Abstained at step {whole(step)}" if step > 0 else "Abstained"
        case Interrupted(reason=text, cause=cause):
            line = f"Interrupted ({name(cause)})"
    return explained(line, text, limit=OUTCOME_CHARACTERS)
