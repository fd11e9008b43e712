"""What completing an episode works out of it: reward, reflection and summary (computed in `stepwell.learning`)."""

from __future__ import annotations

import datetime as dt

import msgspec

FORMULA_VERSION = 2
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


class QualityScore(msgspec.Struct, frozen=True, kw_only=True):
    """How much an episode has to teach, 0 to 1, and the five terms it was weighed from (reference system, section 1.7).

    A label to sort and filter by; nothing is ever refused for it.
    """

    score: float
    complexity: float
    diversity: float
    errors: float
    reflection: float
    novelty: float


class SalientFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader would mark in an episode: at most 10 decisions, 5 runs of tools, 10 recoveries, 15 insights."""

    critical_decisions: list[str] = []
    tool_combinations: list[list[str]] = []
    error_recovery_patterns: list[str] = []
    key_insights: list[str] = []


class CompletionAnalysis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is logged together with an ending. `reward`, `reflection` and `quality` are None for an
    interrupted run, `quality` and `salient_features` also where they were not worked out yet (formula version 1)."""

    reward: RewardScore | None
    reflection: Reflection | None
    summary: EpisodeSummary
    quality: QualityScore | None = None
    salient_features: SalientFeatures | None = None
    formula_version: int = FORMULA_VERSION
    created_at: dt.datetime
