"""Watching one run: counts scheduler steps, cancels at the k-th, and sees every `Cancelled` that Trio raises."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock

import trio
from trio._core._run import CancelStatus

_DELIVERY = trio.lowlevel.Task._attempt_delivery_of_any_pending_cancel.__code__


class Watch(trio.abc.Instrument):
    """Cancels a scope right before the `at`-th step of any task counted from `watching` (0: before it begins)."""

    def __init__(self, at: int | None):
        self._at = at
        self._scope: trio.CancelScope | None = None
        self._raised: Counter[trio.lowlevel.Task] = Counter()
        self.steps = 0
        self.fired = False
        self.violations: list[str] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self._at:
            self._fire()

    def _fire(self) -> None:
        assert self._scope is not None
        self.fired = True
        self._scope.cancel()

    def raised_in_this_task(self) -> int:
        """How often `Cancelled` was raised in the task that asks."""
        return self._raised[trio.lowlevel.current_task()]

    def object_to(self, text: str) -> None:
        """Take note of a broken promise."""
        self.violations.append(text)

    @contextmanager
    def watching(self, scope: trio.CancelScope) -> Iterator[None]:
        """Count, and cancel `scope` when it is time, until the block is left."""
        self._scope = scope
        if self._at == 0:
            self._fire()
        trio.lowlevel.add_instrument(self)
        try:
            with mock.patch.object(trio.Cancelled, "_create", self._counting(trio.Cancelled._create)):
                yield
        finally:
            trio.lowlevel.remove_instrument(self)

    def _reaches(self, task: trio.lowlevel.Task) -> bool:
        """Whether it is our scope that cancels the task, and not a deadline or a scope of its own."""
        status: CancelStatus | None = task._cancel_status
        while status is not None and status._scope is not self._scope and not status._scope.shield:
            status = status._parent
        return self.fired and status is not None and status._scope is self._scope

    def _counting(self, create: Callable[..., trio.Cancelled]) -> Callable[..., trio.Cancelled]:
        def counted(**reason: Any) -> trio.Cancelled:
            task = _task_being_cancelled()
            if self._reaches(task):
                self._raised[task] += 1
            return create(**reason)

        return counted


def _task_being_cancelled() -> trio.lowlevel.Task:
    """Trio makes the exception wherever the cancellation comes from; the task it is for is further up the stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not _DELIVERY:
        frame = frame.f_back
    assert frame is not None, "Trio delivers cancellations in another way than this was written for"
    task = frame.f_locals["self"]
    assert isinstance(task, trio.lowlevel.Task)
    return task


async def thread_on_the_clock(
    call: Callable[..., Any], *args: Any, limiter: trio.CapacityLimiter | None = None, **_options: Any
) -> Any:
    """In place of `trio.to_thread.run_sync`: takes 2 ms of the clock that jumps. As the real one it can be cancelled,
    or interrupted by Ctrl-C, until it has begun, and not from there on; the call happens in the midst of that time."""
    await trio.lowlevel.checkpoint_if_cancelled()
    async with limiter if limiter is not None else trio.CapacityLimiter(1):
        await _pass_time(0.001)
        try:
            return call(*args)
        finally:
            await _pass_time(0.001)


async def _pass_time(seconds: float) -> None:
    """Sleep, whatever comes in meanwhile."""
    sleeper = trio.lowlevel.current_task()

    async def wake() -> None:
        await trio.sleep(seconds)
        trio.lowlevel.reschedule(sleeper)

    trio.lowlevel.spawn_system_task(wake)
    await trio.lowlevel.wait_task_rescheduled(lambda _raise_cancel: trio.lowlevel.Abort.FAILED)
