"""Checkpoints: places in an episode from which another run may go on."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model.event import utc
from stepwell.model.ids import EpisodeId, checked_id

if TYPE_CHECKING:
    from stepwell.model.organising import Checkpointed


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A place in an episode, behind its first `steps` steps.

    `checkpoint_id` finds it again, in this memory and in every copy of it; `seq` is the number of its record in the
    episode, behind everything that belongs to it. `actor` is who asked for it, and `created_at` UTC.
    """

    checkpoint_id: str
    episode_id: str
    seq: int
    steps: int
    reason: str
    note: str = ""
    actor: str = ""
    created_at: dt.datetime


def checkpoint_of(episode_id: str, seq: int, time_ns: int, record: Checkpointed) -> Checkpoint:
    """The checkpoint that a record of an episode notes."""
    return Checkpoint(
        checkpoint_id=f"{seq}@{episode_id}",
        episode_id=episode_id,
        seq=seq,
        steps=record.steps,
        reason=record.reason,
        note=record.note,
        actor=record.actor,
        created_at=utc(time_ns),
    )


def checked_checkpoint_id(checkpoint_id: object) -> tuple[EpisodeId, int]:
    """(episode, seq) that a checkpoint's id names; so it is found without looking elsewhere.

    Raises: `InvalidInput`.
    """
    seq, at, episode_id = checkpoint_id.partition("@") if isinstance(checkpoint_id, str) else ("", "", "")
    if not at or not seq.isascii() or not seq.isdigit() or len(seq) > 18:
        raise InvalidInput("checkpoint_id: must be the checkpoint_id of a Checkpoint")
    return checked_id(episode_id, "checkpoint_id"), int(seq)
