"""A procedural skill: steps that somebody wrote down under a name, and how they did when they were used."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from stepwell.model.context import TaskContext

SKILL_STREAM = "skill"
SKILL_STORED, SKILL_USED = "skill", "skill_used"
"""Kinds of the records of a skill's stream."""


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """A skill. `steps` say in order what to do; `sources` are ids of episodes or patterns that it comes from.

    `uses` counts how often somebody said that it was used, `judged` those whose outcome tells, `helped` the sum of
    their success; `confidence` is the lower bound of that (95 %), by which skills are ranked beside how they match.
    """

    skill_id: str
    name: str
    description: str
    steps: list[str]
    context: TaskContext
    sources: list[str]
    metadata: dict[str, Any]
    created_at: dt.datetime
    updated_at: dt.datetime
    uses: int = 0
    judged: int = 0
    helped: float = 0.0
    confidence: float = 0.0


class SkillMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A skill that was found: `score`, and how much of it is the text (`similar`), context and use."""

    skill: Skill
    score: float
    similar: float
    why: str
