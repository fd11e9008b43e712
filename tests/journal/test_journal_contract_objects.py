"""The contract is worth something: it objects to every broken journal, and to nothing in the sound one."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = pathlib.Path(__file__).with_name("broken_journals.py")
CLASSES = [
    node.name
    for node in ast.parse(FILE.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef) and node.name.startswith("Test")
]
BROKEN = [name for name in CLASSES if name != "TestSound"]


@pytest.fixture(scope="module")
def objections() -> dict[str, set[str]]:
    """The tests that failed, for each class."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "--timeout=10"),
            *("-p", "tests.journal.broken_journals", str(FILE.relative_to(ROOT))),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert re.search(r"\d+ failed, \d+ passed", done.stdout), done.stdout[-2000:] + done.stderr
    found: dict[str, set[str]] = {name: set() for name in CLASSES}
    for kind, name, test in re.findall(r"^(FAILED|ERROR) \S+::(\w+)::(\w+)", done.stdout, re.MULTILINE):
        assert kind == "FAILED", done.stdout[-2000:]
        found[name].add(test)
    return found


def test_there_are_many_ways_to_be_broken() -> None:
    assert len(BROKEN) >= 8


def test_the_contract_finds_nothing_wrong_with_the_journal_they_are_made_of(objections: dict[str, set[str]]) -> None:
    assert objections["TestSound"] == set()


@pytest.mark.parametrize("name", BROKEN)
def test_the_contract_objects_to(name: str, objections: dict[str, set[str]]) -> None:
    assert objections[name] != set()
