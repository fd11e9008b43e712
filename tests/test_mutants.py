"""Every mutant can still be made of the tree: one that cannot would keep watch over nothing."""

from __future__ import annotations

from pathlib import Path

from tests.mutants.log import MUTANTS
from tests.mutants.mutant import Change, Mutant, why_stale

ROOT = Path(__file__).parent.parent


def test_every_mutant_of_the_log_finds_the_text_that_it_changes() -> None:
    assert len(MUTANTS) > 200
    assert {mutant.name: why for mutant in MUTANTS if (why := why_stale(ROOT, mutant)) is not None} == {}


def test_the_tests_named_with_a_mutant_are_there() -> None:
    assert {mutant.tests for mutant in MUTANTS if not (ROOT / mutant.tests).exists()} == set()


def test_a_mutant_whose_text_was_changed_is_told_as_stale(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("limit = 2\n")
    change = Change("part.py", "limit = 1\n", "limit = 0\n")
    why = why_stale(tmp_path, Mutant("row 1: a limit", (change,), "tests", ""))
    assert why is not None
    assert "part.py" in why
    assert "0 times" in why
