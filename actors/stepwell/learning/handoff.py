"""What the next agent should know of an episode, up to a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from stepwell.learning.facts import Facts, facts_of
from stepwell.learning.operations import operation_of
from stepwell.learning.ranking import analyse
from stepwell.learning.text import explained, name, remedy, shorten
from stepwell.model.checkpoint import Checkpoint
from stepwell.model.episode import Episode
from stepwell.model.handoff import HandoffPack
from stepwell.model.pattern import ContextPattern, DecisionPoint, ErrorRecovery, Pattern, ToolSequence
from stepwell.model.recommendation import Heuristic
from stepwell.model.step import EpisodeStep

LEARNED, SUGGESTIONS = 5, 5
"""Of patterns, and of heuristics, so many are handed over, and of suggestions so many are made."""
_WHAT_TO_DO = ToolSequence, DecisionPoint, ErrorRecovery, ContextPattern
LINES = 20
"""Of each list, the newest so many lines are kept."""
BREAK_DOWN_STEPS = 5
BREAK_DOWN_RATE = 0.5


def handoff_pack(
    episode: Episode,
    checkpoint: Checkpoint,
    patterns: Sequence[Pattern] = (),
    heuristics: Sequence[Heuristic] = (),
    *,
    not_learned: str = "",
) -> HandoffPack:
    """The pack for a checkpoint of an episode, with what others have taught: patterns of what to do, the best first,
    and heuristics. A pure function; nothing in an episode makes it fail."""
    steps = [step for step in episode.steps if step.seq < checkpoint.seq]
    facts = facts_of(msgspec.structs.replace(episode, steps=steps))
    relevant = list(patterns[:LEARNED])
    return HandoffPack(
        checkpoint=checkpoint,
        task_description=episode.task_description,
        task_type=episode.task_type,
        context=episode.context,
        agent=episode.agent,
        thread=episode.thread,
        metadata=episode.metadata,
        steps=steps,
        what_worked=_newest(_called(step) for step in steps if step.succeeded),
        what_failed=_newest(explained(_called(step), step.error_text or "") for step in steps if step.failed),
        salient_facts=_newest(_salient(facts, checkpoint)),
        suggested_next_steps=list(islice(dict.fromkeys(_suggested(steps, facts, relevant)), SUGGESTIONS)),
        relevant_patterns=relevant,
        relevant_heuristics=_that_apply(heuristics, episode.task_description),
        not_learned=not_learned,
    )


def _that_apply(heuristics: Sequence[Heuristic], task: str) -> list[Heuristic]:
    """Those whose condition shares a word with the task."""
    wanted = set(analyse(task))
    return [it for it in heuristics if not wanted.isdisjoint(analyse(it.condition))][:LEARNED]


def says_what_to_do(pattern: Pattern) -> bool:
    """Whether a pattern is of what to do, not of what to avoid."""
    return isinstance(pattern.content, _WHAT_TO_DO)


def _called(step: EpisodeStep) -> str:
    return explained(name(step.tool), step.action)


def _newest(lines: Iterable[str]) -> list[str]:
    """Each line once, where it stands last, and of these the last ones."""
    latest: dict[str, None] = {}
    for line in lines:
        latest.pop(line, None)
        latest[line] = None
    return list(latest)[-LINES:]


def _salient(facts: Facts, checkpoint: Checkpoint) -> Iterator[str]:
    for failed, succeeded in facts.recoveries:
        yield remedy(failed.tool, succeeded.tool)
    if note := shorten(checkpoint.note):
        yield note


def _suggested(steps: list[EpisodeStep], facts: Facts, relevant: Sequence[Pattern]) -> Iterator[str]:
    if steps and steps[-1].failed:
        yield f"Look first at the last step, which failed: {_called(steps[-1])}"
    rate = facts.success_rate
    if facts.steps > BREAK_DOWN_STEPS and rate is not None and rate < BREAK_DOWN_RATE:
        yield "Break the task down: fewer than half of the steps succeeded"
    done = {operation_of(step) for step in steps}
    for content in (pattern.content for pattern in relevant):
        if isinstance(content, ToolSequence):
            for operation in content.operations:
                if operation not in done:
                    yield f"Not done yet, and part of what worked elsewhere: {operation}"
        elif isinstance(content, DecisionPoint) and content.operation not in done:
            yield f"Find out with {content.operation}: {content.condition}"
