"""Full load for minutes: does the memory that the process takes stay flat?

`EPISODES` agents log without a pause; each completes its episode after `STEPS` steps and starts the next. Every second
the resident set and the steps so far are noted; `--plot FILE.svg` draws them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import trio

from bench import setting
from bench.workload import step
from stepwell import Memory, Success, open_memory

EPISODES, STEPS = 200, 200
SETTLING_SHARE = 0.2
"""The first fifth of the time is for caches and arenas to fill; it is drawn, and does not count as growth."""


class Sample(NamedTuple):
    """What is seen once a second."""

    seconds: float
    rss_mib: float
    steps: int
    live: int


def rss_mib() -> float:
    """The resident set of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


async def _load(path: Path, seconds: float) -> list[Sample]:
    samples: list[Sample] = []
    steps = 0
    async with open_memory(path) as memory:
        began = time.perf_counter()

        async def agent(memory: Memory, number: int) -> None:
            nonlocal steps
            while time.perf_counter() - began < seconds:
                handle = await memory.start_episode(f"task of agent {number}", agent=f"agent-{number}")
                for count in range(STEPS):
                    await handle.log_step(step(number, count))
                    steps += 1
                await handle.complete(Success("done"))

        async def watch() -> None:
            while True:
                passed = time.perf_counter() - began
                samples.append(Sample(passed, rss_mib(), steps, memory.stats().live_episodes))
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as agents:
                for number in range(EPISODES):
                    agents.start_soon(agent, memory, number)
            nursery.cancel_scope.cancel()
    return samples


def growth(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Behind the settling: the median of the first and of the last tenth in MiB, and the slope in MiB an hour."""
    settled = [sample for sample in samples if sample.seconds >= samples[-1].seconds * SETTLING_SHARE]
    tenth = max(len(settled) // 10, 1)
    first = statistics.median(sample.rss_mib for sample in settled[:tenth])
    last = statistics.median(sample.rss_mib for sample in settled[-tenth:])
    line = statistics.linear_regression([s.seconds for s in settled], [s.rss_mib for s in settled])
    return first, last, line.slope * 3600


def draw(samples: Sequence[Sample], title: str) -> str:
    """The resident set over time, and the rate of each ten seconds, as SVG."""
    width, height, left, top = 760, 300, 60, 40
    span = samples[-1].seconds or 1
    highest = max(sample.rss_mib for sample in samples) * 1.2
    rates = [
        (later.seconds, (later.steps - earlier.steps) / (later.seconds - earlier.seconds))
        for earlier, later in zip(samples[:-10:10], samples[10::10], strict=False)
    ]
    fastest = max((rate for _at, rate in rates), default=1.0) * 1.2

    def line(points: Sequence[tuple[float, float]], most: float) -> str:
        return " ".join(
            f"{left + x / span * (width - 2 * left):.1f},{top + (1 - y / most) * (height - 2 * top):.1f}"
            for x, y in points
        )

    memory, speed = line([(s.seconds, s.rss_mib) for s in samples], highest), line(rates, fastest)
    bottom = height - top
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{left}" y="20">{title}</text>'
        f'<path d="M{left} {top}V{bottom}H{width - left}" fill="none" stroke="#444"/>'
        f'<text x="{left - 8}" y="{top + 4}" text-anchor="end">{highest:,.0f}</text>'
        f'<text x="{left - 8}" y="{bottom}" text-anchor="end">0 MiB</text>'
        f'<text x="{width - left + 6}" y="{top + 4}" fill="#888">{fastest:,.0f}/s</text>'
        f'<text x="{width - left}" y="{bottom + 18}" text-anchor="end">{span / 60:.1f} minutes</text>'
        f'<polyline points="{speed}" fill="none" stroke="#bbb"/>'
        f'<polyline points="{memory}" fill="none" stroke="#b03060" stroke-width="2"/>'
        f'<text x="{left + 10}" y="{bottom - 10}" fill="#b03060">resident set</text>'
        f'<text x="{left + 110}" y="{bottom - 10}" fill="#888">steps/s</text></svg>\n'
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One run of `--minutes` on the disk."""
    minutes = options.minutes / 10 if options.quick else options.minutes
    _medium, parent = setting.media()[-1]
    with setting.scratch(parent) as path:
        samples = trio.run(_load, path / "memory", minutes * 60)
        size = sum(file.stat().st_size for file in (path / "memory").iterdir() if file.is_file())
    first, last, slope = growth(samples)
    rate = samples[-1].steps / samples[-1].seconds
    title = f"{EPISODES} agents, {samples[-1].steps:,} steps, {rate:,.0f} steps/s: {first:.0f} MiB, then {last:.0f} MiB"
    if options.plot:
        Path(options.plot).write_text(draw(samples, title), encoding="utf-8")
    rows = [
        ["steps", f"{samples[-1].steps:,}"],
        ["steps/s", f"{rate:,.0f}"],
        ["log, GB", f"{size / 1e9:.1f}"],
        ["resident set behind the settling, MiB", f"{first:.1f}"],
        ["at the end, MiB", f"{last:.1f}"],
        ["slope, MiB an hour", f"{slope:.1f}"],
    ]
    setting.show(f"soak: {minutes:g} minutes at full load", ["", ""], rows)
    return {
        "machine": setting.machine(),
        "steps": samples[-1].steps,
        "steps_per_second": rate,
        "rss_first_mib": first,
        "rss_last_mib": last,
        "slope_mib_per_hour": slope,
        "samples": [sample._asdict() for sample in samples],
    }
