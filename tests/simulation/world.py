"""One simulated world: a memory through the lives of several processes, with random callers and a medium that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import trio

from stepstore.errors import InvalidState, Rejected
from stepstore.journal import Batch, Journal, SegmentLogJournal, Submission
from stepstore.log.frame import SECTOR
from stepstore.log.submission import listed
from stepwell import BatchConfig, Closed, Event, Memory, MemoryConfig, OutcomeUnknown, StepwellError
from stepwell.memory.opening import OpenMemory
from stepwell.testing import Simulation, StuckError
from tests.crash import promises
from tests.crash.checker import Broken, judge
from tests.crash.examining import read_streams
from tests.crash.faults import Fault, FaultyMedium
from tests.crash.lives import Ledger
from tests.crash.promises import Expectation
from tests.crash.watching import CHANGING, Call
from tests.simulation.agents import Agent, Setting
from tests.simulation.follower import Follower
from tests.simulation.model import Fate, Model

LONGEST = 20_000.0
"""Simulated seconds that no run takes."""
MOST_STEPS = 60_000
RECEIPT_PATIENCE = 1.0
FOLLOWER_PATIENCE = 300.0
ENDINGS = {"close": 4, "power cut": 4, "kill": 2, "cancel": 2, "error": 1}


class BodyError(Exception):
    """What the body of `open_memory` raises."""


@dataclass(frozen=True)
class Result:
    """What came of one world."""

    seed: int
    wrong: list[str]
    counts: dict[str, int]
    digest: str
    trace: list[str]
    steps: int


@dataclass(frozen=True)
class Plan:
    """What one process is to meet. `at_call`: it ends at this call that changes the medium; None: after `seconds`, or
    once its callers have nothing more to do."""

    ending: str
    at_call: int | None
    seconds: float
    callers: int
    operations: int
    fault: Fault | None


class World:
    """See the module. `run` once."""

    def __init__(self, seed: int):
        self.simulation = Simulation(
            seed, before=self._before, seconds_of_io=self._seconds_of_io, longest_seconds=LONGEST, most_steps=MOST_STEPS
        )
        self.random = Random(f"world {seed}")
        self.model = Model(lambda text: self.simulation.note(f"WRONG: {text}"))
        self.ledger = Ledger(Expectation())
        self.config = self._draw_config()
        self.lives = self.random.randrange(2, 6)
        self._slow = self.random.choice((0.0, 0.0, 0.01, 0.1))
        self._mean_seconds = self.random.choice((0.0001, 0.001, 0.01))
        self._follower = Follower("follower", self.model, self.simulation, self.random.choice((0.0, 0.0, 0.002, 0.5)))
        self._is_watched = self.random.random() < 0.5
        self._medium: FaultyMedium | None = None
        self._changes = 0
        self._die_at: int | None = None
        self._on_death: Callable[[], None] = lambda: None

    def run(self) -> Result:
        """Run it to its end, or to the first broken promise."""
        simulation = self.simulation
        try:
            simulation.run(self._main)
        except StuckError as error:
            self.model.wrong.append(str(error))
        except BaseExceptionGroup as group:
            broken, others = group.split(Broken)
            if others is not None:
                raise
            self.model.wrong.append(str(broken))
        except Broken as broken:
            self.model.wrong.append(str(broken))
        return Result(
            simulation.seed, self.model.wrong, self.model.counts, simulation.digest, simulation.trace, simulation.steps
        )

    # ---- the medium --------------------------------------------------------------------------------------------------

    def _seconds_of_io(self) -> float:
        dice = self.simulation.random
        return dice.uniform(0.5, 12) if dice.random() < self._slow else dice.expovariate(1 / self._mean_seconds)

    def _before(self, call: Call) -> int | None:
        if call.operation in CHANGING:
            self._changes += 1
            if self._changes == self._die_at:
                self._on_death()
        if self._medium is None:
            return None
        failed = self._medium.failed
        try:
            return self._medium(call)
        finally:
            if self._medium.failed > failed:
                self.simulation.note(f"    {call} fails: {self._medium.fault}")

    @property
    def _troubled(self) -> bool:
        return self._medium is not None and self._medium.failed > 0

    # ---- what is drawn -----------------------------------------------------------------------------------------------

    def _draw_config(self) -> MemoryConfig:
        dice = self.random
        config = MemoryConfig(
            durability=dice.choice(("receipt", "receipt", "receipt", "commit")),
            batch=dice.choice(
                (
                    BatchConfig(),
                    BatchConfig(max_batch_size=3, flush_interval_ms=1),
                    BatchConfig.manual(),
                    BatchConfig.high_frequency(),
                )
            ),
            mailbox_size=dice.choice((1, 2, 5, 64)),
            grace_seconds=dice.choice((0.0, 0.05, 5)),
            align=dice.choice((0, 0, SECTOR)),
            compression=dice.choice(("none", "none", "none", "zstd")),
            idle_seconds=dice.choice((0.2, 2.0, 120)),
            max_live_episodes=dice.choice((1, 2, 10_000)),
            resume_open=dice.random() < 0.3,
            scrub_every_seconds=dice.choice((0, 30, 86_400)),
        )
        # Smaller than a user may have it, so that segments are left, sealed and compacted in a short run.
        object.__setattr__(config, "segment_bytes", dice.choice((2048, 4096, 16384, 65536)))
        return config

    def _draw_plan(self) -> Plan:
        dice = self.random
        ending = dice.choices(list(ENDINGS), list(ENDINGS.values()))[0]
        fault = None
        if dice.random() < 0.35:
            how, lasting = dice.choice(("EIO", "ENOSPC")), dice.choice(("once", "once", "for ever", "for ever, all"))
            fault = Fault(
                int(dice.expovariate(1 / dice.choice((20, 100, 300)))) + 1, how, lasting, reached=dice.random() < 0.3
            )
        return Plan(
            ending=ending,
            at_call=int(dice.expovariate(1 / 40)) + 1 if dice.random() < 0.7 else None,
            seconds=dice.choice((0.01, 0.1, 1.0, 30.0)) * dice.random(),
            callers=dice.randrange(1, 6),
            operations=dice.randrange(3, 25),
            fault=fault,
        )

    # ---- lives -------------------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        for life in range(1, self.lives + 1):
            await self._live(life, self._draw_plan())
            if self.model.wrong:
                return
        await self._look_a_last_time()

    async def _live(self, life: int, plan: Plan) -> None:
        self.simulation.note(f"life {life}: {plan}")
        self.model.count("lives")
        self.model.count(plan.ending)
        self.simulation.wall_clock_offset = self.random.uniform(-3, 3)  # and it may go back
        self._medium = None if plan.fault is None else FaultyMedium(plan.fault)
        self._changes, self._die_at = 0, None
        try:
            await self._open_and_live(plan)
        except (StepwellError, OSError) as error:
            self._take_failure(error)
        except BaseExceptionGroup as group:
            rest = group.split((StepwellError, OSError, BodyError))[1]
            if rest is not None:
                raise
            self._take_failure(group)
        if self._troubled:
            self.model.count("lives with faults")
        self._medium, self._die_at = None, None
        self.model.frozen = False

    def _take_failure(self, error: BaseException) -> None:
        self.simulation.note(f"open_memory raised {error!r}")
        self.model.count(f"open_memory raised {type(error).__name__}")
        if not self._troubled:
            self.model.object_to(f"open_memory raised {error!r} on a sound medium")

    async def _open_and_live(self, plan: Plan) -> None:
        async with trio.open_nursery() as outer:
            setting: Setting | None = None
            scope = trio.CancelScope()
            try:
                with scope:
                    async with _Opening(self, self.config) as memory:
                        await self._look(memory)
                        setting = self._setting(memory)
                        await self._live_in(outer, scope, memory, setting, plan)
            except BodyError:
                pass
            # The memory is closed: whoever still calls is told so.
            if setting is not None and not self.model.frozen:
                with trio.move_on_after(60) as patience:
                    while outer.child_tasks:  # noqa: ASYNC110 (a nursery has no event for that)
                        await trio.sleep(0.1)
                if patience.cancelled_caught:
                    names = sorted(task.name for task in outer.child_tasks)
                    self.model.object_to(f"the memory is closed, and there still wait {names}")
                await self._check_receipts(setting)
                if names := [task.name for task in tasks_of_a_memory()]:
                    self.model.object_to(f"the memory is closed, and these tasks are left: {names}")
            outer.cancel_scope.cancel()

    def _setting(self, memory: Memory) -> Setting:
        return Setting(memory, self.model, self.simulation, lambda: self._troubled, self.config.durability == "commit")

    async def _live_in(
        self, outer: trio.Nursery, scope: trio.CancelScope, memory: Memory, setting: Setting, plan: Plan
    ) -> None:
        def die() -> None:
            self.simulation.note(f"life ends: {plan.ending}")
            self.model.freeze()
            self.ledger = Ledger(self.ledger.now())  # what the journal of the dead process says is noted in the old one
            self.simulation.cut_power() if plan.ending == "power cut" else self.simulation.kill()
            outer.cancel_scope.cancel()

        dies = plan.ending in ("power cut", "kill")
        if dies and plan.at_call is not None:
            self._on_death, self._die_at = die, self._changes + plan.at_call
        outer.start_soon(self._follower.run, memory, setting, name="follower")
        if self._is_watched:
            outer.start_soon(self._watch, memory, setting, name="watcher")
        busy = trio.Event()
        outer.start_soon(self._call, memory, setting, plan, busy, name="callers")
        with trio.move_on_after(plan.seconds if plan.at_call is None else LONGEST / 10):
            await busy.wait()
        if dies and not self.model.frozen:
            self._die_at = None
            die()
        if self.model.frozen:
            await trio.sleep_forever()
        setting.closing = True
        setting.in_a_hurry = plan.ending in ("cancel", "error")
        self.simulation.note(f"life ends: {plan.ending}")
        if plan.ending == "cancel":
            scope.cancel()
            await trio.sleep_forever()
        if plan.ending == "error":
            raise BodyError

    async def _watch(self, memory: Memory, setting: Setting) -> None:
        try:
            async with memory.lifecycle() as events:
                async for event in events:
                    if event.kind in ("asleep", "woken", "restarted"):
                        self.model.count(f"episodes {event.kind}")
        except Closed:
            if not setting.closing and not self._troubled:
                self.model.object_to("a watcher was told that the memory is closed")

    async def _call(self, memory: Memory, setting: Setting, plan: Plan, done: trio.Event) -> None:
        first = Agent("agent 0", setting, plan.operations)
        if not self.model.episodes:
            for _ in range(3):
                try:
                    await first.do_start()
                except StepwellError:
                    break
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run, name=first.name)
            for number in range(1, plan.callers):
                agent = Agent(f"agent {number}", setting, plan.operations)
                nursery.start_soon(agent.run, name=agent.name)
        done.set()

    async def _check_receipts(self, setting: Setting) -> None:
        for sent in self.model.episodes.values():
            for attempt in sent.attempts:
                if attempt.receipt is None or attempt.fate is not Fate.ACCEPTED:
                    continue
                with trio.move_on_after(RECEIPT_PATIENCE) as scope:
                    try:
                        await attempt.receipt.wait_durable()
                    except OutcomeUnknown:
                        self.model.learn(sent, attempt, Fate.UNKNOWN)
                        if not self._troubled and not setting.in_a_hurry:
                            self.model.object_to(f"{sent.name}: {attempt} is lost, and the memory was closed in order")
                    else:
                        self.model.look_at_receipt(sent, attempt)
                if scope.cancelled_caught:
                    self.model.object_to(f"{sent.name}: the receipt of {attempt} does not resolve")
                self.model.count("receipts resolved by closing")

    # ---- looking -----------------------------------------------------------------------------------------------------

    async def _look(self, memory: Memory) -> dict[str, list[Event]]:
        """Read everything, as a new process does: what it shows is promised from now on."""
        journal = memory._journal
        assert isinstance(journal, SegmentLogJournal)
        expected = self.ledger.now()
        found: dict[str, list[Event]] = {}
        try:
            names: list[str] = [name async for name in memory.episode_ids()]
            for name in names:
                found[name] = [event async for event in memory.events(name)]
            streams = await read_streams(journal, expected)
            open_episodes = {episode.episode_id for episode in await memory.open_episodes()}
        except (StepwellError, Broken) as error:
            if not self._troubled:
                raise
            self.simulation.note(f"looking failed: {error!r}")
            raise OSError("the medium failed while a process looked around") from error
        full = False
        try:
            journal.check_open()
        except StepwellError as error:
            full = True
            if not self._troubled:
                self.model.object_to(f"a sound medium takes no writes: {error!r}")
        if wrong := judge(expected, streams):
            raise Broken(wrong)
        self.ledger.settle(streams, for_good=not full)
        self.model.check_ids(names)
        self.model.settle(found, for_good=not full)
        for name, events in found.items():
            if (events[-1].kind != "ended") != (name in open_episodes):
                self.model.object_to(f"{name} is {'' if name in open_episodes else 'not '}among the open episodes")
        self.simulation.note(f"found: {', '.join(f'{name} {len(events)}' for name, events in found.items())}")
        return found

    async def _look_a_last_time(self) -> None:
        self.simulation.note("a last look")
        async with _Opening(self, self.config) as memory:
            found = await self._look(memory)
            setting = self._setting(memory)
            fresh = Follower("second follower", self.model, self.simulation, 0.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fresh.run, memory, setting)
                nursery.start_soon(self._follower.run, memory, setting)
                last = max((event.lsn for events in found.values() for event in events), default=0)
                with trio.move_on_after(FOLLOWER_PATIENCE) as patience:
                    while any(one.position < last for one in (fresh, self._follower)):  # noqa: ASYNC110
                        await trio.sleep(1)
                if patience.cancelled_caught:
                    self.model.object_to("a follower does not come to the end of the log")
                nursery.cancel_scope.cancel()
            fresh.check(found)
            self._follower.check(found)
        self.model.count("records", sum(map(len, found.values())))


def tasks_of_a_memory() -> list[trio.lowlevel.Task]:
    """The tasks of Stepwell that run now: all of them are named after it."""
    root = trio.lowlevel.current_root_task()
    found, left = [], [] if root is None else [root]
    while left:
        task = left.pop()
        found += [task] if task.name.startswith("stepwell ") else []
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


class _Opening(OpenMemory):
    """`open_memory` in a world: what goes to its journal is noted for the checker of the crash suites too."""

    def __init__(self, world: World, config: MemoryConfig):
        super().__init__("/log", config, False, world.simulation.files)
        self._world = world

    async def _open_journal(self, path: str, config: MemoryConfig) -> Journal:
        journal = await super()._open_journal(path, config)
        ledger, submit = self._world.ledger, journal.submit

        def noting(
            batches: Batch | Sequence[Batch],
            *,
            critical: bool = False,
            on_done: Callable[[Submission], None] | None = None,
        ) -> Submission:
            number = len(ledger)
            ledger.add(list(listed(batches)))

            def done(submission: Submission) -> None:
                if submission.error is None:
                    ledger.learn(number, promises.Fate.STORED, submission.first_lsn)
                else:
                    refused = isinstance(submission.error, Rejected | InvalidState)
                    ledger.learn(number, promises.Fate.REFUSED if refused else promises.Fate.UNKNOWN)
                if on_done is not None:
                    on_done(submission)

            try:
                return submit(batches, critical=critical, on_done=done)
            except StepwellError:
                ledger.learn(number, promises.Fate.REFUSED)
                raise

        journal.submit = noting  # type: ignore[method-assign]
        return journal
