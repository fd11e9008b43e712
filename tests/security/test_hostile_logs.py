"""A hostile log of each class in SECURITY.md: a typed error or a sound answer, in bounded memory and time, no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.security.hostile_child import FORBIDDEN
from tests.security.hostile_logs import ARCHIVES, LOGS, Maker, make_sound
from tests.stepwell.cli.cli_support import child_environment

ROOT = Path(__file__).resolve().parents[2]
GROUPS = 5
REFUSED_WHOLE = ("behind the records", "FORMAT", "LOCK", "MANIFEST", "segment", "index", "keys")


def outcomes(tmp_path: Path, makers: Mapping[str, Maker]) -> dict[str, dict[str, str]]:
    """What came of each operation on each hostile directory, by its name, all of them in one process."""
    make_sound(tmp_path / "sound")
    directories = {}
    for number, (name, make) in enumerate(makers.items()):
        directories[name] = str(tmp_path / f"hostile-{number}")
        make_sound(tmp_path / f"hostile-{number}")
        make(tmp_path / f"hostile-{number}")
    environment = child_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment["PYTHONPATH"]])
    arguments = [str(tmp_path / "sound"), str(tmp_path / "restored"), *directories.values()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.hostile_child", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{makers.keys()}: {done.stderr[-3_000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(os.listdir(tmp_path)) == len(makers) + 2
    return {name: found[directory] for name, directory in directories.items()}


def of_class(number: int) -> dict[str, Maker]:
    return dict(list(LOGS.items())[number::GROUPS])


@pytest.mark.parametrize("number", range(GROUPS), ids=lambda number: ", ".join(of_class(number)))
def test_a_hostile_log_is_refused_or_read_around(number: int, tmp_path: Path) -> None:
    for name, found in outcomes(tmp_path, of_class(number)).items():
        if not any(word in name for word in REFUSED_WHOLE):
            assert found["the bystander"] == "fine", (name, found)


def test_a_hostile_archive_makes_no_memory(tmp_path: Path) -> None:
    for number, (name, found) in enumerate(outcomes(tmp_path, ARCHIVES).items()):
        assert found["restore"] in ("CorruptLog", "RecoveryFailed", "NotFound"), name
        assert not (tmp_path / "restored" / f"hostile-{number}" / "FORMAT").exists()


def test_the_child_would_notice_code_that_is_run(tmp_path: Path) -> None:
    """The harness itself: each forbidden event is one that Python raises, and one of them stops the process."""
    program = (
        "import sys; seen = []; sys.addaudithook(lambda event, _: seen.append(event)); "
        "exec('1'); compile('1', '', 'eval'); import os; os.system('true'); print(seen)"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(f"'{event}'" in seen for event in ("exec", "compile", "os.system"))
    assert {"exec", "compile", "os.system"} <= set(FORBIDDEN)
