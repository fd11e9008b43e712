"""Interleaved rounds of one setup, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import setting
from bench.peers.process import Started, Worker

SECONDS, SECONDS_QUICK = 0.3, 0.1
"""How long a peer works in a round, if a step in each episode does not take longer."""
FAST, SECONDS_FAST, SECONDS_FAST_SLOWED = 10_000, 0.6, 1.5
"""A peer that makes so many steps per second works longer, the longest where syncs are slowed and it shares them: its
first steps in each episode are not its pace."""
MOST_STEPS = 60_000
LONG_SECONDS = 3.0
"""A peer whose warm-up takes longer is not run again: that one run is its figure, and the table says so."""


class UncountedGroups(Exception):
    """A peer acknowledged more groups than there were syncs."""


@dataclass(frozen=True)
class Setup:
    """So many episodes, with steps of this size, on this medium."""

    title: str
    parent: Path
    delay_ns: int
    """Added to every sync."""
    episodes: int
    size: int

    @property
    def shares_syncs(self) -> bool:
        """Whether only those are asked that can share a sync."""
        return self.episodes == 512 or self.size == 2048

    @classmethod
    def of(cls, medium: str, parent: Path, delay_ns: int, episodes: int, size: int) -> Setup:
        """A setup with a title that says what it is."""
        many, large = f"{episodes:,} episode{'s' * (episodes > 1)}", f"{size:,} bytes" if size else "real sizes"
        return cls(f"{medium}, {many}, {large}", parent, delay_ns, episodes, size)


def _once(setup: Setup, worker: Worker, hello: dict[str, Any], steps: int) -> dict[str, Any]:
    with setting.scratch(setup.parent) as path:
        found = worker.try_to_ask(
            do="ingest",
            path=str(path),
            episodes=setup.episodes,
            steps=steps,
            size=setup.size,
            delay_ns=setup.delay_ns,
        )
        disk = sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
    if "failed" not in found:
        found["disk"] = disk
        if hello["durable"] and found["syncs"] is not None and found["groups"] > found["syncs"]:
            raise UncountedGroups(f"{worker.name}: {found['groups']} groups, {found['syncs']} syncs; {setup.title}")
        found["total"] = setup.episodes * steps
        found["rate"] = found["total"] / found["seconds"]
    return found


def measure(setup: Setup, workers: Sequence[Started], rounds: int, quick: bool) -> dict[str, dict[str, Any]]:
    """So many rounds after one that warms up and tells how many steps fill the time. Prints a table.

    Raises: `UncountedGroups`.
    """
    runs: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker, _ in workers}
    steps: dict[str, int] = {}
    failed: dict[str, str] = {}
    slow: set[str] = set()
    for number in range(rounds + 1):
        for worker, hello in workers:
            name, batch = worker.name, hello["batch"]
            if name in failed or name in slow:
                continue
            least = hello["least_steps"] if setup.episodes < 1_000 else 1
            least = min(least, 3) if quick else least
            found = _once(setup, worker, hello, steps.setdefault(name, batch * max(least, 20 // setup.episodes)))
            if "failed" in found:
                failed[name] = found["failed"]
            elif number or found["seconds"] > LONG_SECONDS:
                runs[name].append(found)
                if not number:
                    slow.add(name)
            else:
                fast = SECONDS_FAST_SLOWED if setup.delay_ns else SECONDS_FAST
                seconds = SECONDS_QUICK if quick else fast if found["rate"] >= FAST else SECONDS
                wanted = min(found["rate"] * seconds, MOST_STEPS)
                steps[name] = max(least, round(wanted / setup.episodes / batch)) * batch
    report: dict[str, dict[str, Any]] = {name: {"failed": text} for name, text in failed.items()}
    rows = [[name, f"failed: {text[:50]}"] for name, text in failed.items()]
    first: dict[int, str] = {}
    for worker, hello in workers:
        first.setdefault(hello["batch"], worker.name)
    batches = {worker.name: hello["batch"] for worker, hello in workers}
    for name, all_runs in runs.items():
        if name in failed:
            continue
        rate = setting.summary([one["rate"] for one in all_runs])
        pairs = zip(all_runs, runs[first[batches[name]]], strict=False)
        ratio = setting.summary([other["rate"] / one["rate"] for one, other in pairs])
        total = sum(one["total"] for one in all_runs)
        counted = all_runs[0]["syncs"] is not None
        syncs = sum(one["syncs"] for one in all_runs) if counted else 0
        report[name] = {
            "steps_per_second": rate,
            "stepwell_is_times": ratio,
            "runs": len(all_runs),
            "steps_per_episode": steps[name],
            "syncs_per_step": syncs / total if counted else None,
            "ms_per_sync": sum(one["sync_seconds"] for one in all_runs) / syncs * 1000 if syncs else None,
            "bytes_per_step": sum(one["bytes"] for one in all_runs) / total,
            "disk_per_step": sum(one["disk"] for one in all_runs) / total,
        }
        rows.append(
            [
                name + (" (one run)" if name in slow else ""),
                f"{rate['median']:,.0f}",
                f"{rate['low']:,.0f} to {rate['high']:,.0f}",
                f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
                f"{syncs / total:.3f}" if counted else "?",
                f"{report[name]['bytes_per_step']:,.0f}",
                f"{report[name]['disk_per_step']:,.0f}",
                f"{report[name]['ms_per_sync']:.2f}" if syncs else "",
            ]
        )
    columns = ["", "steps/s", "low to high", "Stepwell ÷ it", "syncs/step", "bytes/step", "disk/step", "ms/sync"]
    width = len(columns)
    shown = [row + [""] * (width - len(row)) for row in rows]
    setting.show(
        setup.title,
        columns,
        shown,
        [f"{rounds} interleaved rounds after a warm-up; a peer with batches is compared with Stepwell's batches"],
    )
    return report
