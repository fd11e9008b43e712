"""A catalog for Trio: every call of SQLite is made in a worker thread, one at a time for each connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from stepstore.catalog.schema import CatalogSchema
from stepstore.catalog.store import CatalogStore
from stepstore.errors import Closed, Unavailable

T = TypeVar("T")


class Catalog:
    """The catalog at `path`, or in memory where that is None. `in_threads=False` makes every call in the event loop,
    in small pieces where that can be: for what is small, and for clocks that must not run while a thread works.

    The projector writes it; anybody reads.
    """

    def __init__(self, path: str | None, schema: CatalogSchema, *, in_threads: bool = True):
        self.store = CatalogStore(path, schema)
        self.is_closed = False
        self.in_threads = in_threads
        self._writing = trio.CapacityLimiter(1)
        self._reading = self._writing if path is None else trio.CapacityLimiter(1)
        self._working = trio.CapacityLimiter(1)
        self._read_now: object = None

    async def write(self, call: Callable[..., T], *args: Any) -> T:
        """Call a method of `store` that writes. A checkpoint; cancelled, it takes effect all the same.

        Raises: `sqlite3.Error`, `Closed`.
        """

        def writing() -> T:
            self._check_open()
            return call(*args)

        return await self._blocking(writing, self._writing)

    async def read(self, reading: Callable[[sqlite3.Connection], T]) -> T:
        """Read from the catalog as of the last transaction. A checkpoint; cancelled, the reading is broken off.

        Raises: `Unavailable` (SQLite could not), `Closed`.
        """
        this = object()

        def reading_it() -> T:
            self._check_open()
            self._read_now = this
            try:
                return self.store.read(reading)
            finally:
                self._read_now = None

        while True:
            try:
                return await self._blocking(reading_it, self._reading, abandon=True)
            except trio.Cancelled:
                if self._read_now is this:
                    self.store.interrupt()
                raise
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                    continue  # it was meant for the reading before this one
                raise Unavailable(f"the catalog cannot be read ({error}); `stepwell rebuild` makes it anew") from error

    async def blocking(self, call: Callable[..., T], *args: Any) -> T:
        """Call something that takes time and uses nothing of the catalog. A checkpoint."""
        return await self._blocking(lambda: call(*args), self._working)

    async def purge(self) -> list[str]:
        """Rewrite the file while nobody reads; see `CatalogStore.purge`. A checkpoint. Raises: `sqlite3.Error`."""
        if self._reading is self._writing:
            return await self.write(self.store.purge)
        async with self._reading:
            return await self.write(self.store.purge)

    async def drop(self) -> None:
        """Remove the file while nobody reads; `store.open` begins it anew. A checkpoint. Raises: `OSError`."""
        if self._reading is self._writing:
            await self.write(self.store.drop)
            return
        async with self._reading:
            await self.write(self.store.drop)

    async def close(self) -> None:
        """Give back the file once nobody uses it; `Closed` for every later call. A checkpoint."""
        self.is_closed = True
        self.store.interrupt()
        if self._reading is self._writing:
            await self._blocking(self.store.close, self._writing)
            return
        async with self._reading:
            await self._blocking(self.store.close, self._writing)

    def _check_open(self) -> None:
        if self.is_closed:
            raise Closed("the memory is closed; open it again to look something up in its catalog")

    async def _blocking(self, call: Callable[[], T], limiter: trio.CapacityLimiter, *, abandon: bool = False) -> T:
        if self.in_threads:
            return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=abandon)
        await trio.lowlevel.checkpoint()
        return call()
