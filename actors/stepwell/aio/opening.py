"""Opening and closing a memory from asyncio."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import sniffio

from stepwell.aio.door import Door
from stepwell.aio.surface import Memory
from stepwell.bridge.memory_thread import MemoryThread
from stepwell.errors import InvalidState, WrongLoop
from stepwell.memory.opening import OpenMemory
from stepwell.runtime.config import MemoryConfig

T = TypeVar("T")


def open_memory(
    path: str | os.PathLike[str], *, config: MemoryConfig | None = None, read_only: bool = False
) -> AioOpenMemory:
    """Open the memory in directory `path`: `async with stepwell.aio.open_memory(path) as memory:`.

    As `stepwell.open_memory`, for asyncio. The memory runs on a Trio thread of its own, which has ended when the block
    is left. A cancellation while closing waits for what was accepted begins `grace_seconds`, another one ends it.
    Raises: what `stepwell.open_memory` raises; `WrongLoop` on entering outside asyncio.
    """
    return AioOpenMemory(OpenMemory(path, config, read_only, None))


class AioOpenMemory:
    """The async context manager that `open_memory` returns."""

    def __init__(self, opening: OpenMemory):
        self._opening = opening
        self._entered = False

    async def __aenter__(self) -> Memory:
        if sniffio.current_async_library() != "asyncio":
            raise WrongLoop("stepwell.aio is for asyncio; inside Trio use stepwell.open_memory")
        if self._entered:
            raise InvalidState("this open_memory(...) was entered before; call open_memory again")
        self._entered = True
        self._door = Door()
        self._thread = MemoryThread(self._opening, self._door.deliver)
        opening = _in_thread(self._thread.open)
        try:
            memory, self._door.crossing = await asyncio.shield(opening)
        except asyncio.CancelledError as cancelled:
            await _ended(opening)
            if opening.exception() is None:
                await _ended(_in_thread(functools.partial(self._thread.close, cancelled)))
            raise
        return Memory(self._door, memory)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        closing = _in_thread(lambda: self._thread.close(error))
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError as interruption:
                cancelled = interruption
                self._thread.hurry()
        closing.result()
        if cancelled is not None and error is None:
            raise cancelled


def _in_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(None, function)


async def _ended(future: asyncio.Future[T]) -> None:
    """Return once the future is done, whatever is cancelled meanwhile."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue  # whoever waits here raises a cancellation by itself
