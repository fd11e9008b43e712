"""The child of the rounds of `atomic_kill9`; a module of its own, which the server that forks the children imports."""

from __future__ import annotations

import json
import random
import signal
from multiprocessing.connection import Connection

import trio

from stepwell import Memory, MemoryConfig, open_memory
from tests.crash import changes
from tests.crash.atomic_ledger import WRITER, Parts, changes_of, step_with
from tests.crash.killed_child import SEGMENT_BYTES, reporter
from tests.crash.ledger import TASK
from tests.crash.media import die_with_parent
from tests.crash.workload import Report

EPISODES = [f"episode {number}" for number in range(10)]
TRANSACTING, LOGGING = 6, 4
"""How many tasks commit transactions, and how many log steps one by one beside them."""
MAILBOX = 8


class Writer:
    """One task that hands in steps. `broken`: "torn" logs each part of a transaction by itself, "early" takes a
    transaction for durable before it is committed."""

    def __init__(self, memory: Memory, report: Report, number: int, rng: random.Random, broken: str | None):
        self._memory, self._report, self._rng, self._broken = memory, report, rng, broken
        self._name, self._next, self._count = f"w{number}", number * WRITER, 0

    def _numbers(self, count: int) -> list[int]:
        first, self._next = self._next, self._next + count
        return list(range(first, first + count))

    async def transact(self) -> None:
        """Commit transactions until killed."""
        while True:
            chosen = self._rng.sample(EPISODES, self._rng.randrange(2, 6))
            parts = {episode: self._numbers(self._rng.randrange(1, 4)) for episode in chosen}
            self._count += 1
            await self.commit(f"{self._name}-{self._count}", parts, self._rng.random() < 0.5)

    async def commit(self, name: str, parts: Parts, keyed: bool) -> None:
        """Commit one transaction and report it."""
        self._report(["send", name, parts, keyed])
        if self._broken == "torn":
            for episode, numbers in parts.items():
                made = changes_of(numbers, keyed=keyed)
                for number in made:
                    await changes.make(self._memory, episode, number)
                steps = [step_with(episode, number, keyed=keyed) for number in numbers if number not in made]
                await (await self._memory.log_steps(episode, steps)).wait_durable()
            return
        async with self._memory.atomic() as tx:
            for episode, numbers in parts.items():
                made = changes_of(numbers, keyed=keyed)
                for number in made:
                    changes.stage(tx, episode, number)
                tx.log_steps(
                    episode, [step_with(episode, number, keyed=keyed) for number in numbers if number not in made]
                )
            if self._broken == "early":
                self._report(["committed", name, None])
        assert tx.receipt is not None
        self._report(["committed", name, tx.receipt.lsn])

    async def log(self) -> None:
        """Log bursts of steps, each to one episode, until killed."""
        while True:
            episode, receipts = self._rng.choice(EPISODES), []
            for number in self._numbers(self._rng.randrange(1, 15)):
                self._count += 1
                name = f"{self._name}-{self._count}"
                keyed = self._rng.random() < 0.2
                self._report(["send", name, {episode: [number]}, keyed])
                receipts.append((name, await self._memory.log_step(episode, step_with(episode, number, keyed=keyed))))
            for name, receipt in receipts:
                await receipt.wait_durable()
                self._report(["committed", name, receipt.lsn])


def live(reports: Connection, directory: str, seed: str, first: int, unsettled: str, broken: str | None) -> None:
    """Hand in again what nobody was told the result of (JSON), then go on until killed. Writers count from `first`."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which then kills this process
    report = reporter(reports)

    def writer(memory: Memory, number: int) -> Writer:
        return Writer(memory, report, first + number, random.Random(f"{seed}/{number}"), broken)

    async def main() -> None:
        config = MemoryConfig(segment_bytes=SEGMENT_BYTES, mailbox_size=MAILBOX)
        async with open_memory(directory, config=config) as memory:
            for episode in EPISODES:
                await memory.start_episode(TASK, episode_id=episode)
                report(["started", episode])
            async with trio.open_nursery() as nursery:
                again = writer(memory, TRANSACTING + LOGGING)
                for name, parts in json.loads(unsettled).items():
                    nursery.start_soon(again.commit, name, parts, True)
                for number in range(TRANSACTING):
                    nursery.start_soon(writer(memory, number).transact)
                for number in range(TRANSACTING, TRANSACTING + LOGGING):
                    nursery.start_soon(writer(memory, number).log)

    trio.run(main)
