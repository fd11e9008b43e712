"""aiosqlite: one connection for all tasks; each executes its insert and commits."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import cbor2

from bench.peers.load import Load
from bench.peers.with_sqlite import DELETE, INSERT, SELECT, TABLE, row

aiosqlite = importlib.import_module("aiosqlite")


class _Counting(sqlite3.Connection):
    """Counts the commits that have something to commit: another task's commit may have taken it along."""

    groups = 0

    def commit(self) -> None:
        self.groups += self.in_transaction
        super().commit()


class Commits:
    """`await execute`, `await commit`, for each step."""

    batch = 1
    durable = True

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        return asyncio.run(self._ingest(path, load))

    async def _ingest(self, path: Path, load: Load) -> int:
        made: list[_Counting] = []

        def counting(*arguments: object, **named: object) -> sqlite3.Connection:
            made.append(_Counting(*arguments, **named))  # type: ignore[arg-type]
            return made[0]

        async with aiosqlite.connect(path / "steps.sqlite", factory=counting) as connection:
            await connection.execute("PRAGMA journal_mode=WAL")
            await connection.execute("PRAGMA synchronous=FULL")
            await connection.execute(TABLE)
            await connection.commit()
            before = made[0].groups

            async def agent(number: int) -> None:
                for count in range(load.steps):
                    await connection.execute(INSERT, row(load, number, count))
                    await connection.commit()

            with load.meter.running():
                await asyncio.gather(*(agent(number) for number in range(load.episodes)))
            return made[0].groups - before

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`."""
        return asyncio.run(self._read(path, times))

    async def _read(self, path: Path, times: int) -> tuple[list[float], int]:
        seconds, found = [], 0
        async with aiosqlite.connect(path / "steps.sqlite") as connection:
            for _ in range(times):
                began = time.perf_counter()
                rows = await connection.execute_fetchall(SELECT, ("episode-0",))
                found = len([cbor2.loads(body) for (body,) in rows])
                seconds.append(time.perf_counter() - began)
        return seconds, found

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        asyncio.run(self._delete(path, deleted))

    async def _delete(self, path: Path, deleted: Callable[[], None]) -> None:
        async with aiosqlite.connect(path / "steps.sqlite") as connection:
            await connection.execute(DELETE, ("episode-0",))
            await connection.commit()
            deleted()
