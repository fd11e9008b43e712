"""The ports: the end of a thread of 100,000 messages, and `record` against `log_step`, taking turns."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.workload import OUTPUT, step
from stepwell import Memory, MemoryConfig, Message, Role, events, open_memory

MESSAGES, TOKENS, LOADS, WAKES = 100_000, 4_096, 200, 20
BATCH = 500
PAUSE = 2.0
"""Seconds in which what runs in the background comes to its end."""
AGENTS, EVENTS = 50, 100


async def fill(memory: Memory, messages: int) -> None:
    """A conversation with tool calls in it, about 30 tokens a message."""
    roles = (Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT)
    for first in range(0, messages, BATCH):
        batch = [Message(roles[n % 4], f"{n}: {OUTPUT}") for n in range(first, min(first + BATCH, messages))]
        await memory.short_term.append_many("thread", batch)
    await memory.flush()


async def measure_loading(path: Path, messages: int) -> dict[str, list[float]]:
    """Seconds for a window: of a thread that is awake, of one that nobody has used since opening, behind an append that
    is waited for, and beside a catalog that has 100,000 records to catch up with."""
    found: dict[str, list[float]] = {
        "awake": [],
        "asleep": [],
        "behind an append": [],
        "while a catalog catches up": [],
    }
    async with open_memory(path) as memory:
        await fill(memory, messages)
        for _ in range(WAKES):
            began = time.perf_counter()
            await memory.short_term.load("thread", TOKENS)
            found["while a catalog catches up"].append(time.perf_counter() - began)
        await trio.sleep(PAUSE)
        for _ in range(LOADS):
            began = time.perf_counter()
            loaded = await memory.short_term.load("thread", TOKENS)
            found["awake"].append(time.perf_counter() - began)
            assert 100 < len(loaded) < 300
        for number in range(LOADS):
            began = time.perf_counter()
            await memory.short_term.append("thread", Message(Role.USER, f"again {number}"))
            await memory.short_term.load("thread", TOKENS)
            found["behind an append"].append(time.perf_counter() - began)
    for _ in range(WAKES):
        async with open_memory(path) as memory:
            await trio.sleep(PAUSE / 4)
            began = time.perf_counter()
            await memory.short_term.load("thread", TOKENS)
            found["asleep"].append(time.perf_counter() - began)
    return found


async def _agent_of_steps(memory: Memory, number: int, count: int) -> None:
    handle = await memory.start_episode("task", episode_id=f"steps-{number}-{time.perf_counter_ns()}")
    for place in range(count):
        await handle.log_step(step(number, place))


async def _agent_of_events(memory: Memory, number: int, count: int, tool: bool) -> None:
    run = f"events-{number}-{time.perf_counter_ns()}"
    record = memory.episodic.record
    await record(run, events.Started("agent"))
    for place in range(count):
        if tool:
            args = {"path": f"src/module_{number}.py", "line": place}
            await record(run, events.ToolCall("file_reader", args, events.ToolOk(OUTPUT)))
        else:
            await record(run, events.LlmCall(412, 900, "provider", "model", 300, 112))


async def measure_recording(path: Path, rounds: int, count: int) -> dict[str, list[float]]:
    """Steps or events per second until all are durable, of 50 agents at once."""
    found: dict[str, list[float]] = {"log_step": [], "record(ToolCall)": [], "record(LlmCall)": []}
    async with open_memory(path, config=MemoryConfig()) as memory:
        for turn in range(rounds + 1):
            for name, speeds in found.items():
                began = time.perf_counter()
                async with trio.open_nursery() as nursery:
                    for number in range(AGENTS):
                        if name == "log_step":
                            nursery.start_soon(_agent_of_steps, memory, number, count)
                        else:
                            nursery.start_soon(_agent_of_events, memory, number, count, name == "record(ToolCall)")
                await memory.flush()
                if turn:  # the first one warms up
                    speeds.append(AGENTS * count / (time.perf_counter() - began))
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Windows of a long thread in milliseconds, and events per second beside steps per second."""
    report: dict[str, Any] = {"machine": setting.machine()}
    messages = MESSAGES // 10 if options.quick else MESSAGES
    rows: list[list[str]] = []
    for medium, parent in setting.media():
        with setting.scratch(parent) as path:
            loading = trio.run(measure_loading, path / "threads", messages)
            recording = trio.run(measure_recording, path / "runs", options.rounds, EVENTS)
        report[medium] = {}
        for name, seconds in loading.items():
            p50 = 1000 * statistics.median(seconds)
            p99 = 1000 * sorted(seconds)[-1 - len(seconds) // 100]
            report[medium][f"load, {name}"] = {"p50_ms": p50, "p99_ms": p99}
            title = f"{medium}: load {TOKENS:,} of {messages:,} messages, {name}"
            rows.append([title, f"{p50:.2f} ms", f"{p99:.2f} ms"])
        steps = recording["log_step"]
        for name, speeds in recording.items():
            ratio = statistics.median(speed / against for speed, against in zip(speeds, steps, strict=True))
            report[medium][name] = {"per_second": statistics.median(speeds), "of_log_step": ratio}
            rows.append([f"{medium}: {name}, {AGENTS} agents", f"{statistics.median(speeds):,.0f}/s", f"{ratio:.2f}"])
    setting.show(
        "the ports",
        ["", "p50, or speed", "p99, or share of log_step"],
        rows,
        [f"{options.rounds} rounds; targets: load p50 ≤ 2 ms, record within 10 % of log_step"],
    )
    return report
