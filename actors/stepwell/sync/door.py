"""How calls from plain code wait for the Trio thread."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from stepwell.bridge.crossing import Call, Crossing
from stepwell.errors import WrongLoop
from stepwell.sync.wrappers import shown

T = TypeVar("T")


class Door:
    """The way from any thread to one memory."""

    crossing: Crossing

    def call(self, work: Callable[[], Awaitable[T]] | None, attempt: Callable[[], T] | None = None) -> Any:
        """Make a call and wait for its result, as this door shows it. If interrupted (Ctrl-C), the call is cancelled
        and has unwound when `KeyboardInterrupt` goes on."""
        if threading.get_ident() == self.crossing.thread:
            raise WrongLoop("stepwell.sync was called in the memory's own Trio thread, where it would wait for itself")
        done = threading.Lock()  # an event costs ten times as much
        done.acquire()
        call = Call(work, attempt, done)
        try:
            self.crossing.put(call)
            done.acquire()
        except KeyboardInterrupt:
            self.crossing.abandon(call)
            while not call.finished:
                done.acquire(timeout=1)
            raise
        return shown(self, call.outcome())

    def call_plain(self, function: Callable[[], T]) -> Any:
        """Make a plain call in the Trio thread."""
        return self.call(None, function)

    def deliver(self, calls: list[Call]) -> None:
        """In the Trio thread: the calls are finished."""
        for call in calls:
            call.told.release()
