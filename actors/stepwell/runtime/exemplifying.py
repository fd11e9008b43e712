"""Examples for advice: the calls that an episode's steps made, read from the log."""

from __future__ import annotations

from stepstore.errors import Damaged, Forked, KeyDestroyed
from stepstore.journal import Journal
from stepwell.errors import EpisodeUnavailable
from stepwell.learning.operations import call_text, operation_of
from stepwell.model.codec import decode_record
from stepwell.model.event import STEP
from stepwell.model.fold import EpisodeFold
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.pattern import WHOLE
from stepwell.model.recommendation import Example
from stepwell.model.step import EpisodeStep
from stepwell.runtime.learned import Shown

TAIL_RECORDS = 12
TELLING_CHARACTERS = 16
_UNREADABLE = (EpisodeUnavailable, Damaged, Forked, KeyDestroyed)


async def example_of(journal: Journal, shown: Shown) -> Example | None:
    """The call that failed at the first of the steps shown, and the first one that worked behind it: one of the steps
    shown, or the same operation, or any. Where none failed, the last of the calls that worked. None if the episode
    cannot be read any more.

    A checkpoint. Raises: `RecoveryFailed`, `Unavailable`, `InvalidInput`, `Closed`.
    """
    if not shown.seqs:
        return None
    try:
        steps = await _steps_from(journal, shown.episode_id, min(shown.seqs))
    except _UNREADABLE:
        return None
    at = {step.seq: step for step in steps}
    failed = next((at[seq] for seq in shown.seqs if seq in at and at[seq].failed), None)
    if failed is not None:
        behind = [step for step in steps if step.seq > failed.seq and step.succeeded]
        kin = [step for step in behind if step.seq in shown.seqs or operation_of(step) == operation_of(failed)]
        worked = next(iter(kin or behind), None)
    else:
        worked = next((at[seq] for seq in reversed(shown.seqs) if seq in at and at[seq].succeeded), None)
    return Example(
        episode_id=shown.episode_id,
        seqs=shown.seqs,
        success=None if shown.success is None else shown.success / WHOLE,
        failed="" if failed is None else call_text(failed),
        worked="" if worked is None else call_text(worked),
    )


async def answer_of(journal: Journal, episode_id: str, last_seq: int) -> str:
    """The last call of an episode that worked, "" if none of the last ones did. A checkpoint. Raises: as above."""
    try:
        steps = await _steps_from(journal, episode_id, max(1, last_seq - TAIL_RECORDS))
    except _UNREADABLE:
        return ""
    calls = [call_text(step) for step in steps if step.succeeded]
    telling = [call for call in calls if len(call) >= TELLING_CHARACTERS]
    return (telling or calls or [""])[-1]


async def _steps_from(journal: Journal, episode_id: str, seq: int) -> list[EpisodeStep]:
    """The steps in the next slice of an episode from a record on."""
    found = await journal.read(stream_id(EPISODE_STREAM, episode_id), seq - 1).next_slice()
    fold = EpisodeFold(episode_id)
    for record in found:
        decoded = decode_record(record.payload, f"record {record.seq} of episode {episode_id!r}")
        if decoded.kind == STEP:
            fold.add(record.seq, record.lsn, decoded)
    return fold.steps
