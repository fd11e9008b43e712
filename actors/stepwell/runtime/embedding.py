"""Texts as vectors, by what `MemoryConfig(embedder=…)` says."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

import trio

from stepwell.errors import InvalidInput, StepwellError, Unavailable
from stepwell.model.fact_records import checked_vector

Embedder: TypeAlias = Callable[[list[str]], Sequence[Sequence[float]] | Awaitable[Sequence[Sequence[float]]]]
"""Gives a vector for each text, all of one length. A plain function runs in a worker thread, one call at a time; an
async one is awaited."""


def is_async(embedder: Any) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(embedder) or inspect.iscoroutinefunction(type(embedder).__call__)


class Embedding:
    """Calls an embedder, and checks what it gives."""

    def __init__(self, embedder: Embedder):
        self._embedder = embedder
        self._is_async = is_async(embedder)
        self._limiter = trio.CapacityLimiter(1)

    async def vectors(self, texts: list[str], dimensions: int | None) -> list[list[float]]:
        """A vector for each text. A checkpoint. `dimensions`: how long each has to be; None if that is not settled.

        Raises: `Unavailable` (the embedder failed), `InvalidInput` (it gave something else).
        """
        await trio.lowlevel.checkpoint()
        try:
            if self._is_async:
                found: Any = await cast("Awaitable[Any]", self._embedder(texts))
            else:
                found = await trio.to_thread.run_sync(self._embedder, texts, limiter=self._limiter)
        except StepwellError:
            raise
        except Exception as error:
            raise Unavailable(f"the embedder failed with {type(error).__name__}: {error}; nothing was done") from error
        try:
            given = list(found)
        except TypeError:
            given = []
        if len(given) != len(texts):
            raise InvalidInput(f"embedder: gave {len(given)} vectors for {len(texts)} texts")
        vectors: list[list[float]] = []
        for place, vector in enumerate(given):
            vectors.append(checked_vector(vector, dimensions, f"embedder: text {place}"))
            dimensions = len(vectors[-1])
        return vectors
