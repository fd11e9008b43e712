"""The work that every peer is given, and the meter that it is measured with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench import workload
from bench.peers import sizes
from bench.peers.shim import Syncs
from stepwell import ExecutionStep, StepSuccess

BATCH = 64
"""Steps in a batch, of the peers that take batches."""
WRITTEN_EVERY = 100


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
    laps: list[tuple[float, int]] | None = None
    """If asked for: when each step was made, and what had been written by then; and the end."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measures its body."""
        syncs, nanoseconds = self.syncs_of_process.read()
        written = _written()
        began = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - began
        self.bytes_written = _written() - written
        if self.laps is not None:
            self.lap(self.laps)
        after, spent = self.syncs_of_process.read()
        self.syncs, self.sync_seconds = after - syncs, (spent - nanoseconds) / 1e9
        self.finished()

    @staticmethod
    def lap(laps: list[tuple[float, int]]) -> None:
        """Note this moment. What was written is looked up now and then only: that takes longer than a step."""
        written = _written() if len(laps) % WRITTEN_EVERY == 0 else 0
        laps.append((time.perf_counter(), written))


@dataclass(frozen=True)
class Load:
    """So many concurrent episodes with so many steps each."""

    episodes: int
    steps: int
    size: int
    """Bytes of a step, encoded with cbor2 as in the log; REAL_SIZES for those that real agents' steps have."""
    meter: Meter
    _outputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        bare = len(workload.encoded(_with_output(0, 0, "")))
        wanted = sizes.real() if self.size == sizes.REAL_SIZES else (self.size,)
        text = workload.OUTPUT + "0123456789abcdef " * (max(wanted) // 17 + 1)
        object.__setattr__(self, "_outputs", tuple(text[: max(0, size - bare - 2)] for size in wanted))

    def _output(self, episode: int, number: int) -> str:
        return self._outputs[(episode + number) % len(self._outputs)]

    def step(self, episode: int, number: int) -> ExecutionStep:
        """A new step, as an agent makes one for each call."""
        if self.meter.laps is not None:
            self.meter.lap(self.meter.laps)
        return _with_output(episode, number, self._output(episode, number))

    def item(self, episode: int, number: int) -> dict[str, Any]:
        """The same step for libraries that take plain values."""
        if self.meter.laps is not None:
            self.meter.lap(self.meter.laps)
        made = workload.step(episode, number)
        return {
            "tool": made.tool,
            "action": made.action,
            "parameters": dict(made.parameters),
            "output": self._output(episode, number),
            "latency_ms": made.latency_ms,
        }


def _with_output(episode: int, number: int, output: str) -> ExecutionStep:
    return ExecutionStep(
        tool="file_reader",
        action="Read config.toml and look for the section of the key",
        parameters={"path": f"src/module_{episode}.py", "line": number},
        result=StepSuccess(output),
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

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """Open the store again, delete the first episode by the call that the library has for it, and call `deleted`
        as soon as that has returned, with everything still open.

        Raises: `NoDelete` if the library has no such call.
        """
        ...


class NoDelete(Exception):
    """The library does not delete."""
