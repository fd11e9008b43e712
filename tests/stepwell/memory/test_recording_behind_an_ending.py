"""Events of a run that come behind its ending go through the same mailbox as those before it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import BatchConfig, MemoryConfig, events
from tests.support import SEGMENT_BYTES, open_on


@pytest.mark.parametrize("batch", [BatchConfig.manual(), BatchConfig.low_frequency()], ids=["manual", "low frequency"])
async def test_more_events_behind_an_ending_than_a_mailbox_holds_hold_nobody_up(
    batch: BatchConfig, autojump_clock: MockClock
) -> None:
    config = MemoryConfig(batch=batch, mailbox_size=8, segment_bytes=SEGMENT_BYTES)
    files = MemoryFileSystem()
    async with open_on(files, config) as memory:
        for event in (events.Started(agent="a"), events.Completed()):
            await memory.episodic.record("r", event)
        await memory.flush()
        begin = trio.current_time()
        with trio.fail_after(60):
            for number in range(50):
                await memory.episodic.record("r", events.LlmCall(tokens=number, latency_ms=1))
        assert trio.current_time() == begin
    async with open_on(files, config) as memory:
        assert len(await memory.episodic.replay("r")) == 52
