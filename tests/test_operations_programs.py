"""The programs that `docs/operations.md` shows run as they stand, and do what it says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from stepwell import Interrupted, open_memory
from tests.operations_session import DOCUMENT
from tests.stepwell.cli.cli_support import child_environment

TEXT = DOCUMENT.read_text()


def start(name: str, directory: Path) -> subprocess.Popen[str]:
    """Start the program of this name, as the document shows it, in a directory."""
    found = re.search(rf"```python\n# {re.escape(name)}\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None, f"the document shows no {name}"
    (directory / name).write_text(found[1])
    return subprocess.Popen(
        [sys.executable, "-W", "error", name],
        cwd=directory,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_program_that_watches_its_memory_runs(tmp_path: Path) -> None:
    printed, complaints = start("watching.py", tmp_path).communicate(timeout=280)
    assert complaints == ""
    page, figures = printed.splitlines()
    code, _, body = page.partition(" ")
    assert code == "200"
    health = json.loads(body.removeprefix("b'").removesuffix("'"))
    assert (health["status"], health["reasons"], health["parked_count"]) == ("ok", [], 0)
    assert figures == "1 live, 0.0 s behind"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_that_is_told_to_stop_loses_nothing_that_it_accepted(tmp_path: Path, number: int) -> None:
    with start("service.py", tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if int(line.split()[0]) >= 1_000:
                break
        process.send_signal(number)
        rest = process.stdout.read().splitlines()
        complaints = process.stderr.read()
    assert complaints == ""
    assert process.returncode == 0
    stored = re.fullmatch(r"stored (\d+)", rest[-1])
    assert stored is not None, rest

    async def found() -> tuple[int, list[object]]:
        async with open_memory(tmp_path / "agent-memory", read_only=True) as memory:
            episodes = [await memory.get_episode(name) async for name in memory.episode_ids()]
            return sum(len(episode.steps) for episode in episodes), [episode.outcome for episode in episodes]

    steps, outcomes = trio.run(found)
    assert steps == int(stored[1]) >= 1_000
    assert len(outcomes) == 3
    assert all(isinstance(outcome, Interrupted) for outcome in outcomes)
