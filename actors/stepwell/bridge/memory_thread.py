"""The one thread of a memory that is used from elsewhere: it runs Trio, and ends when the memory is closed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager

import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from stepwell.bridge.crossing import Call, Crossing
from stepwell.bridge.host import MemoryHost
from stepwell.memory.memory import Memory
from stepwell.memory.opening import OpenMemory


class MemoryThread:
    """Opens a memory on a new Trio thread, and closes it. `open` and `close` block; any thread may `hurry`."""

    def __init__(self, opening: OpenMemory, deliver: Callable[[list[Call]], None]):
        self._host = MemoryHost(opening, deliver)
        self._thread: AbstractContextManager[BlockingPortal] = start_blocking_portal("trio", name="stepwell")
        self._token: trio.lowlevel.TrioToken | None = None
        self._ended: Future[None]

    def open(self) -> tuple[Memory, Crossing]:
        """Start the thread and open the memory there. Raises what `open_memory` raises; then the thread has ended."""
        portal = self._thread.__enter__()
        try:
            self._ended, (memory, crossing) = portal.start_task(self._host.run, name="stepwell memory")
            self._token = crossing.token
        except BaseException as error:
            # With the error: an interrupted opening is cancelled, and has unwound when this returns.
            self._thread.__exit__(type(error), error, error.__traceback__)
            raise
        return memory, crossing

    def close(self, body_error: BaseException | None) -> None:
        """Close the memory; the thread has ended when this returns. `body_error`: what the user's block was left with.

        A Ctrl-C meanwhile begins the grace, another ends it; then it is raised. Raises what leaving `open_memory`
        raises.
        """
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                self._run_soon(lambda: self._host.leave(body_error))
                problem = self._ended.exception()
                self._thread.__exit__(None, None, None)
                break
            except KeyboardInterrupt as error:  # at any line of these; each of them may be done twice
                if not self._ended.done():
                    self.hurry()
                interrupted = error
        if problem is not None:
            raise problem
        if interrupted is not None:
            raise interrupted

    def hurry(self) -> None:
        """Begin the grace if closing goes on without limit; said again, end it."""
        self._run_soon(self._host.hurry)

    def _run_soon(self, function: Callable[[], object]) -> None:
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):  # it has closed already, and says why
            self._token.run_sync_soon(function)
