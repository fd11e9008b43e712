"""What is acknowledged survives errors of the operating system, and the suite objects where it does not."""

from __future__ import annotations

from tests.crash.commands import run_suite


def test_rounds_with_each_kind_of_error_pass() -> None:
    status, summary = run_suite("real_errors", "--rounds", "10", "--seed", "1")
    assert (status, summary["violations"]) == (0, [])
    assert summary["calls_failed"] >= 7
    assert summary["full_disk_rounds_where_it_recovers"] == 1


def test_the_suite_objects_to_a_file_layer_that_takes_failed_writes_for_good_ones() -> None:
    status, summary = run_suite("real_errors", "--rounds", "3", "--seed", "1", "--broken")
    assert status == 1
    assert summary["violations"]
