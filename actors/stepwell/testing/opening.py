"""Opening a memory on a journal in memory."""

from __future__ import annotations

import trio

from stepstore.journal import Journal
from stepwell.memory.opening import OpenMemory
from stepwell.runtime.config import MemoryConfig
from stepwell.testing.memory_journal import MemoryJournal


def open_memory_on(journal: MemoryJournal, config: MemoryConfig | None = None) -> OpenMemory:
    """`open_memory` on a `MemoryJournal`: `async with open_memory_on(journal) as memory:`.

    The journal outlives the memory: opened on it again, another memory finds everything that was durable, as one in a
    directory does. Settings that are about files have no effect.
    Raises on entering: `LogLocked` (a memory is open on this journal).
    """
    return OpenMemoryOn(journal, config)


class OpenMemoryOn(OpenMemory):
    """The async context manager that `open_memory_on` returns."""

    def __init__(self, medium: MemoryJournal, config: MemoryConfig | None):
        super().__init__(":memory:", config, False, None)
        self._medium = medium

    async def _open_journal(self, path: str, config: MemoryConfig) -> Journal:
        await trio.lowlevel.checkpoint()
        return self._medium.open()
