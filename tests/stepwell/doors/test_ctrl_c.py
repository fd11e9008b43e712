"""Ctrl-C in a plain or asyncio program: the run has its ending, and nothing acknowledged is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stepwell.sync
from stepwell import Interrupted

PROGRAM = Path(__file__).with_name("interrupted_program.py")


@pytest.mark.parametrize("door", ["sync", "aio"])
@pytest.mark.parametrize("after", [1, 40, 173])
def test_a_program_that_is_interrupted_keeps_what_was_acknowledged(door: str, after: int, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, str(PROGRAM), door, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    lines: list[str] = []
    with child:
        while len(lines) < after:
            lines.append(child.stdout.readline().strip())
        child.send_signal(signal.SIGINT)
        lines += [line.strip() for line in child.stdout]
    assert child.returncode == 0
    assert lines.pop() == "interrupted"
    with stepwell.sync.open_memory(tmp_path / "m") as memory:
        episode = memory.get_episode("e")
    stored = [item.action for item in episode.steps]
    assert stored[: len(lines)] == [f"action {number}" for number in lines]
    assert stored == [f"action {number}" for number in range(len(stored))]
    assert len(stored) <= len(lines) + 1  # at most the one whose acknowledgement was under way
    assert isinstance(episode.outcome, Interrupted)
