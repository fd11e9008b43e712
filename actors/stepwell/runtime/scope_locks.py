"""One lock per name, for as long as somebody wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import trio


class ScopeLocks:
    """Lets those that change a scope after a look at it in one by one: `async with locks.of(scope): …`."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[trio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, scope: Hashable) -> AsyncIterator[None]:
        """Hold the lock of a scope. A checkpoint."""
        lock = self._enter(scope)
        try:
            async with lock:
                yield
        finally:
            self._leave(scope)

    @trio.lowlevel.enable_ki_protection
    def _enter(self, scope: Hashable) -> trio.Lock:
        lock, wanted = self._locks.get(scope) or (trio.Lock(), 0)
        self._locks[scope] = lock, wanted + 1
        return lock

    @trio.lowlevel.enable_ki_protection
    def _leave(self, scope: Hashable) -> None:
        lock, wanted = self._locks[scope]
        if wanted == 1:
            del self._locks[scope]
        else:
            self._locks[scope] = lock, wanted - 1
