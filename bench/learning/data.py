"""The real agent data that learning is measured on, in the neutral form. It is no part of the project: $STEPWELL_DATA
names its folder, by default `../shared/data` beside the checkout. Files named `*.gold.*` are what the agents did not
see; nothing here opens one."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("STEPWELL_DATA", Path(__file__).parents[3] / "shared" / "data"))
if not FOLDER.is_dir():
    FOLDER = Path(__file__).parents[4] / "shared" / "data"


class NoData(FileNotFoundError):
    """The real data is not here. It says where it was looked for."""


def read(name: str) -> list[dict[str, Any]]:
    """The lines of a file. Raises: `NoData`."""
    assert "gold" not in name
    path = FOLDER / f"{name}.jsonl.gz"
    if not path.is_file():
        raise NoData(f"{path}: the real data is not here; set STEPWELL_DATA to its folder")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def starts(name: str) -> list[dict[str, Any]]:
    """The start of each episode of a file."""
    return [line for line in read(name) if line["event"] == "start"]
