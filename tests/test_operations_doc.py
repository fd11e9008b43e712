"""`docs/operations.md` shows a real session, and names every error that opening a log can raise."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import stepstore.log
from stepwell import errors
from tests.operations_session import DOCUMENT, run_session

TEXT = DOCUMENT.read_text()


def test_the_session_is_what_comes_now() -> None:
    now = run_session(TEXT)
    difference = difflib.unified_diff(TEXT.splitlines(), now.splitlines(), "document", "now", lineterm="")
    hint = "run `python -m tests.operations_session --write` and read what changed:"
    assert now == TEXT, "\n".join([hint, *difference])


def test_the_session_shows_what_it_is_there_for() -> None:
    for line in ("DAMAGED  agent-memory", "INCOMPLETE  ", "SOMETHING IS LOST", "sound  rescued", "(row 2)"):
        assert line in TEXT


def test_every_row_that_is_raised_is_explained() -> None:
    raised: set[str] = set()
    for path in Path(stepstore.log.__path__[0]).glob("*.py"):
        source = path.read_text()
        raised |= set(re.findall(r"row=(\d+)", source)) | set(re.findall(r"corrupt_at\(\s*(\d+),", source))
    assert {"2", "3", "5", "6", "7", "9", "15", "16"} <= raised
    missing = [row for row in sorted(raised, key=int) if f"`CorruptLog` row {row} |" not in TEXT]
    assert not missing, f"rows {missing} are raised and not explained"


def test_every_error_of_opening_is_explained() -> None:
    for name in ("LogLocked", "NotFound", "InvalidInput", "RecoveryFailed", "CorruptLog", "Fenced", "LogFull"):
        assert hasattr(errors, name)
        assert f"| `{name}`" in TEXT, name


def test_links_lead_somewhere() -> None:
    for page in ("operations.md", "format.md"):
        text = (DOCUMENT.parent / page).read_text()
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert (DOCUMENT.parent / target).exists(), f"{page}: {target}"
        heads = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}
        for anchor in re.findall(r"\]\(#([^)]+)", text):
            assert anchor in anchors, f"{page}: #{anchor}"
