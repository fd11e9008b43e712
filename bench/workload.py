"""The step that is measured, about 220 bytes on disk, like a small tool call; and many agents that log such steps."""

from __future__ import annotations

import time
from collections.abc import Sequence

import cbor2
import trio

from stepwell import EpisodeHandle, ExecutionStep, Memory, StepSuccess

OUTPUT = "1024 bytes read; 12 sections found; the key is in the third one; nothing unusual was seen in this part of it"


def step(episode: int, number: int) -> ExecutionStep:
    """A new step, as an agent makes one for each call."""
    return ExecutionStep(
        tool="file_reader",
        action="Read config.toml and look for the section of the key",
        parameters={"path": f"src/module_{episode}.py", "line": number},
        result=StepSuccess(OUTPUT),
        latency_ms=5,
    )


def encoded(item: ExecutionStep) -> bytes:
    """The same step encoded with cbor2 in the form the log has, by nothing but cbor2."""
    output = item.result.output  # type: ignore[union-attr]
    data = [item.tool, item.action, item.parameters, [0, output], item.latency_ms]
    return cbor2.dumps([1, "step", time.time_ns(), data, None])


async def start_episodes(memory: Memory, episodes: int, first: int = 0) -> list[EpisodeHandle]:
    """Start so many episodes, all at once, numbered from `first` on. Gives them in the order of their numbers."""
    started: dict[int, EpisodeHandle] = {}

    async def start(number: int) -> None:
        started[number] = await memory.start_episode(f"task {number}", episode_id=f"episode-{number}")

    async with trio.open_nursery() as nursery:
        for number in range(first, first + episodes):
            nursery.start_soon(start, number)
    return [started[number] for number in range(first, first + episodes)]


async def log_steps(memory: Memory, handles: Sequence[EpisodeHandle], steps: int) -> float:
    """Log so many steps in each of these episodes, all at once. Returns how many seconds it took until all were
    durable."""

    async def agent(handle: EpisodeHandle, number: int) -> None:
        for count in range(steps):
            await handle.log_step(step(number, count))

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number, handle in enumerate(handles):
            nursery.start_soon(agent, handle, number)
    await memory.flush()
    return time.perf_counter() - began
