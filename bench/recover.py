"""A log of 1,000,000 steps in 10,000 episodes is left by a kill; how long until the first `get_episode` answers?"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.workload import step
from stepwell import EpisodeHandle, open_memory

EPISODES, STEPS = 10_000, 100


async def _write(path: str, episodes: int, steps: int) -> None:
    """The child: write everything, durable, say so, and wait to be killed."""
    async with open_memory(path) as memory:

        async def agent(number: int) -> None:
            handle: EpisodeHandle = await memory.start_episode(f"task {number}", episode_id=f"episode-{number}")
            for count in range(steps):
                await handle.log_step(step(number, count))

        async with trio.open_nursery() as nursery:
            for number in range(episodes):
                nursery.start_soon(agent, number)
        await memory.flush()
        print("durable", flush=True)
        await trio.sleep_forever()


async def _reopen(path: str, episodes: int, steps: int) -> dict[str, float]:
    """A fresh process: seconds from before opening until one episode in the middle has been read."""
    began = time.perf_counter()
    async with open_memory(path) as memory:
        opened = time.perf_counter()
        episode = await memory.get_episode(f"episode-{episodes // 2}")
        answered = time.perf_counter()
        assert len(episode.steps) == steps
        assert memory.recovery.records == episodes * (steps + 1)
        return {
            "open": opened - began,
            "get_episode": answered - opened,
            "first answer": answered - began,
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def _child(command: str, path: Path, episodes: int, steps: int) -> list[str]:
    return [sys.executable, "-m", "bench.recover", command, str(path), str(episodes), str(steps)]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Per round: copy the killed log, reopen it in a fresh process."""
    episodes, steps = (EPISODES // 10, STEPS) if options.quick else (EPISODES, STEPS)
    rows: list[list[str]] = []
    report: dict[str, Any] = {"machine": setting.machine(), "episodes": episodes, "steps": steps}
    size = 0
    for medium, parent in setting.media():
        with setting.scratch(parent) as path:
            command = _child("write", path / "killed", episodes, steps)
            with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"durable\n"
                writer.send_signal(signal.SIGKILL)
            size = sum(item.stat().st_size for item in (path / "killed").glob("*.seg"))
            found: list[dict[str, float]] = []
            for number in range(options.rounds):
                copy = path / f"copy-{number}"
                subprocess.run(["cp", "-a", "--sparse=always", str(path / "killed"), str(copy)], check=True)
                os.sync()
                output = subprocess.run(_child("reopen", copy, episodes, steps), check=True, capture_output=True)
                found.append(json.loads(output.stdout))
                subprocess.run(["rm", "-rf", str(copy)], check=True)
        report[medium] = {key: setting.summary([item[key] for item in found]) for key in found[0]}
        for key in ("open", "get_episode", "first answer"):
            numbers = report[medium][key]
            rows.append([f"{medium}: {key}", *(f"{numbers[n] * 1000:,.0f}" for n in ("median", "low", "high")), "ms"])
        rss = report[medium]["rss_mib"]
        rows.append([f"{medium}: peak memory", *(f"{rss[n]:,.0f}" for n in ("median", "low", "high")), "MiB"])
    setting.show(
        f"recover: {episodes * steps:,} steps in {episodes:,} episodes ({size / 2**20:,.0f} MiB), left by kill -9",
        ["", "median", "low", "high", ""],
        rows,
        [f"{options.rounds} rounds, each in a fresh process; target: first answer ≤ 1,000 ms"],
    )
    return report


if __name__ == "__main__":
    what, where, many, long = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if what == "write":
        trio.run(_write, where, many, long)
    else:
        print(json.dumps(trio.run(_reopen, where, many, long)))
