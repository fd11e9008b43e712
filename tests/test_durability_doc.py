"""Every row of the contract in `docs/durability.md` names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
DOC = TESTS.parent / "docs" / "durability.md"


def test_each_row_of_the_contract_names_a_test_that_exists() -> None:
    text = DOC.read_text(encoding="utf-8")
    sources = [*TESTS.rglob("test_*.py"), *(TESTS.parent / "actors/stepwell/testing").rglob("*.py")]
    there = set(re.findall(r"def (test_\w+)", "\n".join(path.read_text(encoding="utf-8") for path in sources)))
    named = re.findall(r"`(test_\w+)`", text)
    assert [name for name in named if name not in there] == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and "|---" not in line]
    heads = [line for line in rows if line.rstrip().endswith("| test |")]
    assert len(heads) == 6
    for row in rows:
        assert row in heads or re.search(r"`test_\w+` \|$", row), f"no test is named: {row}"
