"""The catalog of a killed child equals one folded anew; the suite objects to cursors that are stored by themselves."""

from __future__ import annotations

import pytest

from tests.crash.commands import run_suite


def test_three_rounds_pass() -> None:
    status, summary = run_suite("projector_kill9", "--rounds", "3", "--seed", "7")
    assert (status, summary["violations"]) == (0, [])
    assert summary["comparisons"] > 0
    assert summary["episodes"] > 10


@pytest.mark.parametrize("how", ["early", "late"])
def test_the_suite_objects_to_a_cursor_that_is_stored_by_itself(how: str) -> None:
    status, summary = run_suite("projector_kill9", "--rounds", "12", "--seed", "7", "--broken", how)
    assert status == 1
    assert "differ from a fresh folding" in str(summary["violations"])
