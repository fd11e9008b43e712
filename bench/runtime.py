"""The runtime under load: many episodes, batches, plain calls, acknowledged steps, large steps; against the plain loop.

Every line is measured in the same run, in interleaved rounds, each round beside a plain loop on the same medium that
makes the same steps, encodes them with cbor2, joins them in groups of about a mebibyte, and writes and fdatasyncs each.
It knows no order, no acknowledgement and no recovery: it is the limit, not a competitor. Everything is durable when a
clock stops.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

import stepwell.aio
import stepwell.sync
from bench import setting
from bench.workload import encoded, step
from stepwell import Busy, EpisodeHandle, ExecutionStep, Memory, StepSuccess, open_memory

GROUP_BYTES = 1024 * 1024
LARGE_OUTPUT = "0123456789abcdef" * 242
"""Makes a step of about 4 KiB."""

MakeStep = Callable[[int, int], ExecutionStep]


@dataclass(frozen=True)
class Load:
    """How a memory is loaded: by so many producers, each with an episode of its own and so many steps."""

    title: str
    producers: int
    steps: int
    drive: Callable[[Load, Memory, Sequence[EpisodeHandle]], Awaitable[list[float]]] | None = None
    make: MakeStep = step
    steps_per_second: float = 0
    """The target, 0 for none."""
    ratio: float = 0
    """The share of the plain loop that is the target, 0 for none."""
    megabytes_per_second: float = 0
    """The target for the bytes of its steps, 0 for none. Where there is one, reaching it or `ratio` is enough."""
    measure: Callable[[Load, Path], tuple[float, list[float]]] | None = None
    """Where it is not driven under Trio: gives the seconds, and the latencies if they are of interest."""

    @property
    def total(self) -> int:
        """Steps of all producers."""
        return self.producers * self.steps


async def _each(load: Load, handles: Sequence[EpisodeHandle], run: Callable[[EpisodeHandle, int], Any]) -> None:
    async with trio.open_nursery() as nursery:
        for number, handle in enumerate(handles):
            nursery.start_soon(run, handle, number)


async def _one_by_one(load: Load, memory: Memory, handles: Sequence[EpisodeHandle]) -> list[float]:
    async def agent(handle: EpisodeHandle, number: int) -> None:
        for count in range(load.steps):
            await handle.log_step(load.make(number, count))

    await _each(load, handles, agent)
    await memory.flush()
    return []


async def _in_batches(load: Load, memory: Memory, handles: Sequence[EpisodeHandle]) -> list[float]:
    async def agent(handle: EpisodeHandle, number: int) -> None:
        for first in range(0, load.steps, 100):
            await handle.log_steps([load.make(number, count) for count in range(first, first + 100)])

    await _each(load, handles, agent)
    await memory.flush()
    return []


async def _plain_calls(load: Load, memory: Memory, handles: Sequence[EpisodeHandle]) -> list[float]:
    since = 0
    for count in range(load.steps):
        for number, handle in enumerate(handles):
            item = load.make(number, count)
            try:
                handle.log_step_nowait(item)
            except Busy:
                await handle.log_step(item)
            since += 1
            if since == 64:
                since = 0
                await trio.lowlevel.checkpoint()
    await memory.flush()
    return []


async def _acknowledged(load: Load, memory: Memory, handles: Sequence[EpisodeHandle]) -> list[float]:
    latencies: list[float] = []
    clock = time.perf_counter

    async def agent(handle: EpisodeHandle, number: int) -> None:
        for count in range(load.steps):
            began = clock()
            receipt = await handle.log_step(load.make(number, count))
            await receipt.wait_durable()
            latencies.append(clock() - began)

    await _each(load, handles, agent)
    return latencies


def _large_step(episode: int, number: int) -> ExecutionStep:
    return ExecutionStep(tool="reader", action="read", parameters={"n": number}, result=StepSuccess(LARGE_OUTPUT))


def _from_asyncio(load: Load, path: Path) -> tuple[float, list[float]]:
    async def main() -> float:
        async with stepwell.aio.open_memory(path) as memory:
            handles = [await memory.start_episode(f"task {number}") for number in range(load.producers)]

            async def agent(handle: stepwell.aio.EpisodeHandle, number: int) -> None:
                for count in range(load.steps):
                    await handle.log_step(load.make(number, count))

            began = time.perf_counter()
            await asyncio.gather(*(agent(handle, number) for number, handle in enumerate(handles)))
            await memory.flush()
            return time.perf_counter() - began

    return asyncio.run(main()), []


def _from_plain_code(load: Load, path: Path) -> tuple[float, list[float]]:
    with stepwell.sync.open_memory(path) as memory:
        handle = memory.start_episode("task")
        began = time.perf_counter()
        for first in range(0, load.steps, 100):
            handle.log_steps([load.make(0, count) for count in range(first, first + 100)])
        memory.flush()
        return time.perf_counter() - began, []


LOADS = (
    Load("log_step, 100 episodes", 100, 2_000, _one_by_one, steps_per_second=110_000, ratio=0.33),
    Load("log_step, 1,000 episodes", 1_000, 200, _one_by_one, steps_per_second=110_000, ratio=0.33),
    Load("log_step, 10,000 episodes", 10_000, 20, _one_by_one, steps_per_second=70_000),
    Load("log_steps of 100, 100 episodes", 100, 4_000, _in_batches, steps_per_second=250_000, ratio=0.7),
    Load("log_step_nowait, 64 episodes", 64, 4_000, _plain_calls, steps_per_second=200_000),
    Load("acknowledged, 1 producer", 1, 4_000, _acknowledged, steps_per_second=2_000),
    Load("acknowledged, 64 producers", 64, 1_000, _acknowledged, steps_per_second=40_000),
    Load("acknowledged, 512 producers", 512, 200, _acknowledged, steps_per_second=55_000),
    Load("acknowledged, 2,000 producers", 2_000, 50, _acknowledged, steps_per_second=50_000),
    Load("stepwell.aio, log_step, 100 tasks", 100, 1_000, steps_per_second=40_000, measure=_from_asyncio),
    Load("stepwell.sync, log_steps of 100, one thread", 1, 90_000, steps_per_second=100_000, measure=_from_plain_code),
    Load(
        "log_step of 4 KiB, 1,000 episodes",
        *(1_000, 60, _one_by_one),
        make=_large_step,
        ratio=0.6,
        megabytes_per_second=150,
    ),
)


async def _measure(load: Load, path: Path) -> tuple[float, list[float]]:
    assert load.drive is not None
    async with open_memory(path) as memory:
        handles: list[EpisodeHandle] = [None] * load.producers  # type: ignore[list-item]

        async def start(number: int) -> None:
            handles[number] = await memory.start_episode(f"task {number}", episode_id=f"episode-{number}")

        async with trio.open_nursery() as nursery:
            for number in range(load.producers):
                nursery.start_soon(start, number)
        began = time.perf_counter()
        latencies = await load.drive(load, memory, handles)
        return time.perf_counter() - began, latencies


def _plain(load: Load, path: Path) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        began = time.perf_counter()
        group: list[bytes] = []
        size = 0
        for count in range(load.steps):
            for number in range(load.producers):
                item = encoded(load.make(number, count))
                group.append(item)
                size += len(item)
                if size >= GROUP_BYTES:
                    os.write(descriptor, b"".join(group))
                    os.fdatasync(descriptor)
                    group.clear()
                    size = 0
        os.write(descriptor, b"".join(group))
        os.fdatasync(descriptor)
        return time.perf_counter() - began
    finally:
        os.close(descriptor)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of all loads on each medium."""
    report: dict[str, Any] = {"machine": setting.machine()}
    loads = [load for load in LOADS if not options.only or options.only in load.title]
    rounds = 1 if options.quick else options.rounds
    for medium, parent in setting.media():
        found: dict[str, list[tuple[float, float, list[float]]]] = {load.title: [] for load in loads}
        for number in range(rounds + 1):
            for load in loads:
                with setting.scratch(parent) as path:
                    gc.collect()
                    measure = load.measure or (lambda load, path: trio.run(_measure, load, path))
                    seconds, latencies = measure(load, path / "memory")
                    gc.collect()
                    plain = _plain(load, path / "plain")
                if number:  # the first round warms up
                    found[load.title].append((seconds, plain, sorted(latencies)))
        rows: list[list[str]] = []
        report[medium] = {}
        for load in loads:
            rows.append(_row(load, found[load.title], report[medium]))
        setting.show(
            f"runtime, on {medium}: median (low to high) of {rounds} interleaved rounds",
            ["", "steps/s", "", "÷ plain loop", "MB/s", "p50 ms", "p99 ms", "target"],
            rows,
        )
    return report


