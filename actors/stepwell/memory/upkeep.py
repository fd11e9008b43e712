"""Deleting episodes, giving back their space, and copying a memory."""

from __future__ import annotations

import os
from dataclasses import replace

from stepstore.journal import ArchiveReport, CompactionReport, DeletionReport
from stepstore.log.purge import NOT_THE_LOGS
from stepwell.errors import InvalidInput, Unavailable
from stepwell.memory.core import MemoryCore, checked_id_in_turn
from stepwell.model import validation as check
from stepwell.runtime.right_loop import checkpoint


class Upkeep(MemoryCore):
    """The part of a memory that deletes, compacts and backs up."""

    async def delete_episode(self, episode_id: str, *, purge: bool = False, actor: str = "") -> DeletionReport | None:
        """Delete an episode: nothing reads it from now on, and its id is never used again; durable on return. With
        `purge` its bytes are removed from every file at once, and the report gives the proof; see `compact`.

        Works for one that is damaged or cannot be read as well. Its task stores what was accepted and ends first; steps
        and endings that come meanwhile are `InvalidState`. Its bytes stay in the log until they are compacted away; if
        they are encrypted, its key is destroyed at once. Deleting it again does nothing more. If cancelled the deletion
        goes on; call again to learn how it went. `actor`: who asked; it stands in the event.
        Raises: `InvalidInput`, `NotFound`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        known = await checked_id_in_turn(episode_id)
        await self._supervisor.deletions.delete(known, check.check_actor(actor))
        if not purge:
            return None
        report = await self.compact(purge=True)
        assert isinstance(report, DeletionReport)
        return report

    async def compact(self, *, purge: bool = False) -> CompactionReport:
        """Give back the space of deleted episodes and merge small files of the log, now; by itself it happens in the
        background when enough is dead. Reading and writing go on meanwhile.

        With `purge` every file that holds something of a deleted episode is rewritten, whatever it costs, and the whole
        directory is searched for what may be left of it; the report is a `DeletionReport` that says what was looked at
        and what is out of reach (archives and other copies).
        If cancelled, what is under way is thrown away; nothing is lost. Raises: `Closed`, `OSError`.
        """
        await checkpoint()
        self._supervisor.check_open()
        report = await self._journal.compact(purge=purge)
        if isinstance(report, DeletionReport):
            return await self._purge_catalogs(report)
        return report

    async def _purge_catalogs(self, report: DeletionReport) -> DeletionReport:
        """Remove what is left of deleted episodes in the catalogs as well, and add to the report what that found."""
        found, unreadable, out_of_reach = list(report.found), list(report.unreadable), list(report.out_of_reach)
        files = [projection.file for projection in self._runtime.projections]
        for projection in self._runtime.projections:
            try:
                found += [f"{projection.file}: {what}" for what in await projection.purge()]
            except Unavailable as error:
                unreadable.append(f"{projection.file}: {error}")
        if out_of_reach and out_of_reach[-1].startswith(NOT_THE_LOGS):
            others = out_of_reach.pop()[len(NOT_THE_LOGS) :].split(", ")
            if others := [name for name in others if not name.startswith(tuple(files))]:
                out_of_reach.append(NOT_THE_LOGS + ", ".join(others))
        return replace(report, found=tuple(found), unreadable=tuple(unreadable), out_of_reach=tuple(out_of_reach))

    async def backup(self, target: str | os.PathLike[str]) -> ArchiveReport:
        """Copy the memory into an archive, a new directory, while logging and reading go on.

        The archive holds everything that is durable when this is called, and every byte of it is read back and
        compared. `stepwell restore`, or `stepstore.log.archive.restore_archive`, makes a memory of it again. Keys of
        encrypted episodes are not in it; keep the directory `keys` as well.
        If this is cancelled or fails, what is left at the target is no archive; backing up to it again begins anew.
        Raises: `Closed`, `InvalidInput` (the target is neither absent nor empty, or lies inside the memory; a memory
        without a path), `CorruptLog` (a file of the log is damaged), `Unavailable` (an I/O error).
        """
        await checkpoint()
        self._supervisor.check_open()
        return await self._journal.archive(_checked_directory(target))


def _checked_directory(target: str | os.PathLike[str]) -> str:
    if not isinstance(target, str | os.PathLike):
        raise InvalidInput(f"target: must be the path of a directory, not {type(target).__name__}")
    path = os.fspath(target)
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidInput("target: must be the path of a directory")
    return os.path.abspath(path)
