"""The child of the rounds of `projector_kill9`; a module of its own, which the server that forks them imports."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from unittest import mock

import trio

from stepstore.catalog import Change, projector
from stepstore.catalog.store import CatalogStore
from stepwell import (
    ExecutionStep,
    Failure,
    Memory,
    MemoryConfig,
    StepError,
    StepSuccess,
    StepwellError,
    Success,
    open_memory,
)
from tests.crash.killed_child import SEGMENT_BYTES, reporter
from tests.crash.media import die_with_parent

AGENTS = 12
WORDS = ["mend", "the", "net", "before", "Über", "dawn", "again"]
TAGS = ["red", "Red", "green", "team:1", "team:2"]
KINDS = ["follows", "related_to", "duplicates"]


def break_transactions(how: str) -> None:
    """Have the cursor stored in a transaction of its own: "early" before the rows, "late" behind them."""
    whole = CatalogStore.apply

    def apply(store: CatalogStore, changes: Sequence[Change], cursor: str) -> None:
        before = store.cursor
        parts: list[tuple[Sequence[Change], str]] = [([], cursor), (changes, cursor)]
        if how == "late":
            parts = [(changes, before), ([], cursor)]
        whole(store, *parts[0])
        time.sleep(0.05)
        whole(store, *parts[1])

    mock.patch.object(CatalogStore, "apply", apply).start()


class Life:
    """One agent: it makes episodes, changes them and those of others, and never waits for the catalog."""

    def __init__(self, memory: Memory, rng: random.Random):
        self._memory, self._rng = memory, rng

    async def run(self) -> None:
        """Go on until killed."""
        known: list[str] = []
        while True:
            known.append(await self._episode())
            for _ in range(self._rng.randrange(3)):
                # Another agent may have deleted it, or be about to.
                try:
                    await self._change(self._rng.choice(known), self._rng.choice(known))
                except StepwellError:
                    continue

    async def _episode(self) -> str:
        rng = self._rng
        task, tags = " ".join(rng.choices(WORDS, k=4)), rng.sample(TAGS, rng.randrange(3))
        handle = await self._memory.start_episode(task, tags=tags, agent=rng.choice("ab"))
        for _ in range(rng.randrange(6)):
            steps = [
                ExecutionStep("tool", result=StepError("no") if rng.random() < 0.3 else StepSuccess("yes"))
                for _ in range(rng.randrange(1, 4))
            ]
            receipt = await handle.log_steps(steps)
            if rng.random() < 0.3:
                await receipt.wait_durable()
        if rng.random() < 0.7:
            await handle.complete(Success("ok") if rng.random() < 0.5 else Failure("no"))
        return handle.id

    async def _change(self, one: str, other: str) -> None:
        memory, rng = self._memory, self._rng
        what = rng.randrange(10)
        if what == 0:
            await memory.add_tags(one, rng.sample(TAGS, 2))
        elif what == 1:
            await memory.remove_tags(one, rng.sample(TAGS, 2))
        elif what == 2:
            await memory.update_episode(one, description=" ".join(rng.choices(WORDS, k=3)))
        elif what == 3:
            await memory.archive(one)
        elif what == 4:
            await memory.restore(one)
        elif what in (5, 6) and one != other:
            await memory.relate(one, other, rng.choice(KINDS))  # type: ignore[arg-type]
        elif what == 7:
            pack = await memory.handoff((await memory.checkpoint(one, "pause")).checkpoint_id)
            await memory.continue_from(pack)
        elif what == 8 and one != other:
            async with memory.atomic() as tx:
                tx.set_tags(one, rng.sample(TAGS, 2))
                tx.update_episode(other, description=" ".join(rng.choices(WORDS, k=3)))
                tx.archive(one) if rng.random() < 0.5 else tx.restore(one)
                tx.unrelate(one, other, rng.choice(KINDS))  # type: ignore[arg-type]
                tx.relate(other, one, rng.choice(KINDS))  # type: ignore[arg-type]
        else:
            await memory.delete_episode(one)


def live(reports: Connection, directory: str, seed: str, broken: str | None) -> None:
    """Go on until killed."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which then kills this process
    mock.patch.multiple(projector, LINGER_SECONDS=0.01, RESTS=0).start()  # many transactions, so that many are torn
    if broken is not None:
        break_transactions(broken)
    report = reporter(reports)

    async def main() -> None:
        async with open_memory(directory, config=MemoryConfig(segment_bytes=SEGMENT_BYTES)) as memory:
            report(["open"])
            async with trio.open_nursery() as nursery:
                for number in range(AGENTS):
                    nursery.start_soon(Life(memory, random.Random(f"{seed}/{number}")).run)

    trio.run(main)
