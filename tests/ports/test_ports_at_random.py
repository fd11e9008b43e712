"""Threads and runs against plain lists: random calls, failures of the journal, naps, reopenings and crashes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from stepwell import BatchConfig, Failure, Memory, MemoryConfig, Message, OutcomeUnknown, Receipt, StepwellError, events
from stepwell.errors import Rejected
from stepwell.model.run_event import RunEvent
from stepwell.testing import MemoryJournal, open_memory_on

SEEDS = range(40)
CALLS = 40
NAMES = ("a", "b")
CONFIG = MemoryConfig(batch=BatchConfig(max_batch_size=5), mailbox_size=3, idle_seconds=2, max_live_episodes=3)


Fate = Literal["durable", "failed", "pending"]


class Told:
    """What a stream must hold: batches in their order, each whole or not at all, those that were durable for sure."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], Receipt | Fate]] = []

    def accepted(self, texts: list[str], receipt: Receipt) -> None:
        self.batches.append((texts, receipt))

    def judge(self, found: list[str], what: str) -> None:
        """Compare, and take what is there for what is known."""
        at, gone = 0, False
        for texts, told in self.batches:
            fate = fate_of(told)
            if found[at : at + len(texts)] == texts:
                assert not gone, f"{what}: {texts} stands behind something that is missing"
                at += len(texts)
            else:
                assert fate != "durable", f"{what}: {texts} was durable and is missing"
                # One that had failed may be missing; behind one whose result was not known yet nothing can be.
                gone = gone or fate == "pending"
        assert at == len(found), f"{what}: {found[at:]} is there, and nobody has stored it"
        self.batches = [([text], "durable") for text in found]

    def as_of_now(self) -> Told:
        """The same, with what is known at this moment."""
        copy = Told()
        copy.batches = [(texts, fate_of(told)) for texts, told in self.batches]
        return copy


def fate_of(told: Receipt | Fate) -> Fate:
    if isinstance(told, str):
        return told
    return "durable" if told.is_durable else "failed" if told._commit.done else "pending"


class World:
    """A memory on a journal that may fail, and what it was told."""

    def __init__(self, dice: random.Random):
        self.dice, self.journal, self.number = dice, MemoryJournal(), 0
        self.threads = {name: Told() for name in NAMES}
        self.runs = {name: Told() for name in NAMES}
        self.memory: Memory

    def texts(self) -> list[str]:
        self.number += 1
        return [f"{self.number}.{place}" for place in range(self.dice.randint(1, 3))]

    def events_of(self, texts: list[str]) -> list[RunEvent]:
        """Events that tell their texts, of several kinds, endings among them."""
        kinds: list[Callable[[str], RunEvent]] = [
            events.Started,
            events.Failed,
            events.BusPublish,
            events.Ops,
            lambda text: events.ToolCall(text, {}, events.ToolOk()),
        ]
        return [self.dice.choice(kinds)(text) for text in texts]

    async def append(self) -> None:
        name, texts = self.dice.choice(NAMES), self.texts()
        receipt = await self.memory.short_term.append_many(name, [Message("user", text) for text in texts])
        self.threads[name].accepted(texts, receipt)

    async def record(self) -> None:
        name, texts = self.dice.choice(NAMES), self.texts()
        found = self.events_of(texts)
        if len(found) == 1:
            receipt = await self.memory.episodic.record(name, found[0])
        else:
            receipt = await self.memory.episodic.record_many(name, found)
        self.runs[name].accepted(texts, receipt)

    async def commit(self) -> None:
        thread, run, said, done = self.dice.choice(NAMES), self.dice.choice(NAMES), self.texts(), self.texts()
        scope = self.memory.atomic()
        try:
            async with scope as tx:
                tx.append(thread, *(Message("user", text) for text in said))
                tx.record(run, *self.events_of(done))
        finally:
            if scope.receipt is not None:  # it was given to the log
                receipt = scope.receipt_of(run)
                assert receipt is not None
                self.threads[thread].accepted(said, receipt)
                self.runs[run].accepted(done, receipt)

    async def clear(self) -> None:
        name = self.dice.choice(NAMES)
        await self.memory.short_term.clear(name)
        self.threads[name] = Told()

    async def wait(self) -> None:
        await self.memory.flush()

    async def nap(self) -> None:
        await trio.sleep(10)

    async def spoil(self) -> None:
        self.dice.choice([self.journal.fail_next, self.journal.reject_next, self.journal.lose_ack_next])()
        await trio.lowlevel.checkpoint()

    async def judge(self) -> None:
        for name in NAMES:
            loaded = await self.memory.short_term.load(name, 10**6)
            self.threads[name].judge([message.content for message in loaded], f"thread {name}")
            replayed = await self.memory.episodic.replay(name)
            self.runs[name].judge(list(map(text_of, replayed)), f"run {name}")
            if replayed:
                ending = next((event.error for event in replayed if isinstance(event, events.Failed)), None)
                outcome = None if ending is None else Failure(ending)
                assert (await self.memory.get_episode(name)).outcome == outcome
        listed = {item.run_id: item.episode_count for item in await self.memory.episodic.list_runs()}
        assert listed == {name: len(told.batches) for name, told in self.runs.items() if told.batches}


def text_of(event: RunEvent) -> str:
    for name in ("agent", "error", "subject", "body", "name"):
        if hasattr(event, name):
            return str(getattr(event, name))
    raise AssertionError(event)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_told_is_so(seed: int, autojump_clock: MockClock) -> None:
    dice = random.Random(seed)
    world = World(dice)
    calls: list[Callable[[], Awaitable[None]]] = [
        *[world.append, world.record] * 4,
        *[world.commit, world.wait, world.nap, world.judge] * 2,
        world.clear,
        world.spoil,
    ]
    for _life in range(3):
        async with open_memory_on(world.journal, CONFIG) as world.memory:
            for _ in range(CALLS):
                call = dice.choice(calls)
                try:
                    await call()
                except OutcomeUnknown:
                    if call == world.clear:  # whether it is cleared is not known: clear it for certain
                        world.journal.clear_policies()
                        for name in NAMES:
                            await world.memory.short_term.clear(name)
                            world.threads[name] = Told()
                except Rejected:
                    assert call in (world.commit, world.clear, world.wait)
                except StepwellError as error:
                    raise AssertionError(f"seed {seed}: {call.__name__}") from error
            world.journal.clear_policies()
            await world.judge()
            if dice.random() < 0.5:
                await world.append()
                await world.record()
                cut, threads, runs = world.journal.after_crash(), as_of_now(world.threads), as_of_now(world.runs)
                async with open_memory_on(cut, CONFIG) as survivor:
                    other = World(random.Random(seed))
                    other.memory, other.threads, other.runs = survivor, threads, runs
                    await other.judge()
    async with open_memory_on(world.journal, CONFIG) as world.memory:
        await world.judge()


def as_of_now(told: dict[str, Told]) -> dict[str, Told]:
    return {name: item.as_of_now() for name, item in told.items()}
