"""The program of docs/recall.md runs as it stands, and prints what the page says."""

from __future__ import annotations

import pathlib
import re

from stepwell.learning.recall.settings import DEFAULT_SETTINGS
from stepwell.learning.recall.words import SEARCHED_CHARACTERS
from stepwell.runtime.fact_scope import FACTS_KEPT
from tests.test_readme import run

PAGE = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "recall.md").read_text(encoding="utf-8")


def test_the_program_runs_as_it_stands(tmp_path: pathlib.Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    first, second, third = run(program, tmp_path).splitlines()
    assert "the sky is blue" in first
    for line in (second, third):
        assert f"`{line}`" in PAGE


def test_the_numbers_are_those_that_are_used() -> None:
    settings = DEFAULT_SETTINGS
    assert f"k1 = {settings.k1}, b = {settings.b}" in PAGE
    assert (settings.before, settings.after, settings.conversation) == ((0.5, 0.25), (0.3, 0.15), 0.5)
    assert "own(d) + ½ own(d−1) + ¼ own(d−2) + 0.3 own(d+1) + 0.15 own(d+2) + ½ talk(d)" in PAGE
    assert f"`{1 - settings.similarity} · words / best words + {settings.similarity} · cosine / best cosine`" in PAGE
    for number in (settings.most_postings, settings.candidates, SEARCHED_CHARACTERS, FACTS_KEPT):
        assert f"{number:,}" in PAGE
