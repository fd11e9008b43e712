"""Which projections of a memory follow its log while something is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import trio

from stepstore.catalog import Projection

MODES: dict[str, Sequence[str]] = {"none": (), "catalog": ("projector",), "all": ("projector", "indexer", "learner")}
"""By the names of their services."""


@contextmanager
def projecting(names: Sequence[str]) -> Iterator[None]:
    """Of the projections of a memory only these run meanwhile."""
    whole = Projection.run

    async def run(projection: Projection) -> None:
        if projection.service.name in names:
            await whole(projection)
        else:
            await trio.sleep_forever()

    with mock.patch.object(Projection, "run", run):
        yield
