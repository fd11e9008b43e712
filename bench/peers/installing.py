"""`python -m bench.peers.installing`: install the peers one by one, and name those that cannot be installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def requirements() -> list[str]:
    """What the dependency group `peers` asks for."""
    groups = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    return [str(each) for each in groups["peers"]]


def install(wanted: Sequence[str], call: Callable[[list[str]], int]) -> list[str]:
    """Install each by itself, so that one that cannot be installed keeps no other away. Gives those that could not."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [each for each in wanted if call([*pip, each])]


def main() -> int:
    """Always a success: the benchmark measures those that are there, and says which are not."""
    for each in install(requirements(), subprocess.call):
        print(f"COULD NOT BE INSTALLED, and will not be measured: {each}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
