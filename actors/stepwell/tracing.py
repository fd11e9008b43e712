"""Stepwell's own calls as OpenTelemetry spans: `memory = traced(memory)`. Needs the extra `stepwell[otel]`.

Nothing is traced unless this is called, and a memory that is not wrapped does not know of it: it costs nothing then.
Every awaited call of the memory and of its handles becomes a span `stepwell.<call>`, with the id of the episode and the
number of the step; the block of `memory.episode(…)` becomes a span as well, and the calls inside it its children. What
is logged is not put into spans. `stepwell export --format otlp` does that, for what is stored.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from stepwell._version import __version__
from stepwell.memory.handle import EpisodeHandle
from stepwell.memory.memory import Memory
from stepwell.runtime.receipt import Receipt

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

M = TypeVar("M", bound=Memory)

EPISODE, SEQ, CANCELLED = "stepwell.episode.id", "stepwell.seq", "stepwell.cancelled"
_SCOPES = frozenset({"episode", "atomic"})


def traced(memory: M, provider: TracerProvider | None = None) -> M:
    """The same memory, whose awaited calls are spans of the provider (None: the global one).

    What the calls promise, raise and do when cancelled is unchanged. Give the wrapped memory to those whose calls are
    to be seen, and the memory itself to the others. Raises: `ImportError` without the extra `stepwell[otel]`.
    """
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise ImportError("stepwell.tracing needs OpenTelemetry: pip install 'stepwell[otel]'") from error
    tracer = trace.get_tracer("stepwell", __version__, provider)
    return cast("M", _Traced(memory, tracer))


class _Traced:
    """Stands for a memory, a handle or a scope, and makes spans of its awaited calls."""

    def __init__(self, inner: Any, tracer: Tracer, episode_id: str | None = None):
        self._inner, self._tracer, self._episode_id = inner, tracer, episode_id

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name.startswith("_") or not callable(value):
            return value
        if name in _SCOPES and isinstance(self._inner, Memory):
            return lambda *args, **kwargs: _TracedScope(value(*args, **kwargs), self._tracer, f"stepwell.{name}")
        if inspect.iscoroutinefunction(value):
            return self._call(name, value)
        if name == "handle":
            return lambda episode_id: self._wrapped(value(episode_id))
        return value

    def _call(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(call)
        async def traced_call(*args: Any, **kwargs: Any) -> Any:
            with self._tracer.start_as_current_span(f"stepwell.{name}") as span:
                if (episode_id := self._episode_of(args, kwargs)) is not None:
                    span.set_attribute(EPISODE, episode_id)
                result = await _told(span, call(*args, **kwargs))
                if isinstance(result, Receipt):
                    span.set_attribute(SEQ, result.seq)
                return self._wrapped(result)

        return traced_call

    def _episode_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if self._episode_id is not None:
            return self._episode_id
        named = kwargs.get("episode_id")
        if named is None and args and isinstance(self._inner, Memory):
            named = args[0]
        return named if isinstance(named, str) and len(named) <= 200 else None

    def _wrapped(self, value: Any) -> Any:
        return _Traced(value, self._tracer, value.id) if isinstance(value, EpisodeHandle) else value


class _TracedScope:
    """A block of `memory.episode(…)` or `memory.atomic()` as a span, from before its entering to behind its end."""

    def __init__(self, inner: Any, tracer: Tracer, name: str):
        self._inner, self._tracer, self._name = inner, tracer, name

    async def __aenter__(self) -> Any:
        self._current = self._tracer.start_as_current_span(self._name)
        span = self._current.__enter__()
        try:
            entered = await _told(span, self._inner.__aenter__())
        except BaseException as error:
            self._current.__exit__(type(error), error, error.__traceback__)
            raise
        self._span = span
        episode_id = getattr(entered, "id", None)
        if isinstance(episode_id, str):
            span.set_attribute(EPISODE, episode_id)
        return _Traced(entered, self._tracer, episode_id)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            absorbed: bool | None = await _told(self._span, self._inner.__aexit__(kind, error, traceback))
        except BaseException as leaving:
            self._current.__exit__(type(leaving), leaving, leaving.__traceback__)
            raise
        self._current.__exit__(kind, error, traceback)
        return absorbed


async def _told(span: Span, call: Awaitable[Any]) -> Any:
    """Await a call; a cancelled one is no error, and its span says so."""
    try:
        return await call
    except Exception:
        raise
    except BaseException:
        span.set_attribute(CANCELLED, True)
        raise
