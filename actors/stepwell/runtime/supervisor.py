"""The supervisor: one cell per episode that is awake. It routes by id, wakes from the log, forgets what is over.

The streams that are no episodes have their cells in `Streams`, and deleting has its tasks in `Deletions`: parts of it.
"""

from __future__ import annotations

import logging
import time

import trio

from stepstore.errors import afresh
from stepstore.journal import Journal
from stepstore.restarting import RestartPolicy
from stepwell.errors import Closed, EpisodeUnavailable, InvalidState, OutcomeUnknown, StepwellError, Unavailable
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, stream_id
from stepwell.model.redaction import Redaction
from stepwell.model.start import EpisodeStart, encode_start
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.deletion import Deletions
from stepwell.runtime.episode_task import being_deleted, ended_error, episode_task
from stepwell.runtime.flusher import IntervalFlusher
from stepwell.runtime.lifecycle_events import Lifecycle
from stepwell.runtime.oversight import Oversight
from stepwell.runtime.passivation import Passivator
from stepwell.runtime.reading import not_found
from stepwell.runtime.right_loop import get_ident, wrong_loop
from stepwell.runtime.streams import Streams
from stepwell.runtime.untold import UntoldFailures, called

_logger = logging.getLogger("stepwell.runtime")

REBUILDS = 8
"""Episodes rebuilt from the log at a time; the others wait their turn, first come, first served."""


