"""Threads, runs and scopes of facts against plain lists and a dict, in every order of calls, power cuts and reopenings
that Hypothesis thinks of. As `test_state_machine`, which does the same with episodes.

The same names are those of threads, runs and scopes: none may see another's. `--hypothesis-profile=long` looks longer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from stepwell import BatchConfig, Fact, Memory, MemoryConfig, Message, NotFound, Receipt, Role, Scope, events
from tests.stepping import Stepping

T = TypeVar("T")
NAMES = ("a", "b")
names = st.sampled_from(NAMES)
amounts = st.integers(1, 6)
ALL = 1_000_000


@dataclass
class Line:
    """A thread or a run, as the model has it: numbers in order, where batches end, how many are durable for sure."""

    numbers: list[int] = field(default_factory=list)
    ends: set[int] = field(default_factory=lambda: {0})
    durable: int = 0

    def accepted(self, numbers: list[int], durable: bool) -> None:
        self.numbers += numbers
        self.ends.add(len(self.numbers))
        if durable:
            self.durable = len(self.numbers)

    def survived(self, found: list[int], what: str) -> None:
        """What is left of it behind a crash; from now on it is all that there is."""
        assert found == self.numbers[: len(found)], what
        assert len(found) >= self.durable, f"{what}: something durable is lost"
        assert len(found) in self.ends, f"{what}: part of a batch is lost"
        self.numbers, self.durable = found, len(found)
        self.ends = {end for end in self.ends if end <= len(found)}


@dataclass
class Facts:
    """A scope: its facts by id, and which of them another has taken the place of."""

    texts: dict[str, str] = field(default_factory=dict)
    superseded: set[str] = field(default_factory=set)

    @property
    def found(self) -> list[tuple[str, str]]:
        return [(fact_id, text) for fact_id, text in self.texts.items() if fact_id not in self.superseded]


class PortsMachine(RuleBasedStateMachine):
    """See the module."""

    facts: Bundle[tuple[str, str]] = Bundle("facts")
    receipts: Bundle[tuple[Line, int, Receipt, int]] = Bundle("receipts")

    @initialize(
        seed=st.integers(0, 2**32),
        durability=st.sampled_from(["receipt", "commit"]),
        batch=st.sampled_from([BatchConfig(), BatchConfig(max_batch_size=2), BatchConfig.manual()]),
        mailbox_size=st.sampled_from([1, 3, 64]),
        idle_seconds=st.sampled_from([0.5, 120]),
        max_live=st.sampled_from([1, 10_000]),
    )
    def begin(
        self, seed: int, durability: Any, batch: BatchConfig, mailbox_size: int, idle_seconds: float, max_live: int
    ) -> None:
        config = MemoryConfig(
            durability=durability,
            batch=batch,
            mailbox_size=mailbox_size,
            idle_seconds=idle_seconds,
            max_live_episodes=max_live,
        )
        object.__setattr__(config, "segment_bytes", 4096)  # so that segments are left in a short run
        self.stepping = Stepping(seed, config)
        self.threads = {name: Line() for name in NAMES}
        self.runs = {name: Line() for name in NAMES}
        self.scopes = {name: Facts() for name in NAMES}
        self.number = self.calls = self.life = 0
        self.commit, self.timed = durability == "commit", batch.auto_flush
        self.stepping.do(self.stepping.open)

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

    def fresh(self, count: int) -> list[int]:
        self.number += count
        return list(range(self.number - count + 1, self.number + 1))

    @property
    def lines(self) -> list[Line]:
        return [*self.threads.values(), *self.runs.values()]

    def all_durable(self) -> None:
        for line in self.lines:
            line.durable = len(line.numbers)

    # ---- writing -----------------------------------------------------------------------------------------------------

    @rule(target=receipts, name=names, count=amounts)
    def append(self, name: str, count: int) -> tuple[Line, int, Receipt, int]:
        for number in self.fresh(count - 1):
            self.append_one(name, number)
        receipt = self.append_one(name, *self.fresh(1))
        return self.threads[name], receipt.seq, receipt, self.life

    def append_one(self, name: str, number: int) -> Receipt:
        receipt = self.do(lambda: self.memory.short_term.append(name, said(number)))
        self.accepted(self.threads[name], [number], receipt)
        return receipt

    @rule(target=receipts, name=names, count=st.one_of(amounts, st.just(150)))
    def append_many(self, name: str, count: int) -> tuple[Line, int, Receipt, int]:
        numbers = self.fresh(count)
        receipt = self.do(lambda: self.memory.short_term.append_many(name, list(map(said, numbers))))
        self.accepted(self.threads[name], numbers, receipt)
        return self.threads[name], receipt.seq, receipt, self.life

    @rule(target=receipts, name=names, count=amounts, ending=st.booleans())
    def record(self, name: str, count: int, ending: bool) -> tuple[Line, int, Receipt, int]:
        for number in self.fresh(count - 1):
            self.record_one(name, event_of(number, ending), number)
        (number,) = self.fresh(1)
        receipt = self.record_one(name, event_of(number, ending), number)
        return self.runs[name], receipt.seq, receipt, self.life

    def record_one(self, name: str, event: events.RunEvent, number: int) -> Receipt:
        receipt = self.do(lambda: self.memory.episodic.record(name, event))
        self.recorded(self.runs[name], [number], receipt)
        return receipt

    @rule(target=receipts, name=names, count=amounts)
    def record_many(self, name: str, count: int) -> tuple[Line, int, Receipt, int]:
        numbers = self.fresh(count)
        told = [event_of(number, False) for number in numbers]
        receipt = self.do(lambda: self.memory.episodic.record_many(name, told))
        self.recorded(self.runs[name], numbers, receipt)
        return self.runs[name], receipt.seq, receipt, self.life

    def accepted(self, line: Line, numbers: list[int], receipt: Receipt) -> None:
        line.accepted(numbers, self.commit)
        assert receipt.is_durable or not self.commit
        assert receipt.seq == len(line.numbers)

    def recorded(self, line: Line, numbers: list[int], receipt: Receipt) -> None:
        line.accepted(numbers, self.commit)
        assert receipt.is_durable or not self.commit

    @rule(target=facts, name=names, many=st.booleans())
    def remember(self, name: str, many: bool) -> tuple[str, str]:
        (number,) = self.fresh(1)
        long_term, scope = self.memory.long_term, Scope.workspace(name)
        if many:
            (fact_id,) = self.do(lambda: long_term.remember_many(scope, [fact_of(number)]))
        else:
            fact_id = self.do(lambda: long_term.remember(scope, fact_of(number)))
        assert fact_id not in self.scopes[name].texts
        self.scopes[name].texts[fact_id] = fact_of(number).text
        return name, fact_id

    @rule(fact=facts)
    def remember_it_again(self, fact: tuple[str, str]) -> None:
        name, fact_id = fact
        scope = self.scopes[name]
        if fact_id in scope.texts and fact_id not in scope.superseded:
            again = Fact(scope.texts[fact_id])
            call = lambda: self.memory.long_term.remember(Scope.workspace(name), again, deduplicate=True)  # noqa: E731
            assert self.do(call) == fact_id

    @rule(target=facts, fact=facts)
    def supersede(self, fact: tuple[str, str]) -> tuple[str, str]:
        name, old = fact
        scope = self.scopes[name]
        (number,) = self.fresh(1)
        call = lambda: self.memory.long_term.remember(Scope.workspace(name), fact_of(number), supersedes=old)  # noqa: E731
        if old not in scope.texts or old in scope.superseded:
            with pytest.raises(NotFound):
                self.do(call)
            return fact
        new = self.do(call)
        scope.texts[new] = fact_of(number).text
        scope.superseded.add(old)
        return name, new

    @rule(fact=consumes(facts))
    def forget(self, fact: tuple[str, str]) -> None:
        name, fact_id = fact
        scope = self.scopes[name]
        assert self.do(lambda: self.memory.long_term.forget(fact_id)) == (fact_id in scope.texts)
        assert not self.do(lambda: self.memory.long_term.forget(fact_id))
        scope.texts.pop(fact_id, None)
        scope.superseded.discard(fact_id)

    @rule(target=facts, name=names, other=names, fails=st.booleans())
    def commit_over_all_three(self, name: str, other: str, fails: bool) -> tuple[str, str]:
        one, two, three, four = self.fresh(4)
        scope = Scope.workspace(other)

        async def commit() -> str:
            async with self.memory.atomic() as tx:
                tx.append(name, said(one), said(two))
                tx.record(other, event_of(three, False))
                tx.remember(scope, fact_of(four))
                if fails:
                    raise ZeroDivisionError
            return tx.fact_ids(scope)[0]

        if fails:
            with pytest.raises(ZeroDivisionError):
                self.do(commit)
            return other, "nothing"
        fact_id = self.do(commit)
        self.threads[name].accepted([one, two], True)
        self.runs[other].accepted([three], True)
        self.scopes[other].texts[fact_id] = fact_of(four).text
        return other, fact_id

    @precondition(lambda self: self.calls >= 4)
    @rule(name=names, scope=st.booleans())
    def clear(self, name: str, scope: bool) -> None:
        if scope:
            self.do(lambda: self.memory.long_term.clear(Scope.workspace(name)))
            self.scopes[name] = Facts()
        else:
            self.do(lambda: self.memory.short_term.clear(name))
            self.threads[name] = Line()

    @rule()
    def flush(self) -> None:
        self.do(lambda: self.memory.flush())
        self.all_durable()

    @rule(seconds=st.sampled_from([0.01, 1.0, 60.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.do(lambda: trio.sleep(seconds))  # noqa: ASYNC105 (awaited there)
        if self.timed and seconds >= 1:
            self.all_durable()

    @rule(told=receipts)
    def wait_for_a_receipt(self, told: tuple[Line, int, Receipt, int]) -> None:
        line, seq, receipt, life = told
        if life == self.life and line in self.threads.values():
            self.do(receipt.wait_durable)
            assert receipt.is_durable
            line.durable = max(line.durable, seq)

    @precondition(lambda self: self.calls >= 8)
    @rule(purge=st.booleans())
    def compact(self, purge: bool) -> None:
        self.do(lambda: self.memory.compact(purge=purge))

    # ---- restarts ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.calls >= 8)
    @rule()
    def close_and_reopen(self) -> None:
        self.do(self.stepping.close)
        self.all_durable()
        self.reopen()

    @precondition(lambda self: self.calls >= 8)
    @rule(power_cut=st.booleans())
    def crash_and_reopen(self, power_cut: bool) -> None:
        self.do(lambda: self.stepping.crash(power_cut=power_cut))
        self.reopen()

    def reopen(self) -> None:
        self.life += 1
        self.do(self.stepping.open)
        for name in NAMES:
            self.threads[name].survived(self.loaded(name), f"thread {name}")
            self.runs[name].survived(self.replayed(name), f"run {name}")
        self.look()
        self.calls = 0

    # ---- reading -----------------------------------------------------------------------------------------------------

    def loaded(self, name: str, max_tokens: int = ALL) -> list[int]:
        return [int(message.content) for message in self.do(lambda: self.memory.short_term.load(name, max_tokens))]

    def replayed(self, name: str) -> list[int]:
        return [number_of(event) for event in self.do(lambda: self.memory.episodic.replay(name))]

    @rule(name=names, max_tokens=st.one_of(st.just(ALL), st.integers(0, 5)))
    def load(self, name: str, max_tokens: int) -> None:
        numbers = self.threads[name].numbers
        assert self.loaded(name, max_tokens) == numbers[max(0, len(numbers) - max_tokens) :]
        self.threads[name].durable = len(numbers)

    @rule()
    def look(self) -> None:
        """Everything there is, by each port."""
        for name in NAMES:
            assert self.replayed(name) == self.runs[name].numbers
            page = self.do(lambda name=name: self.memory.long_term.facts(Scope.workspace(name), 1_000))  # type: ignore[misc]
            assert [(fact.id, fact.text) for fact in page.items] == self.scopes[name].found
        assert set(self.do(self.memory.short_term.threads)) == {n for n, line in self.threads.items() if line.numbers}
        listed = self.do(self.memory.episodic.list_runs)
        assert {item.run_id: item.episode_count for item in listed} == {
            name: len(line.numbers) for name, line in self.runs.items() if line.numbers
        }
        self.all_durable()

    @rule(fact=facts)
    def find(self, fact: tuple[str, str]) -> None:
        name, fact_id = fact
        scope = self.scopes[name]
        if fact_id not in scope.texts:
            with pytest.raises(NotFound):
                self.do(lambda: self.memory.long_term.get(fact_id))
            return
        text = scope.texts[fact_id]
        assert self.do(lambda: self.memory.long_term.get(fact_id)).text == text
        hits = self.do(lambda: self.memory.long_term.search(Scope.workspace(name), text, 1))
        assert (fact_id in [hit.id for hit in hits]) == (fact_id not in scope.superseded)

    @invariant()
    def no_task_has_failed(self) -> None:
        supervisor = self.memory._supervisor
        assert not any(cell.restarts for cell in (*supervisor.cells.values(), *supervisor.streams.cells.values()))


def said(number: int) -> Message:
    """A message that costs one token."""
    return Message(Role.USER, f"{number}")


def fact_of(number: int) -> Fact:
    return Fact(f"word{number}")


def event_of(number: int, ending: bool) -> events.RunEvent:
    return events.Failed(f"{number}") if ending else events.ToolCall("tool", {"n": number}, events.ToolOk(None))


def number_of(event: events.RunEvent) -> int:
    if isinstance(event, events.Failed):
        return int(event.error)
    assert isinstance(event, events.ToolCall)
    return int(event.args["n"])


LONG = settings.default is not None and settings.default.max_examples > 100
TestPorts = PortsMachine.TestCase
TestPorts.settings = settings(
    max_examples=settings.default.max_examples if LONG and settings.default is not None else 20,
    stateful_step_count=60 if LONG else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
