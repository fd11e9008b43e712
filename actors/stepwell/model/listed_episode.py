"""What a list of episodes says of each."""

from __future__ import annotations

import datetime as dt

import msgspec

from stepwell.model.context import Complexity
from stepwell.model.episode import EpisodeStatus
from stepwell.model.ids import EpisodeId


class ListedEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """One episode in a list. Times are aware UTC; `last_time` is that of its last record, whatever that is.

    `outcome` is the kind of its outcome, None while it is open; `reward` the total, None where there is none. `steps`
    and `failed_steps` count what was logged.
    """

    episode_id: EpisodeId
    status: EpisodeStatus
    outcome: str | None
    task_description: str
    task_type: str
    agent: str
    domain: str
    language: str | None
    framework: str | None
    complexity: Complexity
    tags: list[str]
    start_time: dt.datetime
    end_time: dt.datetime | None
    last_time: dt.datetime
    steps: int
    failed_steps: int
    reward: float | None
    archived: bool

    @property
    def duration(self) -> dt.timedelta | None:
        """From start to ending, None while open."""
        return None if self.end_time is None else self.end_time - self.start_time


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some episodes, and the cursor behind them: None at the end."""

    items: list[ListedEpisode]
    next_cursor: str | None
