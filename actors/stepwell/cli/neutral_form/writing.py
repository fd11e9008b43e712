"""Episodes of the model as events."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stepwell.cli.neutral_form.changes import change_event
from stepwell.cli.neutral_form.difference import corrected, with_others
from stepwell.cli.neutral_form.events import (
    DEFAULT_CONTEXT,
    DEFAULT_TASK_TYPE,
    MAX_INTEGER,
    OUTCOMES,
    JsonObject,
    NeutralStart,
)
from stepwell.model.episode import Episode
from stepwell.model.organising import OrganisingRecord
from stepwell.model.outcome import TaskOutcome, outcome_kind
from stepwell.model.start import EpisodeStart
from stepwell.model.step import EpisodeStep, ExecutionStep, StepError, StepResult, StepSuccess, StepTimeout


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What the events of an episode say beside what it is now: with what it started, the changes since with their
    numbers, and the number of its ending (0 while it is open)."""

    start: EpisodeStart
    changes: list[tuple[int, OrganisingRecord]]
    ended_seq: int = 0


def write_episode(episode: Episode, history: History | None = None) -> Iterator[JsonObject]:
    """The events of an episode, in order; an open one has no `complete`. With its `history` it starts as it did, and
    the changes since stand at their places; without, it starts as it is now."""
    if history is not None:
        start = history.start
        episode = msgspec.structs.replace(
            episode, task_description=start.task, context=start.context, metadata=start.metadata
        )
    changes = [] if history is None else list(history.changes)
    yield start_event(episode)
    for step in episode.steps:
        while changes and changes[0][0] < step.seq:
            yield change_event(episode.episode_id, changes.pop(0)[1])
        yield step_event(episode.episode_id, step)
    while changes and history is not None and changes[0][0] < history.ended_seq:
        yield change_event(episode.episode_id, changes.pop(0)[1])
    if episode.outcome is not None:
        yield complete_event(episode)
    for _seq, record in changes:
        yield change_event(episode.episode_id, record)


def start_event(episode: Episode) -> JsonObject:
    """The start event of an episode."""
    start = NeutralStart(
        episode=episode.episode_id,
        task=episode.task_description,
        context=episode.context,
        task_type=episode.task_type,
        agent=episode.agent,
        parent=episode.parent,
        thread=episode.thread,
        metadata=episode.metadata,
    )
    return corrected(write_start(start), episode.metadata)


def step_event(episode_id: str, step: EpisodeStep) -> JsonObject:
    """The step event of one step of an episode."""
    return corrected(write_step(episode_id, step, step.metadata), step.metadata)


def complete_event(episode: Episode) -> JsonObject:
    """The complete event of an episode that has ended."""
    assert episode.outcome is not None
    computed = None if episode.reward is None else episode.reward.total
    written = write_complete(
        episode.episode_id, episode.outcome, episode.outcome_metadata, computed, steps=len(episode.steps)
    )
    return corrected(written, episode.outcome_metadata)


def write_start(start: NeutralStart) -> JsonObject:
    """A start event from what the model says alone."""
    context, metadata = start.context, start.metadata
    event: JsonObject = {
        "event": "start",
        "episode": start.episode,
        "source": metadata.get("source", "stepwell"),
        "task_id": metadata.get("task_id", start.episode),
        "task": start.task,
        "domain": context.domain,
        "tags": list(context.tags),
        "agent": start.agent,
        "trial": metadata.get("trial", 0),
    }
    for name in ("language", "framework", "complexity"):
        if (value := getattr(context, name)) != getattr(DEFAULT_CONTEXT, name):
            event[name] = value
    if start.task_type != DEFAULT_TASK_TYPE:
        event["task_type"] = start.task_type
    event |= {name: value for name in ("parent", "thread") if (value := getattr(start, name)) is not None}
    return with_others(event, metadata)


def write_step(episode: str, step: ExecutionStep | EpisodeStep, metadata: JsonObject) -> JsonObject:
    """A step event from what the model says alone."""
    event: JsonObject = {
        "event": "step",
        "episode": episode,
        "step_number": step.step_number,
        "tool": step.tool,
        "action": step.action,
        "parameters": step.parameters,
        "result": _write_result(step.result),
        "latency_ms": _whole_if_whole(step.latency_ms),
        "reward": None if step.reward is None else float(step.reward),
    }
    if step.thought is not None:
        event["thought"] = step.thought
    if step.tokens_used is not None:
        event["tokens_used"] = step.tokens_used
    return with_others(event, metadata)


def _write_result(result: StepResult | None) -> JsonObject | None:
    if result is None:
        return None
    if isinstance(result, StepSuccess):
        return {"success": result.output}
    if isinstance(result, StepError):
        return {"error": result.message}
    return {"timeout" if isinstance(result, StepTimeout) else "interrupted": result.message}


def write_complete(
    episode: str, outcome: TaskOutcome, metadata: JsonObject, computed_reward: float | None, steps: int | None
) -> JsonObject:
    """A complete event from what the model says alone."""
    event: JsonObject = {
        "event": "complete",
        "episode": episode,
        "outcome": outcome_kind(outcome),
        "reward": metadata.get("reward", computed_reward),
        "steps": steps,
    }
    for name in ("outcome_label", "meta"):
        if name in metadata:
            event[name] = metadata[name]
    if detail := outcome_detail(outcome):
        event["outcome_detail"] = detail
    return with_others(event, metadata)


def outcome_detail(outcome: TaskOutcome) -> JsonObject:
    """What an outcome says beside its kind."""
    default = OUTCOMES[outcome_kind(outcome)]()
    fields = outcome.__struct_fields__
    return {name: getattr(outcome, name) for name in fields if getattr(outcome, name) != getattr(default, name)}


def _whole_if_whole(number: float | None) -> float | None:
    """Milliseconds as people write them: `5`, not `5.0`."""
    if number is None or not float(number).is_integer() or abs(number) > MAX_INTEGER:
        return number
    return int(number)
