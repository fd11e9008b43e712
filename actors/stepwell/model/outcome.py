"""How an episode can end."""

from __future__ import annotations

import msgspec


class Success(msgspec.Struct, frozen=True, tag="success", tag_field="kind"):
    """The task was done. `verdict` says so in words, `artifacts` names what was produced."""

    verdict: str = ""
    artifacts: list[str] = []


class PartialSuccess(msgspec.Struct, frozen=True, tag="partial_success", tag_field="kind"):
    """Some of the task was done: the subtasks `completed`, and those that `failed`."""

    verdict: str = ""
    completed: list[str] = []
    failed: list[str] = []


class Failure(msgspec.Struct, frozen=True, tag="failure", tag_field="kind"):
    """The task was not done, for `reason`."""

    reason: str = ""
    error_details: str | None = None


class Abstained(msgspec.Struct, frozen=True, tag="abstained", tag_field="kind"):
    """The agent judged the task infeasible and stopped, at step number `stopped_at_step`."""

    reason: str = ""
    stopped_at_step: int = 0
    infeasibility_signals: list[str] = []


class Interrupted(msgspec.Struct, frozen=True, tag="interrupted", tag_field="kind"):
    """The run was cut off from outside (`cause`: "cancelled" or "abandoned"). It has no reward and is no evidence."""

    reason: str = ""
    cause: str = "cancelled"


TaskOutcome = Success | PartialSuccess | Failure | Abstained | Interrupted


def outcome_kind(outcome: TaskOutcome) -> str:
    """The kind of an outcome as one word: success, partial_success, failure, abstained or interrupted."""
    kind = outcome.__struct_config__.tag
    assert isinstance(kind, str)
    return kind
