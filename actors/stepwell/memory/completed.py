"""What `complete` returns."""

from __future__ import annotations

import msgspec

from stepwell.errors import OutcomeUnknown
from stepwell.model.analysis import EpisodeSummary, Reflection, RewardScore
from stepwell.model.ids import EpisodeId
from stepwell.model.outcome import TaskOutcome
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.receipt import Receipt


class CompletedEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode that has ended, durably. `reward` and `reflection` are None for an interrupted one."""

    episode_id: EpisodeId
    outcome: TaskOutcome
    reward: RewardScore | None
    reflection: Reflection | None
    summary: EpisodeSummary
    receipt: Receipt


def completed(episode_id: EpisodeId, request: EndingRequest) -> CompletedEpisode:
    """What a request that was met says. Raises: `OutcomeUnknown` if that is not known."""
    ending = request.ending
    if ending is None or request.receipt is None:
        raise OutcomeUnknown(f"episode {episode_id!r} was completed, but its ending is not known")
    return CompletedEpisode(
        episode_id=episode_id,
        outcome=ending.outcome,
        reward=ending.reward,
        reflection=ending.reflection,
        summary=ending.summary,
        receipt=request.receipt,
    )
