"""Pull many items in one crossing: with one for each, a follower would wait for the Trio thread most of the time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from stepwell.memory.following import EventChannel
from stepwell.memory.run_following import RunChannel
from stepwell.runtime.lifecycle_events import LifecycleChannel

T = TypeVar("T")

AT_ONCE = 256


async def some_of(items: AsyncIterator[T]) -> list[T]:
    """The next items, at most AT_ONCE; none at the end. Cancelled, those taken in this call are lost to the iterator,
    so it is not to be used on after that."""
    found: list[T] = []
    async for item in items:
        found.append(item)
        if len(found) == AT_ONCE:
            break
    return found


async def some_received(channel: EventChannel | LifecycleChannel | RunChannel) -> list[Any]:
    """What is received next, at least one, and what else is ready. Raises what `receive` of the channel raises."""
    if isinstance(channel, EventChannel):
        return await channel.receive_some(AT_ONCE)
    return [await channel.receive()]
