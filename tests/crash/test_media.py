"""The bench leaves nothing behind, however a run ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.commands import run_suite
from tests.crash.media import PREFIX, copy_sparse, sweep


def left_over(parent: Path, name: str) -> Path:
    directory = parent / f"{PREFIX}{name}"
    directory.mkdir()
    (directory / "OWNER").touch()
    (directory / "image").write_bytes(b"x")
    return directory


def test_the_directory_of_a_dead_run_is_swept_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, living, foreign = left_over(tmp_path, "dead"), left_over(tmp_path, "living"), tmp_path / f"{PREFIX}foreign"
    foreign.mkdir()
    owner = os.open(living / "OWNER", os.O_RDWR)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert sweep() == 1
    finally:
        os.close(owner)
    assert not dead.exists()
    assert living.exists()
    assert foreign.exists()


def test_a_sparse_copy_has_the_same_bytes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as file:
        file.truncate(4 * 1024 * 1024)
        file.seek(1024 * 1024 + 17)
        file.write(b"somewhere" * 1000)
        file.seek(3 * 1024 * 1024)
        file.write(b"else")
    copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_loop_device_and_the_next_one_sweeps(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run_suite("power_cuts", "--cuts", "1")  # skips this test where the suite cannot run
    command = [sys.executable, "-m", "tests.crash.power_cuts", "--cuts", "1000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        wait_until(lambda: bool(loop_files(tmp_path)))
        running.send_signal(number)
        assert running.wait(60) != 0
    wait_until(lambda: not loop_files(tmp_path))
    assert any(tmp_path.iterdir()) == (number == signal.SIGKILL)
    if number == signal.SIGKILL:
        run_suite("power_cuts", "--cuts", "1")
        assert not any(tmp_path.iterdir())


def loop_files(below: Path) -> list[str]:
    """The files that loop devices stand on, of those whose names lie below a directory."""
    found = [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [name for name in found if name.startswith(str(below))]


def wait_until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)
