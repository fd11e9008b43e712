"""Cancelling a call at one step of its task after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, step: int, scope: trio.CancelScope):
        self._task, self._left, self._scope = trio.lowlevel.current_task(), step, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancelled_at_step(step: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call and cancel it when its task has been woken `step` times (0: before it begins). False if it had
    returned before."""
    with trio.CancelScope() as scope:
        if step == 0:
            scope.cancel()
        instrument = _CancelAtStep(step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught
