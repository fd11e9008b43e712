"""What recall finds of a real benchmark, through the public calls. Skips where the data is not."""

from __future__ import annotations

import pytest

from bench.locomo import DATA, Scores, load, recalled
from stepwell import open_memory

LEAST = Scores(recall_5=0.70, recall_10=0.785, reciprocal=0.56)
"""A little below what is measured; the target is 0.63 / 0.73 / 0.50."""


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the real agent data is not here: no ../shared/data beside the repository"
)
async def test_recall_on_locomo_does_not_get_worse() -> None:
    async with open_memory(":memory:") as memory:
        scores = await recalled(memory.long_term, load())
    assert scores.recall_5 >= LEAST.recall_5
    assert scores.recall_10 >= LEAST.recall_10
    assert scores.reciprocal >= LEAST.reciprocal
