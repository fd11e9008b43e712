"""The work that every peer is given, and the meter that it is measured with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench import workload
from bench.peers.shim import Syncs
from stepwell import ExecutionStep, StepSuccess

BATCH = 64
"""Steps in a batch, of the peers that take batches."""


@dataclass
class Meter:
    """What passes between the moment when all is open and the last acknowledgement."""

    syncs_of_process: Syncs
    finished: Callable[[], None]
    """Called after the last acknowledgement, with everything still open."""
    seconds: float = 0.0
    syncs: int = 0
    sync_seconds: float = 0.0
    bytes_written: int = 0
    """Handed to write calls, by /proc/self/io; 0 where there is none."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measures its body."""
        syncs, nanoseconds = self.syncs_of_process.read()
        written = _written()
        began = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - began
        self.bytes_written = _written() - written
        after, spent = self.syncs_of_process.read()
        self.syncs, self.sync_seconds = after - syncs, (spent - nanoseconds) / 1e9
        self.finished()


@dataclass(frozen=True)
class Load:
    """So many concurrent episodes with so many steps each."""

    episodes: int
    steps: int
    size: int
    """Bytes of a step, encoded with cbor2 as in the log."""
    meter: Meter
    padding: str = field(init=False)

    def __post_init__(self) -> None:
        bare = len(workload.encoded(_padded(0, 0, "")))
        object.__setattr__(self, "padding", "0123456789abcdef " * (self.size // 17 + 1))
        object.__setattr__(self, "padding", self.padding[: max(0, self.size - bare)])

    def step(self, episode: int, number: int) -> ExecutionStep:
        """A new step, as an agent makes one for each call."""
        return _padded(episode, number, self.padding)

    def item(self, episode: int, number: int) -> dict[str, Any]:
        """The same step for libraries that take plain values."""
        made = workload.step(episode, number)
        return {
            "tool": made.tool,
            "action": made.action,
            "parameters": dict(made.parameters),
            "output": workload.OUTPUT + self.padding,
            "latency_ms": made.latency_ms,
        }


def _padded(episode: int, number: int, padding: str) -> ExecutionStep:
    return ExecutionStep(
        tool="file_reader",
        action="Read config.toml and look for the section of the key",
        parameters={"path": f"src/module_{episode}.py", "line": number},
        result=StepSuccess(workload.OUTPUT + padding),
        latency_ms=5,
    )


def _written() -> int:
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


class Peer(Protocol):
    """A library, used in one way."""

    batch: int
    """Steps that one call takes and acknowledges together."""
    durable: bool
    """Whether its acknowledgement says that the step is on the medium."""

    def ingest(self, path: Path, load: Load) -> int:
        """Open a store in this directory, do the work within `load.meter.running()`, close it.

        Returns the groups that were acknowledged: each of them needs a sync of its own, if it is durable.
        """
        ...

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """Open the store again, read the first episode so many times: the seconds of each, and the steps found."""
        ...
