"""Folds recommendations, feedback and skills into changes of the learner's tables."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from stepstore.catalog import Change
from stepstore.journal import Record
from stepwell.errors import EpisodeUnavailable
from stepwell.learning.extraction import success_of
from stepwell.model.codec import DecodedRecord, decode_record
from stepwell.model.ids import stream_id
from stepwell.model.outcome import TaskOutcome
from stepwell.model.recommendation import FEEDBACK, RECOMMENDATION_STREAM, RECOMMENDED
from stepwell.model.skill import SKILL_STORED, SKILL_STREAM
from stepwell.runtime import learning_tables as tables


class _Recommended(msgspec.Struct, frozen=True):
    advice: list[str]


class _Judged(msgspec.Struct, frozen=True):
    applied: list[str] = []
    outcome: TaskOutcome | None = None
    rating: float | None = None


class AdviceFold:
    """What was advised, what became of it, and which skills there are. What is not sound changes nothing."""

    def __init__(self) -> None:
        self._recommended: list[tuple[bytes, int]] = []
        self._advised: list[tuple[bytes, str]] = []
        self._feedback: dict[bytes, tuple[Any, ...]] = {}
        self._skills: dict[bytes, tuple[Any, ...]] = {}
        self._uses: list[tuple[bytes, int, int | None]] = []

    def take(self, kind: str, record: Record) -> None:
        """Take up one record of one of these kinds."""
        try:
            decoded = decode_record(record.payload, "a record")
            if kind == RECOMMENDED:
                self._take_recommendation(record, decoded)
            elif kind == FEEDBACK:
                judged = msgspec.convert(decoded.data, _Judged)
                applied = json.dumps(judged.applied)
                values = (record.stream, record.seq, success_of(judged.outcome), judged.rating, applied)
                self._feedback[record.stream] = values  # records come in order: the newest counts
            elif kind == SKILL_STORED:
                self._take_skill(record, decoded)
            else:
                judged = msgspec.convert(decoded.data, _Judged)
                self._uses.append((record.stream, record.seq, success_of(judged.outcome)))
        except (EpisodeUnavailable, msgspec.ValidationError):
            return

    def _take_recommendation(self, record: Record, decoded: DecodedRecord) -> None:
        if _name(record, decoded, RECOMMENDATION_STREAM) is None:
            return
        advised = msgspec.convert(decoded.data, _Recommended).advice
        self._recommended.append((record.stream, decoded.time_ns))
        self._advised += [(record.stream, name) for name in advised]

    def _take_skill(self, record: Record, decoded: DecodedRecord) -> None:
        name = decoded.data.get("name")
        skill_id = decoded.data.get("skill_id")
        if not isinstance(name, str) or not isinstance(skill_id, str):
            return
        if stream_id(SKILL_STREAM, skill_id) != record.stream:
            return
        content = json.dumps(decoded.data, ensure_ascii=False)
        at = decoded.time_ns
        earlier = self._skills.get(record.stream)
        created = at if earlier is None else earlier[5]
        self._skills[record.stream] = (record.stream, skill_id, name, content, record.seq, created, at)

    def changes(self) -> list[Change]:
        """What to change for what was taken up since."""
        feedback = list(self._feedback.values())
        found = [
            Change(tables.ADD_RECOMMENDATION, self._recommended),
            Change(tables.ADD_ADVICE, self._advised),
            Change(tables.ADD_FEEDBACK, feedback),
            Change(tables.APPLY_ADVICE, feedback),
            Change(tables.ADD_SKILL, list(self._skills.values())),
            Change(tables.ADD_SKILL_USE, self._uses),
        ]
        self._recommended, self._advised, self._feedback, self._skills, self._uses = [], [], {}, {}, []
        return found


def _name(record: Record, decoded: DecodedRecord, kind: str) -> str | None:
    """The name that the first record of a stream gives, if it is that of this stream."""
    meta = decoded.meta or {}
    name = meta.get("id")
    if record.seq != 1 or meta.get("stream") != kind or not isinstance(name, str):
        return None
    return name if stream_id(kind, name) == record.stream else None
