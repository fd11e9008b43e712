"""Which episodes a list shows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.episode import EpisodeStatus

OutcomeKind = Literal["success", "partial_success", "failure", "abstained", "interrupted"]
TextMatch = Literal["words", "substring", "exact"]
OUTCOME_KINDS: tuple[str, ...] = OutcomeKind.__args__  # type: ignore[attr-defined]
_NAMES = ("agent", "task_type", "domain", "language")
_TIMES = ("started_from", "started_before", "ended_from", "ended_before")
_MOST_VALUES = 100
_TEXT_BYTES = 10_000


@dataclass(frozen=True, kw_only=True)
class EpisodeFilter:
    """Every condition that is given must hold; none of them is every episode.

    `status`: "open" or "ended". `outcomes`: kinds of outcomes, one of which it has. `agent`, `task_type`, `domain`,
    `language`: equal, case counts. `tags_any`, `tags_all`: tags, case does not count. `started_from` <= start <
    `started_before`, and so for the ending: aware datetimes. `reward_from` <= total reward <= `reward_to`: episodes
    without a reward are left out. `archived`: only archived ones, or only others.

    `text` is looked for in the task description: all of its words in any order ("words", case and accents do not
    count; what looks like a query language is taken as it stands), as a piece of it ("substring", case does not count;
    this reads every description that the other conditions leave), or as all of it ("exact").
    """

    status: EpisodeStatus | None = None
    outcomes: Collection[OutcomeKind] | None = None
    agent: str | None = None
    task_type: str | None = None
    domain: str | None = None
    language: str | None = None
    tags_any: Collection[str] | None = None
    tags_all: Collection[str] | None = None
    started_from: dt.datetime | None = None
    started_before: dt.datetime | None = None
    ended_from: dt.datetime | None = None
    ended_before: dt.datetime | None = None
    reward_from: float | None = None
    reward_to: float | None = None
    archived: bool | None = None
    text: str | None = None
    text_match: TextMatch = "words"


def checked_filter(value: object) -> EpisodeFilter:
    """`value` if it is a filter without a mistake; None is one without conditions.

    Raises: `InvalidInput`, `TooLarge`, naming the field.
    """
    if value is None:
        return EpisodeFilter()
    if type(value) is not EpisodeFilter:
        raise InvalidInput(f"filter: must be an EpisodeFilter, not {type(value).__name__}")
    _check_one_of(value.status, "filter.status", ("open", "ended"))
    _check_one_of(value.text_match, "filter.text_match", TextMatch.__args__)  # type: ignore[attr-defined]
    if value.outcomes is not None:
        for place, kind in enumerate(_several(value.outcomes, "filter.outcomes")):
            if kind is None or not isinstance(kind, str):
                raise InvalidInput(f"filter.outcomes[{place}]: must be text, not {check.shown(kind)}")
            _check_one_of(kind, f"filter.outcomes[{place}]", OUTCOME_KINDS)
    for name in ("tags_any", "tags_all"):
        if (tags := getattr(value, name)) is not None:
            for place, tag in enumerate(_several(tags, f"filter.{name}")):
                _check_text(tag, f"filter.{name}[{place}]", empty=False)
    for name in _NAMES:
        if (text := getattr(value, name)) is not None:
            _check_text(text, f"filter.{name}")
    if value.text is not None:
        _check_text(value.text, "filter.text", empty=False)
    for name in _TIMES:
        _check_time(getattr(value, name), f"filter.{name}")
    for name in ("reward_from", "reward_to"):
        if (number := getattr(value, name)) is not None:
            check.check_number(number, f"filter.{name}")
    if value.archived is not None and type(value.archived) is not bool:
        raise InvalidInput(f"filter.archived: must be True, False or None, not {check.shown(value.archived)}")
    return value


def _check_one_of(value: object, path: str, allowed: tuple[str, ...]) -> None:
    if value is not None and not (isinstance(value, str) and value in allowed):
        raise InvalidInput(f"{path}: must be one of {', '.join(allowed)}, not {check.shown(value)}")


def _several(value: object, path: str) -> list[object]:
    if isinstance(value, str | bytes) or not isinstance(value, list | tuple | set | frozenset):
        raise InvalidInput(f"{path}: must be a list of texts, not {type(value).__name__}")
    if not 0 < len(value) <= _MOST_VALUES:
        raise InvalidInput(f"{path}: must name 1 to {_MOST_VALUES}, not {len(value)}; None is no condition")
    return list(value)


def _check_text(value: object, path: str, *, empty: bool = True) -> None:
    check.check_text(value, path, _TEXT_BYTES, empty=empty)
    if bad := check.find_bad_text(value, path):
        raise InvalidInput(bad)


def _check_time(value: object, path: str) -> None:
    if value is None:
        return
    if not isinstance(value, dt.datetime):
        raise InvalidInput(f"{path}: must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidInput(f"{path}: must have a time zone; use datetime.now(timezone.utc), or .astimezone()")
