"""Pull many items in one crossing: with one for each, a follower would wait for the Trio thread most of the time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from stepwell.memory.following import EventChannel
from stepwell.memory.run_following import RunChannel
from stepwell.runtime.lifecycle_events import LifecycleChannel

T = TypeVar("T")

AT_ONCE = 256


class Pulled(Generic[T]):
    """Items that were taken from the memory and not given to the caller yet, and the error met behind them.

    Taken in the Trio thread and given in the caller's, one after the other. They are kept here and are no result of the
    call, since a caller that is cancelled as the call finishes sees no result; the next one finds them.
    """

    def __init__(self) -> None:
        self._ready: deque[T] = deque()
        self._error: Exception | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to give."""
        return not self._ready and self._error is None

    def give(self) -> T:
        """The next item. Raises: the error that was met behind the last one."""
        if self._ready:
            return self._ready.popleft()
        error, self._error = self._error, None
        assert error is not None, "there is nothing to give"
        raise error

    async def take_items(self, items: AsyncIterator[T]) -> None:
        """Take the next ones, at most AT_ONCE; none at the end."""
        try:
            async for item in items:
                self._ready.append(item)
                if len(self._ready) >= AT_ONCE:
                    return
        except Exception as error:
            if not self._ready:
                raise
            self._error = error

    async def take_received(self, channel: EventChannel | LifecycleChannel | RunChannel) -> None:
        """Take what is received next, at least one, and what else is ready. Raises what `receive` there raises."""
        if isinstance(channel, EventChannel):
            found: list[Any] = await channel.receive_some(AT_ONCE)
            self._ready += found
        else:
            received: Any = await channel.receive()
            self._ready.append(received)
