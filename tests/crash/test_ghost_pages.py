"""What is served after a failed sync is on the medium, and the suite objects where it is not."""

from __future__ import annotations

import pytest

from tests.crash.commands import run_suite


def test_what_is_served_after_a_failed_sync_is_on_the_medium() -> None:
    status, summary = run_suite("ghost_pages", "--rounds", "2", "--seed", "1")
    assert (status, summary["violations"]) == (0, [])
    assert summary["rounds_with_ghosts"] == 2


def test_the_suite_objects_when_recovered_frames_are_only_synced() -> None:
    for seed in ("1", "2", "3", "4"):  # when the writing back fails is up to the kernel, so one round may show nothing
        status, summary = run_suite("ghost_pages", "--rounds", "1", "--seed", seed, "--broken")
        if status == 1:
            assert "what was served is not there on the medium" in str(summary["violations"])
            return
    pytest.fail("four rounds, and no objection")
