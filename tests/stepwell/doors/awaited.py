"""One scenario, run through each door: natively under Trio, from asyncio, and from plain code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

import stepwell
import stepwell.aio
import stepwell.sync
from stepwell import MemoryConfig

DOORS = ("trio", "aio", "sync")
Scenario = Callable[[Any], Awaitable[None]]


class Awaited:
    """Something of `stepwell.sync`, its calls made to look like those of the other doors."""

    def __init__(self, target: Any):
        object.__setattr__(self, "_target", target)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found) or isinstance(found, type):
            return _awaited(found)
        if name in PLAIN or isinstance(self._target, stepwell.sync.Transaction):
            return lambda *given, **named: _awaited(found(*given, **named))

        async def call(*given: Any, **named: Any) -> Any:
            return _awaited(found(*given, **named))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    async def __aenter__(self) -> Any:
        return _awaited(self._target.__enter__())

    async def __aexit__(self, *error: Any) -> Any:
        return self._target.__exit__(*error)

    def __aiter__(self) -> Awaited:
        return self

    async def __anext__(self) -> Any:
        try:
            return _awaited(next(self._target))
        except StopIteration:
            raise StopAsyncIteration from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Awaited) and bool(self._target == other._target)

    __hash__ = None  # type: ignore[assignment]


PLAIN = {"episode", "step", "events", "follow", "episode_ids", "handle", "stats", "log_step_nowait"}
PLAIN |= {"iter_replay", "succeed", "partially", "fail", "abstain", "atomic", "lifecycle", "health", "receipt_of"}


def _awaited(found: Any) -> Any:
    return Awaited(found) if type(found).__module__.startswith("stepwell.sync") else found


def through(door: str, path: Path | str, scenario: Scenario, config: MemoryConfig | None = None) -> None:
    """Open a memory through a door, run the scenario with it, close it. Raises what leaves `open_memory`."""

    async def native() -> None:
        async with stepwell.open_memory(path, config=config) as memory:
            await scenario(memory)

    async def from_asyncio() -> None:
        async with stepwell.aio.open_memory(path, config=config) as memory:
            await scenario(memory)

    async def from_plain_code() -> None:
        with stepwell.sync.open_memory(path, config=config) as memory:
            await scenario(Awaited(memory))

    if door == "trio":
        trio.run(native)
    elif door == "aio":
        asyncio.run(from_asyncio())
    else:
        # Its own calls never suspend, so that any loop can drive them; asyncio is one it may be called in.
        asyncio.run(from_plain_code())
