"""Folding the catalogs of a memory anew."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from stepwell.memory.opening import OpenMemory
from stepwell.runtime.config import MemoryConfig


async def rebuild_catalogs(
    path: str | os.PathLike[str],
    *,
    config: MemoryConfig | None = None,
    progress: Callable[[int, int], None] = lambda _done, _records: None,
) -> int:
    """Drop everything in a memory that is folded from its log, and fold it anew. Nothing else may have the memory open
    for writing. Gives how many records the log has; `progress(done, records)` is called as it goes.

    Cancelled, the next opening goes on with it. An encrypted memory keeps no catalog; what an unencrypted opening had
    left of one is removed, and nothing is folded.
    Raises: as entering `open_memory`; `Unavailable` (a catalog cannot be written: the disk is full, for instance).
    """
    async with OpenMemory(path, config, False, None, fresh_catalogs=True) as memory:
        records = memory._journal.durable_lsn
        projections = [it for it in memory._runtime.projections if it.services]
        done = [0] * len(projections)

        async def watch(number: int) -> None:
            projector = projections[number].projector
            while done[number] < records:
                await projector.wait_for(min(projector.position + 1, records), readable=False)
                done[number] = projector.position
                progress(sum(done) // len(done), records)
            await projector.wait_for(records)

        async with trio.open_nursery() as nursery:
            for number in range(len(projections)):
                nursery.start_soon(watch, number)
        return records
