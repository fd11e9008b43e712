"""Worker threads without threads: `trio.to_thread.run_sync` for runs that follow from a seed.

A call takes simulated time before it is carried out, and again until its caller is told, and others run meanwhile: so
what is on its way to the medium, or there and not yet acknowledged, lasts as it does with a real thread. The call
itself is carried out in one piece.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")


class SimulatedThreads:
    """`seconds` says how long the next wait of a call is, each time it is asked."""

    def __init__(self, seconds: Callable[[], float]):
        self._seconds = seconds
        self.calls = 0

    async def run_sync(
        self,
        sync_fn: Callable[..., T],
        *args: Any,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """As `trio.to_thread.run_sync`: a call that has begun is finished whatever is cancelled, and its result given.

        Raises: what the call raises; `trio.Cancelled` only before it has begun.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        limiter = limiter or trio.to_thread.current_default_thread_limiter()
        borrower, results = object(), list[T]()
        await limiter.acquire_on_behalf_of(borrower)
        try:
            self.calls += 1
            with trio.CancelScope(shield=True):
                await trio.sleep(self._seconds())
                try:
                    results.append(contextvars.copy_context().run(sync_fn, *args))
                finally:
                    await trio.sleep(self._seconds())
            return results[0]
        finally:
            limiter.release_on_behalf_of(borrower)
