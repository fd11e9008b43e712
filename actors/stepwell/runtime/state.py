"""The state of an episode, which tasks may wait for."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio_util import AsyncValue


class EpisodeState:
    """A `trio_util.AsyncValue` of text that exists only while somebody waits: there is one of these for every live
    episode, and hardly ever a waiter."""

    __slots__ = ("_awaited", "_value", "_waiters")

    def __init__(self, value: str):
        self._value = value
        self._awaited: AsyncValue[str] | None = None
        self._waiters = 0

    @property
    def value(self) -> str:
        """What it is now. Setting it wakes those whose condition it meets, by a plain function call."""
        return self._value

    @value.setter
    @trio.lowlevel.enable_ki_protection
    def value(self, value: str) -> None:
        self._value = value
        if self._awaited is not None:
            self._awaited.value = value

    async def wait_value(self, predicate: Callable[[str], bool]) -> str:
        """Wait until the value meets the condition and give it; it may have changed since. A checkpoint."""
        if self._awaited is None:
            self._awaited = AsyncValue(self._value)
        awaited = self._awaited
        self._waiters += 1
        try:
            met: str = await awaited.wait_value(predicate)
            return met
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._awaited = None
