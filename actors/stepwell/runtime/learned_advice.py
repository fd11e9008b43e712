"""What the learner's tables say of advice and of skills, as values. Each function is a reading of the catalog."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from stepwell.learning.intervals import success_interval
from stepwell.model.context import TaskContext
from stepwell.model.event import utc
from stepwell.model.pattern import WHOLE, AdviceRecord
from stepwell.model.recommendation import RecommendationStats
from stepwell.model.skill import Skill


def advice_records(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, AdviceRecord]:
    """What became of each pattern (or skill) as advice; nothing for one that was never recommended."""
    rows = connection.execute(
        f"""
        SELECT a.advised, count(*), coalesce(sum(a.applied = 1), 0), coalesce(sum(a.applied = 0), 0),
            coalesce(sum(a.applied = 1 AND r.success IS NOT NULL), 0),
            coalesce(sum(CASE WHEN a.applied = 1 THEN r.success END), 0)
        FROM advice a JOIN recommendation r ON r.id = a.recommendation
        WHERE a.advised IN ({", ".join("?" * len(names))}) GROUP BY a.advised
        """,
        list(names),
    )
    return {
        name: AdviceRecord(
            recommended=recommended, applied=applied, ignored=ignored, judged=judged, helped=helped / WHOLE
        )
        for name, recommended, applied, ignored, judged, helped in rows
    }


def recommendation_stats(connection: sqlite3.Connection) -> RecommendationStats:
    """How all recommendations together did."""
    given, judged, rating = connection.execute(
        "SELECT count(*), coalesce(sum(feedback_seq > 0), 0), avg(rating) FROM recommendation"
    ).fetchone()
    applied, ignored, told, helped = connection.execute(
        "SELECT coalesce(sum(a.applied = 1), 0), coalesce(sum(a.applied = 0), 0), "
        "coalesce(sum(a.applied = 1 AND r.success IS NOT NULL), 0), "
        "coalesce(sum(CASE WHEN a.applied = 1 THEN r.success END), 0) "
        "FROM advice a JOIN recommendation r ON r.id = a.recommendation"
    ).fetchone()
    return RecommendationStats(
        recommendations=given,
        with_feedback=judged,
        applied=applied,
        ignored=ignored,
        adoption=applied / (applied + ignored) if applied + ignored else None,
        success_after_adoption=helped / WHOLE / told if told else None,
        mean_rating=rating,
    )


_SKILL = "s.id, s.skill_id, s.name, s.content, s.created_ns, s.updated_ns"


def skills(connection: sqlite3.Connection, *, skill_id: str | None = None, name: str | None = None) -> list[Skill]:
    """Skills, all of them or those with an id or a name, in the order in which they were stored."""
    where, values = "", list[str]()
    if skill_id is not None:
        where, values = "WHERE s.skill_id = ?", [skill_id]
    elif name is not None:
        where, values = "WHERE s.name = ?", [name]
    rows = connection.execute(f"SELECT {_SKILL} FROM skill s {where} ORDER BY s.id", values).fetchall()
    uses = {
        key: found
        for key, *found in connection.execute(
            "SELECT skill, count(*), count(success), coalesce(sum(success), 0) FROM skill_use GROUP BY skill"
        )
    }
    return [_skill(row, uses.get(row[0], (0, 0, 0))) for row in rows]


def _skill(row: Sequence[Any], uses: Sequence[int]) -> Skill:
    data = json.loads(row[3])
    count, judged, wins = uses
    return Skill(
        skill_id=row[1],
        name=row[2],
        description=data.get("description", ""),
        steps=data.get("steps", []),
        context=msgspec.convert(data.get("context", {}), TaskContext),
        sources=data.get("sources", []),
        metadata=data.get("metadata", {}),
        created_at=utc(row[4]),
        updated_at=utc(row[5]),
        uses=count,
        judged=judged,
        helped=wins / WHOLE,
        confidence=success_interval(wins, judged).low,
    )
