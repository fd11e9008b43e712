"""Episodes for the tests of the completion analysis."""

from __future__ import annotations

import datetime as dt
from typing import Any

from stepwell.model.context import Complexity, TaskContext
from stepwell.model.episode import Episode
from stepwell.model.outcome import Success, TaskOutcome
from stepwell.model.step import EpisodeStep, StepError, StepInterrupted, StepResult, StepSuccess, StepTimeout

START = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
OK = StepSuccess("fine")
BAD = StepError("boom")
LATE = StepTimeout()
CUT = StepInterrupted()
DONE = Success()


def step(
    result: StepResult | None = OK,
    tool: str = "tool",
    *,
    action: str = "",
    latency_ms: float | None = None,
    tokens_used: int | None = None,
    step_number: int = 1,
) -> EpisodeStep:
    """A step with that result; `episode` gives it its place."""
    return EpisodeStep(
        seq=2,
        step_number=step_number,
        timestamp=START,
        time_ns=0,
        tool=tool,
        action=action,
        parameters={},
        result=result,
        latency_ms=latency_ms,
        tokens_used=tokens_used,
        reward=None,
        thought=None,
        metadata={},
        key=None,
    )


def steps_of(*results: StepResult | None) -> list[EpisodeStep]:
    """Steps of one tool with those results, numbered from 1."""
    return [step(result, step_number=number) for number, result in enumerate(results, 1)]


def calls_of(*tools: str) -> list[EpisodeStep]:
    """Succeeded steps of those tools, numbered from 1."""
    return [step(OK, tool, step_number=number) for number, tool in enumerate(tools, 1)]


def episode(
    steps: list[EpisodeStep] | None = None,
    outcome: TaskOutcome | None = DONE,
    *,
    seconds: float | None = 60.0,
    complexity: Complexity = "simple",
    language: str | None = None,
    framework: str | None = None,
    domain: str = "general",
    tags: list[str] | None = None,
    description: str = "Repair the login form",
    task_type: str = "debugging",
    metadata: dict[str, Any] | None = None,
    outcome_metadata: dict[str, Any] | None = None,
) -> Episode:
    """An episode that took so many seconds (None: still open) and ended with that outcome."""
    return Episode(
        episode_id="e-1",
        task_description=description,
        task_type=task_type,
        context=TaskContext(
            language=language, framework=framework, domain=domain, complexity=complexity, tags=tags or []
        ),
        agent="agent",
        start_time=START,
        last_seq=1,
        steps=steps or [],
        metadata=metadata or {},
        outcome_metadata=outcome_metadata or {},
        end_time=None if seconds is None else START + dt.timedelta(seconds=seconds),
        outcome=outcome,
    )
