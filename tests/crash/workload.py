"""Agents that log into a memory in several ways at once and report what they hand in and what they are told.

The reports are those of `ledger.Ledger`. Whoever gives `report` decides where they go; it must not return before the
report is where it survives this process, since the agent goes on as soon as it does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from stepwell import (
    EpisodeHandle,
    EpisodeUnavailable,
    Memory,
    OutcomeUnknown,
    Receipt,
    Rejected,
    StepwellError,
    Success,
)
from stepwell.errors import Closed
from tests.crash import changes
from tests.crash.ledger import END, START, TASK, numbers_of, read_back, step_of

Report = Callable[[Sequence[Any]], None]
Enough = Callable[[], bool]
"""Whether the agents are to stop where they are."""

CHANGES = 0.1
"""How often an agent organises its episode, of the times that it logs."""
PAUSE = 0.02
"""Seconds an agent waits after a refusal."""
PATIENCE = 40.0
"""Seconds after which agents that have not come to an end are taken to hang."""
HUNG = "hung"
"""What is reported of the memory then."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much to do: `agents` agents, each `episodes` episodes one after another, of up to `steps` steps each."""

    agents: int
    episodes: int
    steps: int


class Agent:
    """One agent. Its number decides how it logs: step by step, in atomic batches, in bursts with a flush, or in bursts
    whose receipts it looks at later. Now and then it organises its episode between two steps, with tags, a description
    and checkpoints; `made`: the changes that it finds there."""

    def __init__(self, memory: Memory, report: Report, style: int, rng: random.Random, enough: Enough):
        self.memory, self.report, self.style, self.rng = memory, report, style % 4, rng
        self._enough, self._shut_out = enough, False
        self.made: set[int] = set()

    @property
    def stopped(self) -> bool:
        """Whether there is no point in going on."""
        return self._shut_out or self._enough()

    async def run_episode(self, name: str, steps: int) -> None:
        """Start an episode, log, and mostly end it."""
        self.report(["send", name, [START]])
        try:
            handle = await self.memory.start_episode(TASK, episode_id=name)
        except StepwellError as error:
            await self._failed(name, [START], error)
            return
        self.report(["durable", name, [START], None])
        await self.log(handle, 0, steps)

    async def log(self, handle: EpisodeHandle, first: int, steps: int) -> None:
        """Log the steps from number `first` on, up to `steps` of them, and then end the episode, mostly."""
        number, end = first, first + self.rng.randrange(steps + 1)
        while number < end and not self.stopped:
            if self.rng.random() < CHANGES:
                await self._change(handle, changes.beside_step(number))
            if self.style == 0:
                await self._one(handle, number)
                number += 1
            elif self.style == 1:
                count = self.rng.randrange(1, 12)
                await self._batch(handle, number, count)
                number += count
            else:
                count = self.rng.randrange(1, 30)
                await self._burst(handle, number, count, flush=self.style == 2)
                number += count
        if not self.stopped and self.rng.random() < 0.8:
            await self._end(handle)

    async def _change(self, handle: EpisodeHandle, number: int) -> None:
        if number in self.made:
            return
        self.report(["send", handle.id, [number]])
        try:
            await changes.make(self.memory, handle.id, number)
        except StepwellError as error:
            await self._failed(handle.id, [number], error)
        else:
            self.report(["durable", handle.id, [number], None])

    async def _one(self, handle: EpisodeHandle, number: int) -> None:
        self.report(["send", handle.id, [number]])
        try:
            receipt = await handle.log_step(step_of(handle.id, number))
        except StepwellError as error:
            await self._failed(handle.id, [number], error)
        else:
            await self._see(handle.id, [number], receipt)

    async def _batch(self, handle: EpisodeHandle, first: int, count: int) -> None:
        numbers = list(range(first, first + count))
        self.report(["send", handle.id, numbers])
        try:
            receipt = await handle.log_steps([step_of(handle.id, number) for number in numbers])
        except StepwellError as error:
            await self._failed(handle.id, numbers, error)
        else:
            await self._see(handle.id, numbers, receipt)

    async def _burst(self, handle: EpisodeHandle, first: int, count: int, *, flush: bool) -> None:
        receipts: list[tuple[int, Receipt]] = []
        for number in range(first, first + count):
            self.report(["send", handle.id, [number]])
            try:
                receipts.append((number, await handle.log_step(step_of(handle.id, number))))
            except StepwellError as error:
                await self._failed(handle.id, [number], error)
        if flush:
            try:
                await handle.flush()
            except StepwellError as error:
                _declared(error)  # what it means for each step, its receipt says
        for number, receipt in receipts:
            await self._see(handle.id, [number], receipt)

    async def _end(self, handle: EpisodeHandle) -> None:
        self.report(["send", handle.id, [END]])
        try:
            completed = await handle.complete(Success(f"{handle.id} has ended"))
        except StepwellError as error:
            await self._failed(handle.id, [END], error)
        else:
            self.report(["durable", handle.id, [END], completed.receipt.lsn])

    async def _see(self, episode: str, numbers: list[int], receipt: Receipt) -> None:
        try:
            await receipt.reach_log()
        except StepwellError as error:
            await self._failed(episode, numbers, error)
        else:
            self.report(["durable", episode, numbers, receipt.lsn])

    async def _failed(self, episode: str, numbers: list[int], error: StepwellError) -> None:
        self.report([_declared(error), episode, numbers])
        self._shut_out = self._shut_out or isinstance(error, Closed | EpisodeUnavailable)
        await trio.sleep(PAUSE)


