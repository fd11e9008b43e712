"""Run a scenario with a real SIGINT before one line of Stepwell, and judge what is left."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import NamedTuple

from tests.cancellation.caller import Caller
from tests.cancellation.scenarios import Scenario
from tests.cancellation.sweep import Sweeper, look_back, run_on_the_clock, show_leaves
from tests.cancellation.watch import Watch
from tests.crash.repeatable import Dice
from tests.interrupts.invariants import torn
from tests.interrupts.lines import Interruption, Line, each_line
from tests.support import open_on


class Interrupted(NamedTuple):
    """What one run came to. `reached`: the line was."""

    reached: bool
    violations: list[str]


class Interrupter:
    """Runs scenarios. Used inside `repeatable.deterministic`."""

    def __init__(self, dice: Dice):
        self._dice = dice
        self._sweeper = Sweeper(dice)

    def lines_of(self, scenario: Scenario, look: Callable[[Line, FrameType], None] | None = None) -> Counter[Line]:
        """The lines of ours that an untouched run goes through, and how often. `look` is called at each."""
        seen: Counter[Line] = Counter()

        def note(line: Line, frame: FrameType) -> bool:
            seen[line] += 1
            if look is not None:
                look(line, frame)
            return False

        violations = self._run(scenario, each_line(note), Watch(None))
        assert not violations, violations
        return seen

    def interrupt(self, scenario: Scenario, line: Line, nth: int = 1) -> Interrupted:
        """One run, with SIGINT before the `nth` run of the line."""
        interruption = Interruption(line, nth)
        violations = self._run(scenario, each_line(interruption), Watch(None), interruption)
        return Interrupted(interruption.raised, violations)

    def _run(
        self,
        scenario: Scenario,
        tracing: AbstractContextManager[None],
        watch: Watch,
        interruption: Interruption | None = None,
    ) -> list[str]:
        disk, told = self._sweeper.prepare(scenario.long)
        caller = Caller(
            "caller", watch, copy.deepcopy(told), commit=scenario.commit, medium_fails=scenario.medium_fails
        )
        caller.files = disk.page_cache_copy()
        caller.files.needs_thread = scenario.needs_time
        self._dice.throw_anew(1)
        came_out: BaseException | None = None
        try:
            with tracing:
                run_on_the_clock(lambda: _life(caller, scenario))
        except BaseException as error:
            came_out = error
        interrupted = interruption is not None and interruption.raised
        watch.violations += _judge_exit(came_out, interrupted)
        try:
            run_on_the_clock(lambda: look_back(caller))
        except (Exception, BaseExceptionGroup) as error:
            watch.object_to(f"looking back: {show_leaves(error)} came out")
        return watch.violations


async def _life(caller: Caller, scenario: Scenario) -> None:
    async with open_on(caller.files, scenario.config()) as caller.memory:
        try:
            await scenario.body(caller)
        except BaseException as error:
            for text in torn(caller.memory):
                caller.watch.object_to(f"torn: {text}")
            if all(isinstance(leaf, KeyboardInterrupt) for leaf in _leaves(error)):
                await caller.go_on()  # whoever catches it may tidy up
            raise


def _judge_exit(came_out: BaseException | None, interrupted: bool) -> list[str]:
    leaves = _leaves(came_out)
    others = [repr(leaf) for leaf in leaves if not isinstance(leaf, KeyboardInterrupt)]
    wrong = [f"{', '.join(others)} came out"] if others else []
    if interrupted and not any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        wrong.append("KeyboardInterrupt did not come out")
    return wrong


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [] if error is None else [error]
