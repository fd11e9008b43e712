"""What a benchmark found, on what, and kept as JSON, so that pictures can be drawn again."""

from __future__ import annotations

import argparse
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import setting

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "bench"
"""Where the pictures of the documentation are, and the numbers they were drawn from."""
FIRST_LOOKS = ROOT / "build" / "bench"
"""Where those of `--quick` go: they are no measurement."""
RECORDED = "recorded"
"""The key of a report that tells when and on what it was made; a part of a report that was made alone has one too."""


class PartsFailed(Exception):
    """Parts of a benchmark failed; `report` has the others."""

    def __init__(self, report: dict[str, Any], failed: list[str]):
        super().__init__(f"failed, and not in the report: {'; '.join(failed)}")
        self.report = report


def commit() -> str:
    """The commit that is measured, with "+" if files were changed since; "unknown" outside of a repository."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + "+" * bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def recorded(options: argparse.Namespace) -> dict[str, Any]:
    """Commit, moment, machine, versions and settings of a run that begins now."""
    return {
        "commit": commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": setting.machine(),
        "settings": {"rounds": options.rounds, "quick": options.quick, "only": options.only},
    }


def keep(subject: str, report: dict[str, Any], directory: Path, *, partly: bool) -> dict[str, Any]:
    """Write a report as `SUBJECT.json`; `partly`: its parts replace those of the same names in what is there.

    Gives what is in the file then.
    """
    file = directory / f"{subject}.json"
    if partly and file.exists():
        report = {**json.loads(file.read_text(encoding="utf-8")), **report}
    directory.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report
