"""Calls cross to the Trio thread over a deque with one wake for all that came meanwhile, and their results back in one.

One portal call for each step would cost 150 microseconds. Here a call that need not wait, like accepting a step, is
made in the very turn in which the queue is drained; every other one gets a task of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from stepwell.errors import Closed, OutcomeUnknown

AT_ONCE = 256
"""So many calls are made in one turn of the Trio thread; then its other tasks have theirs."""


class MustWait(Exception):
    """Raised by an attempt: the call cannot be made without waiting, and nothing was done."""


class Abandoned(Exception):
    """The caller stopped waiting, and the call was cancelled on the Trio side."""


class Call:
    """One call: what is to be done, and what came of it. `told` is for whoever waits, in whatever way it does.

    `attempt` is made first, if there is one; it raises `MustWait` where `work`, which may wait, is to be run instead.
    """

    __slots__ = ("abandoned", "attempt", "begun", "error", "finished", "result", "scope", "told", "work")

    def __init__(self, work: Callable[[], Awaitable[Any]] | None, attempt: Callable[[], Any] | None, told: Any):
        self.work, self.attempt, self.told = work, attempt, told
        self.result: Any = None
        self.error: BaseException | None = None
        self.begun = self.finished = self.abandoned = False
        self.scope: trio.CancelScope | None = None

    def outcome(self) -> Any:
        """The result; raises the error if there is one."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # the traceback holds this frame, and this frame holds the call
        return self.result


class Crossing:
    """The way to one Trio run. `put` and `abandon` may be called in any thread; the rest runs in the Trio thread.

    `deliver` is called there with the calls that are finished, and must not wait.
    """

    def __init__(self, nursery: trio.Nursery, deliver: Callable[[list[Call]], None]):
        self._nursery, self._deliver = nursery, deliver
        self.token = trio.lowlevel.current_trio_token()
        self.thread = threading.get_ident()
        self._calls: deque[Call] = deque()
        self._woken = self._closed = False

    # ---- any thread --------------------------------------------------------------------------------------------------

    def put(self, call: Call) -> None:
        """Have a call made. Raises: `Closed`."""
        if self._closed:
            raise closed_error()
        self._calls.append(call)
        if not self._woken:
            self._woken = True  # before the wake: a drain that begins now resets it, and then takes the call
            self._wake()

    def abandon(self, call: Call) -> None:
        """The caller does not want the result any more: a call that has not begun is not made, one that waits is
        cancelled. It is delivered all the same, once it has unwound; also one whose `put` was interrupted at any line
        (Ctrl-C), which may be in the queue or not, and the wake for it sent or not."""
        call.abandoned = True
        with contextlib.suppress(trio.RunFinishedError):  # everything was delivered before the run ended
            self.token.run_sync_soon(self._give_up, call)

    def _wake(self) -> None:
        try:
            self.token.run_sync_soon(self._drain)
        except trio.RunFinishedError:
            self._closed = True
            raise closed_error() from None

    # ---- the Trio thread ---------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def _drain(self) -> None:
        self._woken = False
        finished: list[Call] = []
        for _ in range(AT_ONCE):
            try:
                call = self._calls.popleft()
            except IndexError:
                break
            if self._make(call):
                finished.append(call)
        else:
            self._woken = True
            self.token.run_sync_soon(self._drain)
        if finished:
            self._deliver(finished)

    def _make(self, call: Call) -> bool:
        """Make a call or begin it; whether it is finished now."""
        if call.finished:  # given up while it was in the queue
            return False
        if call.abandoned:
            call.error = Abandoned()
        elif self._closed:
            call.error = closed_error()
        else:
            if call.attempt is not None:
                try:
                    call.result = call.attempt()
                except MustWait:
                    pass
                except Exception as error:
                    call.error = error
                    call.finished = True
                    return True
                else:
                    call.finished = True
                    return True
            assert call.work is not None
            call.begun = True
            self._nursery.start_soon(self._carry_out, call)
            return False
        call.finished = True
        return True

    @trio.lowlevel.enable_ki_protection
    async def _carry_out(self, call: Call) -> None:
        assert call.work is not None
        try:
            with trio.CancelScope() as scope:
                call.scope = scope
                if call.abandoned:
                    scope.cancel()
                call.result = await call.work()
            if scope.cancelled_caught:
                call.error = Abandoned()
        except Exception as error:
            call.error = error
        except trio.Cancelled:
            call.error = OutcomeUnknown(
                "the memory was closed while this call was under way; open it again and look, or resubmit with the "
                "same key"
            )
            raise
        finally:
            call.scope, call.finished = None, True
            self._deliver([call])

    @trio.lowlevel.enable_ki_protection
    def _give_up(self, call: Call) -> None:
        self._drain()  # the interrupted `put` may have left others waiting for a wake that was not sent
        if call.scope is not None:
            call.scope.cancel()
        elif not call.begun and not call.finished:
            call.error, call.finished = Abandoned(), True
            self._deliver([call])

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Make no more calls; those that wait are cancelled with the nursery, those in the queue are refused."""
        self._closed = True
        refused = list(self._calls)
        self._calls.clear()
        for call in refused:
            call.error, call.finished = closed_error(), True
        if refused:
            self._deliver(refused)


def closed_error() -> Closed:
    """For a call that comes when the memory was left."""
    return Closed("the memory is closed; open it again to go on")
