"""What `complete` returns."""

from __future__ import annotations

import msgspec

from stepwell.model.analysis import EpisodeSummary, Reflection, RewardScore
from stepwell.model.ids import EpisodeId
from stepwell.model.outcome import TaskOutcome
from stepwell.runtime.receipt import Receipt


class CompletedEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode that has ended, durably. `reward` and `reflection` are None for an interrupted one."""

    episode_id: EpisodeId
    outcome: TaskOutcome
    reward: RewardScore | None
    reflection: Reflection | None
    summary: EpisodeSummary
    receipt: Receipt
