"""The catalog of many episodes: folding it from the log, what it takes on disk, pages of it, and what it costs ingest.

The log comes from `bench.catalog_log`; with `--log DIR` it is kept there for the next time. Everything of one run is
measured in that run. A page is 50 rows of a list by one filter that an index answers, from the newest and the oldest
end and from the middle; of each filter the median of its pages counts.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import itertools
import sqlite3
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from bench import catalog_log, lasting, setting
from bench.projecting import MODES, projecting
from bench.workload import log_steps, start_episodes
from stepstore.catalog import CatalogOptions
from stepstore.journal import SegmentLogJournal
from stepwell import EpisodeFilter, Memory, open_memory
from stepwell.runtime.episode_catalog import FILE
from stepwell.runtime.episode_fold import episode_projection

EPISODES, PAGE, PAGES = 1_000_000, 50, 40
AGENTS, STEPS = 1_000, 200


def filters(oldest: dt.datetime, newest: dt.datetime) -> dict[str, list[EpisodeFilter]]:
    """By what they filter: one with few rows and one with many, where there are both."""
    fleet = catalog_log.Fleet()
    words = fleet.words
    span = newest - oldest
    return {
        "no filter": [EpisodeFilter()],
        "status": [EpisodeFilter(status="open"), EpisodeFilter(status="ended")],
        "outcome": [EpisodeFilter(outcomes=["abstained"]), EpisodeFilter(outcomes=["success", "failure"])],
        "agent": [EpisodeFilter(agent=name) for name in (fleet.agents[0], fleet.agents[-1])],
        "task type": [EpisodeFilter(task_type="debugging")],
        "domain": [EpisodeFilter(domain="domain-0"), EpisodeFilter(domain="domain-19")],
        "language": [EpisodeFilter(language="rust")],
        "tag": [EpisodeFilter(tags_all=[fleet.tags[0]]), EpisodeFilter(tags_all=[fleet.tags[-1]])],
        "any of three tags": [EpisodeFilter(tags_any=[fleet.tags[1], fleet.tags[200], fleet.tags[-1]])],
        "started": [EpisodeFilter(started_from=oldest + span * 0.3, started_before=oldest + span * 0.31)],
        "ended": [
            EpisodeFilter(ended_from=oldest + span * 0.5, ended_before=oldest + span * 0.6),
            EpisodeFilter(ended_from=oldest + span * 0.999),
        ],
        "reward": [EpisodeFilter(reward_from=1.95), EpisodeFilter(reward_from=0.5, reward_to=0.6)],
        "archived": [EpisodeFilter(archived=True), EpisodeFilter(archived=False)],
        "full text": [
            EpisodeFilter(text=text)
            for text in (words[0], words[2_500], words[-1], f"{words[0]} {words[1]}", f"{words[0]} {words[-1]}")
        ],
        "exact text": [EpisodeFilter(text=fleet.task(), text_match="exact")],
    }


async def fold(path: str, place: str) -> tuple[float, int]:
    """Fold a log into a fresh catalog. Returns the seconds and the episodes."""
    journal = SegmentLogJournal.open(path)
    projection = episode_projection(journal, CatalogOptions(directory=place))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        began = time.perf_counter()
        nursery.start_soon(projection.run)
        await projection.wait_for(journal.durable_lsn)
        seconds = time.perf_counter() - began
        episodes = await projection.read(lambda it: int(it.execute("SELECT count(*) FROM episode").fetchone()[0]))
        journal.finish()
        nursery.cancel_scope.cancel()
    journal.release()
    return seconds, episodes


def sizes(file: Path) -> dict[str, float]:
    """Bytes per episode: of the file, and without the descriptions and the index of their words."""
    with closing(sqlite3.connect(file)) as connection:
        episodes, text = connection.execute("SELECT count(*), sum(length(CAST(task AS BLOB))) FROM episode").fetchone()
        index = connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'episode_text%'").fetchone()[0]
    return {"whole": file.stat().st_size / episodes, "without text": (file.stat().st_size - text - index) / episodes}


async def pages(memory: Memory, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each page, by filter."""
    newest = (await memory.list_episodes(limit=1)).items[0].start_time
    oldest = (await memory.list_episodes(limit=1, order="oldest")).items[0].start_time
    found: dict[str, list[float]] = {}
    for name, several in filters(oldest, newest).items():
        for filter in several:
            timed: list[float] = []
            for order in ("newest", "oldest"):
                cursor: str | None = None
                for _ in range(rounds):
                    began = time.perf_counter()
                    page = await memory.list_episodes(filter, limit=PAGE, cursor=cursor, order=order)
                    timed.append((time.perf_counter() - began) * 1_000)
                    cursor = page.next_cursor
            found.setdefault(name, []).append(statistics.median(timed))
    return found


