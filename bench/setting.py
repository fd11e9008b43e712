"""Where and on what a benchmark ran, and how its numbers are shown."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cbor2
import trio
from rich.console import Console
from rich.table import Table

TMPFS = Path("/dev/shm")
WIDTH = 160
"""Characters of a line where a table goes to a file: nobody has to read broken cells there."""


def media() -> list[tuple[str, Path]]:
    """Where to measure: tmpfs if there is one, and the disk of the temporary directory (or $STEPWELL_BENCH_DIR)."""
    found = [("tmpfs", TMPFS)] if TMPFS.is_dir() and os.access(TMPFS, os.W_OK) else []
    return [*found, ("disk", Path(os.environ.get("STEPWELL_BENCH_DIR", tempfile.gettempdir())))]


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A directory below `parent` that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="stepwell-bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "python": platform.python_version(),
        "trio": trio.__version__,
        "sqlite": sqlite3.sqlite_version,
        "cbor2": getattr(cbor2, "__version__", "") or _version("cbor2"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "load before": load,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def resident_bytes() -> int:
    """The memory of this process that is in use now (on Linux; elsewhere its peak)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a table for people."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=WIDTH)
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, style="dim")
    console.print(", ".join(f"{key} {value}" for key, value in machine().items()), style="dim")
    console.print()
