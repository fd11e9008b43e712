"""The fold of the log that fills the catalog that episodes are retrieved from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stepstore.catalog import CatalogOptions, Change, LogReading, Projection
from stepstore.giving_way import give_way
from stepstore.journal import Gap, Journal, Record, RecordBatch
from stepwell.errors import EpisodeUnavailable
from stepwell.model.analysis import EpisodeSummary, RewardScore
from stepwell.model.codec import PLAIN_STEP, DecodedRecord, decode_record, decode_records, kind_head
from stepwell.model.event import ARCHIVED, DELETED, ENDED, RESTORED, STARTED, TAGGED, UPDATED
from stepwell.model.organising import Tagged, Updated
from stepwell.model.outcome import TaskOutcome, outcome_kind
from stepwell.model.tags import with_tags, without_tags
from stepwell.runtime import retrieval_catalog as catalog
from stepwell.runtime.episode_catalog import json_text
from stepwell.runtime.lexical_index import label_terms, step_terms, stored_terms
from stepwell.runtime.start_facts import StartFacts, start_of
from stepwell.runtime.step_batches import Told, log_reading

_TOGETHER = 64
"""So many records are decoded at once: that takes half the time, unless they are very large."""


def retrieval_projection(journal: Journal, options: CatalogOptions, reading: LogReading | None = None) -> Projection:
    """The index of retrieval of a journal, kept up to date by a service named "indexer"."""
    reading = reading or log_reading(journal)
    return Projection("indexer", catalog.FILE, catalog.SCHEMA, RetrievalFold, journal, options, reading)


class _EndingFacts(msgspec.Struct, frozen=True):
    """What retrieval knows of an ending."""

    outcome: TaskOutcome
    reward: RewardScore | None = None
    summary: EpisodeSummary | None = None


class _Touched(msgspec.Struct, gc=False):
    """What some records say of one episode. Thousands are held at a time, and nothing in them refers back."""

    start: StartFacts | None = None
    episode_id: str = ""
    start_ns: int = 0
    last_seq: int = 0
    ended_ns: int | None = None
    outcome: str | None = None
    reward: float | None = None
    step_terms: str | None = None
    description: str | None = None
    archived: int | None = None
    retagged: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    """What was taken away, and what was put behind, one after the other."""


class RetrievalFold:
    """Folds records into changes of the index. What cannot be decoded changes nothing, and steps are not looked at."""

    def __init__(self) -> None:
        self._touched: dict[bytes, _Touched] = {}
        self._deleted: dict[bytes, None] = {}

    def take_batches(self, items: Sequence[Told]) -> None:
        """Take up some batches of records."""
        telling: list[Record] = []
        plain, heads = PLAIN_STEP, _HEADS
        for item in items:
            if not isinstance(item, RecordBatch):  # nearly all are steps
                continue
            for number, payload in enumerate(item.payloads):
                if not payload.startswith(plain) and payload.startswith(heads):
                    telling.append(Record(item.stream, item.first_seq + number, item.first_lsn + number, payload))
        for start in range(0, len(telling), _TOGETHER):
            give_way()
            self._take_together(telling[start : start + _TOGETHER])

    def take(self, items: Sequence[Record | Gap]) -> None:
        """Take up some records."""
        self.take_batches([it if isinstance(it, Gap) else it.batch() for it in items])

    def _take_together(self, records: list[Record]) -> None:
        together = decode_records([record.payload for record in records])
        for place, record in enumerate(records):
            try:
                decoded = together[place] if together is not None else decode_record(record.payload, "a record")
                if decoded.kind == DELETED:
                    self._deleted[record.stream] = None
                    continue
                touched = self._touched.get(record.stream)
                if touched is None:
                    touched = self._touched[record.stream] = _Touched()
                if record.seq > touched.last_seq:  # or it was stored twice (row 10)
                    _CHANGES[decoded.kind](touched, record, decoded)
                    touched.last_seq = record.seq
            except (EpisodeUnavailable, msgspec.ValidationError):
                continue

    def changes(self) -> list[Change]:
        """What to change for what was taken since."""
        added, changed, retagged = [], [], []
        for stream, it in self._touched.items():
            give_way()
            if stream in self._deleted or not it.last_seq:
                continue
            if it.start is not None:
                added.append(_new_row(stream, it, it.start))
                continue
            task = it.description
            terms = None if task is None else catalog.joined(stored_terms(task))
            ending = (it.ended_ns, it.outcome, it.reward, it.step_terms)
            if it.retagged:  # first, so that the row still says what was taken up
                retagged.append((stream, it.last_seq, json_text(it.retagged)))
            changed.append((stream, it.last_seq, *ending, it.archived, task, terms))
        found = (
            Change(catalog.ADD, added),
            Change(catalog.RETAG, retagged),
            Change(catalog.CHANGE, changed),
            Change(catalog.DELETE, [(stream,) for stream in self._deleted]),
        )
        self._touched, self._deleted = {}, {}
        return [change for change in found if change.rows]


def _new_row(stream: bytes, it: _Touched, start: StartFacts) -> tuple[Any, ...]:
    """The row of an episode that started here."""
    context, tags = start.context, list(start.context.tags)
    for removed, added in it.retagged:
        tags = with_tags(without_tags(tags, removed), added)
    task = start.task if it.description is None else it.description
    given = (context.domain, context.language, context.framework, start.task_type)
    return (
        stream,
        it.last_seq,
        it.episode_id,
        task,
        start.task_type,
        start.agent,
        context.domain,
        context.language,
        context.framework,
        json_text(tags) if tags else "[]",
        it.start_ns,
        it.ended_ns,
        it.outcome,
        it.reward,
        it.archived or 0,
        catalog.joined(stored_terms(task)),
        catalog.joined(label_terms(given, tags)),
        it.step_terms,
    )


def _start(touched: _Touched, record: Record, decoded: DecodedRecord) -> None:
    found = start_of(record, decoded)
    if found is not None:
        touched.episode_id, touched.start = found
        touched.start_ns = decoded.time_ns


def _end(touched: _Touched, _record: Record, decoded: DecodedRecord) -> None:
    facts = msgspec.convert(decoded.data, _EndingFacts)
    touched.ended_ns, touched.outcome = decoded.time_ns, outcome_kind(facts.outcome)
    touched.reward = None if facts.reward is None else facts.reward.total
    key_steps = () if facts.summary is None else facts.summary.key_steps
    touched.step_terms = catalog.joined(list(dict.fromkeys(step_terms(key_steps))))


def _tag(touched: _Touched, _record: Record, decoded: DecodedRecord) -> None:
    said = msgspec.convert(decoded.data, Tagged)
    touched.retagged += ((tuple(said.removed), tuple(said.added)),)


def _update(touched: _Touched, _record: Record, decoded: DecodedRecord) -> None:
    said = msgspec.convert(decoded.data, Updated)
    if said.description is not None:
        touched.description = said.description


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
"""What a kind of record changes in the row of its episode."""
_HEADS = tuple(map(kind_head, (*_CHANGES, DELETED)))
