"""The library that counts and slows syncs, preloaded into a Python that makes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers.shim import NoCompiler, Syncs, compile_shim, environment

ROOT = Path(__file__).resolve().parents[2]
COUNTED = """
import mmap, os, sys
from bench.peers.shim import Syncs
syncs = Syncs()
syncs.delay(int(sys.argv[2]))
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(file, mmap.PAGESIZE)
before, nanoseconds = syncs.read()
os.fsync(file)
os.fdatasync(file)
with mmap.mmap(file, mmap.PAGESIZE) as mapped:
    mapped.flush()
try:
    os.fsync(10**6)
except OSError:
    pass
after, spent = syncs.read()
print(after - before, spent - nanoseconds)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compile_shim(tmp_path_factory.mktemp("shim"))
    except NoCompiler as error:
        pytest.skip(str(error))


def _run(library: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(library), cwd=ROOT, capture_output=True, text=True
    )


def test_syncs_that_succeed_are_counted(library: Path, tmp_path: Path) -> None:
    done = _run(library, COUNTED, str(tmp_path / "file"), "0")
    assert done.stdout.split()[:1] == ["3"], done.stderr


def test_each_sync_takes_at_least_so_much_longer(library: Path, tmp_path: Path) -> None:
    done = _run(library, COUNTED, str(tmp_path / "file"), "1000000")
    assert int(done.stdout.split()[1]) >= 4 * 1_000_000, done.stderr  # the one that failed was slowed too


@pytest.mark.parametrize(
    "code",
    [
        "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DSYNC)",
        "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_SYNC)",
        "import os, sys; os.pwritev(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), [b'x'], 0, os.RWF_DSYNC)",
        "import os, sys; os.pwritev(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), [b'x'], 0, os.RWF_SYNC)",
    ],
    ids=["O_DSYNC", "O_SYNC", "RWF_DSYNC", "RWF_SYNC"],
)
def test_a_sync_that_would_not_be_counted_ends_the_process(library: Path, tmp_path: Path, code: str) -> None:
    assert _run(library, code, str(tmp_path / "file")).returncode == -signal.SIGABRT


def test_files_without_these_flags_are_opened_as_ever(library: Path, tmp_path: Path) -> None:
    code = "import os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o640); os.pwritev(f, [b'x'], 0, 0)"
    done = _run(library, code, str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_bytes() == b"x"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_without_the_library_nothing_is_counted_and_slowing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPWELL_BENCH_SHIM", raising=False)
    syncs = Syncs()
    assert not syncs.counted
    with pytest.raises(NoCompiler):
        syncs.delay(1)


def test_without_a_compiler_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(NoCompiler, match="syncs are not counted"):
        compile_shim(tmp_path)
