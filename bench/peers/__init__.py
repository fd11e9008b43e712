"""The same steps through Stepwell and through what people use instead; an acknowledgement for each, all durable.

Each peer runs in a process of its own and is used as its documentation recommends. The peers take turns: every round
goes through all of them. A library that is preloaded into each counts the syncs, and adds a millisecond to each where
that is asked for; a peer that acknowledges more groups than there were syncs fails the run.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import setting
from bench.peers.names import DISTRIBUTIONS, PEERS
from bench.peers.process import Worker
from bench.peers.rounds import Setup, measure
from bench.peers.shim import NoCompiler, compile_shim
from bench.peers.survival import read_back, survive

MILLISECOND = 1_000_000


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _setups(options: argparse.Namespace, slowed: bool) -> list[Setup]:
    media = [(name, parent, 0) for name, parent in setting.media()]
    if slowed:
        media[1:1] = [("tmpfs + 1 ms", parent, MILLISECOND) for name, parent, _ in media if name == "tmpfs"]
    sizes, episodes = ((300,), (1, 100)) if options.quick else ((300, 4096), (1, 100, 1_000))
    return [
        Setup(f"{name}, {count:,} episode{'s' * (count > 1)}, {size:,} bytes", parent, delay, count, size)
        for size in sizes
        for name, parent, delay in media
        for count in episodes
    ]


def _show_errors(errors: Path) -> None:
    """What the peers said on standard error, also when the run fails."""
    if errors.exists() and errors.stat().st_size:
        print("said by the peers:", errors.read_text(errors="replace")[-4_000:], sep="\n", file=sys.stderr)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every setup in interleaved rounds, reading back, and what survives a kill. `--only`: parts whose title has it."""
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as scratch, contextlib.ExitStack() as stack:
        errors = Path(scratch) / "errors"
        library: Path | None = None
        try:
            library = compile_shim(Path(scratch))
        except NoCompiler as error:
            notes.append(str(error))
        stack.callback(_show_errors, errors)
        report: dict[str, Any] = {"machine": setting.machine(), "versions": _versions(), "notes": notes}
        workers: list[tuple[Worker, dict[str, Any]]] = []
        for name in PEERS:
            worker = stack.enter_context(Worker(name, library, errors))
            hello = worker.hello()
            if "missing" in hello:
                notes.append(f"not installed, and not measured: {name} ({hello['missing']})")
            else:
                workers.append((worker, hello))
        for setup in _setups(options, library is not None):
            if options.only in setup.title:
                report[setup.title] = measure(setup, workers, 1 if options.quick else options.rounds, options.quick)
        if options.only in "reading back":
            report["reading back"] = read_back(workers)
        if options.only in "kill -9":
            report["kill -9"] = survive(workers, library, errors)
    for note in notes:
        print(note, file=sys.stderr)
    return report
