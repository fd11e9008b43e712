"""100,000 episodes that are live and do nothing: what does each of them cost?

Each was started, has taken two steps, and sleeps in its task. The growth of the resident memory holds everything there
is of it: its task, cell and mailbox, and its place in the index of the log.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.workload import step
from stepwell import MemoryConfig, open_memory

EPISODES = 100_000
PRODUCERS = 200
TARGET_BYTES = 6 * 1024


async def _idle(path: str, episodes: int) -> dict[str, float]:
    """A fresh process: start them, log two steps each, flush, and look."""
    config = MemoryConfig(max_live_episodes=2 * episodes, idle_seconds=86_400)
    async with open_memory(path, config=config) as memory:

        async def producer(first: int, end: int) -> None:
            for number in range(first, end):
                handle = await memory.start_episode(f"task {number}", episode_id=f"episode-{number}")
                await handle.log_step(step(number, 1))
                await handle.log_step(step(number, 2))

        async def produce(first: int, end: int) -> None:
            share = max((end - first) // PRODUCERS, 1)
            async with trio.open_nursery() as nursery:
                for begin in range(first, end, share):
                    nursery.start_soon(producer, begin, min(begin + share, end))
            await memory.flush()
            gc.collect()

        await produce(0, episodes // 100)  # whatever is made at first use
        before, live_before = setting.resident_bytes(), memory.stats().live_episodes
        began = time.perf_counter()
        await produce(episodes // 100, episodes + episodes // 100)
        seconds = time.perf_counter() - began
        grown = setting.resident_bytes() - before
        live = memory.stats().live_episodes - live_before
        assert live == episodes, live
        return {"bytes_each": grown / live, "rss_mib": setting.resident_bytes() / 2**20, "seconds": seconds}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Take the figure `rounds` times, each in a fresh process, on tmpfs if there is one: no disk is measured here."""
    episodes = EPISODES // 10 if options.quick else EPISODES
    _medium, parent = setting.media()[0]
    found: list[dict[str, float]] = []
    for _ in range(options.rounds):
        with setting.scratch(parent) as path:
            command = [sys.executable, "-m", "bench.idle", str(path / "log"), str(episodes)]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    report: dict[str, Any] = {"machine": setting.machine(), "episodes": episodes, "target_bytes": TARGET_BYTES}
    report |= {key: setting.summary([item[key] for item in found]) for key in found[0]}
    rows = [
        [title, *(f"{report[key][name]:,.0f}" for name in ("median", "low", "high")), unit]
        for key, title, unit in (("bytes_each", "memory of one", "bytes"), ("rss_mib", "memory of all", "MiB"))
    ]
    setting.show(
        f"idle: {episodes:,} live episodes that do nothing",
        ["", "median", "low", "high", ""],
        rows,
        [f"{options.rounds} rounds, each in a fresh process; target: ≤ {TARGET_BYTES:,} bytes each"],
    )
    return report


if __name__ == "__main__":
    print(json.dumps(trio.run(_idle, str(Path(sys.argv[1])), int(sys.argv[2]))))
