"""The power cuts pass on the log as it is, and object to one whose fdatasync does nothing."""

from __future__ import annotations

from tests.crash.commands import run_suite


def test_a_dozen_power_cuts_pass() -> None:
    status, summary = run_suite("power_cuts", "--cuts", "12", "--seed", "1")
    assert (status, summary["violations"]) == (0, [])
    assert (summary["prefix_cuts"], summary["subset_cuts"], summary["torn_cuts"]) == (4, 4, 4)


def test_the_suite_objects_to_a_log_that_does_not_sync_its_groups() -> None:
    status, summary = run_suite("power_cuts", "--cuts", "30", "--seed", "1", "--broken")
    assert status == 1
    assert any(
        word in str(summary["violations"]) for word in ("lost", "proves it durable", "proves that it was durable")
    )
