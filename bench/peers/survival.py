"""Reading one episode back, and what is left of sixty acknowledged steps after `kill -9`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import setting
from bench.peers.process import Died, Worker

GROWN = 1_024
STEPS = 60
SIZE = 300


def read_back(workers: Sequence[tuple[Worker, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """An episode of 1,024 steps is read from a store that was opened again: the median of eleven reads, and the first.

    Raises: `RuntimeError` if a durable peer finds another number of steps.
    """
    rows, report = [], {}
    for worker, hello in workers:
        with setting.scratch(setting.media()[0][1]) as path:
            made = worker.ask(do="ingest", path=str(path), episodes=1, steps=GROWN, size=SIZE, delay_ns=0)
            found = made if "failed" in made else worker.ask(do="read", path=str(path), times=11)
        if "failed" in found:
            report[worker.name] = found
            rows.append([worker.name, f"failed: {found['failed'][:50]}", "", ""])
            continue
        if not hello["durable"] and not found["found"]:
            report[worker.name] = {"found": 0}
            rows.append([worker.name, "nothing is left", "", ""])
            continue
        if hello["durable"] and found["found"] != GROWN:
            raise RuntimeError(f"{worker.name} reads {found['found']} of {GROWN} steps")
        numbers = setting.summary([seconds * 1000 for seconds in found["seconds"]])
        report[worker.name] = {"ms": numbers, "first_ms": found["seconds"][0] * 1000, "found": found["found"]}
        rows.append(
            [
                worker.name,
                *(f"{value:,.2f}" for value in (numbers["median"], numbers["low"], found["seconds"][0] * 1000)),
            ]
        )
    setting.show(f"reading back one episode of {GROWN:,} steps of {SIZE} bytes", ["", "ms", "best", "first"], rows)
    return report


def survive(
    workers: Sequence[tuple[Worker, dict[str, Any]]], library: Path | None, errors: Path
) -> dict[str, dict[str, Any]]:
    """A process has 60 steps acknowledged and kills itself at once; another opens the store and counts.

    The page cache survives the process: only the syncs, counted elsewhere, tell what a power cut would leave.
    """
    rows, report = [], {}
    for reader, hello in workers:
        batch = hello["batch"]
        steps = -(-STEPS // batch) * batch
        with setting.scratch(setting.media()[0][1]) as path, Worker(reader.name, library, errors) as victim:
            victim.hello()
            try:
                found = victim.ask(do="die", path=str(path), episodes=1, steps=steps, size=SIZE, delay_ns=0)
            except Died:
                found = reader.ask(do="read", path=str(path), times=1)
        report[reader.name] = {"acknowledged": steps, **found}
        left = f"failed: {found['failed'][:60]}" if "failed" in found else f"{found['found']:,}"
        rows.append([reader.name, str(steps), left, "yes" if hello["durable"] else "no"])
    columns = ["", "acknowledged", "found", "the acknowledgement means durable"]
    setting.show(f"after kill -9: {STEPS} steps of one episode, killed at the last acknowledgement", columns, rows)
    return report
