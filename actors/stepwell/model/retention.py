"""Which episodes a memory is to keep, and what came of asking it to."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Literal, TypeAlias, get_args

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.episode_filter import OUTCOME_KINDS
from stepwell.model.ids import EpisodeId
from stepwell.model.limits import Limits
from stepwell.model.tags import checked_tags

Eviction: TypeAlias = Literal["relevance", "lru"]
"""Who goes first where there are too many: the least relevant (`stepwell.learning.retention`), or those whose last
event is the oldest."""
EVICTIONS: tuple[str, ...] = get_args(Eviction)


class RetentionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which ended episodes are to go. An open one never does; nor does one that is kept.

    `max_age_days`, `outcomes`, `reward_below`: those go whose last event is older than so many days, and which ended
    with one of these kinds of outcome ("failure", "interrupted", …), and whose reward is below this; what is None says
    nothing, and of an episode without a reward nothing is below. `max_episodes`: of more than so many (the open ones
    and those that are kept count as well) so many go as are too many, by `eviction`. `keep_archived`: keep what is
    archived. `keep_tags`: keep what has one of these tags.
    """

    max_age_days: float | None = None
    outcomes: tuple[str, ...] | None = None
    reward_below: float | None = None
    max_episodes: int | None = None
    eviction: Eviction = "relevance"
    keep_archived: bool = True
    keep_tags: tuple[str, ...] = ()

    @property
    def has_rule(self) -> bool:
        """Whether some go whatever the number of episodes is."""
        return any(rule is not None for rule in (self.max_age_days, self.outcomes, self.reward_below))


class EvictedEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode that went, or would go. `reason`: "policy" (its age, outcome or reward) or "capacity"."""

    episode_id: EpisodeId
    reason: Literal["policy", "capacity"]
    outcome: str
    reward: float | None
    last_time: dt.datetime


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `retain` did. `episodes`: those that went (with `dry_run`: would go), the first to go first. `has_more`:
    more are due than one call was to take. `kept`: how many episodes are left (would be left)."""

    dry_run: bool
    episodes: list[EvictedEpisode]
    has_more: bool
    kept: int

    @property
    def counts(self) -> dict[str, int]:
        """How many of `episodes` ended with each kind of outcome, the most frequent first."""
        return dict(Counter(item.outcome for item in self.episodes).most_common())


def checked_policy(policy: object, limits: Limits) -> RetentionPolicy:
    """The policy, checked. Raises: `InvalidInput`, naming the field."""
    if not isinstance(policy, RetentionPolicy):
        raise InvalidInput(f"policy: must be a RetentionPolicy, not {type(policy).__name__}")
    for name in ("max_age_days", "reward_below"):
        if (number := getattr(policy, name)) is not None:
            check.check_number(number, f"policy.{name}", minimum=0)
    if policy.max_episodes is not None:
        check.check_number(policy.max_episodes, "policy.max_episodes", minimum=0, whole=True)
    if not check.is_one_of(policy.eviction, EVICTIONS):
        raise InvalidInput(f"policy.eviction: must be 'relevance' or 'lru', not {check.shown(policy.eviction)}")
    if not isinstance(policy.keep_archived, bool):
        raise InvalidInput("policy.keep_archived: must be True or False")
    if policy.outcomes is not None:
        if not isinstance(policy.outcomes, tuple | list):
            raise InvalidInput(
                f"policy.outcomes: must be a tuple of kinds of outcome, ('failure',) for instance, not "
                f"{check.shown(policy.outcomes)}"
            )
        if not policy.outcomes:
            raise InvalidInput("policy.outcomes: must name at least one kind of outcome, or be None")
        for kind in policy.outcomes:
            if not check.is_one_of(kind, OUTCOME_KINDS):
                raise InvalidInput(f"policy.outcomes: {check.shown(kind)} is none of {', '.join(OUTCOME_KINDS)}")
    if not isinstance(policy.keep_tags, tuple | list):
        raise InvalidInput(f"policy.keep_tags: must be a tuple of tags, not {type(policy.keep_tags).__name__}")
    tags = checked_tags(list(policy.keep_tags), "policy.keep_tags", limits) if policy.keep_tags else []
    if not policy.has_rule and policy.max_episodes is None:
        raise InvalidInput("policy: says nothing; give max_age_days, outcomes, reward_below or max_episodes")
    return msgspec.structs.replace(policy, keep_tags=tuple(tags))
