"""What following the log costs a load that lasts, unlike a burst, which is over before those who follow have rested.

`EPISODES` agents log without a pause for a while. Each second the steps so far, and how far the projections are behind,
are noted. The rate of the last seconds is that of a load that goes on for hours; the whole has the rests of the first
seconds in it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import trio

from bench import setting
from bench.projecting import MODES, projecting
from bench.workload import start_episodes, step
from stepwell import EpisodeHandle, open_memory

EPISODES, SECONDS, LAST_SECONDS = 1_000, 25.0, 10.0


class Load(NamedTuple):
    """One load."""

    rate: float
    """Steps per second, up to the last acknowledgement."""
    last_rate: float
    """The same of the last LAST_SECONDS."""
    behind: int
    """Records that the slowest projection is behind at the end."""
    most_behind: int
    caught_up_seconds: float
    cpu_us: float
    """Of all threads of the process, per step, up to the last acknowledgement."""
    resident_mib: float


async def load(path: Path, episodes: int, seconds: float, names: Sequence[str]) -> Load:
    """Log for so many seconds while these projections follow."""
    steps = 0
    samples: list[tuple[float, int, int]] = []
    async with open_memory(path) as memory:
        journal = memory._journal
        followers = [it for it in memory._runtime.projections if it.service.name in names]
        handles = await start_episodes(memory, episodes)

        def behind() -> int:
            return max((journal.durable_lsn - it.projector.position for it in followers), default=0)

        async def agent(handle: EpisodeHandle, number: int) -> None:
            nonlocal steps
            for count in itertools.count():
                if time.perf_counter() >= ends:
                    return
                await handle.log_step(step(number, count))
                steps += 1

        async def watch() -> None:
            while True:
                samples.append((time.perf_counter(), steps, behind()))
                await trio.sleep(1)

        began, cpu_before = time.perf_counter(), time.process_time()
        ends = began + seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as agents:
                for number, handle in enumerate(handles):
                    agents.start_soon(agent, handle, number)
            await memory.flush()
            ended, lag, cpu = time.perf_counter(), behind(), time.process_time() - cpu_before
            for projection in followers:
                await projection.wait_for(journal.durable_lsn)
            caught_up = time.perf_counter() - ended
            nursery.cancel_scope.cancel()
        at, before, _ = next(it for it in samples if it[0] >= ended - LAST_SECONDS - 1)
        most = max(lag, *(it[2] for it in samples))
        resident = setting.resident_bytes() / 1024**2
        rate, last_rate = steps / (ended - began), (steps - before) / (ended - at)
        return Load(rate, last_rate, lag, most, caught_up, cpu / steps * 1e6, resident)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Without projections, with the catalog of episodes, and with all, in turn."""
    seconds = SECONDS / 4 if options.quick else SECONDS
    found: dict[str, list[Load]] = {mode: [] for mode in MODES}
    for _round, (mode, names) in itertools.product(range(options.rounds), MODES.items()):
        with setting.scratch(setting.media()[0][1]) as path, projecting(names):
            gc.collect()
            found[mode].append(trio.run(load, path / "m", EPISODES, seconds, names))
    return {
        mode: {
            **{field: [getattr(it, field) for it in loads] for field in Load._fields},
            "slower by": [1 - it.rate / alone.rate for it, alone in zip(loads, found["none"], strict=True)],
            "last slower by": [
                1 - it.last_rate / alone.last_rate for it, alone in zip(loads, found["none"], strict=True)
            ],
        }
        for mode, loads in found.items()
    }


def rows(report: dict[str, Any]) -> list[list[str]]:
    """Of the table, each with the rounds one after the other."""
    found: list[list[str]] = []
    for mode, it in report.items():
        found.append([f"{mode}: steps/s", _listed(it["rate"], ",.0f"), "", ""])
        found.append(["  of the last seconds", _listed(it["last_rate"], ",.0f"), "", ""])
        found.append(["  processor time", _listed(it["cpu_us"], ".2f"), "µs per step", ""])
        if mode == "none":
            continue
        found += [
            ["  slower by", _listed(it["slower by"], ".1%"), "", "≤ 10 %"],
            ["  slower by, the last seconds", _listed(it["last slower by"], ".1%"), "", "≤ 10 %"],
            ["  records behind, at the end", _listed(it["behind"], ",d"), "", ""],
            ["  records behind, at most", _listed(it["most_behind"], ",d"), "", ""],
            ["  caught up after", _listed(it["caught_up_seconds"], ".2f"), "s", "≤ 1"],
        ]
    return found


def _listed(values: Sequence[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)
