"""What an event of the neutral form is, in the terms of the model."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.model.context import TaskContext
from stepwell.model.organising import OrganisingRecord
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome
from stepwell.model.step import ExecutionStep

JsonObject = dict[str, Any]

OUTCOMES: dict[str, type[TaskOutcome]] = {
    "success": Success,
    "partial_success": PartialSuccess,
    "failure": Failure,
    "abstained": Abstained,
    "interrupted": Interrupted,
}
"""The endings by the word that an event uses for them."""

DEFAULT_CONTEXT = TaskContext()
DEFAULT_TASK_TYPE = "other"
MAX_INTEGER = 2**53
"""Beyond it not every JSON reader keeps a whole number whole."""


class BadLine(ValueError):
    """A line that is no event of the neutral form; the message is the reason."""


class NeutralStart(msgspec.Struct, frozen=True, kw_only=True):
    """A start event: the arguments of `start_episode`. `task` is empty for a run that was recorded, which has an agent
    and nothing else."""

    episode: str
    task: str
    context: TaskContext
    task_type: str
    agent: str
    parent: str | None = None
    thread: str | None = None
    metadata: JsonObject


class NeutralStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step event."""

    episode: str
    step: ExecutionStep


class NeutralComplete(msgspec.Struct, frozen=True, kw_only=True):
    """A complete event: the arguments of `complete`."""

    episode: str
    outcome: TaskOutcome
    metadata: JsonObject


class NeutralChange(msgspec.Struct, frozen=True, kw_only=True):
    """An organise event."""

    episode: str
    record: OrganisingRecord


NeutralEvent = NeutralStart | NeutralStep | NeutralComplete | NeutralChange
