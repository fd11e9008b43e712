"""Whoever waits for a receipt while the disk is full is told, however late they begin to wait."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from stepwell import BatchConfig, ExecutionStep, LogFull, MemoryConfig, OutcomeUnknown, StepSuccess
from tests.support import SEGMENT_BYTES, HookedFileSystem, memory_files, open_on, step


async def test_waiting_for_a_step_accepted_before_the_disk_was_full_does_not_hang() -> None:
    full = False

    def hook(operation: str, path: str) -> None:
        if full and operation in ("write", "allocate") and path.endswith("spare.tmp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    config = MemoryConfig(batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)
    async with open_on(HookedFileSystem(memory_files(), hook), config) as memory:
        early = await memory.start_episode("a step of it waits while the disk fills up")
        late = await memory.start_episode("meets the full disk")
        receipt = await early.log_step(step(1))  # accepted, and nobody waits yet
        full = True
        too_large_for_this_segment = ExecutionStep("tool", result=StepSuccess("x" * SEGMENT_BYTES))
        with pytest.raises(LogFull):
            await (await late.log_step(too_large_for_this_segment)).reach_log()
        try:
            with trio.fail_after(2), pytest.raises(OutcomeUnknown, match="did not reach the log"):
                await receipt.wait_durable()
        finally:
            full = False
