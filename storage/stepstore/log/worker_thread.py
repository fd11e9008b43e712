"""The worker thread in which one task of the log makes its blocking calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, TypeVar

import trio

from stepstore.log.opening import OpenLog

T = TypeVar("T")


class Blocking(Protocol):
    """Makes a blocking call in a worker thread. Started, it is finished, whatever is cancelled meanwhile."""

    def __call__(self, call: Callable[..., T], *args: Any) -> Awaitable[T]: ...


def has_more(steps: Generator[None, None, None]) -> bool:
    """Take one step of something long that is done in steps; False if that was the last."""
    return next(steps, True) is None


class WorkerThread:
    """One blocking call at a time, for one task."""

    def __init__(self, log: OpenLog):
        self._log = log
        self._limiter = trio.CapacityLimiter(1)  # the default limiter is shared with the host's own threads

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Make a blocking call of the file layer: in the worker thread if it can block at all. A checkpoint.

        A call that has started is finished, whatever is cancelled meanwhile, and its result is returned.
        Raises: what the call does; `OSError` in a forked child.
        """
        self._log.check_process()
        if self._log.files.needs_thread:
            return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)
        await trio.lowlevel.checkpoint()
        return call(*args)
