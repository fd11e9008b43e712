"""What completing an episode works out of it: reward, reflection and summary (computed in `stepwell.learning`)."""

from __future__ import annotations

import datetime as dt

import msgspec

FORMULA_VERSION = 1
"""Version of the formulas behind `CompletionAnalysis`, stored beside their results; changes when a formula does."""


class RewardScore(msgspec.Struct, frozen=True, kw_only=True):
    """The reward of an episode and the factors it was made of (reference system, section 1.5).

    `total` = max(0, base + abstention_score) x efficiency x complexity_bonus x quality_multiplier + learning_bonus.
    """

    total: float
    base: float
    efficiency: float
    complexity_bonus: float
    quality_multiplier: float
    learning_bonus: float
    abstention_score: float


class Reflection(msgspec.Struct, frozen=True, kw_only=True):
    """What went well, what to do better, and what was noticed: at most five lines each."""

    successes: list[str]
    improvements: list[str]
    insights: list[str]


class EpisodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A short account of an episode made from a template, with the words and the steps that matter most in it."""

    summary_text: str
    key_concepts: list[str]
    key_steps: list[str]


class CompletionAnalysis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is logged together with an ending. `reward` and `reflection` are None for an interrupted run."""

    reward: RewardScore | None
    reflection: Reflection | None
    summary: EpisodeSummary
    formula_version: int = FORMULA_VERSION
    created_at: dt.datetime
