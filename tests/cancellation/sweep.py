"""Run a scenario again and again, cancelled one scheduler step later each time, and judge what is left."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from types import FrameType
from typing import NamedTuple
from unittest import mock

import trio
import trio.testing

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import MemoryConfig
from tests.cancellation.caller import Caller
from tests.cancellation.scenarios import SEGMENT_BYTES, Scenario, prepare
from tests.cancellation.told import Told, judge
from tests.cancellation.watch import Watch, thread_on_the_clock
from tests.crash.repeatable import ENDLESS, Dice
from tests.public_surface import public_async_functions
from tests.support import open_on


class Around(Enum):
    """What is cancelled: the calling task's use of a memory that goes on, or everything from opening to closing."""

    CALLS = "calls"
    MEMORY = "memory"


class Variant(NamedTuple):
    """`slow`: a medium on which every call takes time, as in a worker thread, so that it is cancelled meanwhile."""

    around: Around
    slow: bool
    seed: int

    def __str__(self) -> str:
        return f"{self.around.value}/{'slow' if self.slow else 'quick'}/{self.seed}"


class Ran(NamedTuple):
    """What one run came to. `untouched`: it was over before it was to be cancelled."""

    untouched: bool
    steps: int
    violations: list[str]


class Sweeper:
    """Runs scenarios. Used inside `repeatable.deterministic`."""

    def __init__(self, dice: Dice):
        self._dice = dice
        self._prepared: dict[int, tuple[MemoryFileSystem, dict[str, Told]]] = {}

    def sweep(
        self, scenario: Scenario, variant: Variant, *, first: int = 0, stride: int = 1
    ) -> Iterator[tuple[int, Ran]]:
        """The runs of a scenario, cancelled at step `first` and every `stride` from there on, until one is untouched;
        with the step at which each was cancelled."""
        for at in itertools.count(first, stride):
            ran = self.run(scenario, variant, at)
            yield at, ran
            if ran.untouched:
                return

    def run(
        self, scenario: Scenario, variant: Variant, at: int | None, *, profile: Callable[..., None] | None = None
    ) -> Ran:
        """One run, cancelled at step `at` (None: never). `profile`: for `sys.setprofile` while it lasts."""
        disk, told = self.prepare(scenario.long)
        watch = Watch(at)
        files = disk.page_cache_copy()
        files.needs_thread = variant.slow
        caller = Caller(
            "caller", watch, copy.deepcopy(told), commit=scenario.commit, medium_fails=scenario.medium_fails
        )
        caller.files = files
        self._dice.throw_anew(variant.seed)
        error: BaseException | None = None
        try:
            sys.setprofile(profile)
            try:
                run_on_the_clock(lambda: _life(caller, scenario, variant.around))
            finally:
                sys.setprofile(None)
            run_on_the_clock(lambda: look_back(caller))
        except (Exception, BaseExceptionGroup) as raised:
            error = raised
        violations = watch.violations + ([f"{show_leaves(error)} came out"] if error is not None else [])
        return Ran(not watch.fired, watch.steps, violations)

    def functions_called(self, scenario: Scenario) -> set[str]:
        """The public async functions that an untouched run calls, not counting those that another one calls."""
        name_of = {code: name for name, code in public_async_functions().items()}
        called: set[str] = set()

        def note(frame: FrameType, what: str, _argument: object) -> None:
            above = frame.f_back
            if what == "call" and frame.f_code in name_of and above and "/tests/" in above.f_code.co_filename:
                called.add(name_of[frame.f_code])

        ran = self.run(scenario, Variant(Around.MEMORY, False, 1), None, profile=note)
        assert not ran.violations, ran.violations
        return called

    def prepare(self, long: int) -> tuple[MemoryFileSystem, dict[str, Told]]:
        """The disk that scenarios begin with, and what is known of what it holds."""
        if long not in self._prepared:
            caller = Caller("before", Watch(None), {})
            files = MemoryFileSystem()
            self._dice.throw_anew(1)

            async def main() -> None:
                async with open_on(files, MemoryConfig(segment_bytes=SEGMENT_BYTES)) as caller.memory:
                    await prepare(caller, long)

            run_on_the_clock(main)
            self._prepared[long] = files, caller.told
        return self._prepared[long]


async def _life(caller: Caller, scenario: Scenario, around: Around) -> None:
    watch, opening = caller.watch, open_on(caller.files, scenario.config())
    before = _tasks()
    with trio.CancelScope() as scope:
        if around is Around.MEMORY:
            with watch.watching(scope):
                async with caller.entered(opening) as caller.memory:
                    await scenario.body(caller)
                await trio.lowlevel.checkpoint()
        else:
            async with opening as caller.memory:
                with trio.CancelScope() as scope:
                    with watch.watching(scope):
                        await scenario.body(caller)
                        await trio.lowlevel.checkpoint()
                await caller.go_on()
    if watch.fired and not scope.cancelled_caught:
        watch.object_to("the cancelled scope has caught nothing")
    if _tasks() != before:
        watch.object_to(f"tasks are left: {_tasks() - before}")


async def look_back(caller: Caller) -> None:
    """What holds behind it all: receipts are resolved, and the memory, opened again, says what was promised."""
    await caller.settle()
    caller.files.needs_thread = False
    async with open_on(caller.files) as memory:
        caller.memory = memory
        shown = await caller.shown()
        for text in judge(caller.told, shown):
            caller.watch.object_to(f"opened again: {text}")
        still_open = {episode.episode_id for episode in await memory.open_episodes()}
        if still_open != {episode.episode_id for episode in shown.values() if episode.outcome is None}:
            caller.watch.object_to(f"open_episodes() gives {still_open}")


def _tasks() -> set[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    found: set[trio.lowlevel.Task] = set()
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        found.add(task)
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def run_on_the_clock(main: Callable[[], Awaitable[None]]) -> None:
    """`trio.run` on a clock that jumps ahead when nothing else can happen.

    Raises: `trio.TooSlowError` if it is stuck.
    """

    async def until_stuck() -> None:
        with trio.fail_after(ENDLESS):
            await main()

    with mock.patch("trio.to_thread.run_sync", thread_on_the_clock):
        trio.run(until_stuck, clock=trio.testing.MockClock(autojump_threshold=0))


def show_leaves(error: BaseException) -> str:
    """An exception, groups flattened."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(map(show_leaves, error.exceptions))
    return repr(error)