async def ingest(path: Path, agents: int, steps: int, names: Sequence[str]) -> tuple[float, float]:
    """Steps per second, and how many seconds behind the last acknowledgement the projections have them."""
    async with open_memory(path) as memory:
        handles = await start_episodes(memory, agents)
        rate = agents * steps / await log_steps(memory, handles, steps)
        began = time.perf_counter()
        for projection in memory._runtime.projections:
            if projection.service.name in names:
                await projection.wait_for(memory._journal.durable_lsn)
        return rate, time.perf_counter() - began


def measure_ingest(options: argparse.Namespace) -> dict[str, Any]:
    """Without projections, with the catalog of episodes, and with all, in turn."""
    agents, steps = (AGENTS, STEPS // 4) if options.quick else (AGENTS, STEPS)
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    lags: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number, (mode, names) in itertools.product(range(options.rounds + 1), MODES.items()):
        with setting.scratch(setting.media()[0][1]) as path, projecting(names):
            gc.collect()
            rate, lag = trio.run(ingest, path / "m", agents, steps, names)
        if number:  # the first round warms up
            rates[mode].append(rate)
            lags[mode].append(lag)
    report: dict[str, Any] = {}
    for mode in MODES:
        costs = [1 - it / alone for it, alone in zip(rates[mode], rates["none"], strict=True)]
        report[mode] = {
            "steps/s": setting.summary(rates[mode]),
            "slower by": setting.summary(costs),
            "caught up after s": setting.summary(lags[mode]),
        }
    return report


def measure_folding(options: argparse.Namespace, parent: Path) -> dict[str, Any]:
    """Fold the log, and read pages of what came of it."""
    episodes = EPISODES // 20 if options.quick else EPISODES
    log = Path(options.log) if options.log else parent / "log"
    if not log.exists():
        trio.run(catalog_log.write, str(log), episodes)
    place = parent / "catalog"
    place.mkdir(exist_ok=True)
    seconds, found = trio.run(fold, str(log), str(place))
    report: dict[str, Any] = {"episodes": found, "episodes/s": found / seconds, "bytes": sizes(place / FILE)}

    async def read(title: str) -> None:
        # The pages are those of an opened memory whose catalog is where the log is.
        async with open_memory(log) as memory:
            await memory.list_episodes(at_least=memory._journal.durable_lsn)
            await pages(memory, 1)  # the first page by each filter warms up
            report[title] = await pages(memory, 4 if options.quick else PAGES)

    (log / FILE).unlink(missing_ok=True)
    (place / FILE).rename(log / FILE)
    with projecting(MODES["catalog"]):  # alone first: the others take minutes to fold a million
        trio.run(read, "page ms")
    trio.run(read, "page ms while the others fold")
    return report


def _listed(medians: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in medians)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, or with `--only` "ingest", "sustained" or "folding" a part."""
    report: dict[str, Any] = {"machine": setting.machine()}
    rows: list[list[str]] = []
    if options.only in ("", "folding"):
        with setting.scratch(setting.media()[-1][1]) as parent:
            folding = report["folding"] = measure_folding(options, parent)
        rows += [
            ["folding anew", f"{folding['episodes/s']:,.0f}", "episodes/s", "≥ 20,000"],
            ["size", f"{folding['bytes']['whole']:,.0f}", "bytes per episode", ""],
            ["size without text", f"{folding['bytes']['without text']:,.0f}", "bytes per episode", "≤ 600"],
        ]
        for name, medians in folding["page ms"].items():
            target = "≤ 30" if "text" in name else "≤ 5"
            rows.append([f"page by {name}", _listed(medians), "ms p50", target])
            meanwhile = folding["page ms while the others fold"][name]
            rows.append(["  while retrieval and learning fold", _listed(meanwhile), "ms p50", ""])
    if options.only in ("", "ingest"):
        cost = report["ingest"] = measure_ingest(options)
        rows += [
            ["ingest without projections", f"{cost['none']['steps/s']['median']:,.0f}", "steps/s", ""],
            ["slower by, with the catalog", f"{cost['catalog']['slower by']['median']:.1%}", "", "≤ 10 %"],
            ["caught up after", f"{cost['catalog']['caught up after s']['high']:.2f}", "s at most", "≤ 1"],
            ["slower by, with all projections", f"{cost['all']['slower by']['median']:.1%}", "", ""],
            ["caught up after", f"{cost['all']['caught up after s']['high']:.2f}", "s at most", ""],
        ]
    if options.only in ("", "sustained"):
        report["sustained"] = lasting.measure(options)
        rows += [["a load that lasts", "", "", ""], *lasting.rows(report["sustained"])]
    count = report.get("folding", {}).get("episodes", 0)
    setting.show(f"catalog of {count:,} episodes of {catalog_log.STEPS} steps", ["", "", "", "target"], rows)
    return report
