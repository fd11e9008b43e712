"""Deleting episodes: each by a task of its own, which the callers that asked share.

A deletion that was begun is carried through whoever is cancelled: the episode's task has to end first, and what was
accepted of it has a result before its stream goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from stepstore.errors import afresh
from stepstore.journal.contract import delete
from stepwell.errors import OutcomeUnknown
from stepwell.model.codec import encode_deleted
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, stream_id
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.episode_task import being_deleted
from stepwell.runtime.reading import last_time_ns, not_found
from stepwell.runtime.untold import called

if TYPE_CHECKING:
    from stepwell.runtime.supervisor import Supervisor


class Deletion:
    """What became of a deletion. All who ask while it is under way share it; `actor` is who asked first."""

    def __init__(self, actor: str = "") -> None:
        self.actor = actor
        self.error: BaseException | None = None
        self._done = trio.Event()

    def finish(self, error: BaseException | None = None) -> None:
        """Say that it is over; the first word counts."""
        if not self._done.is_set():
            self.error = error
            self._done.set()

    async def wait(self) -> None:
        """Return once it is over. Cancelling the caller does not stop it."""
        await self._done.wait()


class Deletions:
    """Those of a supervisor that are under way. Their tasks live in the nursery given to `run_in`."""

    def __init__(self, supervisor: Supervisor):
        self._supervisor = supervisor
        self._journal = supervisor.journal
        self.under_way: dict[str, Deletion] = {}
        self.on_deleted: Callable[[], None] = lambda: None
        """Called when a deletion may have become durable, before anybody is told."""
        self._nursery: trio.Nursery | None = None

    def run_in(self, nursery: trio.Nursery) -> None:
        """Use `nursery` for the tasks."""
        self._nursery = nursery

    def is_under_way(self, episode_id: EpisodeId) -> bool:
        """Whether this episode is being deleted."""
        return episode_id in self.under_way

    def check_not_under_way(self, episode_id: EpisodeId) -> None:
        """Raises: `InvalidState` if this episode is being deleted."""
        if episode_id in self.under_way:
            raise being_deleted(episode_id)

    async def delete(self, episode_id: EpisodeId, actor: str = "") -> None:
        """Stop the episode's task once everything accepted has a result, then delete its stream; durable on return.

        Deleting again is the same as deleting once. Cancelling the caller does not stop it.
        Raises: `NotFound`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        await trio.lowlevel.checkpoint()
        self._check_allowed()
        is_stored = await self._journal.look_up(stream_id(EPISODE_STREAM, episode_id)) > 0
        if not is_stored and episode_id not in self._supervisor.cells:
            raise not_found(episode_id)
        deletion = self.under_way.get(episode_id) or self._begin(episode_id, actor)
        await deletion.wait()
        if deletion.error is not None:
            raise afresh(deletion.error)

    async def delete_several(self, episode_ids: Sequence[EpisodeId], actor: str) -> list[BaseException | None]:
        """As `delete`, for episodes that are stored, all at once. Gives for each why it could not be, or None.

        Raises: `Closed`, `LogFull`; then none is deleted.
        """
        await trio.lowlevel.checkpoint()
        begun = [self.under_way.get(name) or self._begin(name, actor) for name in episode_ids]
        for deletion in begun:
            await deletion.wait()
        return [deletion.error for deletion in begun]

    def _check_allowed(self) -> None:
        self._supervisor.check_open()
        self._journal.check_open(critical=True)

    @trio.lowlevel.enable_ki_protection
    def _begin(self, episode_id: EpisodeId, actor: str) -> Deletion:
        self._check_allowed()
        assert self._nursery is not None
        deletion = self.under_way[episode_id] = Deletion(actor)
        self._nursery.start_soon(self._delete, episode_id, deletion, name=f"stepwell deletion of {episode_id}")
        return deletion

    @trio.lowlevel.enable_ki_protection
    async def _delete(self, episode_id: EpisodeId, deletion: Deletion) -> None:
        stream, supervisor = stream_id(EPISODE_STREAM, episode_id), self._supervisor
        error: Exception | None = None
        try:
            while (cell := supervisor.cells.get(episode_id)) is not None:
                await self._stop_for_good(cell)
            if not await self._journal.look_up(stream):
                raise not_found(episode_id)  # its start did not reach the log
            if self._journal.is_deleted(stream):
                await self._journal.forget(stream)
            else:
                now_ns = max(time.time_ns(), await last_time_ns(self._journal, stream))
                await delete(self._journal, stream, encode_deleted(now_ns, deletion.actor))
                supervisor.untold.forget(called(episode_id))
                if supervisor.lifecycle.watchers:
                    supervisor.lifecycle.tell("deleted", episode_id=episode_id)
        except OSError as failure:
            error = OutcomeUnknown(
                f"episode {episode_id!r} is deleted, but its key may still be on the medium ({failure}); delete it "
                "again, or open the memory anew"
            )
            error.__cause__ = failure
        except Exception as failure:
            error = failure
        self.on_deleted()
        del self.under_way[episode_id]
        deletion.finish(error)

    async def _stop_for_good(self, cell: EpisodeCell) -> None:
        while (request := cell.ending_request) is not None and not request.done.is_set():
            await request.done.wait()
        cell.delete()
        await cell.state.wait_value(lambda value: value in ("asleep", "gone", "ended", "parked", "closed"))
        if cell.state.value == "closed":
            self._supervisor.check_usable(cell, "closed")
        await cell.settle()  # one that has ended may have been organised since
        cells = self._supervisor.cells
        if cells.get(cell.episode_id) is cell:
            del cells[cell.episode_id]
            cell.close()

    async def wait_all(self) -> None:
        """Return once those that are under way now are over."""
        for deletion in list(self.under_way.values()):
            await deletion.wait()

    @trio.lowlevel.enable_ki_protection
    def give_up(self, error: Exception) -> None:
        """Tell all who still wait that their deletion is not known to have been made."""
        for deletion in self.under_way.values():
            deletion.finish(error)
        self.under_way.clear()
