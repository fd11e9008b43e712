"""What one step of an agent is: the tool call as the caller describes it, and as it stands in an episode."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

# Steps of an episode come by the thousand, so the garbage collector does not look at them (gc=False): that is a tenth
# of the time of reading one. It is safe as long as nobody puts a step into its own parameters.


class StepSuccess(msgspec.Struct, frozen=True, tag="success", tag_field="status", gc=False):
    """The tool answered. `output` is any JSON value, usually text."""

    output: Any = ""


class StepError(msgspec.Struct, frozen=True, tag="error", tag_field="status"):
    """The tool failed with `message`."""

    message: str


class StepTimeout(msgspec.Struct, frozen=True, tag="timeout", tag_field="status"):
    """The tool did not answer before its deadline."""

    message: str = ""


class StepInterrupted(msgspec.Struct, frozen=True, tag="interrupted", tag_field="status"):
    """The step was cancelled from outside before it ended; it says nothing about the tool."""

    message: str = ""


StepResult = StepSuccess | StepError | StepTimeout | StepInterrupted


class ExecutionStep(msgspec.Struct, frozen=True):
    """One step as the caller logs it.

    `tool` is the name of what was called and must not be empty; `action` says in words what it was called for.
    `parameters` and `metadata` are JSON objects. `latency_ms` is in milliseconds, `reward` a number the environment
    gave. `key` makes a resubmit of the same step return the first receipt. `step_number` is the caller's own number,
    kept as a label; the order of an episode is `seq`, which the memory assigns.
    """

    tool: str
    action: str = ""
    parameters: dict[str, Any] = {}
    result: StepResult | None = None
    latency_ms: float | None = None
    tokens_used: int | None = None
    reward: float | None = None
    thought: str | None = None
    metadata: dict[str, Any] = {}
    key: str | None = None
    step_number: int | None = None


class EpisodeStep(msgspec.Struct, frozen=True, gc=False):
    """One step as it stands in an episode: what the caller logged, and what the memory knows of it.

    `seq` is the record's number in the episode's stream (1 is the start, so the first step is usually 2).
    `step_number` counts steps from 1 unless the caller gave a number of its own. `timestamp` is UTC and never goes
    back within an episode.
    """

    seq: int
    step_number: int
    timestamp: dt.datetime
    time_ns: int
    tool: str
    action: str
    parameters: dict[str, Any]
    result: StepResult | None
    latency_ms: float | None
    tokens_used: int | None
    reward: float | None
    thought: str | None
    metadata: dict[str, Any]
    key: str | None

    @property
    def succeeded(self) -> bool:
        """Whether the tool answered."""
        return isinstance(self.result, StepSuccess)

    @property
    def failed(self) -> bool:
        """Whether the tool failed or timed out. A step without a result, or an interrupted one, did neither."""
        return isinstance(self.result, StepError | StepTimeout)

    @property
    def error_text(self) -> str | None:
        """The error message of a failed step, None otherwise."""
        if isinstance(self.result, StepError):
            return self.result.message
        if isinstance(self.result, StepTimeout):
            return self.result.message or "timeout"
        return None
