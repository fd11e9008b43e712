"""`examples/remembering_agent.py` goes on where it was killed, after every one of its steps.

It kills itself there; so it does not depend on luck where that is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "remembering_agent.py"
STEPS = 8
SHOWN = ["Together they cost 12.", "completed, 8 events", "8 messages", "pears cost 4", "3 facts"]


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), str(directory), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_undisturbed_it_answers(tmp_path: Path) -> None:
    done = run(tmp_path / "memory")
    assert done.stdout.splitlines() == SHOWN, done.stderr


@pytest.mark.parametrize("steps", [2, 5, STEPS])
def test_killed_after_some_steps_it_goes_on_and_has_done_nothing_twice(steps: int, tmp_path: Path) -> None:
    killed = run(tmp_path / "memory", "--kill-after", str(steps))
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")
    done = run(tmp_path / "memory")
    assert done.stdout.splitlines() == SHOWN, done.stderr


def test_killed_after_every_single_step_it_gets_there_all_the_same(tmp_path: Path) -> None:
    for _ in range(STEPS):
        assert run(tmp_path / "memory", "--kill-after", "1").returncode == -signal.SIGKILL
    done = run(tmp_path / "memory", "--kill-after", "1")
    assert done.stdout.splitlines() == SHOWN, done.stderr
