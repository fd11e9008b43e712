"""A filter as a plain SQL condition, for rows that are found by something else."""

from __future__ import annotations

import datetime as dt
from typing import Any

from stepwell.model.episode_filter import EpisodeFilter
from stepwell.model.tags import tag_key

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def condition_of(filter: EpisodeFilter) -> tuple[str, list[Any]]:
    """The condition over a row `e` of the catalog of retrieval, and its values. Without a word on archived episodes the
    filter leaves them out; its `text` is not looked at."""
    parts: list[str] = [f"e.archived = {int(bool(filter.archived))}"]
    values: list[Any] = []

    def also(condition: str, *given: Any) -> None:
        parts.append(condition)
        values.extend(given)

    for name in ("agent", "task_type", "domain", "language"):
        if (value := getattr(filter, name)) is not None:
            also(f"e.{name} = ?", value)
    if filter.status is not None:
        also("e.outcome IS NULL" if filter.status == "open" else "e.outcome IS NOT NULL")
    if filter.outcomes is not None:
        kinds = sorted(set(filter.outcomes))
        also(f"e.outcome IN ({_marks(kinds)})", *kinds)
    for column, least, below in (
        ("started_ns", filter.started_from, filter.started_before),
        ("ended_ns", filter.ended_from, filter.ended_before),
    ):
        if least is not None:
            also(f"e.{column} >= ?", _ns(least))
        if below is not None:
            also(f"e.{column} < ?", _ns(below))
    if filter.reward_from is not None:
        also("e.reward >= ?", filter.reward_from)
    if filter.reward_to is not None:
        also("e.reward <= ?", filter.reward_to)
    groups = [[tag_key(tag.strip())] for tag in filter.tags_all or ()]
    if filter.tags_any is not None:
        groups.append([tag_key(tag.strip()) for tag in filter.tags_any])
    for group in groups:
        also(
            f"EXISTS (SELECT 1 FROM json_each(e.tags) t WHERE tag_key(t.value) IN ({_marks(group)}))",
            *group,
        )
    return " AND ".join(parts), values


def _marks(values: list[Any]) -> str:
    return ", ".join("?" * len(values))


def _ns(time: dt.datetime) -> int:
    since = time - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
