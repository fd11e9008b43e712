"""The programs in `examples/` run as they stand there, and leave what they say behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stepwell.sync
from stepwell import Failure, Success

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
AGENTS = sorted(EXAMPLES.glob("agent_*.py"))


@pytest.mark.parametrize("example", AGENTS, ids=lambda path: path.stem)
def test_an_agent_loop_runs_in_each_kind_of_program(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "memory")],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    assert done.stdout.splitlines() == [
        "divide the column: Failure, 2 steps, 1 failed",
        "find the maximum: Success, 2 steps, 0 failed",
        "sum the column: Success, 2 steps, 0 failed",
    ]
    with stepwell.sync.open_memory(tmp_path / "memory") as memory:
        episodes = memory.get_episodes(list(memory.episode_ids()))
    outcomes = {episode.task_description: episode.outcome for episode in episodes}
    assert outcomes["sum the column"] == Success("the answer is 12")
    assert outcomes["divide the column"] == Failure("ZeroDivisionError: integer division or modulo by zero")


def test_there_is_one_for_trio_one_for_asyncio_and_one_for_plain_code() -> None:
    assert [path.stem for path in AGENTS] == ["agent_asyncio", "agent_sync", "agent_trio"]
