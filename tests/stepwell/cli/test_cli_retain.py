"""`stepwell retain` says who is to go, asks, and deletes exactly those."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stepwell.cli.cli_support import complete, run, run_json, start, step, write_lines


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    events = []
    for number in range(14):
        name = f"e{number}"
        events += [start(name, tags=["gold"] if number == 3 else [], run=number), step(name, 1)]
        if number:
            events.append(complete(name, outcome="failure" if number % 2 else "success", steps=1))
    directory = tmp_path / "memory"
    run_json("import", write_lines(tmp_path / "events.jsonl", events), "--dir", directory)
    return directory


def there(memory: Path) -> set[str]:
    return {item["episode_id"] for item in run_json("list", "--dir", memory)["episodes"]}


def test_a_dry_run_counts_and_shows_and_deletes_nothing(memory: Path) -> None:
    before = there(memory)
    result = run("retain", "--max-episodes", "2", "--dry-run", "--dir", memory)
    assert result.exit_code == 0
    assert "would delete 12 episodes" in result.stdout
    assert "7 failure, 5 success" in result.stdout or "(6 failure" in result.stdout
    assert "… and 2 more" in result.stdout
    assert there(memory) == before


def test_it_deletes_those_and_no_others_and_again_finds_nothing(memory: Path) -> None:
    before = there(memory)
    report = run_json("retain", "--outcome", "failure", "--keep-tag", "GOLD", "--yes", "--dir", memory)
    gone = {item["episode_id"] for item in report["episodes"]}
    assert report["counts"] == {"failure": len(gone)}
    assert len(gone) == 6
    assert there(memory) == before - gone
    assert report["kept"] == 8
    result = run("retain", "--outcome", "failure", "--keep-tag", "GOLD", "--yes", "--dir", memory)
    assert "nothing to delete: 8 episodes" in result.stdout


def test_without_a_yes_nothing_is_deleted(memory: Path) -> None:
    before = there(memory)
    assert run("retain", "--older-than", "0", "--dir", memory).exit_code == 1
    assert there(memory) == before


def test_a_policy_that_says_nothing_is_wrong_usage_and_names_the_options(memory: Path) -> None:
    result = run("retain", "--dir", memory)
    assert result.exit_code == 2
    assert "--older-than, --outcome, --reward-below or --max-episodes" in result.stderr
    for option in ("--older-than", "--max-episodes"):
        assert run("retain", option, "-1", "--dry-run", "--dir", memory).exit_code == 2


def test_a_call_that_finds_nobody_says_whether_it_was_a_dry_run(memory: Path) -> None:
    for asked, is_dry in (("--yes", False), ("--dry-run", True)):
        report = run_json("retain", "--max-episodes", "1000", asked, "--dir", memory)
        assert (report["episodes"], report["dry_run"]) == ([], is_dry)


def test_a_policy_that_says_nothing_is_refused(memory: Path) -> None:
    result = run("retain", "--dir", memory)
    assert result.exit_code in (1, 2)
    assert "says nothing" in result.stderr
    result = run("retain", "--outcome", "failed", "--dir", memory)
    assert "is not one of 'success'" in result.stderr
