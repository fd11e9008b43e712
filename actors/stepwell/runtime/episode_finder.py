"""What an opened memory finds episodes with: the catalog, and the projector that keeps it up to date."""

from __future__ import annotations

import logging
import os
import sqlite3

import trio

from stepstore.catalog import Catalog, Projector
from stepstore.catalog.store import FILE
from stepstore.errors import InvalidInput, InvalidState
from stepstore.journal import Journal
from stepstore.restarting import RestartPolicy, Service
from stepwell.runtime.episode_catalog import EpisodeCatalogFold, episode_schema
from stepwell.runtime.episode_query import EpisodeQuery, Found

_logger = logging.getLogger("stepwell.runtime")


class EpisodeFinder:
    """Beside a journal. `directory`: where the catalog is kept, None for in memory. With `read_only` it is a copy of
    what is kept there, which catches up when somebody reads; nothing is written."""

    def __init__(
        self,
        journal: Journal,
        *,
        directory: str | None = None,
        in_threads: bool = True,
        read_only: bool = False,
        keep_text: bool = True,
        believe_the_log: bool = False,
        restarts: RestartPolicy | None = None,
    ):
        self._journal, self._read_only = journal, read_only
        self._path = None if directory is None else os.path.join(directory, FILE)
        path = None if read_only else self._path
        self.catalog = Catalog(path, episode_schema(keep_text=keep_text), in_threads=in_threads)
        self.projector = Projector(
            journal,
            self.catalog,
            lambda: EpisodeCatalogFold(keep_text=keep_text),
            believe_the_log=believe_the_log,
        )
        self.service = Service(
            "projector",
            self.projector.run,
            policy=restarts or RestartPolicy(),
            notices=journal.notices,
            progress=lambda: self.projector.transactions,
            on_parked=self.projector.park,
            logger=_logger,
        )
        self._is_copied = False
        self._catching_up = trio.Lock()

    @property
    def services(self) -> tuple[Service, ...]:
        """What runs in the background for it."""
        return () if self._read_only else (self.service,)

    def check_cursor(self) -> None:
        """Look whether the catalog that is there has seen records that the log has not. Blocks; before `run`.

        Raises: `CorruptLog` (row 2).
        """
        store = self.catalog.store
        if store.path is None or not os.path.isfile(store.path):
            return
        try:
            store.open()
        except (sqlite3.Error, OSError) as error:
            _logger.warning("the catalog in %s cannot be opened (%s); it is tried again", store.path, error)
            return
        try:
            self.projector.check_cursor()
        except (InvalidInput, InvalidState):
            return  # of another log, or of a lost branch: the projector drops it
        except BaseException:
            store.close()
            raise

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The task: the projector, as long as the memory is open. Cancelled, it gives the catalog back."""
        try:
            if not self._read_only:
                await self.service.run()
            self.projector.end()
            await trio.sleep_forever()
        finally:
            self.projector.end()
            with trio.CancelScope(shield=True):
                await self.catalog.close()

    async def find(self, query: EpisodeQuery, at_least: int | None) -> list[Found]:
        """A page of the list. A checkpoint.

        Raises: `InvalidInput` (`at_least` is no durable record), `Unavailable`, `Closed`.
        """
        await self._journal.catch_up()
        if at_least is not None and at_least > self._journal.durable_lsn:
            raise InvalidInput(
                f"at_least: record {at_least} is not in this memory, which ends with {self._journal.durable_lsn}; "
                "use the lsn of one of its receipts"
            )
        if self._read_only:
            await self._catch_up()
        else:
            await self.projector.wait_for(at_least or 0)
        return await self.catalog.read(query.run)

    async def wait_for(self, lsn: int) -> None:
        """Return once everything up to a durable LSN is in the catalog. A checkpoint.

        Raises: `Unavailable`, `Closed`.
        """
        await self.projector.wait_for(lsn)

    async def _catch_up(self) -> None:
        """Opened for reading there is no projector: read what is new now."""
        async with self._catching_up:
            if not self._is_copied and self._path is not None:
                await self.catalog.write(self.catalog.store.copy_of, self._path)
                await self._journal.catch_up()  # the copy may be ahead of what was known of the log
            self._is_copied = True
            try:
                await self.projector.catch_up()
            except sqlite3.Error as error:
                raise self.projector.unreadable(error) from error
