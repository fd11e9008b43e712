"""The typed calls of the two doors are what the tool makes of `Memory`; every public call is there."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import stepwell
import stepwell.aio
import stepwell.sync

TOOL = Path(__file__).resolve().parents[3] / "tools" / "make_doors.py"


def test_the_calls_of_the_doors_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run `python tools/make_doors.py`: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("door", [stepwell.aio, stepwell.sync])
@pytest.mark.parametrize("name", ["Memory", "EpisodeHandle", "Receipt"])
def test_every_public_call_is_there_with_its_signature(door: object, name: str) -> None:
    ours, theirs = getattr(stepwell, name), getattr(door, name)
    for member in dir(ours):
        if member.startswith("_") or member in ("reach_log", "check_durable"):
            continue
        assert hasattr(theirs, member), f"{theirs.__module__}.{name} has no {member}"
        if inspect.isfunction(getattr(ours, member)):
            assert list(inspect.signature(getattr(theirs, member)).parameters) == list(
                inspect.signature(getattr(ours, member)).parameters
            )
