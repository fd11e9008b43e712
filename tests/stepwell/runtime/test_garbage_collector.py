"""What exists once for each step on its way to the medium is not the garbage collector's.

It would go through all of it again and again: with thousands of callers that took a third of the time. Safe it is since
none of these can be part of a cycle that nobody resolves; see each of them.
"""

from __future__ import annotations

import gc
from types import CoroutineType

import pytest
import trio
import trio.testing

from stepstore.journal import Batch, Submission
from stepwell.runtime.flusher import _Due
from stepwell.runtime.receipt import Commit, Receipt, _StopWaiting
from stepwell.runtime.woken import WOKEN
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import step

KINDS = (Batch, Submission, Commit, Receipt, _StopWaiting, _Due)
CALLERS = 20


async def test_a_caller_that_waits_for_the_medium_costs_the_collector_what_trio_needs() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        handles = [await memory.start_episode("task") for _ in range(CALLERS)]
        await memory.flush()
        journal.hang_next()
        async with trio.open_nursery() as nursery:
            for handle in handles:
                receipt = await handle.log_step(step(0))
                nursery.start_soon(receipt.wait_durable)
            try:
                await journal.wait_hanging()
                await trio.testing.wait_all_tasks_blocked()
                # Nothing is asked of what is not ours: the process has objects of other tests, dead proxies among them.
                tracked = set(map(type, gc.get_objects()))
                waiting = [it.__qualname__ for it in gc.get_objects() if type(it) is CoroutineType]
            finally:
                journal.release()
        assert tracked.isdisjoint(KINDS)
        assert waiting.count("Receipt.wait_durable") >= CALLERS


async def test_what_wakes_a_task_serves_any_number_of_them() -> None:
    tasks: list[trio.lowlevel.Task] = []
    woken = 0

    async def sleep() -> None:
        nonlocal woken
        tasks.append(trio.lowlevel.current_task())
        assert await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED) is None
        woken += 1

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        for task in tasks:
            trio.lowlevel.reschedule(task, WOKEN)
    assert woken == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_that_exist_for_each_step_are_none_of_the_collectors(kind: type) -> None:
    assert not kind.__flags__ & 1 << 14  # Py_TPFLAGS_HAVE_GC
