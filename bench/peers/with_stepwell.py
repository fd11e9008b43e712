"""Stepwell: a step and its receipt awaited, a batch and its receipt, and steps that nobody waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from bench.peers.load import BATCH, Load
from bench.workload import start_episodes
from stepwell import EpisodeHandle, Memory, open_memory


class Acknowledged:
    """`await log_step`, then `await wait_durable`."""

    batch = 1
    durable = True

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        return trio.run(self._ingest, path, load)

    async def _ingest(self, path: Path, load: Load) -> int:
        async with open_memory(path / "memory") as memory:
            return await self.ingest_into(memory, await start_episodes(memory, load.episodes), load)

    async def ingest_into(self, memory: Memory, handles: Sequence[EpisodeHandle], load: Load) -> int:
        """The work, in a memory that is open, and in these episodes. Gives the groups."""
        before = memory.stats().groups
        with load.meter.running():
            async with trio.open_nursery() as nursery:
                for number, handle in enumerate(handles):
                    nursery.start_soon(self._agent, handle, number, load)
        return memory.stats().groups - before if self.durable else 0

    async def _agent(self, handle: EpisodeHandle, number: int, load: Load) -> None:
        for count in range(load.steps):
            receipt = await handle.log_step(load.step(number, count))
            await receipt.wait_durable()

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`."""
        return trio.run(self._read, path, times)

    async def _read(self, path: Path, times: int) -> tuple[list[float], int]:
        seconds, found = [], 0
        async with open_memory(path / "memory") as memory:
            for _ in range(times):
                began = time.perf_counter()
                found = len((await memory.get_episode("episode-0")).steps)
                seconds.append(time.perf_counter() - began)
        return seconds, found

    purge = False

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        trio.run(self._delete, path, deleted)

    async def _delete(self, path: Path, deleted: Callable[[], None]) -> None:
        async with open_memory(path / "memory") as memory:
            await memory.delete_episode("episode-0", purge=self.purge)
            deleted()


class Purged(Acknowledged):
    """The same; `delete_episode(…, purge=True)`."""

    purge = True


class Batches(Acknowledged):
    """`await log_steps`, then `await wait_durable`."""

    batch = BATCH

    async def _agent(self, handle: EpisodeHandle, number: int, load: Load) -> None:
        for first in range(0, load.steps, BATCH):
            receipt = await handle.log_steps([load.step(number, first + place) for place in range(BATCH)])
            await receipt.wait_durable()


class Accepted(Acknowledged):
    """`await log_step` alone: what is accepted is not yet durable."""

    durable = False

    async def _agent(self, handle: EpisodeHandle, number: int, load: Load) -> None:
        for count in range(load.steps):
            await handle.log_step(load.step(number, count))
