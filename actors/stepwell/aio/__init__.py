"""Stepwell for asyncio: the same memory, on a Trio thread of its own.

    async with stepwell.aio.open_memory("agent-memory") as memory:
        async with memory.episode("Fix the flaky test") as episode:
            await episode.log_step(ExecutionStep(tool="pytest", action="run", result=StepError("1 failed")))

Everything is as in `stepwell` (the classes here have the calls of those of the same name there), in the asyncio loop
that opened the memory. One that is cancelled on the Trio side has unwound before the cancellation goes on in asyncio;
what it would have stored is unknown then, so resubmit with the same key.

General layout: `opening` (`open_memory`), `door` (how calls wait), `wrappers` (what they give that has calls of
its own), `surface` (the calls of `Memory` and `EpisodeHandle`; made by a tool).
"""

from __future__ import annotations

from stepwell.aio.opening import open_memory as open_memory
from stepwell.aio.surface import EpisodeHandle as EpisodeHandle
from stepwell.aio.surface import EpisodicPort as EpisodicPort
from stepwell.aio.surface import LongTermPort as LongTermPort
from stepwell.aio.surface import Memory as Memory
from stepwell.aio.surface import RunningEpisode as RunningEpisode
from stepwell.aio.surface import ShortTermPort as ShortTermPort
from stepwell.aio.wrappers import Channel as Channel
from stepwell.aio.wrappers import DoorScope as DoorScope
from stepwell.aio.wrappers import Items as Items
from stepwell.aio.wrappers import Receipt as Receipt
from stepwell.aio.wrappers import Transaction as Transaction
