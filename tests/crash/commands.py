"""Running a suite from a test: as a process of its own, since a suite leaves the mount namespace of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


def run_suite(module: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run `python -m tests.crash.<module>`; gives its exit status and its summary. Skips the test if it was skipped."""
    command = [sys.executable, "-m", f"tests.crash.{module}", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout)
    if "skipped" in summary:
        pytest.skip(f"{module}: {summary['skipped']}")
    return done.returncode, summary
