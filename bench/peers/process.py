"""The parent's side of a worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.peers.shim import environment


class Died(Exception):
    """The worker ended instead of answering."""


class Worker:
    """A peer in a process of its own. Leaving the `with` block ends it."""

    def __init__(self, name: str, library: Path | None, errors: Path) -> None:
        self.name = name
        with errors.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.peers.worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=environment(library),
            )

    def hello(self) -> dict[str, Any]:
        """Its first line: what the peer is, or that it is missing."""
        return self._line()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask, and wait for the answer. Raises: `Died`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Died(self.name) from None
        return self._line()

    def try_to_ask(self, **request: Any) -> dict[str, Any]:
        """As `ask`; of a worker that has ended the answer is that it failed."""
        try:
            return self.ask(**request)
        except Died as error:
            return {"failed": f"its process ended: {error}"}

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Died(f"{self.name}: exit code {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


Started = tuple[Worker, dict[str, Any]]
"""A worker, and what it said at first."""
