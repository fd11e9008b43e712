"""One step, await durable, again: against a bare write and fdatasync in a worker thread, taking turns."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.workload import encoded, step
from stepwell import MemoryConfig, open_memory

TURNS = 100


def _write(descriptor: int, data: bytes, offset: int) -> None:
    os.pwrite(descriptor, data, offset)
    os.fdatasync(descriptor)


async def _measure(path: Path, turns: int) -> dict[str, list[float]]:
    """Latencies in seconds: a receipt awaited, `durability="commit"`, and the bare write, in turns of 20 each."""
    found: dict[str, list[float]] = {"receipt": [], "commit": [], "bare": []}
    limiter = trio.CapacityLimiter(1)
    descriptor = os.open(path / "bare", os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(descriptor, 0, 64 * 1024 * 1024)
    data = encoded(step(0, 0))
    offset = 0
    try:
        async with (
            open_memory(path / "receipt") as by_receipt,
            open_memory(path / "commit", config=MemoryConfig(durability="commit")) as by_commit,
        ):
            receipts, commits = await by_receipt.start_episode("task"), await by_commit.start_episode("task")
            for turn in range(turns + 1):
                for number in range(20):
                    item = step(turn, number)
                    began = time.perf_counter()
                    receipt = await receipts.log_step(item)
                    await receipt.wait_durable()
                    found["receipt"].append(time.perf_counter() - began)
                for number in range(20):
                    item = step(turn, number)
                    began = time.perf_counter()
                    await commits.log_step(item)
                    found["commit"].append(time.perf_counter() - began)
                for _ in range(20):
                    began = time.perf_counter()
                    await trio.to_thread.run_sync(_write, descriptor, data, offset, limiter=limiter)
                    found["bare"].append(time.perf_counter() - began)
                    offset += len(data)
                if not turn:  # the first turn warms up
                    for values in found.values():
                        values.clear()
    finally:
        os.close(descriptor)
    return found


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The medians of several rounds, each of many turns."""
    rows: list[list[str]] = []
    report: dict[str, Any] = {"machine": setting.machine()}
    for medium, parent in setting.media():
        rounds: list[dict[str, list[float]]] = []
        for _ in range(options.rounds):
            with setting.scratch(parent) as path:
                rounds.append(trio.run(_measure, path, TURNS // 10 if options.quick else TURNS))
        report[medium] = {}
        for name in ("bare", "commit", "receipt"):
            medians = [_percentile(found[name], 0.5) * 1e6 for found in rounds]
            ratios = [_percentile(found[name], 0.5) / _percentile(found["bare"], 0.5) for found in rounds]
            p99 = setting.summary([_percentile(found[name], 0.99) * 1e6 for found in rounds])
            numbers, ratio = setting.summary(medians), setting.summary(ratios)
            report[medium][name] = {"p50_us": numbers, "p99_us": p99, "ratio": ratio}
            rows.append(
                [
                    f"{medium}: {_NAMES[name]}",
                    *(f"{numbers[key]:,.0f}" for key in ("median", "low", "high")),
                    f"{p99['median']:,.0f}",
                    f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
                ]
            )
    setting.show(
        "serial durable latency: one step, await durable, again",
        ["", "p50 µs", "low", "high", "p99 µs", "p50 ÷ bare"],
        rows,
        [f"{options.rounds} rounds, the three in turns of 20; target: p50 ≤ 1.5 × bare"],
    )
    return report


_NAMES = {
    "bare": "bare write + fdatasync in a thread",
    "commit": 'log_step, durability="commit"',
    "receipt": "log_step, then wait_durable",
}
