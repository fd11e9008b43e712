"""Every test that asks for a `place` is asked of each kind of journal in turn."""

from __future__ import annotations

import pathlib

import pytest

from tests.journal.places import PLACES, Place


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    return PLACES[request.param](tmp_path / "log")


@pytest.fixture(params=[name for name in PLACES if name != "in memory"])
def lasting_place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    return PLACES[request.param](tmp_path / "log")
