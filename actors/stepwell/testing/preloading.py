"""Episodes as an earlier life of a memory would have left them."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import Any

from stepstore.journal import Batch
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepwell.errors import InvalidInput
from stepwell.learning import analyse_completion
from stepwell.model.codec import decode_record, encode_step
from stepwell.model.ending import checked_outcome, encode_ending
from stepwell.model.event import utc
from stepwell.model.fold import EpisodeFold
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, stream_id
from stepwell.model.limits import Limits
from stepwell.model.outcome import TaskOutcome
from stepwell.model.start import checked_start, encode_start
from stepwell.model.step import ExecutionStep

_START_ARGUMENTS = ("context", "task_type", "agent", "parent", "thread", "metadata")


def earlier_episode(
    episode_id: EpisodeId,
    steps: Sequence[ExecutionStep],
    *,
    task: str,
    outcome: TaskOutcome | None,
    at: dt.datetime | None,
    arguments: dict[str, Any],
) -> list[Batch]:
    """The batches of an episode that was started, took these steps and ended with `outcome`, if there is one.

    Raises: `InvalidInput`, `TooLarge`, as the calls of a memory do.
    """
    limits = Limits()
    now = _nanoseconds(at)
    if not isinstance(steps, list | tuple):
        raise InvalidInput(f"steps: must be a list of steps, not {type(steps).__name__}")
    given = {name: arguments.pop(name, None) for name in _START_ARGUMENTS}
    given["task_type"] = given["task_type"] or "other"
    given["agent"] = given["agent"] or ""
    start = checked_start(task, context_fields=arguments, limits=limits, **given)
    payloads = [encode_start(start, episode_id, now, limits), *(encode_step(step, now, limits) for step in steps)]
    keys = [step.key for step in steps if step.key is not None]
    if len(set(keys)) < len(keys):
        raise InvalidInput("steps: two of them have one key, which no episode holds twice")
    stream = stream_id(EPISODE_STREAM, episode_id)
    batches = [Batch(stream, 1, payloads, FLAG_OPENS)]
    if outcome is not None:
        fold = EpisodeFold(episode_id)
        for seq, payload in enumerate(payloads, 1):
            fold.add(seq, seq, decode_record(payload, f"record {seq}"))
        checked = checked_outcome(outcome, limits)
        analysis = analyse_completion(fold.episode(outcome=checked, end_ns=now), now=utc(now))
        batches.append(
            Batch(stream, len(payloads) + 1, [encode_ending(checked, analysis, {}, now, limits)], FLAG_CLOSES)
        )
    return batches


def _nanoseconds(at: dt.datetime | None) -> int:
    if at is None:
        return time.time_ns()
    if not isinstance(at, dt.datetime) or at.tzinfo is None:
        raise InvalidInput("at: must be an aware datetime")
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1_000
