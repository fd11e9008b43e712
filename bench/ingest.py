"""Many concurrent episodes log steps; everything is durable at the end. Against a plain loop on the same medium.

The plain loop makes the same steps, encodes them with cbor2, joins them in groups of 5,000, and writes and fdatasyncs
each group: no format, no order, no acknowledgement, no recovery. It is the limit, not a competitor.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.workload import encoded, log_steps, start_episodes, step
from stepwell import open_memory

EPISODES, STEPS, GROUP = 1_000, 200, 5_000


async def _memory(path: Path, episodes: int, steps: int) -> tuple[float, int]:
    async with open_memory(path) as memory:
        handles = await start_episodes(memory, episodes)
        syncs = memory.stats().syncs
        return await log_steps(memory, handles, steps), memory.stats().syncs - syncs


def _plain(path: Path, episodes: int, steps: int) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        began = time.perf_counter()
        group: list[bytes] = []
        for count in range(steps):
            for number in range(episodes):
                group.append(encoded(step(number, count)))
                if len(group) == GROUP:
                    os.write(descriptor, b"".join(group))
                    os.fdatasync(descriptor)
                    group.clear()
        os.write(descriptor, b"".join(group))
        os.fdatasync(descriptor)
        return time.perf_counter() - began
    finally:
        os.close(descriptor)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds on each medium; medians, spread, ratio."""
    episodes, steps = (EPISODES, STEPS // 10) if options.quick else (EPISODES, STEPS)
    total = episodes * steps
    rows: list[list[str]] = []
    report: dict[str, Any] = {
        "machine": setting.machine(),
        "episodes": episodes,
        "steps": steps,
        "bytes_per_step": len(encoded(step(1, 1))),
    }
    for medium, parent in setting.media():
        memory_rates: list[float] = []
        plain_rates: list[float] = []
        ratios: list[float] = []
        syncs = 0
        for number in range(options.rounds + 1):
            with setting.scratch(parent) as path:
                gc.collect()
                seconds, syncs = trio.run(_memory, path / "memory", episodes, steps)
                gc.collect()
                plain = _plain(path / "plain", episodes, steps)
            if number:  # the first round warms up
                memory_rates.append(total / seconds)
                plain_rates.append(total / plain)
                ratios.append(plain / seconds)
        memory, limit, ratio = map(setting.summary, (memory_rates, plain_rates, ratios))
        report[medium] = {"memory": memory, "plain": limit, "ratio": ratio, "syncs": syncs}
        for name, numbers in (("stepwell, await log_step", memory), ("plain loop", limit)):
            rows.append(
                [f"{medium}: {name}", *(f"{numbers[key]:,.0f}" for key in ("median", "low", "high")), "steps/s"]
            )
        rows.append([f"{medium}: ratio", *(f"{ratio[key]:.2f}" for key in ("median", "low", "high")), ""])
    setting.show(
        f"ingest: {episodes:,} concurrent episodes × {steps} steps of {report['bytes_per_step']} bytes, all durable",
        ["", "median", "low", "high", ""],
        rows,
        [f"{options.rounds} interleaved rounds; targets: ≥ 80,000 steps/s, ratio ≥ 0.25"],
    )
    return report
