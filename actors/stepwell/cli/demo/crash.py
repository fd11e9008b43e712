"""Starting the fleet in a process of its own, reading what it acknowledges, and killing it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

import stepstore
import stepwell
from stepwell.cli.demo.ledger import Ledger
from stepwell.cli.output import CommandFailed, count_text

_PATIENCE_SECONDS = 60
"""A fleet that acknowledges nothing new for so long will not do so any more."""


class Crash(msgspec.Struct, kw_only=True):
    """How the fleet's life went, seen from outside. Seconds are counted from its first acknowledgement."""

    pid: int
    seconds: float
    seconds_to_start: float
    acknowledged: int
    finished: bool


def kill_after(agents: int, seed: int) -> int:
    """After how many acknowledged steps to kill: when more than half of the work is done, by the seed."""
    per_agent = random.Random(f"kill {seed}").uniform(7, 10)
    return max(3, round(agents * per_agent if agents > 20 else agents * per_agent / 2))


def fleet_command(directory: Path, agents: int, seed: int) -> list[str]:
    """The command line of the process that is going to be killed."""
    asked = json.dumps({"dir": str(directory), "agents": agents, "seed": seed})
    # -P: a file in the user's directory must not hide a module of the library that is audited.
    return [sys.executable, "-P", "-m", "stepwell.cli.demo.fleet", asked]


async def run_and_kill(
    directory: Path, *, agents: int, seed: int, after: int, on_progress: Callable[[int], None]
) -> tuple[Ledger, Crash]:
    """Run a fleet until it has acknowledged `after` steps (or all there are), then SIGKILL it.

    Returns what it acknowledged; lines that were in the pipe when it died count. Cancelling kills it as well.

    Raises:
        CommandFailed: the fleet does not start, ends by itself, or falls silent.
    """
    command = fleet_command(directory, agents, seed)
    began = trio.current_time()
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _import_path()},
        )
    except OSError as error:
        raise CommandFailed(f"the fleet could not be started ({command[0]}): {error}") from error
    listener = _Listener(process, after, on_progress)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.read_stderr)
            await listener.read_stdout()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        await _close_pipes(process)
    if not listener.killed or process.returncode != -signal.SIGKILL:
        raise CommandFailed(_early_end(process.returncode, listener))
    first = listener.first_at if listener.first_at is not None else began
    crash = Crash(
        pid=process.pid,
        seconds=listener.killed_at - first,
        seconds_to_start=first - began,
        acknowledged=len(listener.ledger.steps),
        finished=listener.ledger.finished,
    )
    return listener.ledger, crash


class _Listener:
    def __init__(self, process: trio.Process, after: int, on_progress: Callable[[int], None]):
        self.process = process
        self.after = after
        self.on_progress = on_progress
        self.ledger = Ledger()
        self.said = b""
        self.killed = self.silent = False
        self.killed_at = 0.0
        self.first_at: float | None = None

    async def read_stdout(self) -> None:
        """Take down every line until the pipe ends, killing the process when there are enough."""
        assert self.process.stdout is not None
        rest: bytes = b""
        data: bytes | bytearray = b""
        while True:
            with trio.move_on_after(_PATIENCE_SECONDS) as patience:
                data = await self.process.stdout.receive_some(65536)
            if patience.cancelled_caught:
                self.process.kill()
                self.silent = True
                return
            if not data:
                return  # what follows the last newline was being written when the process died: never acknowledged
            if self.first_at is None:
                self.first_at = trio.current_time()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.ledger.take(line)
            enough = len(self.ledger.steps) >= self.after or self.ledger.finished
            if enough and not self.killed:
                self.killed_at = trio.current_time()
                self.killed = True
                self.process.kill()
            self.on_progress(len(self.ledger.steps))

    async def read_stderr(self) -> None:
        """Keep the end of what the process complains about."""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.said = (self.said + data)[-4_000:]


def _early_end(returncode: int | None, listener: _Listener) -> str:
    if listener.silent:
        return f"the fleet fell silent: nothing acknowledged for {_PATIENCE_SECONDS} s"
    said = listener.said.decode("utf-8", "replace").strip().splitlines()
    why = f"; its last words: {said[-1].strip()}" if said else ""
    return (
        f"the fleet ended by itself (exit code {returncode}) after "
        f"{count_text(len(listener.ledger.steps), 'acknowledged step')}, before it was to be killed{why}"
    )


def _import_path() -> str:
    """PYTHONPATH with which another interpreter finds the very packages that this one uses."""
    roots = [str(Path(package.__path__[0]).parent) for package in (stepwell, stepstore)]
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*dict.fromkeys(roots), *([inherited] if inherited else [])])


async def _close_pipes(process: trio.Process) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with trio.CancelScope(shield=True):
                await stream.aclose()
