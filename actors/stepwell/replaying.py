"""Run an agent again on what was recorded: `ReplayedRun` serves the results of its LLM and tool calls in their order.

    replayed = ReplayedRun(await memory.episodic.replay(run))
    result = replayed.tool("search", {"q": "x"})       # what the tool answered then
    replayed.finish()                                   # or: what was not asked for

The first call that differs from what was recorded raises `ReplayDiverged`, which says where and how. Nothing is looked
up by what is asked: requests cannot be told from events, so the order is all there is, as in klieo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from stepwell.errors import InvalidState
from stepwell.model.run_event import LlmCall, RunEvent, SummaryCheckpoint, ToolCall, ToolErr, ToolOk, ToolResult
from stepwell.model.run_event_wire import to_json
from stepwell.model.validation import same_json

T = TypeVar("T", bound=RunEvent)


class ReplayDiverged(InvalidState):
    """What is done is not what was recorded. `position`: which event of the run, from 0; `recorded`: that event, None
    at the end; `attempted`: what was done in its place."""

    def __init__(self, position: int, recorded: RunEvent | None, attempted: str):
        what = "the run was over" if recorded is None else f"{to_json(recorded)} was recorded"
        super().__init__(f"event {position}: {what}, and now there is {attempted}")
        self.position, self.recorded, self.attempted = position, recorded, attempted


class ReplayedRun:
    """The calls of a run in their order; everything else in it is passed over. For one task."""

    def __init__(self, events: Iterable[RunEvent]):
        self._calls = [
            (position, event)
            for position, event in enumerate(events)
            if isinstance(event, LlmCall | ToolCall | SummaryCheckpoint)
        ]
        self._events = self._calls[-1][0] + 1 if self._calls else 0
        self._next = 0
        self.divergence: ReplayDiverged | None = None
        """The first one; every later call raises it again."""

    @property
    def left(self) -> list[RunEvent]:
        """The calls that nobody has made yet."""
        return [event for _position, event in self._calls[self._next :]]

    def llm_call(self, *, provider: str | None = None, model: str | None = None) -> LlmCall:
        """The next call, if it is one of a model, and where both are told, of this one. Raises: `ReplayDiverged`."""

        def fits(call: LlmCall) -> bool:
            return (provider is None or call.provider in (None, provider)) and (
                model is None or call.model in (None, model)
            )

        told = "" if model is None else f" of {model!r}"
        return self._serve(LlmCall, fits, f"a call of a model{told}")

    def tool(self, name: str, args: Any) -> ToolResult:
        """What the tool answered, if the next call is this one with equal args. Raises: `ReplayDiverged`."""

        def fits(call: ToolCall) -> bool:
            return call.name == name and same_json(call.args, args)

        return self._serve(ToolCall, fits, f"a call of tool {name!r} with {args!r}").result

    def tool_output(self, name: str, args: Any) -> Any:
        """The value the tool answered with. Raises: `ReplayDiverged`, `RecordedToolError` if it failed then."""
        result = self.tool(name, args)
        if isinstance(result, ToolErr):
            raise RecordedToolError(result.message)
        assert isinstance(result, ToolOk)
        return result.value

    def summary(self) -> SummaryCheckpoint:
        """The next call, if it is that of a summary. Raises: `ReplayDiverged`."""
        return self._serve(SummaryCheckpoint, lambda _call: True, "a summary")

    def finish(self) -> None:
        """The agent is done. Raises: `ReplayDiverged` if it had made more calls then."""
        if self.divergence is not None:
            raise self.divergence
        if self._next < len(self._calls):
            raise self._diverge("the end")

    def _serve(self, kind: type[T], fits: Callable[[T], bool], attempted: str) -> T:
        if self.divergence is not None:
            raise self.divergence
        if self._next < len(self._calls):
            event = self._calls[self._next][1]
            if isinstance(event, kind) and fits(event):
                self._next += 1
                return event
        raise self._diverge(attempted)

    def _diverge(self, attempted: str) -> ReplayDiverged:
        at_end = self._next >= len(self._calls)
        position, recorded = (self._events, None) if at_end else self._calls[self._next]
        self.divergence = ReplayDiverged(position, recorded, attempted)
        return self.divergence


class RecordedToolError(Exception):
    """The tool failed when it was recorded, with this message."""