def _row(load: Load, rounds: Sequence[tuple[float, float, list[float]]], report: dict[str, Any]) -> list[str]:
    size = len(encoded(load.make(1, 1)))
    rate = setting.summary([load.total / seconds for seconds, _plain, _latencies in rounds])
    ratio = setting.summary([plain / seconds for seconds, plain, _latencies in rounds])
    report[load.title] = {"steps_per_second": rate, "ratio": ratio, "bytes_per_step": size}
    shown = ["", ""]
    if rounds[0][2]:
        for place, share in enumerate((0.5, 0.99)):
            values = setting.summary([latencies[int(len(latencies) * share)] * 1000 for _s, _p, latencies in rounds])
            report[load.title][f"p{share * 100:.0f}_ms"] = values
            shown[place] = f"{values['median']:.2f}"
    targets = [f"{load.steps_per_second:,.0f}"] if load.steps_per_second else []
    if load.megabytes_per_second:
        targets = [f"{load.megabytes_per_second:,.0f} MB/s or {load.ratio:.2f} of plain"]
    elif load.ratio:
        targets += [f"{load.ratio:.2f} of plain"]
    return [
        load.title,
        f"{rate['median']:,.0f}",
        f"{rate['low']:,.0f} to {rate['high']:,.0f}",
        f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
        f"{rate['median'] * size / 1e6:,.0f}",
        *shown,
        ", ".join(targets),
    ]
