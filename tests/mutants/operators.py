"""Mutants of every operator, constant and argument of recovery, made by mutmut and run against the tests of recovery.

mutmut wants its sources in the root of the tree, so it works in a copy that is laid out so. It makes the mutants of a
function beside the function, chooses one by name while the tests run, and runs those tests only that call the function.

Texts of messages are no part of the interface, so a mutant that only changes the wording of one is told apart.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mutants.workshop import LEFT_OUT, ROOT

FILES = (
    "recovery.py",
    "header_checks.py",
    "seal_ends.py",
    "continuity.py",
    "tail_verdict.py",
    "index_building.py",
    "repair.py",
    "scan.py",
)
TESTS = (
    "tests/stepstore/test_log_recovery_rows.py",
    "tests/stepstore/test_log_foreign_frames.py",
    "tests/stepstore/test_log_repair.py",
    "tests/stepstore/test_log_directory.py",
    "tests/stepstore/test_log_opening.py",
    "tests/stepstore/test_log_refreshing.py",
    "tests/stepstore/test_log_damage_everywhere.py",
    "tests/stepstore/test_log_compaction_edges.py",
    "tests/stepstore/test_log_full_opening.py",
    "tests/stepstore/test_log_seals.py",
    "tests/stepstore/test_log_refusals.py",
    "tests/stepstore/test_log_sound_headers.py",
)
TARGET = 0.9
_LOG = "stepstore/log"
_MESSAGE = r'^\s*f?"(?:[^"\\]|\\.)*",?\s*$'
"""A line that is nothing but a text."""
_WORDS = re.compile(r'f?"(?:[^"\\]|\\.)*\s(?:[^"\\]|\\.)*"')
_KILLED = {1, 3}
_HUNG = {24, 36, 152, 255, -24, -9}


@dataclass
class Outcome:
    """What became of the mutants of one file. `wording`: survivors that only change a message. `survivors`: the diffs
    of the others."""

    file: str
    mutants: int = 0
    killed: int = 0
    hung: int = 0
    wording: int = 0
    survivors: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share that was killed of those that change more than a message."""
        counted = self.mutants - self.wording
        return (self.killed + self.hung) / counted if counted else 1.0


class CannotRunError(Exception):
    """mutmut is not there, or did not come to an end."""


def run(files: Sequence[str], jobs: int, tests: Sequence[str] = TESTS) -> list[Outcome]:
    """Make and try the mutants of these modules of the log. Raises: `CannotRunError`."""
    if importlib.util.find_spec("mutmut") is None:
        raise CannotRunError("mutmut is not installed: pip install --group mutants")
    with tempfile.TemporaryDirectory(prefix="stepwell-operators-") as name:
        tree = Path(name)
        _lay_out(tree, files, tests)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        mutmut = [sys.executable, "-m", "mutmut"]
        done = subprocess.run(
            [*mutmut, "run", "--max-children", str(jobs)], cwd=tree, env=environment, stdout=sys.stderr, check=False
        )
        if done.returncode:
            raise CannotRunError(f"mutmut ended with status {done.returncode}")
        return [_outcome(tree, file, mutmut, environment) for file in files]


def _lay_out(tree: Path, files: Sequence[str], tests: Sequence[str]) -> None:
    for source in ("storage/stepstore", "actors/stepwell", "tests"):
        shutil.copytree(ROOT / source, tree / Path(source).name, ignore=LEFT_OUT)
    settings: dict[str, Any] = {
        "source_paths": ["stepstore"],
        "only_mutate": [f"{_LOG}/{file}" for file in files],
        "also_copy": ["stepwell", "tests"],
        "do_not_mutate_patterns": [_MESSAGE],
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": list(tests),
        "use_git_change_detection": False,
    }
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (tree / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")


def _outcome(tree: Path, file: str, mutmut: Sequence[str], environment: dict[str, str]) -> Outcome:
    found = json.loads((tree / "mutants" / _LOG / f"{file}.meta").read_text(encoding="utf-8"))
    codes: dict[str, int | None] = found["exit_code_by_key"]
    outcome = Outcome(file, len(codes))
    for name, code in codes.items():
        if code in _KILLED:
            outcome.killed += 1
        elif code in _HUNG:
            outcome.hung += 1
        else:
            shown = subprocess.run(
                [*mutmut, "show", name], cwd=tree, env=environment, capture_output=True, text=True, check=True
            )
            diff = "\n".join(line for line in shown.stdout.splitlines() if re.match(r"[-+](?![-+])", line))
            if changes_wording_only(diff):
                outcome.wording += 1
            else:
                outcome.survivors[name] = diff
    return outcome


def changes_wording_only(diff: str) -> bool:
    """Whether the lines before and after differ in texts of several words only."""
    before, after = (
        [_WORDS.sub('"…"', line[1:]) for line in diff.splitlines() if line.startswith(sign)] for sign in "-+"
    )
    return bool(before) and before == after


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """The share for each file and all together, and the mutants that nobody noticed."""
    for outcome in outcomes:
        for name, diff in outcome.survivors.items():
            print(f"survived: {name}\n{diff}\n")
    for outcome in [*outcomes, total(outcomes)]:
        print(
            f"{outcome.file:17} {outcome.mutants:5} mutants, {outcome.killed + outcome.hung} killed "
            f"(of which {outcome.hung} hung), {outcome.wording} in the wording of messages, "
            f"{len(outcome.survivors)} survived: {outcome.share:.1%}"
        )


def total(outcomes: Sequence[Outcome]) -> Outcome:
    """All files together."""
    summed = Outcome("together")
    for outcome in outcomes:
        summed.mutants += outcome.mutants
        summed.killed += outcome.killed
        summed.hung += outcome.hung
        summed.wording += outcome.wording
        summed.survivors |= outcome.survivors
    return summed


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same as JSON can hold it."""
    return {
        "files": [
            {
                "file": outcome.file,
                "mutants": outcome.mutants,
                "killed": outcome.killed,
                "hung": outcome.hung,
                "wording": outcome.wording,
                "survivors": outcome.survivors,
            }
            for outcome in outcomes
        ],
        "share": round(total(outcomes).share, 4),
        "target": TARGET,
    }
