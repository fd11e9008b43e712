"""The same steps through Stepwell and through what people use instead; an acknowledgement for each, all durable.

Each peer runs in a process of its own and is used as its documentation recommends. The peers take turns: every round
goes through all of them. A library that is preloaded into each counts the syncs, and adds a millisecond to each where
that is asked for; a peer that acknowledges more groups than there were syncs fails the run.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import results, setting
from bench.peers import sizes
from bench.peers.names import DISTRIBUTIONS, IN_GROUPS, MODES, PEERS
from bench.peers.process import Started, Worker
from bench.peers.rounds import Setup, measure
from bench.peers.shim import NoCompiler, compile_shim
from bench.peers.survival import forget, read_back, survive

MILLISECOND = 1_000_000
SLOWED = "tmpfs + 1 ms"
KILLED, FORGOTTEN = "kill -9", "deleted text"


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def setups(options: argparse.Namespace, slowed: bool) -> list[Setup]:
    """What is measured: whatever an aim is about, and the disk and the plain tmpfs beside it."""
    media = [(name, parent, 0) for name, parent in setting.media()]
    slow = [(SLOWED, parent, MILLISECOND) for name, parent, _ in media if name == "tmpfs" and slowed]
    disk = media[-1:]
    media[1:1] = slow
    if options.quick:
        wanted = [(300, count, media) for count in (1, 100)]
    else:
        wanted = [(300, 1, [*slow, *disk]), (300, 100, media), (300, 1_000, slow)]
        wanted += [(4096, 100, [*slow, *disk]), (4096, 1_000, slow), (sizes.REAL_SIZES, 100, [*slow, *disk])]
        wanted += [(300, 512, slow), *((2048, count, slow) for count in (100, 512, 1_000))]
    return [
        Setup.of(name, parent, delay, count, size) for size, count, where in wanted for name, parent, delay in where
    ]


def _show_errors(errors: Path) -> None:
    """What the peers said on standard error, also when the run fails."""
    if errors.exists() and errors.stat().st_size:
        print("said by the peers:", errors.read_text(errors="replace")[-4_000:], sep="\n", file=sys.stderr)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every setup in interleaved rounds, reading back, what survives a kill and a deletion. `--only`: parts whose title
    has it; each says what it was measured on. A part that fails keeps no other away.

    Raises: `results.PartsFailed`, when all others were measured.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="stepwell-bench-") as scratch, contextlib.ExitStack() as stack:
        errors = Path(scratch) / "errors"
        library: Path | None = None
        try:
            library = compile_shim(Path(scratch))
        except NoCompiler as error:
            notes.append(str(error))
        stack.callback(_show_errors, errors)

        def start(names: Iterable[str]) -> list[Started]:
            found: list[Started] = []
            for name in names:
                worker = stack.enter_context(Worker(name, library, errors))
                hello = worker.hello()
                if "missing" in hello:
                    notes.append(f"not installed, and not measured: {name} ({hello['missing']})")
                else:
                    found.append((worker, hello))
            return found

        report: dict[str, Any] = {}
        failed: list[str] = []
        versions, rounds = _versions(), 1 if options.quick else options.rounds

        def part(title: str, make: Callable[[], dict[str, Any]]) -> None:
            if options.only in title:
                begun = {**results.recorded(options), "versions": versions}
                try:
                    report[title] = {results.RECORDED: begun, "ways": make()}
                except Exception as error:
                    traceback.print_exc()
                    failed.append(f"{title} ({type(error).__name__}: {error})")

        workers = start(PEERS)
        in_groups = [started for started in workers if started[0].name in IN_GROUPS]
        for setup in setups(options, library is not None):
            asked = in_groups if setup.shares_syncs else workers
            part(setup.title, functools.partial(measure, setup, asked, rounds, options.quick))
        part("reading back", lambda: read_back(workers))
        if options.only in KILLED or options.only in FORGOTTEN:
            workers = workers + start(MODES)
            part(KILLED, lambda: survive(workers, library, errors))
            part(FORGOTTEN, lambda: forget(workers))
    for note in notes:
        print(note, file=sys.stderr)
    report["notes"] = notes
    if failed:
        raise results.PartsFailed(report, failed)
    return report
