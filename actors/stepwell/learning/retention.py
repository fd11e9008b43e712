"""How much an episode that is over is worth keeping."""

from __future__ import annotations

import math

QUALITY_SHARE, RECENCY_SHARE = 0.7, 0.3
RECENCY_HOURS = 24.0
HIGHEST_REWARD = 2.0
UNKNOWN_QUALITY = 0.5


def retention_relevance(reward: float | None, age_hours: float) -> float:
    """Between 0 and 1: 0.7 of it is quality, the reward over 2 (0.5 where there is none), and 0.3 recency, which falls
    by e each day since the last event."""
    return relevance_of(retention_quality(reward), age_hours)


def retention_quality(reward: float | None) -> float:
    """Between 0 and 1."""
    return UNKNOWN_QUALITY if reward is None else min(1.0, max(0.0, reward / HIGHEST_REWARD))


def relevance_of(quality: float, age_hours: float) -> float:
    """The relevance of an episode of this quality. It never falls with quality, nor rises with age."""
    return QUALITY_SHARE * quality + RECENCY_SHARE * math.exp(-max(0.0, age_hours) / RECENCY_HOURS)
