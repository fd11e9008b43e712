"""A catalog that is folded from the start of a long log: its rows first, then the indexes that only readers need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from stepstore.catalog import Catalog, CatalogSchema, Projector, Table, projector
from stepstore.catalog.store import Change
from stepstore.journal import Batch, Gap, Record
from stepstore.journal.in_memory import InMemoryJournal

STREAM = b"s" * 16
RECORDS = 3_000
SCHEMA = CatalogSchema(
    version=1,
    tables=(
        Table(
            name="said",
            columns={"id": "INTEGER PRIMARY KEY", "word": "TEXT NOT NULL", "size": "INTEGER NOT NULL"},
            indexes=("(word)", "(size) WHERE size > 3"),
            indexed_last=True,
        ),
    ),
)


class Words:
    """A fold that keeps each record as a row, and fails once when it comes to the record `fails_at`."""

    fails_at = 0

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def take(self, items: Sequence[Record | Gap]) -> None:
        for item in items:
            assert isinstance(item, Record)
            if item.lsn == Words.fails_at:
                Words.fails_at = 0
                raise OSError("once")
            self._rows.append((item.lsn, item.payload.decode(), len(item.payload)))

    def changes(self) -> list[Change]:
        rows, self._rows = self._rows, []
        return [Change("INSERT INTO said {values}", rows)] if rows else []


class Watched(Catalog):
    """Notes which indexes there are whenever something is stored."""

    def __init__(self, *, in_threads: bool = False) -> None:
        super().__init__(None, SCHEMA, in_threads=in_threads)
        self.seen: list[int] = []

    async def write(self, call: Any, *args: Any) -> Any:
        if getattr(call, "__name__", "") == "apply":
            self.seen.append(len(indexes(self)))
        return await super().write(call, *args)


def indexes(catalog: Catalog) -> list[str]:
    return catalog.store.read(
        lambda it: [name for (name,) in it.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql <> ''")]
    )


async def long_log(nursery: trio.Nursery) -> InMemoryJournal:
    journal = InMemoryJournal()
    nursery.start_soon(journal.run)
    submission = journal.submit([Batch(STREAM, 1, [f"w{n}".encode() for n in range(RECORDS)], 0)])
    await submission.wait()
    return journal


async def test_nobody_reads_a_catalog_that_lacks_its_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "LOAD_RECORDS", RECORDS)
    async with trio.open_nursery() as nursery:
        journal = await long_log(nursery)
        catalog = Watched()
        follower = Projector(journal, catalog, Words)
        nursery.start_soon(follower.run)
        await follower.wait_for(1, readable=False)
        assert follower.position < RECORDS
        assert indexes(catalog) == []
        await follower.wait_for(1)
        assert follower.position == RECORDS
        assert sorted(indexes(catalog)) == ["said_0", "said_1"]
        assert len(catalog.seen) > 1
        assert set(catalog.seen) == {0}
        nursery.cancel_scope.cancel()


async def test_a_load_that_is_broken_off_goes_on_and_ends_with_its_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "LOAD_RECORDS", 100)
    monkeypatch.setattr(Words, "fails_at", RECORDS - 10)
    async with trio.open_nursery() as nursery:
        journal = await long_log(nursery)
        catalog = Watched()
        follower = Projector(journal, catalog, Words)
        with pytest.raises(OSError, match="once"):
            await follower.catch_up()
        assert (0 < follower.position < RECORDS, follower.is_ready) == (True, False)
        await follower.catch_up()
        assert follower.is_ready
        assert sorted(indexes(catalog)) == ["said_0", "said_1"]
        found = await catalog.read(lambda it: it.execute("SELECT count(*), count(DISTINCT id) FROM said").fetchone())
        assert found == (RECORDS, RECORDS)
        nursery.cancel_scope.cancel()


async def test_a_log_that_was_there_before_is_taken_up_in_smaller_pieces_than_what_comes_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projector, "LOAD_RECORDS", RECORDS)
    monkeypatch.setattr(projector, "LOADED_TOGETHER", 1_000)
    async with trio.open_nursery() as nursery:
        journal = await long_log(nursery)
        catalog = Watched(in_threads=True)
        follower = Projector(journal, catalog, Words)
        nursery.start_soon(follower.run)
        await follower.wait_for(RECORDS)
        loaded = follower.transactions
        assert loaded == RECORDS // 1_000
        words = [f"w{n}".encode() for n in range(RECORDS)]
        await journal.submit([Batch(STREAM, RECORDS + 1, words, 0)]).wait()
        await follower.wait_for(2 * RECORDS)
        assert follower.transactions == loaded + 1
        nursery.cancel_scope.cancel()


async def test_a_short_log_is_indexed_from_the_start() -> None:
    async with trio.open_nursery() as nursery:
        journal = await long_log(nursery)
        catalog = Watched()
        await Projector(journal, catalog, Words).catch_up()
        assert set(catalog.seen) == {2}
        nursery.cancel_scope.cancel()


def test_another_index_is_another_declaration() -> None:
    table = SCHEMA.tables[0]
    other = Table(name=table.name, columns=table.columns, indexes=("(word)",), indexed_last=True)
    assert CatalogSchema(version=1, tables=(other,)).digest() != SCHEMA.digest()
