"""What every test of stepstore gets: the repository root on the path, and the same dice every time."""

from __future__ import annotations

import pathlib
import sys
import uuid
from types import SimpleNamespace

import pytest

_ROOT = str(pathlib.Path(__file__).resolve().parents[2])
if _ROOT not in sys.path:  # plain `pytest` does not put it there; the tests share `tests.stepstore.log_lab`
    sys.path.insert(0, _ROOT)


@pytest.fixture(autouse=True)
def same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log ids, segment tags and times of creation come from a seed, so that a failure can be repeated.

    And the reserve is small, so that the many copies of a disk in memory cost little.
    """
    monkeypatch.setattr("stepstore.log.reserve.RESERVE_BYTES", 64 * 1024)
    from tests.stepstore.log_lab import DICE, throw_dice_anew

    throw_dice_anew(20240229)
    for module in ("segment", "compaction_output"):
        monkeypatch.setattr(f"stepstore.log.{module}.secrets", SimpleNamespace(randbits=DICE.getrandbits))
        monkeypatch.setattr(f"stepstore.log.{module}.time", SimpleNamespace(time_ns=lambda: 1_709_164_800_000_000_000))
    monkeypatch.setattr(
        "stepstore.log.directory.uuid",
        SimpleNamespace(UUID=uuid.UUID, uuid4=lambda: uuid.UUID(int=DICE.getrandbits(128), version=4)),
    )
