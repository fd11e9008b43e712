"""The patterns that one episode shows. What they are worth is told by many episodes, see `accumulation`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, islice

from stepwell.learning.concepts import UNINFORMATIVE_DOMAIN
from stepwell.learning.operations import error_of, general_error, operation_of, same_call, sentence_of
from stepwell.learning.text import shorten
from stepwell.model.context import TaskContext
from stepwell.model.episode import Episode
from stepwell.model.outcome import Failure, Interrupted, PartialSuccess, Success, TaskOutcome
from stepwell.model.pattern import (
    WHOLE,
    ContextPattern,
    Counts,
    DeadEnd,
    DecisionPoint,
    ErrorRecovery,
    Loop,
    PatternContent,
    Sighting,
    ToolSequence,
)
from stepwell.model.step import EpisodeStep

EXTRACTOR_VERSION = 2
"""Changes with anything that this module finds; what was learned by another version is learned again."""
MOST_OF_A_KIND = 20
"""So many different patterns of one kind are taken from one episode: a broken agent that fails in a thousand ways does
not make a thousand patterns."""
SEQUENCE_OPERATIONS = 5
SEQUENCE_MIN_OPERATIONS = 2
MOST_ERRORS = 64
MOST_DECISIONS = 200
"""So many different error texts, and so many decisions, of one episode are looked at, the first ones."""
RUN_ERRORS = 4
"""A success is the remedy of at most so many different errors before it, the nearest ones."""
TAGS = 8
SEQS_KEPT = 12
CONDITION_CHARACTERS = 120
LABEL_CHARACTERS = 100
_SCANNED_CHARACTERS = 400
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_DECISION = re.compile(
    r"\b(?:if|when|whether|check(?:s|ed|ing)?|verif(?:y|ies|ied|ying)|validat(?:e|es|ed|ing)|ensur(?:e|es|ed|ing)|"
    r"determin(?:e|es|ed|ing)|decid(?:e|es|ed|ing))\b"
)


def success_of(outcome: TaskOutcome | None) -> int | None:
    """How far a task was done, in thousandths; None where its outcome tells nothing of the way it was gone.

    Success 1,000, failure 0, a partial success its completed share (500 if it names no subtasks). An interrupted run
    was cut off from outside, and one who abstained did not try: neither says anything about what was tried.
    """
    match outcome:
        case Success():
            return WHOLE
        case Failure():
            return 0
        case PartialSuccess(completed=completed, failed=failed):
            named = len(completed) + len(failed)
            return WHOLE * len(completed) // named if named else WHOLE // 2
        case _:
            return None


def extract(episode: Episode) -> list[Sighting]:
    """The patterns of an ended episode, each content once; none while it is open, or if it was interrupted.

    A pure function of the episode; nothing in it makes it fail. See docs/learning.md for what each kind is and where
    it differs from the reference system (section 1.10).
    """
    if episode.outcome is None or isinstance(episode.outcome, Interrupted):
        return []
    walk = _Walk(episode.steps)
    found: list[Sighting] = []
    found.extend(_sequence(walk))
    found.extend(islice(_decisions(walk), MOST_OF_A_KIND))
    found.extend(islice(walk.recoveries.sightings(), MOST_OF_A_KIND))
    found.extend(islice(_contexts(episode), MOST_OF_A_KIND))
    found.extend(islice(walk.loops.sightings(), MOST_OF_A_KIND))
    found.extend(islice(walk.obstacles(), MOST_OF_A_KIND))
    return found


def lessons(sightings: list[Sighting]) -> int:
    """How many of the patterns of an episode say what to do: sequences, decisions and recoveries. These are what the
    reward counts (reference system, section 1.5): a base rate or a loop is no merit."""
    seen = {
        (type(it.content), it.content.remedy if isinstance(it.content, ErrorRecovery) else it.content)
        for it in sightings
        if isinstance(it.content, ToolSequence | DecisionPoint | ErrorRecovery)
    }
    return len(seen)


def counts_of(sighting: Sighting, success: int | None, ended_ns: int) -> Counts:
    """What one episode adds to the counts of a pattern."""
    return Counts(
        episodes=1,
        trials=int(success is not None),
        wins=success or 0,
        occurrences=sighting.occurrences,
        ok=sighting.ok,
        failed=sighting.failed,
        first_ns=ended_ns,
        last_ns=ended_ns,
    )


class _Tally:
    """Sightings under construction, in order of first appearance."""

    def __init__(self) -> None:
        self._found: dict[PatternContent, tuple[list[int], list[int]]] = {}

    def add(self, content: PatternContent, seqs: tuple[int, ...], *, ok: int = 0, failed: int = 0) -> None:
        counts, kept = self._found.setdefault(content, ([0, 0, 0], []))
        counts[0] += 1
        counts[1] += ok
        counts[2] += failed
        if len(kept) + len(seqs) <= SEQS_KEPT:
            kept.extend(seq for seq in seqs if seq not in kept)

    def sightings(self) -> Iterator[Sighting]:
        for content, (counts, seqs) in self._found.items():
            occurrences, ok, failed = counts
            yield Sighting(content, occurrences, ok, failed, tuple(seqs))


class _Walk:
    """One pass over the steps: what each is, what it failed with, what helped, what was repeated."""

    def __init__(self, steps: list[EpisodeStep]):
        self.steps = steps
        self.recoveries, self.loops = _Tally(), _Tally()
        self._met: dict[DeadEnd, list[int]] = {}  # occurrences, place and seq of the last one
        self._last_success = -1
        self._run: dict[tuple[str, str], int] = {}
        self._errors: dict[str, str] = {}
        before: EpisodeStep | None = None
        for place, step in enumerate(steps):
            if step.failed:
                self._failed(place, step, before)
            elif step.succeeded:
                self._succeeded(place, step)
            else:
                self._run.clear()  # it is not known what came of this one: what follows is the remedy of nothing
            before = step

    def _failed(self, place: int, step: EpisodeStep, before: EpisodeStep | None) -> None:
        text = step.error_text or ""
        error = self._errors.get(text)
        if error is None:
            if len(self._errors) >= MOST_ERRORS:
                self._run.clear()  # what succeeds next is the remedy of this one
                return
            error = self._errors[text] = error_of(text)
        operation = operation_of(step)
        if before is not None and before.failed and same_call(before, step):
            self.loops.add(Loop(operation, general_error(error)), (before.seq, step.seq), failed=1)
        met = self._met.setdefault(DeadEnd(operation, error), [0, 0, 0])
        met[0] += 1
        met[1], met[2] = place, step.seq
        self._run.pop((operation, error), None)  # the nearest ones are kept
        self._run[operation, error] = step.seq

    def _succeeded(self, place: int, step: EpisodeStep) -> None:
        self._last_success = place
        if not self._run:
            return
        remedy = operation_of(step)
        general: dict[ErrorRecovery, int] = {}
        for (operation, error), seq in list(self._run.items())[-RUN_ERRORS:]:
            self.recoveries.add(ErrorRecovery(error, operation, remedy), (seq, step.seq), ok=1)
            if (wide := general_error(error)) != error:
                general[ErrorRecovery(wide, operation, remedy)] = seq
        for content, seq in general.items():
            self.recoveries.add(content, (seq, step.seq), ok=1)
        self._run.clear()

    def obstacles(self) -> Iterator[Sighting]:
        for content, (occurrences, place, seq) in self._met.items():
            passed = place < self._last_success
            yield Sighting(content, occurrences, int(passed), int(not passed), (seq,))


def _sequence(walk: _Walk) -> Iterator[Sighting]:
    succeeded = ((operation_of(step), step.seq) for step in walk.steps if step.succeeded)
    runs = ((operation, next(group)[1]) for operation, group in groupby(succeeded, key=lambda item: item[0]))
    first = list(islice(runs, SEQUENCE_OPERATIONS))
    if len(first) >= SEQUENCE_MIN_OPERATIONS:
        ok = sum(step.succeeded for step in walk.steps)
        failed = sum(step.failed for step in walk.steps)
        operations = tuple(operation for operation, _seq in first)
        yield Sighting(ToolSequence(operations), 1, ok, failed, tuple(seq for _operation, seq in first))


def _decisions(walk: _Walk) -> Iterator[Sighting]:
    tally = _Tally()
    for place in islice(_decision_places(walk.steps), MOST_DECISIONS):
        step = walk.steps[place]
        condition = sentence_of(step.action, CONDITION_CHARACTERS)
        following = walk.steps[place + 1] if place + 1 < len(walk.steps) else None
        then = operation_of(following) if following is not None else ""
        content = DecisionPoint(condition, operation_of(step), then)
        tally.add(content, (step.seq,), ok=int(step.succeeded), failed=int(step.failed))
    yield from tally.sightings()


def _decision_places(steps: list[EpisodeStep]) -> Iterator[int]:
    for place, step in enumerate(steps):
        # A lone "check" says nothing of what is checked.
        if " " in step.action and _is_decision(step.action[:_SCANNED_CHARACTERS]):
            yield place


@lru_cache(maxsize=4_096)
def _is_decision(action: str) -> bool:
    return _DECISION.search(action.lower()) is not None


def _contexts(episode: Episode) -> Iterator[Sighting]:
    base, *tagged, whole = context_patterns(episode.context, episode.task_type)
    yield Sighting(base)
    yield from map(Sighting, tagged)
    yield Sighting(whole)


def domain_of(context: TaskContext) -> str:
    """The domain that the patterns of an episode belong to."""
    return label(context.domain) or UNINFORMATIVE_DOMAIN


def context_patterns(context: TaskContext, task_type: str) -> list[ContextPattern]:
    """The kinds of task that a context is one of: its domain alone, the domain with each tag, and all of it."""
    domain = f"domain:{domain_of(context)}"
    tags = dict.fromkeys(filter(None, (label(tag).casefold() for tag in context.tags[:TAGS])))
    features = [f"language:{label(context.language)}"] if context.language else []
    features += [f"framework:{label(context.framework)}"] if context.framework else []
    features += [domain, f"complexity:{context.complexity}"]
    return [
        ContextPattern((domain,)),
        *(ContextPattern((domain, f"tag:{tag}")) for tag in tags),
        ContextPattern(tuple(features), label(task_type) or "other"),
    ]


def label(text: str) -> str:
    """A name that somebody gave, as it stands in patterns."""
    return _shortened(text[:_SCANNED_CHARACTERS])


@lru_cache(maxsize=4_096)
def _shortened(text: str) -> str:
    return shorten(text, LABEL_CHARACTERS)


def ended_ns(episode: Episode) -> int:
    """When an ended episode ended, in nanoseconds since 1970, to the microsecond."""
    assert episode.end_time is not None
    return (episode.end_time - _EPOCH) // dt.timedelta(microseconds=1) * 1_000
