"""The catalog of episodes: its tables, and the fold that fills them from the log.

One row per episode. Its key is the time at which it started, in microseconds and with ten bits of its stream id to
tell apart what starts at once: so the order of every index, and of the full text, is that of a list by start time, and
a page is read off any of them without sorting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stepstore.catalog import CatalogSchema, Change, FullText, Table
from stepstore.journal import Gap, Record
from stepwell.errors import EpisodeUnavailable
from stepwell.model.analysis import RewardScore
from stepwell.model.codec import DecodedRecord, decode_record, decode_records, is_failed_step, step_time_ns
from stepwell.model.episode_filter import folded_tag
from stepwell.model.event import DELETED, ENDED, STARTED, STEP
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.outcome import TaskOutcome, outcome_kind
from stepwell.model.start import EpisodeStart, decode_start

KEY_BITS = 10
"""Bits of a key below the microseconds."""
_LARGEST_US = 2**52
_FOLD_VERSION = 1

EPISODE = Table(
    name="episode",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "stream": "BLOB NOT NULL UNIQUE",
        "episode_id": "TEXT NOT NULL",
        "task": "TEXT",  # NULL where text must not be kept: the log has it
        "task_type": "TEXT NOT NULL",
        "agent": "TEXT NOT NULL",
        "domain": "TEXT NOT NULL",
        "language": "TEXT",
        "framework": "TEXT",
        "complexity": "TEXT NOT NULL",
        "tags": "TEXT NOT NULL",  # a JSON array, case kept
        "started_ns": "INTEGER NOT NULL",
        "last_ns": "INTEGER NOT NULL",
        "last_seq": "INTEGER NOT NULL",
        "steps": "INTEGER NOT NULL",
        "failed_steps": "INTEGER NOT NULL",
        "ended_ns": "INTEGER",
        "outcome": "TEXT",
        "reward": "REAL",
        "archived": "INTEGER NOT NULL DEFAULT 0",
    },
    indexes=(
        "(agent)",
        "(task_type)",
        "(domain)",
        "(language) WHERE language IS NOT NULL",
        "(outcome)",
        "(ended_ns) WHERE ended_ns IS NOT NULL",
        "(reward) WHERE reward IS NOT NULL",
        "(last_ns)",
        "(archived) WHERE archived = 1",
    ),
)
EPISODE_TAG = Table(
    name="episode_tag",
    columns={"tag": "TEXT NOT NULL", "episode": "INTEGER NOT NULL"},
    key=("tag", "episode"),
    indexes=("(episode)",),
    belongs_to=("episode", "episode"),
)
EPISODE_TEXT = FullText(name="episode_text", table="episode", columns=("task",))


def episode_schema(*, keep_text: bool) -> CatalogSchema:
    """The schema; a catalog that may keep text is another than one that must not."""
    return CatalogSchema(
        version=2 * _FOLD_VERSION + keep_text, tables=(EPISODE, EPISODE_TAG), full_texts=(EPISODE_TEXT,)
    )


def key_of(started_ns: int, stream: bytes) -> int:
    """The key of an episode, unless another has it."""
    started_us = max(-_LARGEST_US, min(started_ns // 1000, _LARGEST_US - 1))
    return started_us << KEY_BITS | int.from_bytes(stream[:2], "big") & (1 << KEY_BITS) - 1


_COLUMNS = tuple(name for name in EPISODE.columns if name not in ("archived",))
# A key that is taken (two starts in one microsecond, and ten equal bits) moves up to the next that is free; what of one
# statement wants the same then is added when it is repeated.
_ADD = f"""
    INSERT INTO episode ({", ".join(_COLUMNS)})
    WITH new ({", ".join(_COLUMNS)}) AS ({{values}})
    SELECT (
        WITH RECURSIVE free (key) AS (
            SELECT new.id UNION ALL SELECT key + 1 FROM free WHERE EXISTS (SELECT 1 FROM episode WHERE id = key)
        )
        SELECT max(key) FROM free
    ), {", ".join(_COLUMNS[1:])}
    FROM new WHERE NOT EXISTS (SELECT 1 FROM episode WHERE stream = new.stream)
    ON CONFLICT DO NOTHING"""
_ADD_TAG = """
    INSERT OR IGNORE INTO episode_tag
    WITH new (stream, tag) AS ({values})
    SELECT new.tag, episode.id FROM new JOIN episode ON episode.stream = new.stream"""
_CHANGE = """
    WITH new (stream, last_ns, last_seq, steps, failed_steps, ended_ns, outcome, reward) AS ({values})
    UPDATE episode SET
        last_ns = max(episode.last_ns, new.last_ns), last_seq = new.last_seq,
        steps = episode.steps + new.steps, failed_steps = episode.failed_steps + new.failed_steps,
        ended_ns = coalesce(new.ended_ns, episode.ended_ns), outcome = coalesce(new.outcome, episode.outcome),
        reward = coalesce(new.reward, episode.reward)
    FROM new WHERE episode.stream = new.stream AND episode.last_seq < new.last_seq"""
_DELETE = "WITH gone (stream) AS ({values}) DELETE FROM episode WHERE stream IN gone"


class _EndingFacts(msgspec.Struct, frozen=True):
    """What the catalog keeps of an ending."""

    outcome: TaskOutcome
    reward: RewardScore | None = None


class _Touched:
    """What some records say of one stream."""

    def __init__(self) -> None:
        self.start: EpisodeStart | None = None
        self.episode_id = ""
        self.start_ns = self.last_ns = self.last_seq = self.steps = self.failed = 0
        self.ended_ns: int | None = None
        self.outcome: str | None = None
        self.reward: float | None = None


class EpisodeCatalogFold:
    """Folds records into changes of the catalog. What cannot be decoded changes nothing, as it tells nothing."""

    def __init__(self, *, keep_text: bool):
        self._keep_text = keep_text
        self._touched: dict[bytes, _Touched] = {}
        self._deleted: dict[bytes, None] = {}

    def take(self, items: Sequence[Record | Gap]) -> None:
        """Take up some records."""
        others: list[Record] = []
        stream, touched = b"", _Touched()
        for item in items:
            if isinstance(item, Gap):
                continue
            payload = item.payload
            if (time_ns := step_time_ns(payload)) is None:
                others.append(item)
                continue
            if item.stream != stream:
                stream = item.stream
                touched = self._touched_by(stream)
            if item.seq <= touched.last_seq:
                continue  # a record that was stored twice (row 10)
            try:
                touched.failed += is_failed_step(payload)
            except EpisodeUnavailable:
                continue
            touched.steps += 1
            touched.last_seq = item.seq
            if time_ns > touched.last_ns:
                touched.last_ns = time_ns
        if others:
            self._take_others(others)

    def _touched_by(self, stream: bytes) -> _Touched:
        found = self._touched.get(stream)
        if found is None:
            found = self._touched[stream] = _Touched()
        return found

    def _take_others(self, records: list[Record]) -> None:
        """Records that are no steps."""
        together = decode_records([record.payload for record in records])
        for place, record in enumerate(records):
            try:
                decoded = together[place] if together is not None else decode_record(record.payload, "a record")
                if decoded.kind == DELETED:
                    self._deleted[record.stream] = None
                    continue
                touched = self._touched_by(record.stream)
                if (change := _CHANGES.get(decoded.kind)) is not None:
                    change(touched, record, decoded)
                if decoded.kind == STEP:  # of another form than this version writes
                    touched.steps += 1
            except (EpisodeUnavailable, msgspec.ValidationError):
                continue
            touched.last_seq = max(touched.last_seq, record.seq)
            touched.last_ns = max(touched.last_ns, decoded.time_ns)

    def changes(self) -> list[Change]:
        """What to change for what was taken since."""
        added: list[tuple[Any, ...]] = []
        tags: list[tuple[bytes, str]] = []
        changed: list[tuple[Any, ...]] = []
        for stream, it in self._touched.items():
            if stream in self._deleted:
                continue
            if it.start is None:
                changed.append(
                    (stream, it.last_ns, it.last_seq, it.steps, it.failed, it.ended_ns, it.outcome, it.reward)
                )
                continue
            start, context = it.start, it.start.context
            added.append(
                (
                    key_of(it.start_ns, stream),
                    stream,
                    it.episode_id,
                    start.task if self._keep_text else None,
                    start.task_type,
                    start.agent,
                    context.domain,
                    context.language,
                    context.framework,
                    context.complexity,
                    json.dumps(context.tags, ensure_ascii=False) if context.tags else "[]",
                    it.start_ns,
                    it.last_ns,
                    it.last_seq,
                    it.steps,
                    it.failed,
                    it.ended_ns,
                    it.outcome,
                    it.reward,
                )
            )
            tags += [(stream, tag) for tag in {folded_tag(tag): None for tag in context.tags}]
        found = (
            Change(_ADD, added, again=True),
            Change(_ADD_TAG, tags),
            Change(_CHANGE, changed),
            Change(_DELETE, [(stream,) for stream in self._deleted]),
        )
        self._touched, self._deleted = {}, {}
        return [change for change in found if change.rows]


def _start(touched: _Touched, record: Record, decoded: DecodedRecord) -> None:
    meta = decoded.meta or {}
    name = meta.get("id")
    if meta.get("stream") != EPISODE_STREAM or not isinstance(name, str):
        return
    if stream_id(EPISODE_STREAM, name) != record.stream:
        return  # their names collide on disk, or the record lies
    touched.start = decode_start(decoded.data)
    touched.episode_id, touched.start_ns = name, decoded.time_ns


def _end(touched: _Touched, _record: Record, decoded: DecodedRecord) -> None:
    facts = msgspec.convert(decoded.data, _EndingFacts)
    touched.ended_ns, touched.outcome = decoded.time_ns, outcome_kind(facts.outcome)
    touched.reward = None if facts.reward is None else facts.reward.total


_CHANGES: dict[str, Callable[[_Touched, Record, DecodedRecord], None]] = {STARTED: _start, ENDED: _end}
"""What each kind of record, other than a step, changes. Events that organise episodes (tags, archiving, …) go here."""
