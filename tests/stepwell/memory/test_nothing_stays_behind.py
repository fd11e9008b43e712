"""What a memory held is free once it is closed: nothing that the garbage collector does not know is part of a cycle."""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest
import trio

from stepstore.errors import afresh
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    EpisodeUnavailable,
    ExecutionStep,
    Fact,
    LogFull,
    Memory,
    OutcomeUnknown,
    Scope,
    StepSuccess,
    Success,
    Unavailable,
)
from tests.support import SEGMENT_BYTES, HookedFileSystem, memory_files, open_on, step


async def steps_that_nobody_waits_for(memory: Memory) -> None:
    handle = await memory.start_episode("a task")
    await handle.log_step(step(1))


async def an_acknowledged_step(memory: Memory) -> None:
    handle = await memory.start_episode("a task")
    await (await handle.log_step(step(1))).wait_durable()


async def a_little_of_everything(memory: Memory) -> None:
    async with memory.episode("a task") as run:
        await run.log_steps([step(1), step(2)])
        run.log_step_nowait(step(3))
        async with memory.atomic() as together:
            together.log_step(run.episode_id, step(4))
    await (await memory.start_episode("another")).complete(Success())
    await memory.long_term.remember(Scope.global_(), Fact("a fact"))
    await memory.list_episodes()
    await memory.patterns()
    await memory.retrieve_relevant_context("a task")
    async with memory.follow() as events:
        await events.receive()


async def a_caller_that_gave_up_waiting(memory: Memory) -> None:
    handle = await memory.start_episode("a task")
    receipt = await handle.log_step(step(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await receipt.wait_durable()


USES: list[Callable[[Memory], Awaitable[None]]] = [
    steps_that_nobody_waits_for,
    an_acknowledged_step,
    a_little_of_everything,
    a_caller_that_gave_up_waiting,
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
async def test_of_a_memory_that_was_closed(use: Callable[[Memory], Awaitable[None]]) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await use(memory)
        held = weakref.ref(memory._runtime), weakref.ref(memory._journal)
    del memory
    gc.collect()
    assert [it() for it in held] == [None, None]


async def test_of_a_memory_whose_log_failed(caplog: pytest.LogCaptureFixture) -> None:
    broken: list[bool] = []
    held: list[weakref.ref[object]] = []

    def fail(call: str, _path: str) -> None:
        if call == "datasync" and broken:
            raise OSError(errno.EIO, "Input/output error")

    async def use_it() -> None:
        async with open_on(HookedFileSystem(MemoryFileSystem(), fail)) as memory:
            handle = await memory.start_episode("a task")
            receipt = await handle.log_step(step(1))
            held.extend((weakref.ref(memory._runtime), weakref.ref(memory._journal)))
            broken.append(True)
            with pytest.raises(OutcomeUnknown):
                await receipt.wait_durable()

    with pytest.raises(OSError, match="Input"):
        await use_it()
    caplog.clear()  # errors hold the frames that raised them
    gc.collect()
    assert [it() for it in held] == [None, None]


async def test_of_a_memory_whose_disk_was_full(caplog: pytest.LogCaptureFixture) -> None:
    def fill(call: str, path: str) -> None:
        if full and call in ("write", "allocate") and path.endswith("spare.tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")

    full: list[bool] = []
    async with open_on(HookedFileSystem(memory_files(), fill)) as memory:
        handle = await memory.start_episode("a task")
        full.append(True)
        too_large_for_this_segment = ExecutionStep("tool", result=StepSuccess("x" * SEGMENT_BYTES))
        receipt = await handle.log_step(too_large_for_this_segment)
        with pytest.raises(LogFull):
            await receipt.reach_log()
        full.clear()
        held = weakref.ref(memory._runtime), weakref.ref(memory._journal)
    del memory, handle, receipt
    caplog.clear()
    gc.collect()
    assert [it() for it in held] == [None, None]


def test_an_error_that_is_raised_afresh_tells_the_same_and_knows_no_frame() -> None:
    try:
        try:
            raise OSError(errno.EIO, "Input/output error", "/log/1.seg")
        except OSError as cause:
            raise EpisodeUnavailable("parked after six failures", reason="parked") from cause
    except EpisodeUnavailable as error:
        found = afresh(error)
        assert (str(found), found.reason, type(found)) == (str(error), "parked", EpisodeUnavailable)
        assert isinstance(found.__cause__, OSError)
        assert (found.__cause__.errno, found.__cause__.filename) == (errno.EIO, "/log/1.seg")
        assert found.__traceback__ is found.__cause__.__traceback__ is None
        assert error.__traceback__ is not None


def test_a_cause_that_cannot_be_made_again_is_told_as_it_is() -> None:
    class Particular(Exception):
        def __new__(cls, *, place: str) -> Particular:
            return super().__new__(cls, place)

        def __init__(self, *, place: str) -> None:
            self.place = place

    error = Unavailable("the key provider failed")
    error.__cause__ = cause = Particular(place="there")
    assert afresh(error).__cause__ is cause
