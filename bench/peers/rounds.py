"""Interleaved rounds of one setup, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import setting
from bench.peers.process import Worker

SECONDS, SECONDS_QUICK = 0.4, 0.1
"""How long a peer works in a round, if a step in each episode does not take longer."""
MOST_STEPS = 40_000


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


def _once(setup: Setup, worker: Worker, hello: dict[str, Any], steps: int) -> dict[str, Any]:
    with setting.scratch(setup.parent) as path:
        found = worker.ask(
            do="ingest",
            path=str(path),
            episodes=setup.episodes,
            steps=steps,
            size=setup.size,
            delay_ns=setup.delay_ns,
        )
    if "failed" not in found:
        if hello["durable"] and found["syncs"] is not None and found["groups"] > found["syncs"]:
            raise UncountedGroups(f"{worker.name}: {found['groups']} groups, {found['syncs']} syncs; {setup.title}")
        found["total"] = setup.episodes * steps
        found["rate"] = found["total"] / found["seconds"]
    return found


def measure(
    setup: Setup, workers: Sequence[tuple[Worker, dict[str, Any]]], rounds: int, quick: bool
) -> dict[str, dict[str, Any]]:
    """So many rounds after one that warms up and tells how many steps fill the time. Prints a table.

    Raises: `UncountedGroups`.
    """
    runs: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker, _ in workers}
    steps: dict[str, int] = {}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for worker, hello in workers:
            name, batch = worker.name, hello["batch"]
            if name in failed:
                continue
            found = _once(setup, worker, hello, steps.get(name, batch * max(1, 20 // setup.episodes)))
            if "failed" in found:
                failed[name] = found["failed"]
            elif number:
                runs[name].append(found)
            else:
                wanted = min(found["rate"] * (SECONDS_QUICK if quick else SECONDS), MOST_STEPS)
                steps[name] = max(1, round(wanted / setup.episodes / batch)) * batch
    report: dict[str, dict[str, Any]] = {name: {"failed": text} for name, text in failed.items()}
    rows = [[name, f"failed: {text[:50]}"] for name, text in failed.items()]
    first = workers[0][0].name
    for name, all_runs in runs.items():
        if name in failed:
            continue
        rate = setting.summary([one["rate"] for one in all_runs])
        pairs = zip(all_runs, runs[first], strict=False)
        ratio = setting.summary([one["rate"] / other["rate"] for one, other in pairs])
        total = sum(one["total"] for one in all_runs)
        counted = all_runs[0]["syncs"] is not None
        syncs = sum(one["syncs"] for one in all_runs) if counted else 0
        report[name] = {
            "steps_per_second": rate,
            "ratio": ratio,
            "steps_per_episode": steps[name],
            "syncs_per_step": syncs / total if counted else None,
            "ms_per_sync": sum(one["sync_seconds"] for one in all_runs) / syncs * 1000 if syncs else None,
            "bytes_per_step": sum(one["bytes"] for one in all_runs) / total,
        }
        rows.append(
            [
                name,
                f"{rate['median']:,.0f}",
                f"{rate['low']:,.0f} to {rate['high']:,.0f}",
                f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})",
                f"{syncs / total:.3f}" if counted else "?",
                f"{report[name]['bytes_per_step']:,.0f}",
                f"{report[name]['ms_per_sync']:.2f}" if syncs else "",
            ]
        )
    columns = ["", "steps/s", "low to high", "÷ first", "syncs/step", "bytes/step", "ms/sync"]
    width = len(columns)
    shown = [row + [""] * (width - len(row)) for row in rows]
    setting.show(setup.title, columns, shown, [f"{rounds} interleaved rounds after a warm-up"])
    return report
