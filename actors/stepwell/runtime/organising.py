"""Organising an episode: a change of it goes through its cell, like everything that is stored in its stream.

An episode that has ended is woken for it, and its task stays until the change is stored.
"""

from __future__ import annotations

from stepwell.errors import InvalidState
from stepwell.model.ids import EpisodeId
from stepwell.model.organising import Change
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.episode_task import being_deleted
from stepwell.runtime.reading import fold_episode
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.supervisor import Supervisor

PLACE_TO_GO_ON_FROM = "a checkpoint, a place to go on from,"
"""What is made in open episodes only, in words."""


async def organise(
    supervisor: Supervisor, episode_id: EpisodeId, change: Change, *, only_open: str = ""
) -> Receipt | None:
    """Make a change of an episode, behind everything accepted for it; durable on return. A checkpoint.

    None if nothing had to be changed; what it rests on is durable then. If cancelled, whether it is made is unknown.
    With `only_open`, a few words for what is made, not if the episode has ended.
    Raises: `NotFound`, `InvalidState` (it is being deleted, or has ended, or what `change` refuses), `TooLarge`,
    `InvalidInput`, `EpisodeUnavailable`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
    """
    receipt, cell = await _accepted(supervisor, episode_id, change, only_open)
    if receipt is None:
        for commit in cell.pending_commits:
            await commit.reach_log()
    else:
        await receipt.reach_log()
    return receipt


async def _accepted(
    supervisor: Supervisor, episode_id: EpisodeId, change: Change, only_open: str
) -> tuple[Receipt | None, EpisodeCell]:
    while True:
        cell = await supervisor.found(episode_id)
        cell.want()  # its task is still there, and now it stays
        try:
            if await takes_changes(supervisor, cell):
                check_open(cell, only_open)
                return cell.accept_change(change), cell
        finally:
            cell.unwant()


def check_open(cell: EpisodeCell, only_open: str) -> None:
    """Raises: `InvalidState` if the episode has ended and `only_open` says what is of an open one only."""
    if only_open and cell.state.value == "ended":
        raise InvalidState(f"episode {cell.episode_id!r} has ended; {only_open} is of an open episode only")


async def takes_changes(supervisor: Supervisor, cell: EpisodeCell) -> bool:
    """Wait until the episode takes changes, which it does until the next checkpoint. False if there is none any more.

    Raises: as `organise`.
    """
    while True:
        state = await cell.wait_awake()
        if state == "waking":
            continue  # it failed between waking and now
        if state == "draining":
            supervisor.passivator.cancel_drain(cell)
            state = cell.state.value
        supervisor.check_usable(cell, state)
        if state not in ("live", "ended"):
            return False
        if cell.deleting:
            raise being_deleted(cell.episode_id)
        supervisor.check_open()
        if state == "live" and cell.ending_request is not None:
            await cell.ending_request.done.wait()
        elif cell.full:
            await cell.wait_room()
        elif cell.organisation is None:
            await _look(supervisor, cell)
        else:
            return True


async def _look(supervisor: Supervisor, cell: EpisodeCell) -> None:
    """Find out how an episode is organised whose cell does not know it: it was started since the memory was opened."""
    await cell.settle()
    fold, _keyed = await fold_episode(supervisor.journal, cell.episode_id)
    # Without it no change is accepted, so what was read is the newest, unless somebody else was faster.
    if cell.organisation is None and cell.state.value in ("live", "draining", "ended"):
        cell.organisation = fold.organisation
