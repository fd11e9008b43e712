"""A projection of a journal: a catalog, the fold that fills it, and the task that keeps it up to date."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from stepstore.catalog.catalog import Catalog
from stepstore.catalog.log_reading import LogReading
from stepstore.catalog.projector import Fold, Projector
from stepstore.catalog.schema import CatalogSchema
from stepstore.catalog.store import remove_file
from stepstore.errors import InvalidInput, InvalidState, Unavailable
from stepstore.journal import Journal
from stepstore.restarting import RestartPolicy, Service

T = TypeVar("T")

_logger = logging.getLogger("stepstore.catalog")


@dataclass(frozen=True, kw_only=True)
class CatalogOptions:
    """Where the catalogs of a journal are kept, and how they are used.

    `directory`: the one that holds their files, None where nothing is kept. `encrypted`: what is in the journal must
    not be on disk in the clear, and each key of it may cost a call to somewhere. So a catalog is in memory, folded when
    somebody first reads it, and a file left by an opening that was not encrypted is removed. `read_only`: somebody else
    writes the files; a catalog is a copy in memory, which catches up when somebody reads. `in_threads`: see `Catalog`.
    `believe_the_log`: a catalog that has seen records which are not in the log is folded anew, and is no witness
    against the log.
    """

    directory: str | None = None
    encrypted: bool = False
    read_only: bool = False
    in_threads: bool = True
    believe_the_log: bool = False
    restarts: RestartPolicy | None = None


class Projection:
    """Keeps `file` in the directory of the catalogs. `name` is that of the service, as `health` shows it. `reading`:
    shared with other projections of the journal; None for one of its own, with every batch cut into records.

    `prepare`, then one task runs `run`, and anybody reads.
    """

    def __init__(
        self,
        name: str,
        file: str,
        schema: CatalogSchema,
        make_fold: Callable[[], Fold],
        journal: Journal,
        options: CatalogOptions,
        reading: LogReading | None = None,
    ):
        self.file = file
        self._journal = journal
        self._is_followed = not (options.read_only or options.encrypted)
        """Whether a task keeps it up to date, and not those who read."""
        path = None if options.directory is None else os.path.join(options.directory, file)
        self._to_remove = path if options.encrypted and not options.read_only else None
        self._to_copy = path if options.read_only and not options.encrypted else None
        if not self._is_followed:
            path = None
        self.catalog = Catalog(path, schema, in_threads=options.in_threads)
        self.projector = Projector(journal, self.catalog, make_fold, reading, believe_the_log=options.believe_the_log)
        self.service = Service(
            name,
            self.projector.run,
            policy=options.restarts or RestartPolicy(),
            notices=journal.notices,
            progress=lambda: self.projector.transactions,
            on_parked=self.projector.park,
            logger=_logger,
        )
        self.least = journal.durable_lsn
        """Nobody reads before everything up to this LSN is in the catalog: what was deleted by then is not shown."""
        self._is_begun = self._is_followed
        self._catching_up = trio.Lock()

    @property
    def services(self) -> tuple[Service, ...]:
        """What runs in the background for it."""
        return (self.service,) if self._is_followed else ()

    def prepare(self) -> None:
        """Look whether the catalog that is there has seen records that the journal has not. Blocks; before `run`.

        Raises: `CorruptLog` (row 2 of recovery).
        """
        store = self.catalog.store
        if self._to_remove is not None:
            remove_file(self._to_remove)
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
        """The task: follows as long as the journal is open. Cancelled, it gives the catalog back."""
        try:
            if self._is_followed:
                await self.service.run()
            self.projector.end()
            await trio.sleep_forever()
        finally:
            self.projector.end()
            with trio.CancelScope(shield=True):
                await self.catalog.close()

    async def read(self, reading: Callable[[sqlite3.Connection], T], *, at_least: int | None = None) -> T:
        """Read from the catalog, in a worker thread, once everything up to the durable record `at_least` is in it. A
        checkpoint; cancelled, the reading is broken off.

        Raises: `InvalidInput` (`at_least` is no durable record), `Unavailable`, `Closed`.
        """
        await self._journal.catch_up()
        if at_least is not None and at_least > self._journal.durable_lsn:
            raise InvalidInput(
                f"at_least: record {at_least} is not in this memory, which ends with {self._journal.durable_lsn}; "
                "use the lsn of one of its receipts"
            )
        while True:
            if self._is_followed:
                await self.projector.wait_for(max(at_least or 0, self.least))
            else:
                await self._catch_up()
            drops = self.projector.drops
            try:
                found = await self.catalog.read(reading)
            except Unavailable:
                if drops == self.projector.drops:
                    raise
            else:
                if drops == self.projector.drops:
                    return found

    async def read_now(self, reading: Callable[[sqlite3.Connection], T]) -> T:
        """As `read`, with everything that is durable at this call."""
        await self._journal.catch_up()
        return await self.read(reading, at_least=self._journal.durable_lsn)

    async def wait_for(self, lsn: int) -> None:
        """Return once everything up to a durable LSN is in the catalog, unless nothing is yet. A checkpoint.

        Raises: `Unavailable`, `Closed`.
        """
        if self._is_followed:
            await self.projector.wait_for(lsn)
        elif self._is_begun:
            await self._catch_up()
        else:
            await trio.lowlevel.checkpoint()

    async def purge(self) -> list[str]:
        """Rewrite the file, so that nothing of rows that are gone is left in it, and say what is left all the same. A
        checkpoint. Raises: `Unavailable`, `Closed`."""
        await self.wait_for(self._journal.durable_lsn)
        if not self._is_begun:
            return []
        try:
            return await self.catalog.purge()
        except sqlite3.Error as error:
            raise self.projector.unreadable(error) from error

    async def _catch_up(self) -> None:
        """Take up what is new now, where no task does."""
        async with self._catching_up:
            if not self._is_begun and self._to_copy is not None:
                await self.catalog.write(self.catalog.store.copy_of, self._to_copy)
                await self._journal.catch_up()  # the copy may be ahead of what was known of the log
            self._is_begun = True
            try:
                await self.projector.catch_up()
            except sqlite3.Error as error:
                raise self.projector.unreadable(error) from error