def _declared(error: StepwellError) -> str:
    """What an error says about the records it is about. Raises the error if it is none that a sound agent may get."""
    if isinstance(error, Rejected):
        return "rejected"
    if isinstance(error, OutcomeUnknown | EpisodeUnavailable):
        return "unknown"
    raise error


async def reopened(memory: Memory, report: Report) -> None:
    """Report what a memory serves right after opening."""
    found = await read_back(memory)
    report(["reopened", {name: numbers_of(events) for name, events in found.items()}])


def _never() -> bool:
    return False


async def go_on(memory: Memory, report: Report, *, seed: str, work: Work, enough: Enough = _never) -> None:
    """Go on with the episodes that were left open: the last step once more if it has a key, then new ones."""
    async with trio.open_nursery() as nursery:
        for style, left in enumerate(await memory.open_episodes()):
            agent = Agent(memory, report, style, random.Random(f"{seed}/{left.episode_id}"), enough)
            nursery.start_soon(_resume, agent, left.episode_id, work.steps)


async def _resume(agent: Agent, episode: str, steps: int) -> None:
    handle = await agent.memory.resume(episode)
    numbers = numbers_of([event async for event in handle.events()])
    agent.report(["resumed", episode, numbers])
    agent.made.update(numbers)
    last = max(numbers)
    if last >= 0 and step_of(episode, last).key is not None:
        await agent._one(handle, last)
    await agent.log(handle, last + 1, steps)


async def run_agents(memory: Memory, report: Report, *, seed: str, work: Work, enough: Enough = _never) -> None:
    """Run the agents to their ends. Episodes are named after the seed, so that no two calls share one."""

    async def run(number: int) -> None:
        agent = Agent(memory, report, number, random.Random(f"{seed}/{number}"), enough)
        for episode in range(work.episodes):
            if agent.stopped:
                break
            await agent.run_episode(f"{seed}-a{number}-{episode}", work.steps)

    async with trio.open_nursery() as nursery:
        for number in range(work.agents):
            nursery.start_soon(run, number)


async def work_out(memory: Memory, report: Report, *, seed: str, work: Work, enough: Enough = _never) -> None:
    """Report what a memory serves, go on with what was left open, and run the agents to their ends."""
    await reopened(memory, report)
    with trio.move_on_after(PATIENCE) as patience:
        await go_on(memory, report, seed=seed, work=work, enough=enough)
        await run_agents(memory, report, seed=seed, work=work, enough=enough)
    if patience.cancelled_caught:
        report(["left", HUNG])
