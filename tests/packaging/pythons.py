"""The Pythons of this machine that Stepwell supports."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

OLDEST, NEWEST = 11, 16
_ASK = "import sys, venv; print(sys.version_info[:3], sys.implementation.name)"


def find_pythons() -> list[str]:
    """One interpreter of each minor version from 3.11 on, of those on the path and of pyenv."""
    found: dict[str, str] = {}
    for name in (f"python3.{minor}" for minor in range(OLDEST, NEWEST)):
        for path in _candidates(name):
            answer = subprocess.run([path, "-c", _ASK], capture_output=True, text=True, check=False)
            if answer.returncode == 0:
                found.setdefault(name, path)
                break
    return list(found.values())


def _candidates(name: str) -> list[str]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    if versions.is_dir():
        folders += [folder / "bin" for folder in sorted(versions.iterdir(), reverse=True)]
    return [str(folder / name) for folder in folders if os.access(folder / name, os.X_OK)]
