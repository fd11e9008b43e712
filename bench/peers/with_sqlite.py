"""Plain `sqlite3` with WAL and synchronous=FULL: a commit per step; and the group commit that one writes around it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cbor2

from bench.peers.load import Load
from bench.workload import encoded

TABLE = "CREATE TABLE IF NOT EXISTS steps (episode TEXT, number INTEGER, body BLOB, PRIMARY KEY (episode, number))"
INSERT = "INSERT INTO steps VALUES (?, ?, ?)"
DELETE = "DELETE FROM steps WHERE episode = ?"
SELECT = "SELECT body FROM steps WHERE episode = ? ORDER BY number"
Row = tuple[str, int, bytes]


FULL = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")


def connect(path: Path, pragmas: tuple[str, ...] = FULL) -> sqlite3.Connection:
    """Open, or create, a database of steps."""
    connection = sqlite3.connect(path / "steps.sqlite", check_same_thread=False, isolation_level=None)
    for pragma in pragmas:
        connection.execute(pragma)
    connection.execute(TABLE)
    return connection


def row(load: Load, episode: int, number: int) -> Row:
    """A step as a row."""
    return f"episode-{episode}", number, encoded(load.step(episode, number))


class CommitPerStep:
    """One connection in one thread, which takes the episodes in turn: nothing is faster with a commit per step."""

    batch = 1
    durable = True
    pragmas: tuple[str, ...] = FULL

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        connection = connect(path, self.pragmas)
        try:
            with load.meter.running():
                for count in range(load.steps):
                    for number in range(load.episodes):
                        connection.execute(INSERT, row(load, number, count))
            return load.steps * load.episodes
        finally:
            connection.close()

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`. Bodies are decoded, since the other peers give values too."""
        connection = connect(path)
        try:
            seconds, found = [], 0
            for _ in range(times):
                began = time.perf_counter()
                found = len([cbor2.loads(body) for (body,) in connection.execute(SELECT, ("episode-0",))])
                seconds.append(time.perf_counter() - began)
            return seconds, found
        finally:
            connection.close()

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        connection = connect(path, self.pragmas)
        try:
            connection.execute(DELETE, ("episode-0",))
            deleted()
        finally:
            connection.close()


class Defaults(CommitPerStep):
    """As it is without a word: a rollback journal, synchronous=FULL."""

    pragmas = ()


class Normal(CommitPerStep):
    """As many recommend it for speed: a commit does not wait for the medium."""

    durable = False
    pragmas = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL")


class GroupCommit(CommitPerStep):
    """asyncio tasks hand in rows; a writer takes all there are, commits them in a thread, and resolves the futures."""

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        connection = connect(path)
        try:
            with ThreadPoolExecutor(1) as thread:
                return asyncio.run(self.ingest_into(connection, thread, load))
        finally:
            connection.close()

    async def ingest_into(
        self, connection: sqlite3.Connection, thread: ThreadPoolExecutor, load: Load, first: int = 0
    ) -> int:
        """The work, in a store that is open; its episodes are numbered from `first` on. Gives the groups."""
        loop = asyncio.get_running_loop()
        waiting: list[tuple[Row, asyncio.Future[None]]] = []
        handed_in = asyncio.Event()
        groups = 0

        def commit(rows: list[Row]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, rows)
            connection.execute("COMMIT")

        async def write() -> None:
            nonlocal waiting, groups
            while await handed_in.wait():
                handed_in.clear()
                group, waiting = waiting, []
                await loop.run_in_executor(thread, commit, [item for item, _ in group])
                groups += 1
                for _, future in group:
                    future.set_result(None)

        async def agent(number: int) -> None:
            for count in range(load.steps):
                future: asyncio.Future[None] = loop.create_future()
                waiting.append((row(load, first + number, count), future))
                handed_in.set()
                await future

        writer = asyncio.create_task(write())
        with load.meter.running():
            producers = asyncio.gather(*(agent(number) for number in range(load.episodes)))
            await asyncio.wait((producers, writer), return_when=asyncio.FIRST_COMPLETED)  # a writer that fails is told
            if writer.done():
                producers.cancel()
                await writer
            await producers
        writer.cancel()
        await asyncio.wait((writer,))
        return groups
