"""The power cuts pass on the log as it is, and object to one whose fdatasync does nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(*arguments: str) -> tuple[int, dict[str, object]]:
    """Run the suite as a process of its own, since it leaves the mount namespace of the tests."""
    command = [sys.executable, "-m", "tests.crash.power_cuts", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout)
    if "skipped" in summary:
        pytest.skip(f"power cuts: {summary['skipped']}")
    return done.returncode, summary


def test_a_dozen_power_cuts_pass() -> None:
    status, summary = run("--cuts", "12", "--seed", "1")
    assert (status, summary["violations"]) == (0, [])
    assert (summary["prefix_cuts"], summary["subset_cuts"], summary["torn_cuts"]) == (4, 4, 4)


def test_the_suite_objects_to_a_log_that_does_not_sync_its_groups() -> None:
    status, summary = run("--cuts", "30", "--seed", "1", "--broken")
    assert status == 1
    assert "lost" in str(summary["violations"])
