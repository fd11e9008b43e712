"""What docs/ports.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "ports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_page_runs(block: str) -> None:
    assert block.count("assert ") >= 1
    exec(compile(block, "docs/ports.md", "exec"), {"__name__": "__main__"})


def test_all_blocks_are_found() -> None:
    assert len(BLOCKS) == PAGE.count("```python") >= 6
