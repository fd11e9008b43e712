"""Events as the model has them."""

from __future__ import annotations

import msgspec

from stepwell.cli.neutral_form.changes import read_change
from stepwell.cli.neutral_form.difference import KEPT_APART, same, with_difference
from stepwell.cli.neutral_form.events import (
    DEFAULT_CONTEXT,
    DEFAULT_TASK_TYPE,
    MAX_INTEGER,
    OUTCOMES,
    BadLine,
    JsonObject,
    NeutralComplete,
    NeutralEvent,
    NeutralStart,
    NeutralStep,
)
from stepwell.cli.neutral_form.fields import Fields, is_id, kind_of, shown
from stepwell.cli.neutral_form.writing import outcome_detail, write_complete, write_start, write_step
from stepwell.model.context import TaskContext
from stepwell.model.outcome import TaskOutcome
from stepwell.model.step import ExecutionStep, StepError, StepInterrupted, StepResult, StepSuccess, StepTimeout

_COUNTED = object()  # a number that the memory will give; not known while reading, and like no value of an event


def read(event: JsonObject) -> NeutralEvent:
    """An event of the neutral form as the model has it.

    Raises:
        BadLine: it is none; the message names the field.
    """
    if "event" not in event:
        raise BadLine('no "event" field: not an event line')
    kind = event["event"]
    if kind == "start":
        return _read_start(event)
    if kind == "step":
        return _read_step(event)
    if kind == "complete":
        return _read_complete(event)
    if kind == "organise":
        return read_change(event)
    raise BadLine(f'event: "start", "step" or "complete" is wanted, not {shown(kind)}')


def _read_start(event: JsonObject) -> NeutralStart:
    rest = Fields(event)
    episode, agent = rest.text("episode", required=True), rest.text("agent")
    task = rest.text("task", required=not _is_start_of_run(event))
    # The model trims tags and has no empty ones; where that changes something the difference keeps the original.
    tags = [tag.strip() for tag in rest.texts("tags") if tag.strip()]
    known: JsonObject = {"domain": rest.text("domain", default=DEFAULT_CONTEXT.domain), "tags": tags}
    for name in ("language", "framework"):
        if isinstance(event.get(name), str):
            known[name] = rest.take(name)
    if event.get("complexity") in ("simple", "moderate", "complex"):
        known["complexity"] = rest.take("complexity")
    task_type = rest.take("task_type") if isinstance(event.get("task_type"), str) and event["task_type"] else None
    parent, thread = (rest.take(name) if is_id(event.get(name)) else None for name in ("parent", "thread"))
    start = NeutralStart(
        episode=episode,
        task=task,
        context=TaskContext(**known),
        task_type=task_type or DEFAULT_TASK_TYPE,
        agent=agent,
        parent=parent,
        thread=thread,
        metadata=rest.others(),
    )
    written = write_start(start)
    return msgspec.structs.replace(start, metadata=with_difference(start.metadata, event, written))


def _is_start_of_run(event: JsonObject) -> bool:
    """Whether an event is the start of a run whose events were recorded, as an export writes it: it has no task, and
    says nothing but the agent."""
    run = NeutralStart(
        episode=event.get("episode", ""),
        task="",
        context=DEFAULT_CONTEXT,
        task_type=DEFAULT_TASK_TYPE,
        agent=event.get("agent", ""),
        metadata={},
    )
    return same(event, write_start(run))


def _read_step(event: JsonObject) -> NeutralStep:
    rest = Fields(event)
    episode = rest.text("episode", required=True)
    tokens = event.get("tokens_used")
    step = ExecutionStep(
        tool=rest.text("tool", required=True),
        action=rest.text("action"),
        parameters=rest.mapping("parameters"),
        result=_read_result(rest.take("result")),
        latency_ms=rest.number("latency_ms", least=0),
        tokens_used=rest.take("tokens_used") if type(tokens) is int and 0 <= tokens <= MAX_INTEGER else None,
        reward=rest.number("reward"),
        thought=rest.optional_text("thought"),
        metadata={},
        step_number=rest.integer("step_number", least=1),
    )
    metadata = rest.others()
    written = write_step(episode, step, metadata)
    if step.step_number is None:
        written["step_number"] = _COUNTED
    metadata = with_difference(metadata, event, written)
    return NeutralStep(episode=episode, step=msgspec.structs.replace(step, metadata=metadata))


def _read_result(result: object) -> StepResult | None:
    if result is None:
        return None
    if not isinstance(result, dict) or len(result) != 1:
        raise BadLine('result: {"success": …} or {"error": text} is wanted, not ' + shown(result))
    ((status, value),) = result.items()
    if status == "success":
        return StepSuccess(value)
    classes: dict[str, type[StepError | StepTimeout | StepInterrupted]] = {
        "error": StepError,
        "timeout": StepTimeout,
        "interrupted": StepInterrupted,
    }
    if status not in classes:
        raise BadLine(f'result: "success" or "error" is wanted, not {shown(status)}')
    if not isinstance(value, str):
        raise BadLine(f"result.{status}: text is wanted, not {kind_of(value)}")
    return classes[status](value)


def _read_complete(event: JsonObject) -> NeutralComplete:
    rest = Fields(event)
    episode, kind = rest.text("episode", required=True), rest.text("outcome", required=True)
    if kind not in OUTCOMES:
        raise BadLine(f'outcome: "success" or "failure" is wanted, not {shown(kind)}')
    if "reward" in event:
        rest.number("reward")
    count = rest.integer("steps", least=0)
    if not isinstance(event.get("meta", {}), dict | None):
        raise BadLine(f"meta: an object is wanted, not {kind_of(event['meta'])}")
    if not isinstance(event.get("outcome_label", ""), str | None):
        raise BadLine(f"outcome_label: text is wanted, not {kind_of(event['outcome_label'])}")
    outcome: TaskOutcome = OUTCOMES[kind]()
    if (detailed := _outcome_from_detail(kind, event.get("outcome_detail"))) is not None:
        outcome = detailed
        rest.take("outcome_detail")
    metadata = rest.others()
    if "reward" in event:
        metadata["reward"] = event["reward"]
    written = write_complete(episode, outcome, metadata, computed_reward=None, steps=count)
    if count is None:
        written["steps"] = _COUNTED
    return NeutralComplete(episode=episode, outcome=outcome, metadata=with_difference(metadata, event, written))


def with_step_count(event: JsonObject, complete: NeutralComplete, stored: int) -> NeutralComplete:
    """A complete event of an episode that holds `stored` steps, which may not be the number that the event says."""
    if event.get("steps") in (stored, None):
        return complete
    difference = complete.metadata.get(KEPT_APART, {})
    values = {**difference.get("values", {}), "steps": event["steps"]}
    metadata = {**complete.metadata, KEPT_APART: {**difference, "values": values}}
    return msgspec.structs.replace(complete, metadata=metadata)


def _outcome_from_detail(kind: str, detail: object) -> TaskOutcome | None:
    """The outcome that `outcome_detail` describes in the way in which we write it, None if it is something else."""
    if not isinstance(detail, dict) or "kind" in detail:
        return None
    try:
        outcome = msgspec.convert(detail, OUTCOMES[kind])
    except msgspec.ValidationError:
        return None
    return outcome if outcome_detail(outcome) == detail else None
