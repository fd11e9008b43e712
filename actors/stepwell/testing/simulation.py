"""A simulated world for a whole memory: clock, medium, worker threads and the order of tasks all follow from a seed.

    simulation = Simulation(seed=7)

    async def main() -> None:
        async with simulation.open_memory() as memory:
            handle = await memory.start_episode("task", episode_id="e")
            receipt = await handle.log_step(step)
            await receipt.wait_durable()
            simulation.cut_power()                       # the disk is what a power cut at this moment may leave of it
        async with simulation.open_memory() as memory:   # another process, later
            assert len((await memory.get_episode("e")).steps) == 1

    simulation.run(main)

Two runs with one seed are the same: the same steps of the same tasks at the same times, the same bytes written, told by
`trace` and, in short, by `digest`. Nothing in it takes real time: the clock jumps when every task sleeps.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
import posixpath
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TypeVar
from unittest import mock
from uuid import UUID

import trio
from trio.testing import MockClock

from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.watched_files import CHANGING, Call, WatchedFiles
from stepwell.memory.opening import OpenMemory
from stepwell.runtime.config import MemoryConfig
from stepwell.testing.scheduling import seeded_scheduling
from stepwell.testing.simulated_threads import SimulatedThreads

T = TypeVar("T")

BEGINNING_NS = 1_709_164_800_000_000_000
"""29 February 2024: when the wall clock of every simulation begins."""
LONGEST_SECONDS = 1e6
MOST_STEPS = 2_000_000
LOG = "/log"
Hook = Callable[[Call], int | None]
"""Sees each call of the file layer before it is made. It may raise `OSError`, or give a number of bytes, which makes a
read or a write a short one."""


class StuckError(AssertionError):
    """A simulated run came to rest, or went round in circles, without having come to its end."""


class SimulatedFiles(WatchedFiles):
    """The file layer of one simulated process. Its calls count as blocking, so they are made in simulated threads."""

    needs_thread = True


class Simulation:
    """See the module. One simulation is run once.

    `random`: where everything arbitrary comes from. `disk`: what is on the medium and in the page cache. `before`: sees
    each call of the file layer. `seconds_of_io`: how long each wait of a blocking call is. `trace`: what happened, a
    line each. `wall_clock_offset`: seconds that the wall clock is ahead of the clock of Trio; may be set.
    """

    def __init__(
        self,
        seed: int,
        *,
        before: Hook = lambda call: None,
        seconds_of_io: Callable[[], float] | None = None,
        longest_seconds: float = LONGEST_SECONDS,
        most_steps: int = MOST_STEPS,
    ):
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = MockClock(autojump_threshold=0)
        self.disk = MemoryFileSystem()
        self.before = before
        self.trace: list[str] = []
        self.steps = 0
        self.wall_clock_offset = 0.0
        self._digest = hashlib.blake2b(digest_size=16)
        self._seconds_of_io = seconds_of_io or (lambda: self.random.expovariate(1000))
        self._threads = SimulatedThreads(lambda: self._seconds_of_io())
        self._longest_seconds, self._most_steps = longest_seconds, most_steps
        self._scope = trio.CancelScope()
        self._stuck = ""
        self._ticks = 0
        self._files = self._new_process()

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run `main` in this world. Raises: what `main` does; `StuckError`, with where every task stands."""
        with self._determined():
            return trio.run(self._main, main, clock=self.clock, instruments=[_StepCounter(self)])

    def open_memory(self, config: MemoryConfig | None = None, *, read_only: bool = False) -> OpenMemory:
        """`stepwell.open_memory` on the disk as it is now."""
        return OpenMemory(LOG, config, read_only, self._files)

    @property
    def files(self) -> SimulatedFiles:
        """The file layer of the process that runs now."""
        return self._files

    def cut_power(self) -> None:
        """Lose power: of what was not synced, any part is left. A memory that is open goes on, on a disk that is of no
        further consequence; whatever is opened from now on finds what is left."""
        self.note("power cut")
        self.disk = self.disk.crash_copy(self.random.randrange)
        self._files = self._new_process()

    def kill(self) -> None:
        """As `cut_power`, but only the process dies: what it had written is seen, though not all of it is durable."""
        self.note("the process dies")
        self.disk = self.disk.page_cache_copy()
        self._files = self._new_process()

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        line = f"{self.clock.current_time():12.6f} {text}"
        self.trace.append(line)
        self._digest.update(line.encode() + b"\n")

    @property
    def digest(self) -> str:
        """The same for equal runs: of the trace, and of each step of each task."""
        return self._digest.hexdigest()

    # ---- the world ---------------------------------------------------------------------------------------------------

    def _new_process(self) -> SimulatedFiles:
        files: SimulatedFiles

        def before(call: Call) -> int | None:
            if files is not self._files:
                return None  # a process that is dead
            if call.operation in CHANGING and posixpath.basename(call.path) != "LOCK":
                size = f" {call.offset}+{call.size}" if call.size else ""
                self.note(f"    {call.operation} {posixpath.basename(call.path)}{size}")
            return self.before(call)

        files = SimulatedFiles(self.disk, before)
        return files

    def _time_ns(self) -> int:
        self._ticks += 1  # no two readings are the same, so no two records are
        return BEGINNING_NS + round((self.clock.current_time() + self.wall_clock_offset) * 1e9) + self._ticks

    def _calendar(self) -> SimpleNamespace:
        """What stands for the module `datetime`, whose clock cannot be set from outside."""
        time_ns = self._time_ns

        class SimulatedDatetime(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> SimulatedDatetime:
                return cls.fromtimestamp(time_ns() / 1e9, tz)

        return SimpleNamespace(datetime=SimulatedDatetime, UTC=dt.UTC)

    def _uuid(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    @contextmanager
    def _determined(self) -> Iterator[None]:
        state = random.getstate()
        random.seed(self.seed)
        with ExitStack() as stack:
            stack.enter_context(seeded_scheduling(self.seed))
            for target, value in (
                ("trio.to_thread.run_sync", self._threads.run_sync),
                ("time.time_ns", self._time_ns),
                ("time.perf_counter", self.clock.current_time),
                ("secrets.randbits", self.random.getrandbits),
                ("secrets.token_bytes", self.random.randbytes),
                ("uuid.uuid4", self._uuid),
                ("uuid_utils.compat.uuid7", self._uuid),
                ("stepstore.log.repair.dt", self._calendar()),
                ("stepstore.log.directory.dt", self._calendar()),
                ("stepstore.log.reserve.RESERVE_BYTES", 2048),  # disks are copied
            ):
                stack.enter_context(mock.patch(target, value))
            for name in ("stepstore.log", "stepwell.runtime"):
                stack.enter_context(mock.patch.object(logging.getLogger(name), "disabled", True))
            try:
                yield
            finally:
                random.setstate(state)

    async def _main(self, main: Callable[[], Awaitable[T]]) -> T:
        result: list[T] = []
        failure: Exception | None = None
        async with trio.open_nursery() as watching:
            watching.start_soon(self._watch, trio.lowlevel.current_task())
            with self._scope:
                try:
                    result.append(await main())
                except Exception as error:
                    failure = error  # raised behind the nursery, which would put it into a group
            watching.cancel_scope.cancel()
        if self._stuck:
            raise StuckError(self._stuck) from failure
        if failure is not None:
            raise failure
        return result[0]

    async def _watch(self, main: trio.lowlevel.Task) -> None:
        await trio.sleep(self._longest_seconds)
        self._give_up(f"not at its end after {self._longest_seconds:,.0f} simulated seconds", main)
        while True:  # what shields itself from this is cancelled by its own innermost scope
            await trio.sleep(60)
            for task in _below(main):
                if task is not trio.lowlevel.current_task():
                    task._cancel_status._scope.cancel()

    def _count_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        self._digest.update(task.name.encode())
        if self.steps == self._most_steps:
            main = trio.lowlevel.current_root_task()
            assert main is not None
            self._give_up(f"not at its end after {self._most_steps:,} steps", main)

    def _give_up(self, why: str, main: trio.lowlevel.Task) -> None:
        self._stuck = "\n".join([why, *map(_where, _below(main))])
        self._scope.cancel()


class _StepCounter(trio.abc.Instrument):
    def __init__(self, simulation: Simulation):
        self._simulation = simulation

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._simulation._count_step(task)


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _below(child)


def _where(task: trio.lowlevel.Task) -> str:
    frames = [
        (frame.f_code.co_name, os.path.basename(frame.f_code.co_filename), line)
        for frame, line in task.iter_await_frames()
    ]
    return f"  {task.name}: " + " → ".join(f"{name} ({file}:{line})" for name, file, line in frames[-5:])
