"""A hostile log of each class in SECURITY.md: a typed error or a sound answer, in bounded memory and time, no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.hostile_child import FORBIDDEN
from tests.security.hostile_logs import ARCHIVES, LOGS, make_sound
from tests.stepwell.cli.cli_support import child_environment

ROOT = Path(__file__).resolve().parents[2]
REFUSED_WHOLE = ("FORMAT", "LOCK", "MANIFEST", "segment", "index", "keys")


def outcome(tmp_path: Path) -> dict[str, str]:
    environment = child_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment["PYTHONPATH"]])
    arguments = [str(tmp_path / name) for name in ("sound", "hostile", "restored")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.hostile_child", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", LOGS)
def test_a_hostile_log_is_refused_or_read_around(name: str, tmp_path: Path) -> None:
    make_sound(tmp_path / "sound")
    make_sound(tmp_path / "hostile")
    LOGS[name](tmp_path / "hostile")
    found = outcome(tmp_path)
    if not any(word in name for word in REFUSED_WHOLE):
        assert found["the bystander"] == "fine", found
    assert sorted(os.listdir(tmp_path)) == ["hostile", "restored", "sound"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_makes_no_memory(name: str, tmp_path: Path) -> None:
    make_sound(tmp_path / "sound")
    make_sound(tmp_path / "hostile")
    ARCHIVES[name](tmp_path / "hostile")
    assert outcome(tmp_path)["restore"] in ("CorruptLog", "RecoveryFailed", "NotFound")
    assert not (tmp_path / "restored" / "hostile" / "FORMAT").exists()


def test_the_child_would_notice_code_that_is_run(tmp_path: Path) -> None:
    """The harness itself: each forbidden event is one that Python raises, and one of them stops the process."""
    program = (
        "import sys; seen = []; sys.addaudithook(lambda event, _: seen.append(event)); "
        "exec('1'); compile('1', '', 'eval'); import os; os.system('true'); print(seen)"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(f"'{event}'" in seen for event in ("exec", "compile", "os.system"))
    assert {"exec", "compile", "os.system"} <= set(FORBIDDEN)
