"""1,000,000 finished episodes: how long does `memory.retrieve_relevant_context` take?

The tasks are made of the words of the real tasks, drawn as often as they occur there, so that the frequent ones are in
every tenth task, and each of a name out of 200,000. The queries are other tasks with a third of their words left out:
those whose words are rare, and those whose words are in hundreds of thousands of tasks, as they come.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from bench import large_log, setting
from bench.learning import data
from bench.workload import encoded, step
from stepstore.journal import Batch, SegmentLogJournal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepwell import Limits, TaskContext, open_memory
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.start import EpisodeStart, encode_start

EPISODES = 1_000_000
WAVE = 2_000
STEPS = 2
QUERIES = 200
OPENINGS, FIRST_QUERIES = 5, 20
SOURCES = ("intercode-sql", "intercode-bash", "intercode-python", "reflexion-hotpotqa", "tau-airline")


def tasks(seed: int) -> Iterator[str]:
    """Tasks without end."""
    rng = random.Random(seed)
    known = dict.fromkeys(start["task"] for name in SOURCES for start in data.starts(name))
    words = [word for task in known for word in task.split()]
    while True:
        drawn = rng.choices(words, k=max(4, int(rng.gauss(12, 4))))
        yield " ".join([*drawn, f"item{int(rng.paretovariate(0.6)) % 200_000}"])


def queries(count: int) -> list[str]:
    """Tasks that are not among those of the memory, each with a third of its words left out."""
    rng, made = random.Random(11), tasks(2)
    found: list[str] = []
    for _ in range(count):
        words = next(made).split()
        found.append(" ".join(rng.sample(words, max(3, len(words) * 2 // 3))))
    return found


async def write(path: str, episodes: int) -> None:
    """Write the log: of each episode a start, two steps and an ending."""
    journal = SegmentLogJournal.open(path)
    ending, made = large_log.ending_payload(), tasks(1)
    steps = [encoded(step(1, n)) for n in range(STEPS)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for first in range(0, episodes, WAVE):
            batches: list[Batch] = []
            for number in range(first, min(first + WAVE, episodes)):
                name = f"episode-{number}"
                start = EpisodeStart(task=next(made), context=TaskContext(domain="bench"), agent=f"agent-{number % 9}")
                stream = stream_id(EPISODE_STREAM, name)
                payload = encode_start(start, name, time.time_ns(), Limits())
                batches.append(Batch(stream, 1, [payload, *steps], FLAG_OPENS))
                batches.append(Batch(stream, STEPS + 2, [ending], FLAG_CLOSES))
            await large_log.store(journal, batches[::2])
            await large_log.store(journal, batches[1::2])
        journal.finish()
    journal.release()


async def fold(path: str) -> float:
    """The seconds until the first answer of a memory that was never opened: its log is folded first."""
    began = time.perf_counter()
    async with open_memory(path) as memory:
        await memory.retrieve_relevant_context("anything at all")
        seconds = time.perf_counter() - began
        # What else follows the log is not to work during the measurement.
        await memory.list_episodes(limit=1)
        await memory.patterns(limit=1)
        return seconds


async def ask(path: str, asked: list[str]) -> tuple[list[float], float]:
    """Milliseconds of each query of one opening, from its first on, and how many hits they had on average."""
    async with open_memory(path) as memory:
        times: list[float] = []
        hits = 0
        for query in asked:
            began = time.perf_counter()
            found = await memory.retrieve_relevant_context(query)
            times.append((time.perf_counter() - began) * 1000)
            hits += len(found)
    return times, hits / len(times)


def measure(path: str) -> dict[str, float]:
    """Fold the log, then ask: many queries in one opening, and the first few of several openings."""
    folded = trio.run(fold, path)
    asked = queries(QUERIES)
    times, hits = trio.run(ask, path, asked)
    few = [asked[start : start + FIRST_QUERIES] for start in range(0, FIRST_QUERIES * OPENINGS, FIRST_QUERIES)]
    first = [trio.run(ask, path, some)[0] for some in few]
    cuts = statistics.quantiles(times, n=100)
    return {
        "fold_s": folded,
        "hits_mean": hits,
        "p50_ms": statistics.median(times),
        "p90_ms": cuts[89],
        "p99_ms": cuts[98],
        "max_ms": max(times),
        "just_opened_p50_ms": statistics.median(it for some in first for it in some),
        "very_first_p50_ms": statistics.median(some[0] for some in first),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write and measure on the disk."""
    episodes = EPISODES // 10 if options.quick else EPISODES
    _medium, parent = setting.media()[-1]
    with setting.scratch(Path(parent)) as path:
        directory = str(path / "memory")
        trio.run(write, directory, episodes)
        figures = measure(directory)
    return {"episodes": episodes, **figures}
