"""Reading one episode back, what is left of sixty acknowledged steps after `kill -9`, and of a deleted episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import setting
from bench.peers.process import Died, Started, Worker

GROWN = 1_024
STEPS = 60
SIZE = 300


def read_back(workers: Sequence[Started]) -> dict[str, dict[str, Any]]:
    """An episode of 1,024 steps is read from a store that was opened again: the median of eleven reads, and the first.

    Raises: `RuntimeError` if a durable peer finds another number of steps.
    """
    rows, report = [], {}
    for worker, hello in workers:
        with setting.scratch(setting.media()[0][1]) as path:
            made = worker.try_to_ask(do="ingest", path=str(path), episodes=1, steps=GROWN, size=SIZE, delay_ns=0)
            found = made if "failed" in made else worker.try_to_ask(do="read", path=str(path), times=11)
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


def forget(workers: Sequence[Started]) -> dict[str, dict[str, Any]]:
    """Of three episodes with sixty steps each, one is deleted by the call the library has for that. In which files is
    its text when the call has returned, and when the store was closed?
    """
    rows, report = [], {}
    for worker, hello in workers:
        steps = -(-STEPS // hello["batch"]) * hello["batch"]
        with setting.scratch(setting.media()[0][1]) as path:
            found = worker.try_to_ask(do="ingest", path=str(path), episodes=3, steps=steps, size=SIZE, delay_ns=0)
            if "failed" not in found:
                found = worker.try_to_ask(do="delete", path=str(path))
        report[worker.name] = found
        if "failed" in found:
            cells = [f"failed: {found['failed'][:50]}", ""]
        elif not found["before"]:
            cells = ["nothing was ever in a file", ""]
        elif "no_delete" in found:
            cells = [f"no such call: {found['no_delete']}", ""]
        else:
            cells = [", ".join(found[when]) or "gone" for when in ("after", "closed")]
        rows.append([worker.name, *cells])
    columns = ["", "when the call has returned", "when it was closed"]
    setting.show(f"deleted text, {STEPS} steps of one episode out of three: the files it is still in", columns, rows)
    return report


def survive(workers: Sequence[Started], library: Path | None, errors: Path) -> dict[str, dict[str, Any]]:
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
                found = reader.try_to_ask(do="read", path=str(path), times=1)
        report[reader.name] = {"acknowledged": steps, **found}
        ok = "failed" not in found
        left = f"{found['found']:,}" if ok else f"failed: {found['failed'][:60]}"
        took = f"{found['open_read_close'] * 1000:,.0f}" if ok else ""
        rows.append([reader.name, str(steps), left, "yes" if hello["durable"] else "no", took])
    columns = ["", "acknowledged", "found", "the acknowledgement means durable", "ms to open, read, close"]
    setting.show(f"after kill -9: {STEPS} steps of one episode, killed at the last acknowledgement", columns, rows)
    return report
