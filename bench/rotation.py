"""What rotation costs: the same ingest with segments of 64 MiB, and with one so large that it is never left."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.workload import log_steps, start_episodes
from stepwell import MemoryConfig, open_memory

EPISODES, STEPS = 1_000, 600
LARGE = 1024 * 1024 * 1024


async def _ingest(path: Path, steps: int, segment_bytes: int) -> float:
    async with open_memory(path, config=MemoryConfig(segment_bytes=segment_bytes)) as memory:
        return await log_steps(memory, await start_episodes(memory, EPISODES), steps)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds on each medium; rates and the share lost."""
    steps = STEPS // 4 if options.quick else STEPS
    rows: list[list[str]] = []
    report: dict[str, Any] = {"machine": setting.machine(), "episodes": EPISODES, "steps": steps}
    for medium, parent in setting.media():
        rates: dict[int, list[float]] = {64 * 1024 * 1024: [], LARGE: []}
        lost: list[float] = []
        segments = 0
        for number in range(options.rounds + 1):
            for segment_bytes, found in rates.items():
                with setting.scratch(parent) as path:
                    gc.collect()
                    seconds = trio.run(_ingest, path / "memory", steps, segment_bytes)
                    count = len(list((path / "memory").glob("*.seg")))
                if number:  # the first round warms up
                    found.append(EPISODES * steps / seconds)
                    segments = max(segments, count)
            if number:
                rotating, still = (found[-1] for found in rates.values())
                lost.append((1 - rotating / still) * 100)
        summaries = [setting.summary(found) for found in rates.values()]
        report[medium] = {"rotating": summaries[0], "one segment": summaries[1], "lost_percent": setting.summary(lost)}
        for name, numbers in (("segments of 64 MiB", summaries[0]), ("one segment", summaries[1])):
            rows.append(
                [f"{medium}: {name}", *(f"{numbers[key]:,.0f}" for key in ("median", "low", "high")), "steps/s"]
            )
        rows.append([f"{medium}: lost", *(f"{setting.summary(lost)[k]:.1f}" for k in ("median", "low", "high")), "%"])
        report["segments"] = segments
    setting.show(
        f"rotation: {EPISODES:,} episodes × {steps} steps, {report['segments']} segments of 64 MiB or one",
        ["", "median", "low", "high", ""],
        rows,
        [f"{options.rounds} interleaved rounds, each against the other run of its round; target: ≤ 5 % lost"],
    )
    return report
