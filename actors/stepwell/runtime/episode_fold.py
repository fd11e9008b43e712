"""The fold of the log that fills the catalog of episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stepstore.catalog import CatalogOptions, Change, LogReading, Projection
from stepstore.giving_way import give_way
from stepstore.journal import Gap, Journal, Record, RecordBatch
from stepwell.errors import EpisodeUnavailable
from stepwell.model.analysis import RewardScore
from stepwell.model.codec import (
    PLAIN_STEP,
    DecodedRecord,
    decode_record,
    decode_records,
    plain_step_time_ns,
)
from stepwell.model.ending_glance import glance_at_ending
from stepwell.model.event import (
    ARCHIVED,
    DELETED,
    ENDED,
    RELATED,
    RESTORED,
    STARTED,
    STEP,
    TAGGED,
    UNRELATED,
    UPDATED,
)
from stepwell.model.organising import Tagged, Updated
from stepwell.model.outcome import TaskOutcome, outcome_kind
from stepwell.model.tags import tag_key, with_tags, without_tags
from stepwell.runtime import episode_catalog as catalog
from stepwell.runtime.edges import EdgeFold
from stepwell.runtime.start_facts import StartFacts, start_of
from stepwell.runtime.step_batches import StepBatch, Told, count_steps, log_reading, told_apart

_TOGETHER = 64
"""So many records that are no steps are decoded at once: that takes half the time, unless they are very large."""

_LAST_NS = 2**63 - 1
"""A step of a later time cannot be decoded, and no catalog can hold that."""


def episode_projection(journal: Journal, options: CatalogOptions, reading: LogReading | None = None) -> Projection:
    """The catalog of episodes of a journal."""
    reading = reading or log_reading(journal)
    return Projection("projector", catalog.FILE, catalog.SCHEMA, EpisodeCatalogFold, journal, options, reading)


class _EndingFacts(msgspec.Struct, frozen=True):
    """What the catalog keeps of an ending."""

    outcome: TaskOutcome
    reward: RewardScore | None = None


class _Touched(msgspec.Struct, gc=False):
    """What some records say of one stream. Thousands are held at a time, and nothing in them refers back: the garbage
    collector going through them again and again would cost a third of the folding."""

    start: StartFacts | None = None
    episode_id: str = ""
    start_ns: int = 0
    last_ns: int = 0
    last_seq: int = 0
    last_other_seq: int = 0
    steps: int = 0
    failed: int = 0
    last_step_ns: int = 0
    """Of the last plain step: time does not go back within a stream."""
    ended_ns: int | None = None
    outcome: str | None = None
    reward: float | None = None
    description: str | None = None
    archived: int | None = None
    retagged: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    """What was taken away, and what was put behind, one after the other."""

    def tags(self) -> list[str]:
        """The tags of an episode that started here."""
        assert self.start is not None
        found = list(self.start.context.tags)
        for removed, added in self.retagged:
            found = with_tags(without_tags(found, removed), added)
        return found


class EpisodeCatalogFold:
    """Folds records into changes of the catalog. What cannot be decoded changes nothing, as it tells nothing."""

    def __init__(self) -> None:
        self._touched: dict[bytes, _Touched] = {}
        self._deleted: dict[bytes, None] = {}
        self._edges = EdgeFold()

    def take_batches(self, items: Sequence[Told]) -> None:
        """Take up some batches of records."""
        others: list[Record] = []
        touched_by = self._touched
        for item in items:
            if type(item) is not StepBatch:
                if isinstance(item, RecordBatch):
                    self._take_apart(item, others)
                continue
            touched = touched_by.get(item.stream)
            if touched is None:
                touched = touched_by[item.stream] = _Touched()
            steps, failed, last_seq = item.steps, item.failed, touched.last_seq
            if item.first_seq <= last_seq:  # records that were stored twice (row 10)
                if item.last_seq <= last_seq:
                    continue
                steps, failed = count_steps(item.payloads[last_seq + 1 - item.first_seq :])
            touched.last_seq = item.last_seq
            touched.steps += steps
            touched.failed += failed
            if item.last_ns <= _LAST_NS:
                touched.last_step_ns = item.last_ns
        for start in range(0, len(others), _TOGETHER):
            give_way()
            self._take_others(others[start : start + _TOGETHER])

    def take(self, items: Sequence[Record | Gap]) -> None:
        """Take up some records."""
        self.take_batches(told_apart([it if isinstance(it, Gap) else it.batch() for it in items]))

    def _take_apart(self, batch: RecordBatch, others: list[Record]) -> None:
        """A batch that holds something else than plain steps."""
        stream, first_seq, first_lsn, payloads = batch
        for number, payload in enumerate(payloads):
            if not payload.startswith(PLAIN_STEP):
                others.append(Record(stream, first_seq + number, first_lsn + number, payload))
                continue
            touched = self._touched_by(stream)
            if first_seq + number > touched.last_seq:
                steps, failed = count_steps([payload])
                touched.steps += steps
                touched.failed += failed
                touched.last_seq = first_seq + number
                if (time_ns := plain_step_time_ns(payload)) <= _LAST_NS:
                    touched.last_step_ns = time_ns

    def _touched_by(self, stream: bytes) -> _Touched:
        found = self._touched.get(stream)
        if found is None:
            found = self._touched[stream] = _Touched()
        return found

    def _take_others(self, records: list[Record]) -> None:
        """Records that are no steps, in order. They and the steps of one episode do not mind which are taken first."""
        glances = [glance_at_ending(record.payload) for record in records]
        to_decode = [record.payload for record, glance in zip(records, glances, strict=True) if glance is None]
        together = decode_records(to_decode)
        decoding = None if together is None else iter(together)
        for record, glance in zip(records, glances, strict=True):
            if glance is not None:
                touched = self._touched_by(record.stream)
                if record.seq > touched.last_other_seq:
                    touched.ended_ns, touched.outcome, touched.reward = glance
                    _took(touched, record.seq, glance.time_ns)
                continue
            try:
                decoded = decode_record(record.payload, "a record") if decoding is None else next(decoding)
                if decoded.kind == DELETED:
                    self._deleted[record.stream] = None
                    continue
                touched = self._touched_by(record.stream)
                if record.seq <= touched.last_other_seq:
                    continue
                touched.last_other_seq = record.seq
                if (change := _CHANGES.get(decoded.kind)) is not None:
                    change(touched, record, decoded)
                elif decoded.kind == RELATED:
                    self._edges.relate(record, decoded)
                elif decoded.kind == UNRELATED:
                    self._edges.unrelate(record, decoded)
                elif decoded.kind == STEP:  # of another form than this version writes
                    touched.steps += 1
            except (EpisodeUnavailable, msgspec.ValidationError):
                continue
            _took(touched, record.seq, decoded.time_ns)

    def changes(self) -> list[Change]:
        """What to change for what was taken since."""
        added, tags, changed = [], [], []
        described, archived, retagged = [], [], []
        for stream, it in self._touched.items():
            if stream in self._deleted:
                continue
            it.last_ns = max(it.last_ns, it.last_step_ns)
            if it.start is not None:
                row, keys = _new_row(stream, it)
                added.append(row)
                tags += [(stream, key) for key in keys]
                continue
            ending = (it.ended_ns, it.outcome, it.reward)
            changed.append((stream, it.last_ns, it.last_seq, it.steps, it.failed, *ending))
            if it.description is not None:
                described.append((stream, it.description))
            if it.archived is not None:
                archived.append((stream, it.archived))
            if it.retagged:
                retagged.append((stream, catalog.json_text(it.retagged)))
        with_other_tags = [(stream,) for stream, _changes in retagged]
        deleted = [(stream,) for stream in self._deleted]
        found = (
            Change(catalog.ADD, added, again=True),
            Change(catalog.ADD_TAG, tags),
            Change(catalog.CHANGE, changed),
            Change(catalog.DESCRIBE, described),
            Change(catalog.ARCHIVE, archived),
            Change(catalog.RETAG, retagged),
            Change(catalog.FORGET_TAGS, with_other_tags),
            Change(catalog.NOTE_TAGS, with_other_tags),
            Change(catalog.DELETE, deleted),
            *self._edges.changes(deleted),
        )
        self._touched, self._deleted = {}, {}
        return [change for change in found if change.rows]


def _took(touched: _Touched, seq: int, time_ns: int) -> None:
    touched.last_other_seq = seq
    if seq > touched.last_seq:
        touched.last_seq = seq
    if time_ns > touched.last_ns:
        touched.last_ns = time_ns


def _new_row(stream: bytes, it: _Touched) -> tuple[tuple[Any, ...], dict[str, None]]:
    """The row of an episode that started here, and what its tags are found by."""
    start = it.start
    assert start is not None
    context, tags = start.context, it.tags()
    row = (
        catalog.key_of(it.start_ns, stream),
        stream,
        it.episode_id,
        start.task if it.description is None else it.description,
        start.task_type,
        start.agent,
        context.domain,
        context.language,
        context.framework,
        context.complexity,
        catalog.json_text(tags) if tags else "[]",
        it.start_ns,
        it.last_ns,
        it.last_seq,
        it.steps,
        it.failed,
        it.ended_ns,
        it.outcome,
        it.reward,
        it.archived or 0,
    )
    return row, dict.fromkeys(map(tag_key, tags))


def _start(touched: _Touched, record: Record, decoded: DecodedRecord) -> None:
    found = start_of(record, decoded)
    if found is not None:
        touched.episode_id, touched.start = found
        touched.start_ns = decoded.time_ns


def _end(touched: _Touched, _record: Record, decoded: DecodedRecord) -> None:
    facts = msgspec.convert(decoded.data, _EndingFacts)
    touched.ended_ns, touched.outcome = decoded.time_ns, outcome_kind(facts.outcome)
    touched.reward = None if facts.reward is None else facts.reward.total


def _tag(touched: _Touched, _record: Record, decoded: DecodedRecord) -> None:
    record = msgspec.convert(decoded.data, Tagged)
    touched.retagged += ((tuple(record.removed), tuple(record.added)),)


def _update(touched: _Touched, _record: Record, decoded: DecodedRecord) -> None:
    record = msgspec.convert(decoded.data, Updated)
    if record.description is not None:
        touched.description = record.description


def _archive(touched: _Touched, _record: Record, _decoded: DecodedRecord) -> None:
    touched.archived = 1


def _restore(touched: _Touched, _record: Record, _decoded: DecodedRecord) -> None:
    touched.archived = 0


_CHANGES: dict[str, Callable[[_Touched, Record, DecodedRecord], None]] = {
    STARTED: _start,
    ENDED: _end,
    TAGGED: _tag,
    UPDATED: _update,
    ARCHIVED: _archive,
    RESTORED: _restore,
}
"""What a kind of record changes in the row of its episode; others count as the last record only."""
