"""A catalog that is dropped and folded anew while somebody reads it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stepstore.catalog import Catalog, CatalogOptions, CatalogSchema, Change, Projection, Table
from stepstore.journal import Batch, Gap, Record
from stepstore.journal.in_memory import InMemoryJournal
from stepstore.restarting import RestartPolicy

T = TypeVar("T")
STREAM = b"s" * 16
SCHEMA = CatalogSchema(version=1, tables=(Table(name="t", columns={"id": "INTEGER PRIMARY KEY"}),))
AT_ONCE = RestartPolicy(first_delay=0.0)


class Numbers:
    """A fold that keeps the number of each record."""

    def __init__(self) -> None:
        self._found: list[tuple[int]] = []

    def take(self, items: Sequence[Record | Gap]) -> None:
        self._found += [(item.lsn,) for item in items if isinstance(item, Record)]

    def changes(self) -> list[Change]:
        found, self._found = self._found, []
        return [Change("INSERT INTO t {values}", found)] if found else []


class DamagedOnce:
    """Makes the next transaction of a catalog find it damaged. Calls `dropped` behind each write from then on until the
    rows are there again."""

    def __init__(self, catalog: Catalog, dropped: Callable[[str], Any]):
        self._store, self._write, self._dropped = catalog.store, catalog.write, dropped
        self._is_due = True
        catalog.write = self.write  # type: ignore[method-assign]

    async def write(self, call: Callable[..., T], *args: Any) -> T:
        if call == self._store.apply and self._is_due:
            self._is_due = False
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        found = await self._write(call, *args)
        if not self._is_due and call in (self._store.drop, self._store.open):
            await self._dropped(call.__name__)
        return found


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT id FROM t ORDER BY id")]


async def written(journal: InMemoryJournal, records: int) -> int:
    await journal.submit([Batch(STREAM, journal.last_seq(STREAM) + 1, (b"record",) * records, 0)]).wait()
    return journal.durable_lsn


def projection_of(journal: InMemoryJournal, directory: Path) -> Projection:
    options = CatalogOptions(directory=str(directory), in_threads=False, restarts=AT_ONCE)
    return Projection("numbers", "numbers.sqlite", SCHEMA, Numbers, journal, options)


async def test_whoever_reads_while_a_damaged_catalog_is_begun_anew_gets_all_of_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    journal, found = InMemoryJournal(), dict[str, list[int]]()
    projection = projection_of(journal, tmp_path)
    async with trio.open_nursery() as nursery:

        async def read(when: str) -> None:
            found[when] = await projection.read(numbers, at_least=3)

        async def dropped(by: str) -> None:
            nursery.start_soon(read, by)
            await wait_all_tasks_blocked()

        nursery.start_soon(journal.run)
        nursery.start_soon(projection.run)
        assert await projection.read(numbers, at_least=await written(journal, 3)) == [1, 2, 3]
        DamagedOnce(projection.catalog, dropped)
        assert await projection.read(numbers, at_least=await written(journal, 3)) == [1, 2, 3, 4, 5, 6]
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert found == {"drop": [1, 2, 3, 4, 5, 6], "open": [1, 2, 3, 4, 5, 6]}


@pytest.mark.parametrize("turn", ["drop", "open"])
async def test_who_was_about_to_read_when_a_damaged_catalog_was_dropped_gets_all_of_it(
    tmp_path: Path, turn: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, found, its_turn = InMemoryJournal(), list[int](), trio.Event()
    projection = projection_of(journal, tmp_path)
    catalog = projection.catalog
    read_it = catalog.read

    async def read_in_turn(reading: Callable[[sqlite3.Connection], T]) -> T:
        await its_turn.wait()
        return await read_it(reading)

    async def read() -> None:
        found.extend(await projection.read(numbers, at_least=3))

    async def dropped(by: str) -> None:
        if by == turn:
            its_turn.set()
        await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        nursery.start_soon(projection.run)
        await projection.wait_for(await written(journal, 3))
        monkeypatch.setattr(catalog, "read", read_in_turn)
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        DamagedOnce(catalog, dropped)
        await projection.wait_for(await written(journal, 3))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert its_turn.is_set()
    assert found == [1, 2, 3, 4, 5, 6]