class Supervisor:
    """Owns the cells. Its episode tasks live in the nursery given to `run_in`."""

    def __init__(
        self,
        journal: Journal,
        config: MemoryConfig,
        lifecycle: Lifecycle | None = None,
        restarts: RestartPolicy | None = None,
    ):
        self.journal, self.config = journal, config
        self.lifecycle = lifecycle or Lifecycle()
        self.oversight = Oversight(restarts or RestartPolicy(), self.lifecycle)
        self.flusher = IntervalFlusher(config.batch.flush_interval_ms / 1000)
        self.passivator = Passivator(config.idle_seconds, config.max_live_episodes)
        self.rebuilds = trio.CapacityLimiter(REBUILDS)
        self.cells: dict[str, EpisodeCell] = {}
        self.untold = UntoldFailures()
        self.redaction = None if config.redact is None else Redaction(config.redact)
        self.closing = False
        self.begun = 0
        """Episodes that were begun since opening, whatever became of them."""
        self.thread = get_ident()
        self.deletions = Deletions(self)
        self.streams = Streams(self)
        self._nursery: trio.Nursery | None = None

    def run_in(self, nursery: trio.Nursery) -> None:
        """Use `nursery` for the two timers and the episode tasks."""
        self._nursery = nursery
        self.deletions.run_in(nursery)
        self.streams.run_in(nursery)
        nursery.start_soon(self.flusher.run, name="stepwell flusher")
        nursery.start_soon(self.passivator.run, name="stepwell passivator")

    def check_open(self) -> None:
        """Raises: `Closed` once the memory is closing, `WrongLoop` from another thread than that of the memory."""
        self.check_thread()
        if self.closing or self._nursery is None:
            raise Closed("the memory is closed; open it again to go on")

    def check_thread(self) -> None:
        """Raises: `WrongLoop` from another thread than that of the memory: what it holds is not made for two."""
        if get_ident() != self.thread:
            raise wrong_loop()

    @trio.lowlevel.enable_ki_protection
    def _add(self, episode_id: EpisodeId, *, fresh: bool) -> EpisodeCell:
        self.check_open()
        assert self._nursery is not None
        cell = EpisodeCell(episode_id, self.journal, self.config, self.flusher, self.passivator.uses, self.untold)
        cell.redaction = self.redaction
        if fresh:
            self.begun += 1
            cell.state.value, cell.accepting = "live", True
        self.cells[episode_id] = cell
        self.passivator.enter(cell)
        self._nursery.start_soon(self._run_episode, cell, fresh, name=f"stepwell episode {episode_id}")
        return cell

    @trio.lowlevel.enable_ki_protection
    async def _run_episode(self, cell: EpisodeCell, fresh: bool) -> None:
        try:
            await episode_task(cell, self.journal, self.config.limits, self.oversight, self.rebuilds, fresh=fresh)
        finally:
            self.passivator.leave(cell)
        # No checkpoint since it was decided to sleep: nobody has found the cell meanwhile. A parked cell stays, to say
        # why; one whose task was cancelled stays too, until `give_up` has resolved it. One that could not be read just
        # now goes: the next call tries again.
        if cell.state.value != "parked" or not isinstance(cell.failure, EpisodeUnavailable):
            cell.close()
            if self.cells.get(cell.episode_id) is cell:
                del self.cells[cell.episode_id]
            if cell.ending_request is not None:
                cell.ending_request.finish(error=not_found(cell.episode_id))  # unless it has another result
        self.passivator.make_room()

    def add_fresh(self, episode_id: EpisodeId) -> EpisodeCell:
        """A cell and a task for a new episode. In the same synchronous section its first record is to be accepted.

        Raises: `Closed`."""
        return self._add(episode_id, fresh=True)

    async def is_stored(self, episode_id: EpisodeId) -> bool:
        """Whether the log has the episode. A checkpoint."""
        stream = stream_id(EPISODE_STREAM, episode_id)
        return await self.journal.look_up(stream) > 0 and not self.journal.is_deleted(stream)

    def check_is_stored(self, episode_id: EpisodeId) -> None:
        """Raises: `NotFound` if the log does not have the episode, `InvalidState` if that is being deleted. A plain
        function; may have to read from the medium."""
        stream = stream_id(EPISODE_STREAM, episode_id)
        if not self.journal.durable_seq(stream) or self.journal.is_deleted(stream):
            raise not_found(episode_id)
        self.deletions.check_not_under_way(episode_id)

    def exists(self, episode_id: EpisodeId) -> bool:
        """As `is_stored`, or accepted and not stored yet. To be asked right behind `check_not_deleted`, and before the
        next checkpoint: two callers that start one episode must not both find that there is none."""
        return episode_id in self.cells or self.journal.durable_seq(stream_id(EPISODE_STREAM, episode_id)) > 0

    async def check_not_deleted(self, episode_id: EpisodeId) -> None:
        """Raises: `InvalidState` if there was an episode of this id and it was deleted, or is being deleted."""
        stream = stream_id(EPISODE_STREAM, episode_id)
        await self.journal.look_up(stream)
        if self.journal.is_deleted(stream):
            raise InvalidState(f"episode {episode_id!r} was deleted, and its id is never used again; use another id")
        self.deletions.check_not_under_way(episode_id)

    @trio.lowlevel.enable_ki_protection
    def start(self, episode_id: EpisodeId, start: EpisodeStart) -> EpisodeCell:
        """Begin a new episode: its cell, its task, its first record accepted. One synchronous section.

        Raises: `Closed`, `LogFull`, `TooLarge`, `InvalidInput`.
        """
        self.check_open()
        self.journal.check_open()
        now_ns = time.time_ns()
        payload = encode_start(start, episode_id, now_ns, self.config.limits)
        cell = self._add(episode_id, fresh=True)
        cell.accept_start(payload, now_ns)
        if self.lifecycle.watchers:
            self.lifecycle.tell("started", episode_id=episode_id)
        return cell

    async def awake(self, episode_id: EpisodeId) -> EpisodeCell:
        """The cell of an episode that is live or has ended, woken from the log if it was asleep. A checkpoint.

        Cancelling the caller does not stop the waking.
        Raises: `NotFound`, `InvalidState` (it is being deleted), `EpisodeUnavailable`, `Unavailable`, `Closed`.
        """
        while True:
            cell = await self.found(episode_id)
            state = await cell.wait_awake()
            if state == "draining":
                self.passivator.cancel_drain(cell)
                return cell
            if state in ("live", "ended"):
                return cell
            if state == "waking":
                continue  # it failed between waking and now
            self.check_usable(cell, state)
            if not await self.is_stored(episode_id):
                raise not_found(episode_id)

    async def found(self, episode_id: EpisodeId) -> EpisodeCell:
        """The cell of an episode, which is now being woken if it was asleep. A checkpoint before, none behind it.

        Raises: `NotFound`, `InvalidState` (it is being deleted), `Closed`.
        """
        self.check_thread()
        await trio.lowlevel.checkpoint()
        cell = self.cells.get(episode_id)
        if cell is None:
            self.check_open()
            if not await self.is_stored(episode_id):
                raise not_found(episode_id)
            self.deletions.check_not_under_way(episode_id)
            cell = self.cells.get(episode_id) or self._wake(episode_id)
        return cell

    def _wake(self, episode_id: EpisodeId) -> EpisodeCell:
        if self.lifecycle.watchers:
            self.lifecycle.tell("woken", episode_id=episode_id)
        return self._add(episode_id, fresh=False)

    @trio.lowlevel.enable_ki_protection
    def wake_to_end(self, episode_id: EpisodeId) -> EpisodeCell | None:
        """The cell of an episode that is to get its ending as the memory closes, being woken if it is asleep; None if
        there is nothing to end, or if that cannot be told. A plain function; may have to read from the medium."""
        cell = self.cells.get(episode_id)
        if cell is None and not self.closing and self._nursery is not None:
            stream = stream_id(EPISODE_STREAM, episode_id)
            try:
                is_there = self.journal.durable_seq(stream) > 0 and not self.journal.is_deleted(stream)
            except (StepwellError, OSError) as error:  # closing goes on whatever one run meets
                _logger.error("episode %r has no ending, and stays open: %s", episode_id, error)
                return None
            if is_there:
                cell = self._wake(episode_id)
        is_to_end = cell is not None and cell.is_awake and cell.ending_request is None and not cell.deleting
        return cell if is_to_end and not self.deletions.is_under_way(episode_id) else None

    async def accepting(self, episode_id: EpisodeId) -> EpisodeCell:
        """The cell of an episode that takes steps, with room for one.

        Raises: as `awake`; `InvalidState` (it has ended, or is ending).
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
                raise being_deleted(episode_id)

    async def look_again(self, episode_id: EpisodeId) -> None:
        """Wait while an episode is being rebuilt, or a transaction is about to begin it. A checkpoint.

        Raises: `EpisodeUnavailable`, `Unavailable`, `Closed`.
        """
        await trio.lowlevel.checkpoint()
        cell = self.cells.get(episode_id)
        if cell is not None:
            if cell.locked:
                await cell.wait_room()
            state = await cell.state.wait_value(lambda value: value != "waking")
            self.check_usable(cell, state)

    def check_usable(self, cell: EpisodeCell, state: str) -> None:
        """Raises: why an episode in this state cannot be used: `EpisodeUnavailable`, `Unavailable`, `Closed`."""
        if state == "parked":
            assert isinstance(cell.failure, Unavailable)
            raise afresh(cell.failure)
        if state == "closed":
            raise Closed("the memory is closed; open it again to go on")

    async def settle(self, episode_id: EpisodeId, *, catch_up: bool = True) -> None:
        """Wait until everything accepted for the episode before this call has a result. A checkpoint. `catch_up=False`
        if what is read next does that by itself."""
        self.check_thread()
        if catch_up:
            await self.journal.catch_up()
        else:
            await trio.lowlevel.checkpoint()
        cell = self.cells.get(episode_id)
        if cell is not None:
            for commit in cell.pending_commits:
                await commit.wait()

    async def flush(self, episode_id: EpisodeId | None = None) -> None:
        """Wait until everything accepted for the episode, or for all streams, has a result. A checkpoint.

        Raises: what failed of it, and what had failed before and nobody was told of (`UntoldFailures.tell`).
        """
        self.check_thread()
        await trio.lowlevel.checkpoint()
        if episode_id is None:
            cells = self.every_cell()
        else:
            cells = [self.cells[episode_id]] if episode_id in self.cells else []
        pending = [(cell, commit) for cell in cells for commit in cell.pending_commits]
        for cell, commit in pending:
            cell.make_urgent(commit)
        for _cell, commit in pending:
            await commit.wait()
        self.untold.tell(None if episode_id is None else called(episode_id))
        for _cell, commit in pending:
            if commit.error is not None:  # another caller was told of it first
                raise afresh(commit.error)

    async def settle_all(self) -> None:
        """Wait until everything accepted before this call has a result. A checkpoint."""
        self.check_thread()
        await self.journal.catch_up()
        pending = [(cell, commit) for cell in self.every_cell() for commit in cell.pending_commits]
        for cell, commit in pending:
            cell.make_urgent(commit)
        for _cell, commit in pending:
            await commit.wait()

    def every_cell(self) -> list[EpisodeCell]:
        """The cells of episodes, and of all other streams."""
        return [*self.cells.values(), *self.streams.all_cells()]

    @trio.lowlevel.enable_ki_protection
    def stop_intake(self) -> None:
        """Accept nothing from now on; what was accepted goes to the log at once."""
        self.closing = True
        for cell in self.every_cell():
            cell.stop_intake()

    async def drained(self) -> None:
        """Return once nothing accepted is without a result, and no ending and no deletion is under way."""
        for cell in list(self.cells.values()):
            while cell.state.value != "parked" and cell.pending_commits:
                await cell.pending_commits[0].wait()
            request = cell.ending_request
            if request is not None and not request.done.is_set():
                await request.done.wait()
                await self.settle(cell.episode_id)
        await self.deletions.wait_all()
        await self.streams.drained()

    @trio.lowlevel.enable_ki_protection
    def give_up(self) -> int:
        """The runtime is over: resolve everything without a result as unknown. Returns how many records that were."""
        self.closing = True
        self._nursery = None
        left = self.streams.give_up()
        for cell in list(self.cells.values()):
            left += sum(commit.records for commit in cell.pending_commits)
            cell.fail_pending(OutcomeUnknown("the memory was closed before this had reached the log"))
            if cell.ending_request is not None and not cell.ending_request.done.is_set():
                cell.ending_request.finish(error=OutcomeUnknown("the memory was closed before the ending was stored"))
            cell.close()
            cell.state.value = "closed"
        self.cells.clear()
        self.deletions.give_up(OutcomeUnknown("the memory was closed before the deletion had reached the log"))
        return left
