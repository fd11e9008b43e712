"""How fast a memory learns: the learner over imported episodes, completing long ones, and asking for advice.

The learner is measured as it runs: its own task, its catalog on the medium, the log already written, the catalog of
episodes already folded. So is a recommendation: from the call to the answer, with its examples read from the log.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.learning import data
from stepwell import StepError, StepSuccess, Success, TaskContext, open_memory
from stepwell.cli.importing.importer import import_files
from stepwell.learning import analyse_completion
from stepwell.model.episode import Episode
from stepwell.model.event import utc
from stepwell.model.step import EpisodeStep
from stepwell.runtime import learning_tables as tables

SOURCE = data.FOLDER / "intercode-sql.jsonl.gz"
LONG_STEPS = 1_000
QUESTIONS = 200


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print a table, and give the numbers. Says so and gives nothing where the data is not there."""
    if not SOURCE.is_file():
        print(f"learning throughput: {SOURCE} is not there, nothing is measured")
        return {}
    parent = setting.media()[0][1]
    with setting.scratch(parent) as directory:
        report = trio.run(_measure, directory / "memory", options.rounds)
    _print(report)
    return report


async def _measure(directory: Path, rounds: int) -> dict[str, Any]:
    async with open_memory(directory) as memory:
        await import_files(memory, [SOURCE], strict=True, on_problem=lambda _p: None, on_progress=lambda *_: None)
        await memory.list_episodes(at_least=memory._journal.durable_lsn)
        tasks = [item.task_description for item in (await memory.list_episodes(limit=QUESTIONS)).items]
    seconds, episodes = [], 0
    for _ in range(rounds):
        for file in _files(directory):
            file.unlink()
        async with open_memory(directory) as memory:
            began = time.perf_counter()
            episodes = await memory._runtime.projections.learning.read_now(
                lambda connection: int(connection.execute("SELECT count(*) FROM episode").fetchone()[0])
            )
            seconds.append(time.perf_counter() - began)
    return {
        "episodes": episodes,
        "episodes_per_second": episodes / statistics.median(seconds),
        "seconds": seconds,
        "catalog_bytes": sum(file.stat().st_size for file in _files(directory)),
        "complete_1000_steps_ms": _completing(rounds),
        "recommend_ms": await _asking(directory, tasks),
    }


def _files(directory: Path) -> list[Path]:
    return list(directory.glob(f"{tables.FILE}*"))


def _completing(rounds: int) -> float:
    """The median of completing an episode of 1,000 steps, in milliseconds, of the slowest of three kinds."""
    kinds: tuple[tuple[StepSuccess | StepError, ...], ...] = (
        (StepSuccess("rows"),),
        (StepError("Table 'a' doesn't exist"),),
        tuple(_mixed()),
    )
    medians = []
    for kind, results in enumerate(kinds):
        samples = []
        for sample in range(max(rounds, 3) * 4):
            episode = _long(results, f"{kind}.{sample}")  # nothing in it was seen before
            began = time.perf_counter()
            analyse_completion(episode, now=utc(0))
            samples.append(time.perf_counter() - began)
        medians.append(statistics.median(samples) * 1_000)
    return max(medians)


def _mixed() -> Iterator[StepSuccess | StepError]:
    for number in range(200):
        yield StepError(f"Unknown column 'c{number}' in line {number}")
        yield StepSuccess(f"{number} rows")


def _of(result: StepSuccess | StepError, name: str) -> StepSuccess | StepError:
    return StepError(f"{name}: {result.message}") if isinstance(result, StepError) else result


def _long(results: tuple[StepSuccess | StepError, ...], name: str) -> Episode:
    steps = [
        EpisodeStep(
            seq=number + 2,
            step_number=number + 1,
            timestamp=utc(number * 10**9),
            time_ns=number * 10**9,
            tool=f"tool-{number % 7}",
            action=f"Check whether part {number % 50} of {name} is there",
            parameters={"command": f"look at {number // 3}"},
            result=_of(results[number % len(results)], name),
            latency_ms=float(number % 90),
            tokens_used=10,
            reward=None,
            thought=None,
            metadata={},
            key=None,
        )
        for number in range(LONG_STEPS)
    ]
    return Episode(
        episode_id="long",
        task_description="Find out what is there and what is not",
        task_type="analysis",
        context=TaskContext(domain="bench", tags=["long"]),
        agent="bench",
        start_time=utc(0),
        end_time=utc(LONG_STEPS * 10**9),
        outcome=Success("found"),
        last_seq=LONG_STEPS + 2,
        steps=steps,
    )


async def _asking(directory: Path, tasks: list[str]) -> dict[str, float]:
    """Quantiles of `recommend` over the tasks of the newest episodes, without storing what was advised, in ms."""
    samples = []
    async with open_memory(directory, read_only=True) as memory:
        context = TaskContext(domain="sql")
        await memory.recommend(tasks[0], context)
        for task in tasks:
            began = time.perf_counter()
            await memory.recommend(task, context)
            samples.append((time.perf_counter() - began) * 1_000)
    cuts = statistics.quantiles(samples, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def _print(report: dict[str, Any]) -> None:
    print(
        f"learner: {report['episodes_per_second']:,.0f} episodes/s over {report['episodes']:,} imported episodes "
        f"(slowest round {report['episodes'] / max(report['seconds']):,.0f}), "
        f"{report['catalog_bytes'] / 1e6:.1f} MB of catalog"
    )
    print(f"completing an episode of {LONG_STEPS:,} steps: {report['complete_1000_steps_ms']:.2f} ms")
    print(f"recommend: p50 {report['recommend_ms']['p50']:.1f} ms, p99 {report['recommend_ms']['p99']:.1f} ms")
