"""The SQLite file of a catalog: what one reading sees."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepstore.catalog import CatalogSchema, Change, Table
from stepstore.catalog.store import CatalogStore

SCHEMA = CatalogSchema(version=1, tables=(Table(name="t", columns={"id": "INTEGER PRIMARY KEY"}),))
ADD = "INSERT INTO t {values}"


def ids(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT id FROM t ORDER BY id")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CatalogStore]:
    store = CatalogStore(str(tmp_path / "catalog.sqlite"), SCHEMA)
    store.open()
    store.apply([Change(ADD, [(1,), (2,)])], "first")
    yield store
    store.close()


def test_a_reading_of_several_statements_sees_one_state_of_the_catalog(store: CatalogStore) -> None:
    def reading(connection: sqlite3.Connection) -> tuple[list[int], list[int]]:
        before = ids(connection)
        store.apply([Change("DELETE FROM t WHERE id IN ({values})", [(1,)])], "second")
        return before, ids(connection)

    assert store.read(reading) == ([1, 2], [1, 2])
    assert store.read(ids) == [2]


def test_a_reading_that_failed_does_not_keep_the_next_one_in_the_past(store: CatalogStore) -> None:
    def failing(connection: sqlite3.Connection) -> None:
        ids(connection)
        raise ValueError

    with pytest.raises(ValueError):
        store.read(failing)
    store.apply([Change(ADD, [(3,)])], "second")
    assert store.read(ids) == [1, 2, 3]
