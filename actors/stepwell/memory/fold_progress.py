"""How far the catalogs of a memory have come: for whoever waits for one."""

from __future__ import annotations

from typing import NamedTuple

from stepwell.memory.memory import Memory


class FoldProgress(NamedTuple):
    """Records of the log. `folded`: how many the catalog that is being made has taken up; 0 if none is."""

    folded: int
    records: int


def fold_progress(memory: Memory) -> FoldProgress:
    """As of now. One that is not asked for stays where it is; of several that go on, it is the one furthest behind."""
    records = memory._journal.durable_lsn
    projectors = [projection.projector for projection in memory._runtime.projections]
    under_way = [it.looked_at for it in projectors if it.position < it.looked_at]
    return FoldProgress(min(under_way, default=0), records)
