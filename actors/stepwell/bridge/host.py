"""A memory that lives on a Trio thread while its users live elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import trio

from stepwell.bridge.crossing import Call, Crossing
from stepwell.memory.memory import Memory
from stepwell.memory.opening import OpenMemory


class MemoryHost:
    """Runs `open_memory` in one task of the Trio thread, from opening to closing. `leave` and `hurry` run there too."""

    def __init__(self, opening: OpenMemory, deliver: Callable[[list[Call]], None]):
        self._opening, self._deliver = opening, deliver
        self._left: trio.Event | None = None
        self._scope: trio.CancelScope | None = None
        self._body_error: BaseException | None = None
        self._memory: Memory | None = None

    async def run(self, task_status: trio.TaskStatus[tuple[Memory, Crossing]]) -> None:
        """Open, be ready for calls, close once the user has left.

        Raises what `open_memory` raises on entering and on leaving, but not what the user's block was left with.
        """
        self._left = trio.Event()
        body_error: BaseException | None = None
        traceback: TracebackType | None = None
        try:
            with trio.CancelScope() as self._scope:
                async with self._opening as memory:
                    self._memory = memory
                    async with trio.open_nursery() as nursery:
                        crossing = Crossing(nursery, self._deliver)
                        try:
                            task_status.started((memory, crossing))
                            await self._left.wait()
                        finally:
                            crossing.close()
                            nursery.cancel_scope.cancel()
                    if self._body_error is not None:
                        body_error, traceback = self._body_error, self._body_error.__traceback__
                        raise body_error
        except BaseException as error:
            if error is not body_error:
                raise
            error.__traceback__ = traceback  # it goes on where it came from, as if it had never been here

    def leave(self, body_error: BaseException | None) -> None:
        """The user's block was left, with this error if any: closing then has `grace_seconds`, else all the time it
        takes."""
        self._body_error = body_error
        if self._left is not None:
            self._left.set()

    def hurry(self) -> None:
        """Somebody cannot wait: begin the grace if closing goes on without limit, and if this is said again, end it."""
        if self._scope is None:
            return
        if self._scope.cancel_called and self._memory is not None:
            self._memory._runtime.end_at_once()
        self._scope.cancel()
