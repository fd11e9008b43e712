"""The owners of all streams that are no episodes: one cell and one task for each that is awake.

A part of the supervisor, with its timers, its passivator and its nursery. A stream comes into being with its first
record; nobody starts it, and asking for one that holds nothing finds it empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import trio

from stepstore.errors import afresh
from stepstore.journal import Journal
from stepstore.journal.contract import delete
from stepwell.errors import OutcomeUnknown, Unavailable
from stepwell.model.codec import encode_record
from stepwell.model.event import CLEARED
from stepwell.model.limits import MAX_RECORD_BYTES
from stepwell.model.streams import generation_id
from stepwell.runtime.deletion import Deletion
from stepwell.runtime.reading import last_time_ns
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.stream_cell import StreamCell
from stepwell.runtime.stream_kind import StreamKind
from stepwell.runtime.stream_reading import find_generation
from stepwell.runtime.stream_task import stream_task
from stepwell.runtime.untold import called

if TYPE_CHECKING:
    from stepwell.runtime.supervisor import Supervisor


class Streams:
    """See the module."""

    def __init__(self, supervisor: Supervisor):
        self._supervisor = supervisor
        self._journal: Journal = supervisor.journal
        self._nursery: trio.Nursery | None = None
        self.cells: dict[tuple[str, str], StreamCell] = {}
        self._clearings: dict[tuple[str, str], Deletion] = {}

    def run_in(self, nursery: trio.Nursery) -> None:
        """Use `nursery` for the tasks."""
        self._nursery = nursery

    # ---- accepting ---------------------------------------------------------------------------------------------------

    async def append(self, kind: StreamKind, name: str, drafts: Sequence[Any]) -> Receipt:
        """Have drafts accepted, all of them or none. A checkpoint; cancelled, none is accepted.

        Raises: `InvalidInput`, `TooLarge`, `InvalidState`, `Unavailable`, `Closed`, `LogFull`.
        """
        cell = await self.accepting(kind, name)
        return cell.accept(drafts)

    async def accepting(self, kind: StreamKind, name: str) -> StreamCell:
        """The cell of a stream, awake and with room. A checkpoint before, none behind it.

        Cancelling the caller does not stop the waking. Raises: `Unavailable`, `Closed`, `LogFull`.
        """
        self._supervisor.check_thread()
        await trio.lowlevel.checkpoint()
        while True:
            self._supervisor.check_open()
            self._journal.check_open()
            cell = await self.awake(kind, name)
            if cell.accepting and cell.full:
                await cell.wait_room()
            if cell.accepting and not cell.full:
                self._supervisor.check_open()
                return cell

    async def awake(self, kind: StreamKind, name: str) -> StreamCell:
        """The cell of a stream, live, with its `contents` as of everything accepted. A checkpoint before, none behind.

        Not for a memory opened for reading: there another process changes what the contents are of; see `settled`.
        Raises: `Unavailable`, `Closed`.
        """
        self._supervisor.check_thread()
        await trio.lowlevel.checkpoint()
        while True:
            self._supervisor.check_open()
            clearing = self._clearings.get((kind.name, name))
            if clearing is not None:
                await clearing.wait()  # what comes now comes behind it
                continue
            cell = self.cells.get((kind.name, name)) or self._add(kind, name)
            state = await cell.wait_awake()
            if state == "draining":
                self._supervisor.passivator.cancel_drain(cell)
                state = cell.state.value
            self._supervisor.check_usable(cell, state)
            if state == "live" and cell.contents is not None and not cell.deleting:
                return cell

    @trio.lowlevel.enable_ki_protection
    def _add(self, kind: StreamKind, name: str) -> StreamCell:
        supervisor = self._supervisor
        supervisor.check_open()
        assert self._nursery is not None
        cell = StreamCell(
            kind,
            name,
            self._journal,
            supervisor.config,
            supervisor.flusher,
            supervisor.passivator.uses,
            supervisor.untold,
        )
        self.cells[kind.name, name] = cell
        supervisor.passivator.enter(cell)
        self._nursery.start_soon(self._run, cell, name=f"stepwell {kind.noun} {name}")
        return cell

    @trio.lowlevel.enable_ki_protection
    async def _run(self, cell: StreamCell) -> None:
        supervisor = self._supervisor
        try:
            await stream_task(cell, self._journal, supervisor.config.limits, supervisor.oversight, supervisor.rebuilds)
        finally:
            supervisor.passivator.leave(cell)
        # No checkpoint since it was decided to sleep: nobody has found the cell meanwhile.
        if not cell.stays_parked:
            self._forget(cell)
        supervisor.passivator.make_room()

    @trio.lowlevel.enable_ki_protection
    def _forget(self, cell: StreamCell) -> None:
        cell.close()
        place = (cell.kind.name, cell.name)
        if self.cells.get(place) is cell:
            del self.cells[place]

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def settled(self, kind: StreamKind, name: str) -> tuple[bytes, int]:
        """Where to read a stream, and its last durable number, once everything accepted before has a result.

        Wakes nothing, so it serves a memory that is opened for reading as well. A checkpoint.
        Raises: `Closed`, `RecoveryFailed`.
        """
        self._supervisor.check_thread()
        await self._journal.catch_up()
        place = (kind.name, name)
        clearing = self._clearings.get(place)
        if clearing is not None:
            await clearing.wait()
        cell = self.cells.get(place)
        if cell is not None:
            for commit in cell.pending_commits:
                await commit.wait()
        if cell is not None and cell.generation and not cell.deleting:
            stream = cell.stream
        else:
            stream = generation_id(kind.name, name, await find_generation(self._journal, kind.name, name))
        return stream, await self._journal.look_up(stream)

    # ---- clearing ----------------------------------------------------------------------------------------------------

    async def clear(self, kind: StreamKind, name: str, actor: str = "") -> None:
        """Delete everything accepted for a stream; durable on return. What is accepted from then on begins it anew.

        Clearing what holds nothing does nothing. Cancelling the caller does not stop it.
        Raises: `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        self._supervisor.check_thread()
        await trio.lowlevel.checkpoint()
        clearing = self._clearings.get((kind.name, name)) or self._begin_clearing(kind, name, actor)
        await clearing.wait()
        if clearing.error is not None:
            raise afresh(clearing.error)

    @trio.lowlevel.enable_ki_protection
    def _begin_clearing(self, kind: StreamKind, name: str, actor: str) -> Deletion:
        self._supervisor.check_open()
        self._journal.check_open(critical=True)
        assert self._nursery is not None
        clearing = self._clearings[kind.name, name] = Deletion(actor)
        self._nursery.start_soon(self._clear, kind, name, clearing, name=f"stepwell clearing of {kind.noun} {name}")
        return clearing

    @trio.lowlevel.enable_ki_protection
    async def _clear(self, kind: StreamKind, name: str, clearing: Deletion) -> None:
        error: Exception | None = None
        try:
            while (cell := self.cells.get((kind.name, name))) is not None:
                await self._stop(cell)
            generation = await find_generation(self._journal, kind.name, name)
            if generation > 1:
                # Should the key of the one before have outlived a crash, it goes now.
                await self._journal.forget(generation_id(kind.name, name, generation - 1))
            stream = generation_id(kind.name, name, generation)
            if await self._journal.look_up(stream):
                now_ns = max(time.time_ns(), await last_time_ns(self._journal, stream))
                await delete(self._journal, stream, _cleared(now_ns, clearing.actor))
            self._supervisor.untold.forget(called(name, kind.noun))
        except OSError as failure:
            error = OutcomeUnknown(
                f"{kind.noun} {name!r} is cleared, but its key may still be on the medium ({failure}); clear it again"
            )
            error.__cause__ = failure
        except Exception as failure:
            error = failure
        del self._clearings[kind.name, name]
        clearing.finish(error)

    async def _stop(self, cell: StreamCell) -> None:
        while cell.locked:
            await cell.wait_room()  # a transaction that holds it was there first
        cell.delete()
        await cell.state.wait_value(lambda value: value in ("asleep", "gone", "parked", "closed"))
        if cell.state.value == "closed":
            self._supervisor.check_usable(cell, "closed")
        self._forget(cell)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def all_cells(self) -> Iterator[StreamCell]:
        """Those that are awake, or parked."""
        return iter(list(self.cells.values()))

    async def drained(self) -> None:
        """Return once nothing accepted is without a result, and nothing is being cleared. A checkpoint."""
        await trio.lowlevel.checkpoint()
        for cell in self.all_cells():
            while cell.state.value != "parked" and cell.pending_commits:
                await cell.pending_commits[0].wait()
        for clearing in list(self._clearings.values()):
            await clearing.wait()

    @trio.lowlevel.enable_ki_protection
    def give_up(self) -> int:
        """The runtime is over: resolve everything without a result as unknown. Returns how many records that were."""
        self._nursery = None
        left = 0
        for cell in self.all_cells():
            left += sum(commit.records for commit in cell.pending_commits)
            cell.fail_pending(OutcomeUnknown("the memory was closed before this had reached the log"))
            cell.close()
            cell.state.value = "closed"
        self.cells.clear()
        for clearing in self._clearings.values():
            clearing.finish(OutcomeUnknown("the memory was closed before the clearing had reached the log"))
        self._clearings.clear()
        return left


def _cleared(time_ns: int, actor: str) -> bytes:
    """The last record of a stream that was cleared. It does not name the stream: after a purge nothing may."""
    data = {"actor": actor} if actor else {}
    return encode_record(CLEARED, time_ns, data, None, path="clearing", limit=MAX_RECORD_BYTES)


def unreadable(noun: str, name: str, error: Exception) -> Unavailable:
    """The error for a stream whose records cannot be read."""
    unavailable = Unavailable(f"{noun} {name!r} cannot be read: {error}")
    unavailable.__cause__ = error
    return unavailable
