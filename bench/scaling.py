"""What one more durable step costs: against the length of its episode, the number of episodes, the size of the log.

Each should be flat. Beside Stepwell stand what is simplest, `sqlite3` in the form of `bench peers`, and for the length
of an episode the peers for which it matters. Syncs are counted by no one here and take what tmpfs takes: nothing. So
the figures are work, and nothing hides behind a slow medium.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import trio

from bench import results, setting
from bench.peers.load import Load, Meter
from bench.peers.process import Worker
from bench.peers.shim import Syncs
from bench.peers.with_sqlite import INSERT, GroupCommit, Row, connect
from bench.peers.with_stepwell import Acknowledged
from bench.workload import encoded, start_episodes, step
from stepwell import EpisodeHandle, Memory, open_memory

LENGTH, EPISODES, SIZE = "length of the episode", "number of episodes", "size of the log"
LONG, LONG_QUICK = 10_000, 1_100
WINDOWS = {1: (0, 1), 10: (5, 15), 100: (80, 120), 1_000: (900, 1_100), 10_000: (9_000, 10_000)}
"""For each mark the steps around it that stand for it."""
ONE_BY_ONE = (
    "Stepwell, acknowledged",
    "sqlite3, commit per step",
    "eventsourcing application",
    "openai-agents SQLiteSession",
    "LangGraph SqliteSaver, growing state",
)
COUNTS = (1_000, 10_000, 100_000)
MEGABYTES = (1, 10, 100, 1_000)
AGENTS, STEPS, SAMPLES = 100, 50, 7
BATCH, IN_ONE_EPISODE = 500, 5_000
STEP_BYTES = len(encoded(step(0, 0)))
Points = dict[str, dict[str, float]]


def microseconds(laps: list[tuple[float, int]]) -> list[float]:
    """How long each step took, from the moments at which each was made and the last was acknowledged."""
    return [(later - earlier) * 1e6 for (earlier, _), (later, _) in itertools.pairwise(laps)]


def windows(rounds: list[list[float]]) -> Points:
    """The median step around each mark, of several rounds: their median, lowest and highest."""
    return {
        str(mark): setting.summary([statistics.median(one[first:end]) for one in rounds])
        for mark, (first, end) in WINDOWS.items()
        if len(rounds[0]) >= end
    }


def written_per_step(laps: list[tuple[float, int]]) -> tuple[float, float]:
    """Bytes handed to write calls for a step, at the beginning of an episode and at its end."""
    known = [(number, written) for number, (_at, written) in enumerate(laps) if written]
    if len(known) < 2:
        return 0.0, 0.0
    (first, a), (second, b), (third, c), (last, d) = (known[place] for place in (0, 1, -2, -1))
    return (b - a) / (second - first), (d - c) / (last - third)


def _length(options: argparse.Namespace) -> dict[str, Any]:
    parent = setting.media()[0][1]
    long = LONG_QUICK if options.quick else LONG
    ways: dict[str, Points] = {}
    written: dict[str, tuple[float, float]] = {}
    notes: list[str] = []
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as scratch:
        for number in range(options.rounds + 1):  # the first warms up
            for name in ONE_BY_ONE:
                with Worker(name, None, Path(scratch) / "errors") as worker, setting.scratch(parent) as path:
                    hello = worker.hello()
                    if "missing" in hello:
                        notes.append(f"not installed, and not measured: {name} ({hello['missing']})")
                        continue
                    steps = min(long, hello["most_steps"] or long)
                    ask = {"episodes": 1, "size": 300, "delay_ns": 0}
                    with setting.scratch(parent) as warm:
                        worker.ask(do="ingest", path=str(warm), steps=200, **ask)
                    laps = worker.ask(do="laps", path=str(path), steps=steps, **ask)["laps"]
                if number:
                    found.setdefault(name, []).append(microseconds(laps))
                    written[name] = written_per_step(laps)
    for name, rounds in found.items():
        ways[name] = windows(rounds)
    rows = [
        [name, *(_shown(points.get(str(mark))) for mark in WINDOWS), *(f"{each:,.0f}" for each in written[name])]
        for name, points in ways.items()
    ]
    marks = [f"{mark:,}" for mark in WINDOWS]
    setting.show(
        "µs for a step of 300 bytes, acknowledged, by its place in its episode (tmpfs, one episode)",
        ["", *marks, "bytes written at first", "at last"],
        rows,
        [
            f"{options.rounds} interleaved rounds; target: the 10,000th at most 1.2 times the 10th",
            *dict.fromkeys(notes),
        ],
    )
    return {"against": "steps in the episode", "ways": ways, "bytes_written": written}


def _shown(numbers: dict[str, float] | None) -> str:
    return "" if numbers is None else f"{numbers['median']:,.1f}"


# ---- many episodes, or a large log -----------------------------------------------------------------------------------


class _Stepwell:
    """One memory that grows, and agents that log steps to new episodes of it and await each receipt."""

    name = "Stepwell, acknowledged"

    def __init__(self, memory: Memory):
        self._memory, self._episodes, self._bytes = memory, 0, 0

    async def _start(self, count: int) -> list[EpisodeHandle]:
        handles: list[EpisodeHandle] = []
        while len(handles) < count:
            some = min(1_000, count - len(handles))
            handles += await start_episodes(self._memory, some, self._episodes)
            self._episodes += some
        return handles

    async def grow_to_episodes(self, count: int) -> None:
        await self._start(count - self._episodes)
        await self._settle()

    async def grow_to_bytes(self, size: int) -> None:
        while self._bytes < size:
            (handle,) = await self._start(1)
            for _ in range(IN_ONE_EPISODE // BATCH):
                await handle.log_steps([step(0, number) for number in range(BATCH)])
            self._bytes += IN_ONE_EPISODE * STEP_BYTES
        await self._settle()

    async def _settle(self) -> None:
        """Wait until what follows the log has caught up, so that it does not work during the measurement."""
        await self._memory.flush()
        await self._memory.list_episodes(limit=1)
        await self._memory.patterns(limit=1)
        await self._memory.retrieve_relevant_context("a task", limit=1)

    async def sample(self) -> float:
        handles, load = await self._start(AGENTS), _load()
        await Acknowledged().ingest_into(self._memory, handles, load)
        return load.meter.seconds * 1e6 / (AGENTS * STEPS)


class _Sqlite:
    """One table that grows, and hand-written group commit, as `bench peers` has it."""

    name = "sqlite3, group commit"

    def __init__(self, path: Path, thread: ThreadPoolExecutor):
        self._connection, self._thread, self._episodes, self._bytes = connect(path), thread, 0, 0

    def close(self) -> None:
        self._connection.close()

    def _insert(self, rows: list[Row]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(INSERT, rows)
        self._connection.execute("COMMIT")

    async def grow_to_episodes(self, count: int) -> None:
        new = range(self._episodes, count)
        self._insert([(f"episode-{number}", 0, encoded(step(number, 0))) for number in new])
        self._episodes = count

    async def grow_to_bytes(self, size: int) -> None:
        while self._bytes < size:
            name = f"episode-{self._episodes}"
            self._episodes += 1
            for first in range(0, IN_ONE_EPISODE, BATCH):
                self._insert([(name, number, encoded(step(0, number))) for number in range(first, first + BATCH)])
            self._bytes += IN_ONE_EPISODE * STEP_BYTES

    async def sample(self) -> float:
        load = _load()
        await GroupCommit().ingest_into(self._connection, self._thread, load, self._episodes)
        self._episodes += AGENTS
        return load.meter.seconds * 1e6 / (AGENTS * STEPS)


def _load() -> Load:
    return Load(AGENTS, STEPS, 300, Meter(Syncs(), lambda: None))


Grow = Callable[[int], Awaitable[None]]


async def _samples(
    store: _Stepwell | _Sqlite, marks: tuple[int, ...], grow: Callable[[int], Awaitable[None]]
) -> Points:
    points: Points = {}
    for _ in range(3):
        await store.sample()  # warms up
    for mark in marks:
        await grow(mark)
        await store.sample()
        points[str(mark)] = setting.summary([await store.sample() for _ in range(SAMPLES)])
    return points


async def _grown_stepwell(path: Path, what: str, marks: tuple[int, ...]) -> Points:
    async with open_memory(path / "memory") as memory:
        store = _Stepwell(memory)
        grow = store.grow_to_episodes if what == EPISODES else lambda size: store.grow_to_bytes(size * 10**6)
        return await _samples(store, marks, grow)


async def _grown_sqlite(path: Path, what: str, marks: tuple[int, ...]) -> Points:
    with ThreadPoolExecutor(1) as thread:
        store = _Sqlite(path, thread)
        try:
            grow = store.grow_to_episodes if what == EPISODES else lambda size: store.grow_to_bytes(size * 10**6)
            return await _samples(store, marks, grow)
        finally:
            store.close()


def _grown(what: str, against: str, marks: tuple[int, ...]) -> dict[str, Any]:
    parent = setting.media()[0][1]
    ways: dict[str, Points] = {}
    with setting.scratch(parent) as path:
        ways[_Stepwell.name] = trio.run(_grown_stepwell, path, what, marks)
    with setting.scratch(parent) as path:
        ways[_Sqlite.name] = asyncio.run(_grown_sqlite(path, what, marks))
    rows = [[name, *(_shown(points[str(mark)]) for mark in marks)] for name, points in ways.items()]
    setting.show(
        f"µs for a step, acknowledged, {AGENTS} episodes at once, by {against} (tmpfs)",
        ["", *(f"{mark:,}" for mark in marks)],
        rows,
        [f"medians of {SAMPLES} samples of {AGENTS * STEPS:,} steps"],
    )
    return {"against": against, "ways": ways}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The three, or those whose title has `--only`."""
    shorter = -1 if options.quick else None
    subjects: dict[str, Callable[[], dict[str, Any]]] = {
        LENGTH: lambda: _length(options),
        EPISODES: lambda: _grown(EPISODES, "episodes in the memory", COUNTS[:shorter]),
        SIZE: lambda: _grown(SIZE, "megabytes of steps in the log", MEGABYTES[:shorter]),
    }
    report: dict[str, Any] = {}
    for title, measure in subjects.items():
        if options.only in title:
            report[title] = {results.RECORDED: results.recorded(options), **measure()}
    if not report:
        print(f"nothing has {options.only!r} in its title", file=sys.stderr)
    return report
