"""Killed children lose nothing that was acknowledged; the suite objects to acknowledgements that came too early."""

from __future__ import annotations

from tests.crash.commands import run_suite


def test_three_rounds_pass() -> None:
    status, summary = run_suite("kill9", "--rounds", "3", "--seed", "7")
    assert (status, summary["violations"]) == (0, [])
    assert summary["records_acknowledged"] > 0


def test_the_suite_objects_to_agents_that_take_accepted_for_durable() -> None:
    status, summary = run_suite("kill9", "--rounds", "5", "--seed", "7", "--broken")
    assert status == 1
    assert "lost" in str(summary["violations"])
