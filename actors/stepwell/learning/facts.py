"""What the steps of an episode show, counted once for every formula that needs it."""

from __future__ import annotations

import msgspec

from stepwell.learning.figures import finite
from stepwell.learning.operations import same_call
from stepwell.model.episode import Episode
from stepwell.model.step import EpisodeStep

TOOL_IDENTITY_CHARACTERS = 200
"""Tools are told apart by this many leading characters."""
ERROR_IDENTITY_CHARACTERS = 1_000
"""Error texts are told apart by this many leading characters: a traceback of a megabyte costs no more than a line."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the steps of an episode. Every mapping is in the order of first appearance.

    A step has succeeded, or failed (an error or a timeout), or is *unknown*: without a result, or interrupted from
    outside. An unknown step is a step, but it says nothing about its tool, so that it is in `steps` and `tools` and
    in no rate. The reference system counts it as failed (section 2, "no result = failed").
    """

    steps: int
    succeeded: int
    failed: int
    tools: dict[str, int]
    """Tools and how many steps called them, whatever came of it."""
    succeeded_tools: list[str]
    """The tool of each succeeded step, in order, with repetitions."""
    failed_tools: dict[str, int]
    errors: dict[str, int]
    """Visible error texts (`timeout` for a timeout without one) and how many steps failed with them."""
    recoveries: list[tuple[EpisodeStep, EpisodeStep]]
    """Every failed step that was directly followed by a succeeded one, with that one."""
    repeats: int
    """How many steps called the same tool as the step before them."""
    loops: int
    """How many steps made the very call that had just failed, and failed again."""
    latencies: list[tuple[EpisodeStep, float]]
    """The steps whose latency is known (finite and not negative), each with it in milliseconds."""
    tokens: float
    """How many tokens the steps that counted them used, together."""
    seconds: float | None
    """From start to ending in seconds with fraction, None while the episode is open."""

    @property
    def known(self) -> int:
        """How many steps succeeded or failed."""
        return self.succeeded + self.failed

    @property
    def mean_latency(self) -> float | None:
        """Mean of the known latencies in milliseconds; None when none is known."""
        # Divided before summing: a sum of very large floats would be infinite, their mean is not.
        return sum(latency / len(self.latencies) for _, latency in self.latencies) if self.latencies else None

    @property
    def success_rate(self) -> float | None:
        """Succeeded among known steps, 0 to 1; None when nothing is known."""
        return self.succeeded / self.known if self.known else None

    @property
    def error_rate(self) -> float | None:
        """Failed among known steps, 0 to 1; None when nothing is known."""
        return self.failed / self.known if self.known else None


def facts_of(episode: Episode) -> Facts:
    """Count what the steps of an episode show, in one pass over them."""
    tools: dict[str, int] = {}
    succeeded_tools: list[str] = []
    failed_tools: dict[str, int] = {}
    errors: dict[str, int] = {}
    recoveries: list[tuple[EpisodeStep, EpisodeStep]] = []
    loops: int
    """How many steps made the very call that had just failed, and failed again."""
    latencies: list[tuple[EpisodeStep, float]] = []
    failed = repeats = loops = 0
    tokens = 0.0
    last_tool: str | None = None
    last_failed: EpisodeStep | None = None
    for step in episode.steps:
        tool = step.tool[:TOOL_IDENTITY_CHARACTERS]
        tools[tool] = tools.get(tool, 0) + 1
        repeats += tool == last_tool
        last_tool = tool
        if (latency := finite(step.latency_ms)) is not None and latency >= 0:
            latencies.append((step, latency))
        if (used := finite(step.tokens_used)) is not None and used > 0:
            tokens += used
        if step.succeeded:
            succeeded_tools.append(tool)
            if last_failed is not None:
                recoveries.append((last_failed, step))
            last_failed = None
        elif step.failed:
            failed += 1
            loops += last_failed is not None and same_call(last_failed, step)
            failed_tools[tool] = failed_tools.get(tool, 0) + 1
            error = (step.error_text or "")[:ERROR_IDENTITY_CHARACTERS].strip()
            if error:
                errors[error] = errors.get(error, 0) + 1
            last_failed = step
        else:
            last_failed = None
    return Facts(
        steps=len(episode.steps),
        succeeded=len(succeeded_tools),
        failed=failed,
        tools=tools,
        succeeded_tools=succeeded_tools,
        failed_tools=failed_tools,
        errors=errors,
        recoveries=recoveries,
        repeats=repeats,
        loops=loops,
        latencies=latencies,
        tokens=tokens,
        seconds=None if episode.duration is None else episode.duration.total_seconds(),
    )


def most_frequent(counts: dict[str, int]) -> tuple[str, int]:
    """The most frequent key and its count; the one that appeared first among equals, ("", 0) if there is none."""
    return max(counts.items(), key=lambda item: item[1], default=("", 0))
