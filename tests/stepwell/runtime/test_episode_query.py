"""Pages of the list of episodes over rows that no ordinary log makes."""

from __future__ import annotations

import datetime as dt

from stepstore.catalog import Change
from stepstore.catalog.store import CatalogStore
from stepwell import EpisodeFilter
from stepwell.runtime import episode_catalog as catalog
from stepwell.runtime.episode_query import EpisodeQuery

LATEST = 2**63 - 1


def test_an_episode_that_took_longer_than_64_bits_of_nanoseconds_hurts_no_list() -> None:
    given = {"stream": b"s" * 16, "tags": "[]", "started_ns": -1_000, "ended_ns": LATEST, "last_ns": LATEST}
    given |= {"id": catalog.key_of(-1_000, b"s" * 16), "episode_id": "long", "outcome": "success", "archived": 0}
    given |= {"last_seq": 2, "steps": 0, "failed_steps": 0, "language": None, "framework": None, "reward": None}
    row = tuple(given.get(name, "") for name in catalog.EPISODE.columns)
    store = CatalogStore(None, catalog.SCHEMA)
    store.open()
    try:
        store.apply([Change(catalog.ADD, [row], again=True)], "cursor")
        for statement in store.missing_indexes().values():
            store.make_index(statement)
        filter = EpisodeFilter(ended_from=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        found = store.read(EpisodeQuery(filter, "newest", 5, None).run)
    finally:
        store.close()
    assert [it.episode.episode_id for it in found] == ["long"]
