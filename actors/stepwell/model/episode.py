"""An episode: one execution of one task, from its start to its ending, with every step between."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec

from stepwell.model.analysis import EpisodeSummary, QualityScore, Reflection, RewardScore, SalientFeatures
from stepwell.model.checkpoint import Checkpoint
from stepwell.model.context import TaskContext
from stepwell.model.outcome import TaskOutcome
from stepwell.model.step import EpisodeStep

EpisodeStatus = Literal["open", "ended"]


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one episode: a fold of the events in its stream.

    Times are aware UTC. `end_time`, `outcome`, `reward`, `reflection`, `summary`, `quality` and `salient_features` are
    None while the episode is open; an interrupted one has no reward, reflection and quality. `last_seq` is the number
    of its last record. `task_description`, `metadata` and the tags of `context` are as they were last set;
    `archived_at` is when it was archived, None if it is not.
    """

    episode_id: str
    task_description: str
    task_type: str
    context: TaskContext
    agent: str
    start_time: dt.datetime
    last_seq: int
    steps: list[EpisodeStep]
    parent: str | None = None
    thread: str | None = None
    metadata: dict[str, Any] = {}
    archived_at: dt.datetime | None = None
    checkpoints: list[Checkpoint] = []
    end_time: dt.datetime | None = None
    outcome: TaskOutcome | None = None
    outcome_metadata: dict[str, Any] = {}
    reward: RewardScore | None = None
    reflection: Reflection | None = None
    summary: EpisodeSummary | None = None
    quality: QualityScore | None = None
    salient_features: SalientFeatures | None = None
    formula_version: int | None = None

    @property
    def tags(self) -> list[str]:
        """The tags of the episode, each once without regard to case unless it was started otherwise."""
        return self.context.tags

    @property
    def archived(self) -> bool:
        """Whether the episode is archived."""
        return self.archived_at is not None

    @property
    def is_complete(self) -> bool:
        """Whether the episode has an ending."""
        return self.outcome is not None

    @property
    def status(self) -> EpisodeStatus:
        """`open` until there is an ending, then `ended`."""
        return "open" if self.outcome is None else "ended"

    @property
    def duration(self) -> dt.timedelta | None:
        """From start to ending, None while open."""
        return None if self.end_time is None else self.end_time - self.start_time

    @property
    def succeeded_steps(self) -> int:
        """How many steps' tools answered."""
        return sum(step.succeeded for step in self.steps)

    @property
    def failed_steps(self) -> int:
        """How many steps failed or timed out."""
        return sum(step.failed for step in self.steps)
