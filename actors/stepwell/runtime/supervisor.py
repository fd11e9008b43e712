"""The supervisor: one cell per episode that is awake. It routes by id, wakes from the log, forgets what ended."""

from __future__ import annotations

import time

import trio

from stepstore.journal import Journal
from stepstore.journal.contract import delete
from stepwell.errors import Closed, EpisodeUnavailable, InvalidState, OutcomeUnknown
from stepwell.model.codec import encode_deleted
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, stream_id
from stepwell.model.start import EpisodeStart, encode_start
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.episode_task import ended_error, episode_task
from stepwell.runtime.flusher import IntervalFlusher
from stepwell.runtime.reading import not_found


class Supervisor:
    """Owns the cells. Its episode tasks live in the nursery given to `run_in`."""

    def __init__(self, journal: Journal, config: MemoryConfig):
        self.journal, self.config = journal, config
        self.flusher = IntervalFlusher(config.batch.flush_interval_ms / 1000)
        self.cells: dict[str, EpisodeCell] = {}
        self.closing = False
        self._deleting: dict[str, trio.Event] = {}
        self._nursery: trio.Nursery | None = None

    def run_in(self, nursery: trio.Nursery) -> None:
        """Use `nursery` for the flusher and the episode tasks."""
        self._nursery = nursery
        nursery.start_soon(self.flusher.run, name="stepwell flusher")

    def check_open(self) -> None:
        """Raises: `Closed` once the memory is closing."""
        if self.closing or self._nursery is None:
            raise Closed("the memory is closed; open it again to go on")

    @trio.lowlevel.enable_ki_protection
    def _add(self, episode_id: EpisodeId, *, fresh: bool) -> EpisodeCell:
        self.check_open()
        assert self._nursery is not None
        cell = EpisodeCell(episode_id, self.journal, self.config, self.flusher)
        if fresh:
            cell.state.value, cell.accepting = "live", True
        self.cells[episode_id] = cell
        self._nursery.start_soon(self._run_episode, cell, fresh, name=f"stepwell episode {episode_id}")
        return cell

    @trio.lowlevel.enable_ki_protection
    async def _run_episode(self, cell: EpisodeCell, fresh: bool) -> None:
        await episode_task(cell, self.journal, self.config.limits, fresh=fresh)
        # A parked cell stays, to say why; one whose task was cancelled stays too, until `give_up` has resolved it.
        if cell.state.value != "parked":
            cell.close()
            if self.cells.get(cell.episode_id) is cell:
                del self.cells[cell.episode_id]

    async def is_stored(self, episode_id: EpisodeId) -> bool:
        """Whether the log has the episode. A checkpoint."""
        stream = stream_id(EPISODE_STREAM, episode_id)
        return await self.journal.look_up(stream) > 0 and not self.journal.is_deleted(stream)

    def exists(self, episode_id: EpisodeId) -> bool:
        """As `is_stored`, or accepted and not stored yet. To be asked right behind `check_not_deleted`, and before the
        next checkpoint: two callers that start one episode must not both find that there is none."""
        return episode_id in self.cells or self.journal.durable_seq(stream_id(EPISODE_STREAM, episode_id)) > 0

    async def check_not_deleted(self, episode_id: EpisodeId) -> None:
        """Raises: `InvalidState` if there was an episode of this id and it was deleted, or is being deleted."""
        stream = stream_id(EPISODE_STREAM, episode_id)
        await self.journal.look_up(stream)
        if self.journal.is_deleted(stream) or episode_id in self._deleting:
            raise InvalidState(f"episode {episode_id!r} was deleted, and its id is never used again; use another id")

    async def delete(self, episode_id: EpisodeId) -> None:
        """Stop the episode's task once everything accepted has a result, then delete its stream; durable on return.

        Deleting again is the same as deleting once. Cancelled: whether it is deleted is unknown; call again.
        Raises: `NotFound`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        await trio.lowlevel.checkpoint()
        self.check_open()
        stream = stream_id(EPISODE_STREAM, episode_id)
        while episode_id in self._deleting:
            await self._deleting[episode_id].wait()
        done = self._deleting[episode_id] = trio.Event()
        try:
            while (cell := self.cells.get(episode_id)) is not None:
                await self._stop_for_good(cell)
            if not await self.journal.look_up(stream):
                raise not_found(episode_id)
            if self.journal.is_deleted(stream):
                await self.journal.forget(stream)
            else:
                await delete(self.journal, stream, encode_deleted(time.time_ns()))
        finally:
            del self._deleting[episode_id]
            done.set()

    async def _stop_for_good(self, cell: EpisodeCell) -> None:
        request = cell.ending_request
        if request is not None:
            await request.done.wait()
        cell.delete()
        await cell.state.wait_value(lambda value: value in ("gone", "ended", "parked", "closed"))
        if cell.state.value == "closed":
            raise Closed("the memory is closed; open it again to go on")
        if self.cells.get(cell.episode_id) is cell:
            del self.cells[cell.episode_id]
            cell.close()

    @trio.lowlevel.enable_ki_protection
    def start(self, episode_id: EpisodeId, start: EpisodeStart) -> EpisodeCell:
        """Begin a new episode: its cell, its task, its first record accepted. One synchronous section.

        Raises: `Closed`, `LogFull`, `TooLarge`, `InvalidInput`.
        """
        self.check_open()
        self.journal.check_open()
        payload = encode_start(start, episode_id, time.time_ns(), self.config.limits)
        cell = self._add(episode_id, fresh=True)
        cell.accept_start(start, payload)
        return cell

    async def awake(self, episode_id: EpisodeId) -> EpisodeCell:
        """The cell of an episode that is live or has ended, woken from the log if it was asleep. A checkpoint.

        Cancelling the caller does not stop the waking. Raises: `NotFound`, `EpisodeUnavailable`, `Closed`.
        """
        await trio.lowlevel.checkpoint()
        while True:
            cell = self.cells.get(episode_id)
            if cell is None:
                self.check_open()
                if not await self.is_stored(episode_id):
                    raise not_found(episode_id)
                if episode_id in self._deleting:
                    raise not_found(episode_id)
                cell = self.cells.get(episode_id) or self._add(episode_id, fresh=False)
            state = await cell.state.wait_value(lambda value: value != "waking")
            if state in ("live", "ended"):
                return cell
            if state == "parked":
                assert isinstance(cell.failure, EpisodeUnavailable)
                raise cell.failure
            if state == "closed":
                raise Closed("the memory is closed; open it again to go on")
            if not await self.is_stored(episode_id):
                raise not_found(episode_id)

    async def accepting(self, episode_id: EpisodeId) -> EpisodeCell:
        """The cell of an episode that takes steps, with room for one.

        Raises: `NotFound`, `InvalidState` (it has ended), `EpisodeUnavailable`, `Closed`.
        """
        while True:
            self.check_open()
            cell = await self.awake(episode_id)
            if cell.state.value == "ended":
                raise ended_error(episode_id)
            if cell.accepting and cell.full:
                await cell.wait_room()
            if cell.accepting and not cell.full:
                self.check_open()
                return cell
            if cell.ending_request is not None and cell.state.value == "live":
                raise InvalidState(f"episode {episode_id!r} is being completed and takes no more steps")
            if cell.deleting:
                raise InvalidState(f"episode {episode_id!r} is being deleted and takes no more steps")

    async def settle(self, episode_id: EpisodeId) -> None:
        """Wait until everything accepted for the episode before this call has a result. A checkpoint."""
        await self.journal.catch_up()
        cell = self.cells.get(episode_id)
        if cell is not None:
            for commit in cell.pending_commits:
                await commit.wait()

    async def settle_all(self) -> None:
        """Wait until everything accepted before this call has a result. A checkpoint."""
        await self.journal.catch_up()
        pending = [(cell, commit) for cell in self.cells.values() for commit in cell.pending_commits]
        for cell, commit in pending:
            cell.make_urgent(commit)
        for _cell, commit in pending:
            await commit.wait()

    @trio.lowlevel.enable_ki_protection
    def stop_intake(self) -> None:
        """Accept nothing from now on; what was accepted goes to the log at once."""
        self.closing = True
        for cell in list(self.cells.values()):
            cell.stop_intake()

    async def drained(self) -> None:
        """Return once nothing accepted is without a result and no ending is under way."""
        for cell in list(self.cells.values()):
            while cell.state.value != "parked" and cell.pending_commits:
                await cell.pending_commits[0].wait()
            request = cell.ending_request
            if request is not None and not request.done.is_set():
                await request.done.wait()
                await self.settle(cell.episode_id)
        await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    def give_up(self) -> int:
        """The runtime is over: resolve everything without a result as unknown. Returns how many records that were."""
        self.closing = True
        self._nursery = None
        left = 0
        for cell in list(self.cells.values()):
            left += sum(commit.records for commit in cell.pending_commits)
            cell.fail_pending(OutcomeUnknown("the memory was closed before this had reached the log"))
            if cell.ending_request is not None and not cell.ending_request.done.is_set():
                cell.ending_request.finish(error=OutcomeUnknown("the memory was closed before the ending was stored"))
            cell.close()
            cell.state.value = "closed"
        self.cells.clear()
        return left
