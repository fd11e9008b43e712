"""A clean log of 10,000,000 steps in 100,000 episodes: reopening it, reading one episode, verifying, replaying.

Each figure is taken in a fresh process. Cold means that the log's files were dropped from the page cache before.
"""

from __future__ import annotations

import argparse
import json
import os
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
from stepstore.log.verify import verify_log
from stepwell import START, open_memory

WAVES = 100
REPLAYED = 3_000_000
"""So many events are replayed at the most: the rest takes as long for each."""
SMALL_WAVES = 12
"""Waves of the log with one step a batch, for verifying."""


def _drop_from_cache(path: str) -> None:
    """Drop the log's files from the page cache; dropping everything would measure the interpreter's own pages too."""
    os.sync()
    for file in Path(path).iterdir():
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


async def _reopen(path: str, waves: int) -> dict[str, float]:
    began = time.perf_counter()
    async with open_memory(path) as memory:
        opened = time.perf_counter()
        episode = await memory.get_episode(large_log.name_of(waves // 2, 500))
        answered = time.perf_counter()
        assert len(episode.steps) == 98
        return {
            "open_ms": (opened - began) * 1000,
            "first_answer_ms": (answered - began) * 1000,
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "segments": memory.recovery.segments,
        }


async def _read(path: str, waves: int, first: int) -> dict[str, float]:
    """Episodes of 200 steps, read one after another: cold each the first time, warm the second."""
    cold: list[float] = []
    warm: list[float] = []
    chosen = random.Random(waves).sample(range(waves), min(waves, 30))
    async with open_memory(path, read_only=True) as memory:
        await memory.get_episode(large_log.name_of(0, 999))  # the first use of anything
        for wave in chosen:
            _drop_from_cache(path)
            name = large_log.name_of(wave, first + wave % large_log.SPECIAL)
            for times in (cold, warm):
                began = time.perf_counter()
                episode = await memory.get_episode(name)
                times.append((time.perf_counter() - began) * 1000)
                assert len(episode.steps) == 200
    return {"cold_p50_ms": statistics.median(cold), "warm_p50_ms": statistics.median(warm)}


async def _replay(path: str) -> dict[str, float]:
    async with open_memory(path, read_only=True) as memory:
        began = time.perf_counter()
        count = 0
        async with memory.follow(START) as events:
            async for _event in events:
                count += 1
                if count == REPLAYED:
                    break
        return {"events_per_second": count / (time.perf_counter() - began), "events": count}


def _verify(path: str) -> dict[str, float]:
    began = time.perf_counter()
    report = verify_log(path)
    seconds = time.perf_counter() - began
    assert not report.problems
    return {"mb_per_second": report.bytes / seconds / 1e6, "records": report.records}


def _fresh(what: str, path: Path, waves: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.sealed", what, str(path), str(waves)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write the logs on the disk, then take each figure `rounds` times in fresh processes."""
    waves = WAVES // 10 if options.quick else WAVES
    report: dict[str, Any] = {"machine": setting.machine(), "waves": waves}
    rows: list[list[str]] = []
    _medium, parent = setting.media()[-1]
    with setting.scratch(parent) as path:
        big, small = path / "big", path / "small"
        for log, many, per_batch in ((big, waves, 10), (small, max(waves * SMALL_WAVES // WAVES, 1), 1)):
            command = [sys.executable, "-m", "bench.large_log", str(log), str(many), str(per_batch)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for title, what, log in (
            ("reopen, page cache warm", "reopen", big),
            ("reopen, page cache dropped", "reopen-cold", big),
            ("200 steps in 20 batches", "read-20", big),
            ("200 steps in 200 batches", "read-200", big),
            ("verify, 10 steps a batch", "verify", big),
            ("verify, 1 step a batch", "verify", small),
            ("replay through follow", "replay", big),
        ):
            found = [_fresh(what, log, waves) for _ in range(options.rounds)]
            report[title] = {key: setting.summary([item[key] for item in found]) for key in found[0]}
            for key, numbers in report[title].items():
                rows.append([f"{title}: {key}", *(f"{numbers[n]:,.1f}" for n in ("median", "low", "high"))])
    setting.show(
        f"sealed: {waves * 100_000:,} steps in {waves * large_log.LIVE:,} episodes, on the disk",
        ["", "median", "low", "high"],
        rows,
        [
            f"{options.rounds} rounds, each in a fresh process. Targets: first answer ≤ 1,000 ms, RSS ≤ 300 MiB; 20 "
            "batches ≤ 2 ms cold, 200 batches ≤ 15 ms cold, ≤ 1 ms warm; verify ≥ 1,000 and ≥ 600 MB/s; replay "
            "≥ 400,000/s"
        ],
    )
    return report


def _main(what: str, path: str, waves: int) -> dict[str, float]:
    if what == "verify":
        return _verify(path)
    if what == "replay":
        return trio.run(_replay, path)
    if what.startswith("read"):
        return trio.run(_read, path, waves, 0 if what == "read-20" else large_log.SPECIAL)
    if what == "reopen-cold":
        _drop_from_cache(path)
    return trio.run(_reopen, path, waves)


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
