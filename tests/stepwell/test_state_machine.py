"""A memory against a plain dict, in every order of calls, crashes and reopenings that Hypothesis thinks of.

One caller, in a simulated world (`stepwell.testing.Simulation`): between two calls nothing moves, and the clock jumps
when a call waits. A power cut leaves any part of what was not synced; a sync may fail while nobody waits for it.
`--hypothesis-profile=long` looks longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from stepwell import (
    START,
    BatchConfig,
    Event,
    ExecutionStep,
    Failure,
    InvalidState,
    Memory,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    Receipt,
    StepSuccess,
    Success,
)
from stepwell.model.outcome import TaskOutcome
from tests.stepping import Stepping

T = TypeVar("T")


@dataclass
class Known:
    """One episode, as the model has it: records in order, and how many of them are promised to be durable."""

    task: str
    steps: list[int] = field(default_factory=list)
    batch_ends: set[int] = field(default_factory=lambda: {0})
    durable: int = 0
    outcome: TaskOutcome | None = None
    keys: dict[str, int] = field(default_factory=dict)
    deleted: bool = False

    @property
    def takes_steps(self) -> bool:
        return self.outcome is None and not self.deleted


OUTCOMES = (Success("works", ["a"]), Success("other"), Failure("no"))


class MemoryMachine(RuleBasedStateMachine):
    """See the module."""

    episodes: Bundle[str] = Bundle("episodes")
    receipts: Bundle[tuple[str, int, Receipt, int]] = Bundle("receipts")
    lost: Bundle[Receipt | None] = Bundle("lost")

    @initialize(
        target=episodes,
        seed=st.integers(0, 2**32),
        durability=st.sampled_from(["receipt", "commit"]),
        batch=st.sampled_from([BatchConfig(), BatchConfig(max_batch_size=2), BatchConfig.manual()]),
        mailbox_size=st.sampled_from([1, 3, 64]),
        idle_seconds=st.sampled_from([0.5, 120]),
        max_live=st.sampled_from([1, 10_000]),
    )
    def begin(
        self, seed: int, durability: Any, batch: BatchConfig, mailbox_size: int, idle_seconds: float, max_live: int
    ) -> str:
        config = MemoryConfig(
            durability=durability,
            batch=batch,
            mailbox_size=mailbox_size,
            idle_seconds=idle_seconds,
            max_live_episodes=max_live,
        )
        object.__setattr__(config, "segment_bytes", 4096)  # so that segments are left in a short run
        self.stepping = Stepping(seed, config)
        self.known: dict[str, Known] = {}
        self.numbers = self.life = 0
        self.untold: list[tuple[str, int, Receipt]] = []
        self.failures: Counter[str] = Counter()
        self.commit = durability == "commit"
        self.timed = batch.auto_flush
        self.followed: list[Event] = []
        self.calls = 0
        self.stepping.do(self.stepping.open)
        return self.start()

    def teardown(self) -> None:
        if hasattr(self, "stepping"):
            self.stepping.end()

    @property
    def memory(self) -> Memory:
        assert self.stepping.memory is not None
        return self.stepping.memory

    def do(self, call: Callable[[], Awaitable[T]]) -> T:
        self.calls += 1
        return self.stepping.do(call)

    def new_step(self, key: str | None = None) -> tuple[int, ExecutionStep]:
        self.numbers += 1
        return self.numbers, self.step(self.numbers, key)

    def step(self, number: int, key: str | None = None) -> ExecutionStep:
        return ExecutionStep("tool", f"action {number}", {"n": number}, StepSuccess("x" * (number % 5 * 100)), key=key)

    def accepted(self, known: Known, *numbers: int) -> None:
        known.steps += numbers
        known.batch_ends.add(len(known.steps))
        if self.commit:
            known.durable = len(known.steps)

    # ---- writing -----------------------------------------------------------------------------------------------------

    @rule(target=episodes)
    def start_another(self) -> str:
        return self.start()

    def start(self) -> str:
        name = f"e{len(self.known)}"
        self.known[name] = Known(f"task of {name}")
        assert self.do(lambda: self.memory.start_episode(f"task of {name}", episode_id=name)).id == name
        return name

    @rule(name=episodes, same=st.booleans())
    def start_again(self, name: str, same: bool) -> None:
        known = self.known[name]
        task = known.task if same else "another task"
        call = lambda: self.memory.start_episode(task, episode_id=name)  # noqa: E731
        if same and not known.deleted:
            assert self.do(call).id == name
        else:
            with pytest.raises(InvalidState):
                self.do(call)

    @rule(target=receipts, name=episodes, nowait=st.booleans())
    def log(self, name: str, nowait: bool) -> tuple[str, int, Receipt, int]:
        return self.log_one(name, nowait=nowait)

    def log_one(self, name: str, *, nowait: bool) -> tuple[str, int, Receipt, int]:
        known = self.known[name]
        number, step = self.new_step()
        if not known.takes_steps:
            with pytest.raises((InvalidState, NotFound)):
                self.do(lambda: self.memory.log_step(name, step))
            return name, 0, None, 0  # type: ignore[return-value]
        cell = self.memory._supervisor.cells.get(name)
        if nowait and cell is not None and cell.accepting and not cell.full and not self.commit:

            async def call() -> Receipt:
                return self.memory.handle(name).log_step_nowait(step)

            receipt = self.do(call)
        else:
            receipt = self.do(lambda: self.memory.log_step(name, step))
        self.accepted(known, number)
        assert receipt.seq == len(known.steps) + 1
        assert receipt.is_durable or not self.commit
        return name, receipt.seq, receipt, self.life

    @rule(name=episodes, count=st.integers(2, 12))
    def log_several(self, name: str, count: int) -> None:
        for _ in range(count):
            self.log_one(name, nowait=False)

    @rule(target=receipts, name=episodes, count=st.integers(1, 5))
    def log_batch(self, name: str, count: int) -> tuple[str, int, Receipt, int]:
        known = self.known[name]
        made = [self.new_step() for _ in range(count)]
        call = lambda: self.memory.log_steps(name, [step for _, step in made])  # noqa: E731
        if not known.takes_steps:
            with pytest.raises((InvalidState, NotFound)):
                self.do(call)
            return name, 0, None, 0  # type: ignore[return-value]
        receipt = self.do(call)
        self.accepted(known, *(number for number, _ in made))
        assert receipt.seq == len(known.steps) + 1
        return name, receipt.seq, receipt, self.life

    @rule(name=episodes, key=st.sampled_from("abc"), other=st.booleans())
    def log_with_key(self, name: str, key: str, other: bool) -> None:
        known = self.known[name]
        number = known.keys.get(key)
        if number is None or other:
            fresh, step = self.new_step(key)
        else:
            fresh, step = number, self.step(number, key)
        call = lambda: self.memory.log_step(name, step)  # noqa: E731
        if not known.takes_steps:
            with pytest.raises((InvalidState, NotFound)):
                self.do(call)
        elif number is not None and other:
            with pytest.raises(InvalidState):
                self.do(call)
        elif number is not None:
            assert self.do(call).seq == known.steps.index(number) + 2
            if self.commit:
                known.durable = max(known.durable, known.steps.index(number) + 1)
        else:
            assert self.do(call).seq == len(known.steps) + 2
            known.keys[key] = fresh
            self.accepted(known, fresh)

    @rule(name=episodes, outcome=st.sampled_from(OUTCOMES))
    def complete(self, name: str, outcome: TaskOutcome) -> None:
        known = self.known[name]
        call = lambda: self.memory.complete_episode(name, outcome)  # noqa: E731
        if known.deleted:
            with pytest.raises(NotFound):
                self.do(call)
        elif known.outcome not in (None, outcome):
            with pytest.raises(InvalidState):
                self.do(call)
        else:
            if known.outcome is None:
                with self.telling(name):
                    done = self.do(call)
            done = self.do(call)
            assert done.outcome == outcome
            assert done.receipt.seq == len(known.steps) + 2
            known.outcome, known.durable = outcome, len(known.steps)

    @precondition(lambda self: len(self.known) > 2)
    @rule(name=episodes)
    def delete(self, name: str) -> None:
        known = self.known[name]
        self.do(lambda: self.memory.delete_episode(name))
        known.deleted = True
        self.untold = [item for item in self.untold if item[0] != name]

    @precondition(lambda self: self.calls >= 8)
    @rule(purge=st.booleans())
    def compact(self, purge: bool) -> None:
        self.do(lambda: self.memory.compact(purge=purge))

    @rule()
    def flush(self) -> None:
        with self.telling():
            self.do(lambda: self.memory.flush())
        self.do(lambda: self.memory.flush())
        self.all_durable()

    @rule(name=episodes)
    def flush_one(self, name: str) -> None:
        known = self.known[name]
        if known.deleted:
            with pytest.raises(NotFound):
                self.do(lambda: self.memory.flush_steps(name))
            return
        with self.telling(name):
            self.do(lambda: self.memory.flush_steps(name))
        self.do(lambda: self.memory.flush_steps(name))
        known.durable = len(known.steps)

    # ---- a write that fails while nobody waits for it ----------------------------------------------------------------

    @precondition(lambda self: self.timed and not self.commit)
    @rule(target=lost, name=episodes, count=st.integers(1, 3))
    def lose(self, name: str, count: int) -> Receipt | None:
        """Everything before it is durable; the sync that is to make it durable fails."""
        known = self.known[name]
        if not known.takes_steps:
            return None
        self.do(lambda: self.memory._supervisor.settle_all())
        self.all_durable()
        made = [self.new_step() for _ in range(count)]
        receipt = self.do(lambda: self.memory.log_steps(name, [step for _, step in made]))
        self.stepping.next_sync_fails = True
        self.do(lambda: trio.sleep(1))  # noqa: ASYNC105 (awaited there)
        self.stepping.next_sync_fails = False
        if self.memory._journal.failed is not None:  # it was that of the file to go on in, and then there is none
            self.accepted(known, *(number for number, _ in made))
            self.lose_process(power_cut=False)
            return None
        if receipt.is_durable:  # it was another sync that failed
            self.accepted(known, *(number for number, _ in made))
            self.all_durable()
            return None
        self.untold.append((name, count, receipt))
        self.failures[name] += 1
        return receipt

    @rule(receipt=lost)
    def ask_for_what_was_lost(self, receipt: Receipt | None) -> None:
        if receipt is not None:
            with pytest.raises(OutcomeUnknown):
                self.do(receipt.wait_durable)
            self.untold = [item for item in self.untold if item[2] is not receipt]

    @contextmanager
    def telling(self, name: str | None = None) -> Iterator[None]:
        """Around a call that raises what nobody was told of, and raises nothing if that is nothing."""
        counts: Counter[str] = Counter()
        for lost, count, _receipt in self.untold:
            if name in (None, lost):
                counts[lost] += count
        self.untold = [item for item in self.untold if item[0] not in counts]
        if not counts:
            yield
            return
        with pytest.raises(OutcomeUnknown) as caught:
            yield
        for lost, count in counts.items():
            assert f"{lost!r}: {count} record" in str(caught.value)

    @rule(seconds=st.sampled_from([0.01, 1.0, 60.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.do(lambda: trio.sleep(seconds))  # noqa: ASYNC105 (awaited there)
        if self.timed and seconds >= 1:
            self.all_durable()

    def all_durable(self) -> None:
        for known in self.known.values():
            known.durable = len(known.steps)

    @rule(told=receipts)
    def wait_for_a_receipt(self, told: tuple[str, int, Receipt, int]) -> None:
        name, seq, receipt, life = told
        if receipt is not None and life == self.life:
            self.do(receipt.wait_durable)
            assert receipt.is_durable
            self.known[name].durable = max(self.known[name].durable, seq - 1)

    # ---- restarts ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.calls >= 8)
    @rule()
    def close_and_reopen(self) -> None:
        self.calls = 0
        self.do(self.stepping.close)
        self.all_durable()
        self.forget_life()
        self.do(self.stepping.open)
        self.read_all()
        self.calls = 0

    @precondition(lambda self: self.calls >= 8)
    @rule(power_cut=st.booleans())
    def crash_and_reopen(self, power_cut: bool) -> None:
        self.lose_process(power_cut=power_cut)

    def lose_process(self, *, power_cut: bool) -> None:
        self.calls = 0
        self.life += 1
        self.do(lambda: self.stepping.crash(power_cut=power_cut))
        self.forget_life()
        self.do(self.stepping.open)
        for name, known in self.known.items():
            if not known.deleted:
                episode = self.do(lambda name=name: self.memory.get_episode(name))  # type: ignore[misc]
                found = [step.parameters["n"] for step in episode.steps]
                assert found == known.steps[: len(found)]
                assert len(found) >= known.durable
                assert len(found) in known.batch_ends
                known.steps = found
                known.batch_ends = {end for end in known.batch_ends if end <= len(found)}
                known.keys = {key: number for key, number in known.keys.items() if number in found}
        self.all_durable()
        self.read_all()
        self.calls = 0

    def forget_life(self) -> None:
        self.untold.clear()
        self.failures.clear()

    # ---- reading -----------------------------------------------------------------------------------------------------

    @rule(name=episodes)
    def get(self, name: str) -> None:
        known = self.known[name]
        call = lambda: self.memory.get_episode(name)  # noqa: E731
        if known.deleted:
            with pytest.raises(NotFound):
                self.do(call)
            return
        episode = self.do(call)
        self.compare(known, [step.parameters["n"] for step in episode.steps], episode.outcome)
        known.durable = len(known.steps)

    def compare(self, known: Known, numbers: list[int], outcome: TaskOutcome | None) -> None:
        assert numbers == known.steps
        assert outcome == known.outcome

    def read_all(self) -> None:
        async def read() -> dict[str, list[Event]]:
            return {
                name: [event async for event in self.memory.events(name)] async for name in self.memory.episode_ids()
            }

        found = self.do(read)
        assert found.keys() == {name for name, known in self.known.items() if not known.deleted}
        for name, events in found.items():
            known = self.known[name]
            assert [event.data["parameters"]["n"] for event in events if event.kind == "step"] == known.steps
            assert [event.kind for event in events if event.kind != "step"] == ["started"] + ["ended"] * (
                known.outcome is not None
            )
        still_open = {episode.episode_id for episode in self.do(lambda: self.memory.open_episodes())}
        assert still_open == {n for n, known in self.known.items() if not known.deleted and known.outcome is None}

    @rule()
    def look_without_writing(self) -> None:
        async def look() -> dict[str, tuple[list[int], TaskOutcome | None]]:
            seen: dict[str, tuple[list[int], TaskOutcome | None]] = {}
            async with self.stepping.simulation.open_memory(read_only=True) as beside:
                async for name in beside.episode_ids():
                    episode = await beside.get_episode(name)
                    seen[name] = [step.parameters["n"] for step in episode.steps], episode.outcome
            return seen

        for name, (numbers, outcome) in self.do(look).items():
            known = self.known[name]
            assert not known.deleted
            assert numbers == known.steps[: len(numbers)]
            assert known.durable <= len(numbers)
            assert len(numbers) in known.batch_ends
            assert outcome == known.outcome

    @rule()
    def follow(self) -> None:
        """Go on behind the last event that was seen, up to the last that is durable."""
        seen = self.followed

        async def follow() -> None:
            async with self.memory.follow(seen[-1].cursor if seen else START) as events:
                with trio.move_on_after(0.5):
                    async for event in events:
                        assert isinstance(event, Event)
                        seen.append(event)

        self.do(follow)
        lsns = [event.lsn for event in seen]
        assert lsns == sorted(set(lsns))
        for name, known in self.known.items():
            numbers = [event.data["parameters"]["n"] for event in seen if event.stream == name and event.kind == "step"]
            if not known.deleted:
                assert numbers == known.steps[: len(numbers)]
                assert len(numbers) >= known.durable
                known.durable = max(known.durable, len(numbers))

    @invariant()
    def no_task_has_failed(self) -> None:
        assert all(cell.restarts <= self.failures[name] for name, cell in self.memory._supervisor.cells.items())


LONG = settings.default is not None and settings.default.max_examples > 100
TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(
    max_examples=settings.default.max_examples if LONG and settings.default is not None else 50,
    stateful_step_count=60 if LONG else 30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
