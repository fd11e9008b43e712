"""1,000,000 episodes on disk, 1,000 of them live: what memory does that take, and how long does it take to wake one?

Most of the episodes have ended; every 25th is open, and the open ones lie scattered over the whole log. One after
another is woken by a step while 1,000 are live, so that each wake sends the least recently used one to sleep.

The log is written without a memory, so it has no catalogs, as that of a user would. They are folded before the rounds,
once, while 1,000 are live as well: what that takes is a figure of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio

from bench import large_log, setting
from bench.workload import encoded, step
from stepstore.journal import Batch, SegmentLogJournal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepwell import MemoryConfig, open_memory
from stepwell.model.ids import EPISODE_STREAM, stream_id

EPISODES, LIVE = 1_000_000, 1_000
WAVE = 1_000
STEPS = 4
OPEN_EVERY = 25
WAKES = 2_000


async def write(path: str, episodes: int) -> int:
    """Write the log and close it: in waves, a start, two batches of steps and mostly an ending. Gives the records."""
    journal = SegmentLogJournal.open(path)
    ending = large_log.ending_payload()
    payloads = [encoded(step(n % 997, n)) for n in range(1_000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for first in range(0, episodes, WAVE):
            wave = range(first, min(first + WAVE, episodes))
            names = [name_of(number) for number in wave]
            streams = [stream_id(EPISODE_STREAM, name) for name in names]
            starts = [large_log.start_payload(name) for name in names]
            await large_log.store(journal, [Batch(streams[n], 1, [starts[n]], FLAG_OPENS) for n in range(len(names))])
            half = STEPS // 2
            for first_seq in (2, 2 + half):
                steps = [payloads[(first_seq + n) % 1_000] for n in range(half)]
                await large_log.store(journal, [Batch(stream, first_seq, steps, 0) for stream in streams])
            await large_log.store(
                journal,
                [
                    Batch(streams[n], STEPS + 2, [ending], FLAG_CLOSES)
                    for n, number in enumerate(wave)
                    if number % OPEN_EVERY
                ],
            )
        journal.finish()
    records = journal.durable_lsn
    journal.release()
    return records


def name_of(number: int) -> str:
    """The id of an episode."""
    return f"episode-{number}"


async def _fold(path: str, episodes: int) -> dict[str, float]:
    """A fresh process: wake `LIVE` episodes, and fold all catalogs of the log meanwhile; the most memory this took."""
    began = time.perf_counter()
    async with open_memory(path, config=MemoryConfig(max_live_episodes=LIVE, idle_seconds=86_400)) as memory:
        async with trio.open_nursery() as nursery:
            for number in range(0, LIVE * OPEN_EVERY, OPEN_EVERY):
                nursery.start_soon(memory.log_step, name_of(number % episodes), step(number, 1))
        await memory.flush()
        for projection in memory._runtime.projections:
            await projection.wait_for(memory._journal.durable_lsn)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mib": peak, "seconds": time.perf_counter() - began}


async def _measure(path: str, episodes: int, round_number: int) -> dict[str, float]:
    """A fresh process: wake `LIVE` episodes, look at the memory, then wake others one by one. Each round has its own,
    since waking logs a step."""
    still_open = list(range(0, episodes, OPEN_EVERY))
    random.Random(7).shuffle(still_open)
    most = len(still_open) // (LIVE + WAKES)
    chosen = still_open[round_number % most * (LIVE + WAKES) :][: LIVE + WAKES]
    began = time.perf_counter()
    async with open_memory(path, config=MemoryConfig(max_live_episodes=LIVE, idle_seconds=86_400)) as memory:
        opened = time.perf_counter() - began
        async with trio.open_nursery() as nursery:
            for number in chosen[:LIVE]:
                nursery.start_soon(memory.log_step, name_of(number), step(number, 1))
        await memory.flush()
        live, resident = memory.stats().live_episodes, setting.resident_bytes()
        assert live == LIVE, live
        times: list[float] = []
        for number in chosen[LIVE:]:
            began = time.perf_counter()
            receipt = await memory.log_step(name_of(number), step(number, 1))
            times.append((time.perf_counter() - began) * 1000)
            assert receipt.seq >= STEPS + 2
        await memory.flush()
        after = setting.resident_bytes()
        assert memory.stats().live_episodes <= LIVE + 10
        return {
            "open_ms": opened * 1000,
            "wake_p50_ms": statistics.median(times),
            "wake_p99_ms": statistics.quantiles(times, n=100)[98],
            "rss_mib": resident / 2**20,
            "rss_after_mib": after / 2**20,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write the log once, on the disk, and fold it; then take the figures `rounds` times, each in a fresh process."""
    episodes = EPISODES // 10 if options.quick else EPISODES
    _medium, parent = setting.media()[-1]
    found: list[dict[str, float]] = []
    with setting.scratch(parent) as path:
        subprocess.run(_child("write", path / "log", episodes), check=True, stdout=subprocess.DEVNULL)
        folding = json.loads(subprocess.check_output(_child("fold", path / "log", episodes)))
        for number in range(options.rounds):
            command = _child("measure", path / "log", episodes, number)
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    report: dict[str, Any] = {"machine": setting.machine(), "episodes": episodes, "live": LIVE, "folding": folding}
    report |= {key: setting.summary([item[key] for item in found]) for key in found[0]}
    rows = [
        [title, *(f"{report[key][name]:,.2f}" for name in ("median", "low", "high")), unit]
        for key, title, unit in (
            ("wake_p50_ms", "waking one, p50", "ms"),
            ("wake_p99_ms", "waking one, p99", "ms"),
            ("rss_mib", f"memory, {LIVE:,} live", "MiB"),
            ("rss_after_mib", f"memory after {WAKES:,} wakes", "MiB"),
            ("open_ms", "opening", "ms"),
        )
    ]
    rows.append(["memory at most, while all is folded once", f"{folding['peak_mib']:,.2f}", "", "", "MiB"])
    setting.show(
        f"wake: {episodes:,} episodes of {STEPS} steps on the disk, {LIVE:,} live",
        ["", "median", "low", "high", ""],
        rows,
        [f"{options.rounds} rounds, each in a fresh process, page cache warm; targets: p50 ≤ 3 ms, memory ≤ 250 MiB"],
    )
    return report


def _child(what: str, path: Path, episodes: int, round_number: int = 0) -> list[str]:
    return [sys.executable, "-m", "bench.wake", what, str(path), str(episodes), str(round_number)]


if __name__ == "__main__":
    where, many, which = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if sys.argv[1] == "write":
        print(f"{trio.run(write, where, many):,} records")
    elif sys.argv[1] == "fold":
        print(json.dumps(trio.run(_fold, where, many)))
    else:
        print(json.dumps(trio.run(_measure, where, many, which)))
