"""The library that counts and slows syncs: compiled by the parent, preloaded into and read by its workers."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

VARIABLE = "STEPWELL_BENCH_SHIM"
"""Names the compiled library to a worker; not set where there is no compiler."""


class NoCompiler(Exception):
    """There is no compiler: syncs can be neither counted nor slowed."""


def compile_shim(directory: Path) -> Path:
    """Compile the library into this directory.

    Raises: `NoCompiler`; `subprocess.CalledProcessError` if the compiler fails, with what it says on standard error.
    """
    compiler = next((found for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if (found := _which(name))), "")
    if not compiler:
        raise NoCompiler("no C compiler (cc, gcc, clang, $CC): syncs are not counted, and none is slowed")
    library = directory / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def _which(name: str) -> str | None:
    return shutil.which(name) if name else None


def environment(library: Path | None) -> dict[str, str]:
    """The environment of a worker that has this library in it."""
    found = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", VARIABLE)}
    return found if library is None else {**found, "LD_PRELOAD": str(library), VARIABLE: str(library)}


class Syncs:
    """The counters of the library that is preloaded into this process."""

    def __init__(self) -> None:
        path = os.environ.get(VARIABLE)
        self.counted = path is not None
        library = ctypes.CDLL(path) if path is not None else None
        self._syncs, self._nanoseconds, self._delay = (
            ctypes.c_long.in_dll(library, f"stepwell_bench_{name}") if library is not None else ctypes.c_long()
            for name in ("syncs", "nanoseconds", "delay")
        )

    def delay(self, nanoseconds: int) -> None:
        """From now on every sync takes so much longer."""
        if nanoseconds and not self.counted:
            raise NoCompiler("the library that slows syncs is not in this process")
        self._delay.value = nanoseconds

    def read(self) -> tuple[int, int]:
        """Syncs that succeeded so far, and the nanoseconds spent in them."""
        return self._syncs.value, self._nanoseconds.value
