"""`python -m bench WHAT`: ingest, latency, recover, runtime, recall, learning, peers, soak and others; see `--help`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import (
    catalog,
    compaction,
    flame,
    idle,
    ingest,
    latency,
    learning,
    peers,
    plots,
    ports,
    recall,
    recover,
    results,
    rotation,
    runtime,
    scaling,
    sealed,
    soak,
    wake,
)
from bench.learning.data import NoData

SUBJECTS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], str]] = {
    "ingest": (ingest.run, "durable steps per second against a plain write loop"),
    "latency": (latency.run, "one step, await durable, again, against a bare write and fdatasync"),
    "recover": (recover.run, "reopening a large log after a kill"),
    "rotation": (rotation.run, "what leaving full segments costs"),
    "compaction": (compaction.run, "what compacting an old log costs the ingest beside it"),
    "runtime": (runtime.run, "the runtime under load: many episodes, batches, acknowledged and large steps"),
    "sealed": (sealed.run, "reopening, reading, verifying and replaying a clean log of 10,000,000 steps"),
    "soak": (soak.run, "minutes at full load, and whether the memory that the process takes stays flat"),
    "catalog": (catalog.run, "folding, size and pages of the catalog of 1,000,000 episodes, and what it costs ingest"),
    "ports": (ports.run, "the end of a thread of 100,000 messages; recording events against logging steps"),
    "idle": (idle.run, "the memory of 100,000 live episodes that do nothing"),
    "flame": (flame.run, "flame graphs of ingest, by py-spy"),
    "peers": (peers.run, "the same durable steps through Stepwell and through what people use instead"),
    "scaling": (
        scaling.run,
        "one more step, against the length of its episode, the episodes, the size of the log",
    ),
    "recall": (recall.run, "what recall finds of real conversations, and how fast it is with 100,000 facts"),
    "learning": (learning.run, "does retrieval find what is meant, does advice help, and how long does it take"),
    "wake": (wake.run, "waking one of 1,000,000 episodes while 1,000 are live"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its table, or JSON. Gives 1 if parts of it failed; the others are kept."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("subject", choices=SUBJECTS, help="; ".join(f"{k}: {v[1]}" for k, v in SUBJECTS.items()))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    parser.add_argument(
        "--only",
        metavar="TEXT",
        default="",
        help="catalog: folding, ingest, sustained; runtime, learning, peers, scaling: only parts whose title has this",
    )
    parser.add_argument("--minutes", type=float, default=10, help="soak: how long (default 10)")
    parser.add_argument("--plot", metavar="FILE.svg", help="soak: draw the resident set over time")
    parser.add_argument("--log", metavar="DIR", help="catalog: the log is kept here, and used again")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="where the numbers go as SUBJECT.json, with pictures (default docs/bench; with --quick build/bench)",
    )
    parser.add_argument("--redraw", action="store_true", help="measure nothing, draw the numbers that are there")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args(arguments)
    failed: results.PartsFailed | None = None
    directory: Path = options.output or (results.FIRST_LOOKS if options.quick else results.MEASURED)
    if options.redraw:
        report = json.loads((directory / f"{options.subject}.json").read_text(encoding="utf-8"))
    else:
        begun, since = results.recorded(options), time.monotonic()
        try:
            report = SUBJECTS[options.subject][0](options)
        except NoData as error:
            print(f"NOT MEASURED: {options.subject}: {error}", file=sys.stderr)
            return 0
        except results.PartsFailed as error:
            report, failed = error.report, error
        report[results.RECORDED] = {**begun, "seconds": round(time.monotonic() - since)}
        report = results.keep(options.subject, report, directory, partly=bool(options.only))
    try:
        for file in plots.draw(options.subject, report, directory):
            print(file, file=sys.stderr)
    except plots.NoMatplotlib as error:
        print(error, file=sys.stderr)
    if options.json:
        print(json.dumps(report, indent=2))
    if failed is not None:
        print(f"FAILED in part: {options.subject}: {failed}", file=sys.stderr)
    return int(failed is not None)


if __name__ == "__main__":
    sys.exit(main())
