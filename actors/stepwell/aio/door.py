"""How calls from asyncio wait for the Trio thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from stepwell.aio.wrappers import shown
from stepwell.bridge.crossing import Abandoned, Call, Crossing
from stepwell.errors import WrongLoop

T = TypeVar("T")


class Door:
    """The way from one asyncio loop to one memory."""

    crossing: Crossing

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def check_loop(self) -> None:
        """Raises: `WrongLoop`."""
        if threading.get_ident() != self._thread:
            raise WrongLoop(
                "this memory was opened by stepwell.aio in the asyncio loop of another thread; open one in each loop's "
                "process once, or use stepwell.sync, which any thread may call"
            )

    async def call(self, work: Callable[[], Awaitable[T]], attempt: Callable[[], T] | None = None) -> Any:
        """Make a call and wait for its result, as this door shows it. If cancelled, the call is cancelled too and has
        unwound when the cancellation goes on."""
        self.check_loop()
        call = Call(work, attempt, self._loop.create_future())
        self.crossing.put(call)
        try:
            await call.told
        except asyncio.CancelledError:
            await self._unwound(call)
            raise
        try:
            return shown(self, call.outcome())
        except Abandoned:
            raise asyncio.CancelledError from None

    async def _unwound(self, call: Call) -> None:
        if call.finished:
            return
        call.told = self._loop.create_future()
        self.crossing.abandon(call)
        while not call.finished:
            try:
                await asyncio.shield(call.told)
            except asyncio.CancelledError:
                if call.told.cancelled():
                    call.told = self._loop.create_future()

    def call_plain(self, function: Callable[[], T]) -> Any:
        """Make a plain call in the Trio thread; the loop stands still meanwhile, for about 0.1 ms."""
        self.check_loop()
        done = threading.Event()
        call = Call(None, function, done)
        self.crossing.put(call)
        done.wait()
        return shown(self, call.outcome())

    def deliver(self, calls: list[Call]) -> None:
        """In the Trio thread: the calls are finished."""
        waiting = []
        for call in calls:
            if isinstance(call.told, threading.Event):
                call.told.set()
            else:
                waiting.append(call)
        if waiting:
            with contextlib.suppress(RuntimeError):  # the loop was closed, and with it went all that waited
                self._loop.call_soon_threadsafe(_tell, waiting)


def _tell(calls: list[Call]) -> None:
    for call in calls:
        if not call.told.done():
            call.told.set_result(None)
