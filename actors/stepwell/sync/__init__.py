"""Stepwell for plain code, threads and notebooks: the same memory, on a Trio thread of its own.

    with stepwell.sync.open_memory("agent-memory") as memory:
        with memory.episode("Fix the flaky test") as episode:
            episode.log_step(ExecutionStep(tool="pytest", action="run", result=StepError("1 failed")))

Everything is as in `stepwell` (the classes here have the calls of those of the same name there), without `await`. Any
thread may call. A call that is interrupted with Ctrl-C has unwound when `KeyboardInterrupt` leaves it; what it would
have stored is unknown then, so resubmit with the same key.

General layout: `opening` (`open_memory`), `door` (how calls wait), `wrappers` (what they give that has calls of
its own) and `surface` (the calls of `Memory` and `EpisodeHandle`), both made by a tool from those of `stepwell.aio`.
"""

from __future__ import annotations

from stepwell.sync.opening import open_memory as open_memory
from stepwell.sync.surface import EpisodeHandle as EpisodeHandle
from stepwell.sync.surface import EpisodicPort as EpisodicPort
from stepwell.sync.surface import LongTermPort as LongTermPort
from stepwell.sync.surface import Memory as Memory
from stepwell.sync.surface import RunningEpisode as RunningEpisode
from stepwell.sync.surface import ShortTermPort as ShortTermPort
from stepwell.sync.wrappers import Channel as Channel
from stepwell.sync.wrappers import DoorScope as DoorScope
from stepwell.sync.wrappers import Items as Items
from stepwell.sync.wrappers import Receipt as Receipt
from stepwell.sync.wrappers import Transaction as Transaction
