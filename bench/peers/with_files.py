"""The limits: a loop that encodes, joins, writes and syncs, and one that only writes and syncs.

Nobody waits for anybody in them, nothing can be found again but by reading all, and a torn write is not noticed. They
are no competitors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import cbor2

from bench.peers.load import Load, NoDelete
from bench.workload import encoded


class PlainLoop:
    """A step of every episode, encoded with cbor2 and joined, is a group."""

    batch = 1
    durable = True

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        episodes = range(load.episodes)
        descriptor = os.open(path / "steps", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            with load.meter.running():
                for count in range(load.steps):
                    _write(descriptor, b"".join([encoded(load.step(number, count)) for number in episodes]))
            return load.steps
        finally:
            os.close(descriptor)

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`. There is only one way to find an episode."""
        seconds, found = [], 0
        for _ in range(times):
            began = time.perf_counter()
            with (path / "steps").open("rb") as stream:
                end = os.fstat(stream.fileno()).st_size
                decoder = cbor2.CBORDecoder(stream)
                found = 0
                while stream.tell() < end:
                    found += decoder.decode()[3][2]["path"] == "src/module_0.py"
            seconds.append(time.perf_counter() - began)
        return seconds, found

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        raise NoDelete("it is a loop")


class Medium(PlainLoop):
    """The same bytes, encoded beforehand: the medium alone."""

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        groups = [
            b"".join([encoded(load.step(number, count)) for number in range(load.episodes)])
            for count in range(load.steps)
        ]
        descriptor = os.open(path / "steps", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            with load.meter.running():
                for group in groups:
                    _write(descriptor, group)
            return load.steps
        finally:
            os.close(descriptor)


def _write(descriptor: int, group: bytes) -> None:
    while group:
        group = group[os.write(descriptor, group) :]
    os.fdatasync(descriptor)
