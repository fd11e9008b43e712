"""The learner: follows the log and keeps what episodes teach in a catalog of its own.

An episode is learned from when its ending is durable, once, as it was at its first ending: what organises it later, or
comes behind that, changes nothing. Its records are kept in hand from its start on, as long as there is room, and read
from the log otherwise: behind a restart, or if it was open for long. So the learner holds nothing that it cannot do
without, and a catalog that was folded record by record equals one that was rebuilt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from stepstore.catalog import CatalogOptions, Change, LogReading, Projection
from stepstore.errors import Damaged, Forked, KeyDestroyed
from stepstore.giving_way import give_way
from stepstore.journal import Gap, Journal, Record, RecordBatch
from stepwell.errors import EpisodeUnavailable
from stepwell.learning.extraction import domain_of, ended_ns, extract, success_of
from stepwell.model.codec import decode_record, decode_records, kind_head
from stepwell.model.episode import Episode
from stepwell.model.event import DELETED, ENDED, STARTED, STEP
from stepwell.model.fold import EpisodeFold
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.outcome import outcome_kind
from stepwell.model.pattern import PatternContent, kind_of, pattern_id
from stepwell.model.recommendation import FEEDBACK, RECOMMENDED
from stepwell.model.skill import SKILL_STORED, SKILL_USED
from stepwell.runtime import learning_tables as tables
from stepwell.runtime.advice_fold import AdviceFold
from stepwell.runtime.step_batches import StepBatch, Told, log_reading, told

IN_HAND_BYTES = 32 * 1024 * 1024
"""So much of episodes that have not ended is kept in hand; the oldest are let go first, and read again at their end."""
RECORDS_A_TURN = 2_048
"""So many are taken in before others have their turn of the event loop: in about a millisecond."""
_HEADS = {kind_head(kind): kind for kind in (STARTED, ENDED, DELETED, RECOMMENDED, FEEDBACK, SKILL_STORED, SKILL_USED)}
_STEP = kind_head(STEP)
_SHORTEST = min(map(len, _HEADS))


def learning_projection(journal: Journal, options: CatalogOptions, reading: LogReading | None = None) -> Projection:
    """What was learned of a journal, kept up to date by a service named "learner"."""
    reading = reading or log_reading(journal)
    return Projection("learner", tables.FILE, tables.LEARNING, lambda: LearningFold(journal), journal, options, reading)


class _InHand:
    """The payloads of an episode that has not ended, without a gap from its first record on: bytes only, since the
    garbage collector would go through anything else again and again."""

    def __init__(self, first: bytes):
        self.payloads = [first]
        self.size = len(first)


class LearningFold:
    """Folds records into changes of the learner's tables. What cannot be read teaches nothing.

    `prepare` takes the records in and reads what is missing of the episodes that end with them; `take` and
    `take_batches` have nothing left to do. They and `changes` are called one after another for each transaction.
    """

    def __init__(self, journal: Journal, in_hand_bytes: int = IN_HAND_BYTES):
        self._journal = journal
        self._in_hand: OrderedDict[bytes, _InHand] = OrderedDict()
        self._in_hand_bytes, self._most_bytes = 0, in_hand_bytes
        self._ended: dict[bytes, list[bytes]] = {}
        self._deleted: dict[bytes, None] = {}
        self._advice = AdviceFold()

    async def prepare(self, items: Sequence[Told]) -> None:
        """Take in some of the records of a transaction. A checkpoint for each episode that has to be read, and for some
        of the others.

        Raises: `RecoveryFailed`, `Unavailable`, `InvalidInput`, `Closed`, as reading does.
        """
        incomplete: list[Record] = []
        taken = 0
        for item in items:
            if isinstance(item, RecordBatch):
                item = told(item)
            if isinstance(item, Gap):
                continue
            if not isinstance(item, StepBatch) or not self._took_steps(item):
                incomplete += filter(None, map(self._took, item.records()))
            taken += item.steps if isinstance(item, StepBatch) else len(item.payloads)
            if taken >= RECORDS_A_TURN:
                await trio.lowlevel.checkpoint()
                taken = 0
        for ending in incomplete:
            if ending.stream in self._ended or ending.stream in self._deleted:
                continue
            if payloads := await self._read(ending):
                self._ended[ending.stream] = payloads

    def take(self, items: Sequence[Record | Gap]) -> None:
        """See `prepare`."""

    def take_batches(self, items: Sequence[Told]) -> None:
        """See `prepare`."""

    def _took_steps(self, batch: StepBatch) -> bool:
        """Take in a batch of nothing but steps, as most are, without making records of it: this runs in the event loop.
        False if it does not continue what is in hand."""
        known = self._in_hand.get(batch.stream)
        if known is None:
            return True
        if batch.first_seq != len(known.payloads) + 1:
            return False
        payloads = batch.payloads
        size = sum(map(len, payloads))
        known.payloads += payloads
        known.size += size
        self._in_hand_bytes += size
        if self._in_hand_bytes > self._most_bytes:
            self._let_go()
        return True

    def _took(self, record: Record) -> Record | None:
        """Take in one record. Gives it back if it ends an episode that is not in hand."""
        stream, payload = record.stream, record.payload
        known = self._in_hand.get(stream)
        if known is not None and record.seq <= len(known.payloads):
            return None  # a record that was stored twice (row 10)
        if known is not None and record.seq == len(known.payloads) + 1:
            known.payloads.append(payload)
            known.size += len(payload)
            self._in_hand_bytes += len(payload)
            if payload.startswith(_STEP):
                if self._in_hand_bytes > self._most_bytes:
                    self._let_go()
                return None
        elif known is not None:
            self._drop(stream)  # something is missing between: the log has it, or nobody
            known = None
        if payload.startswith(_STEP):
            return None
        kind = _kind(payload)
        if kind == STARTED and record.seq == 1:
            self._in_hand[stream] = _InHand(payload)
            self._in_hand_bytes += len(payload)
        elif kind == ENDED and stream not in self._ended:
            self._drop(stream)
            if known is None:
                return record
            self._ended[stream] = known.payloads
        elif kind == DELETED:
            self._drop(stream)
            self._ended.pop(stream, None)
            self._deleted[stream] = None
        elif kind is not None:
            self._advice.take(kind, record)
        return None

    def _drop(self, stream: bytes) -> None:
        gone = self._in_hand.pop(stream, None)
        if gone is not None:
            self._in_hand_bytes -= gone.size

    def _let_go(self) -> None:
        while self._in_hand and self._in_hand_bytes > self._most_bytes:
            self._drop(next(iter(self._in_hand)))

    async def _read(self, ending: Record) -> list[bytes]:
        """The payloads of an episode up to its ending; none if they are not sound, or it was deleted meanwhile."""
        slices = self._journal.read(ending.stream)
        payloads: list[bytes] = []
        try:
            while found := await slices.next_slice():
                payloads += [record.payload for record in found if record.seq <= ending.seq]
                if found[-1].seq >= ending.seq:
                    break
        except (Damaged, Forked, KeyDestroyed):
            return []
        return payloads

    def changes(self) -> list[Change]:
        """What to change for what was taken in since. In a worker thread."""
        ended, gone = self._ended, [(stream,) for stream in self._deleted]
        self._ended, self._deleted = {}, {}
        episodes: list[tuple[Any, ...]] = []
        patterns: dict[str, tuple[str, str, str, str]] = {}
        evidence: list[tuple[Any, ...]] = []
        for stream, payloads in ended.items():
            give_way()
            episode = _episode(stream, payloads)
            if episode is None or episode.outcome is None:
                continue
            success, at, domain = success_of(episode.outcome), ended_ns(episode), domain_of(episode.context)
            end_seq = len(payloads)
            episodes.append((stream, episode.episode_id, success, outcome_kind(episode.outcome), at, end_seq))
            for it in extract(episode):
                name = _pattern_id(domain, it.content)
                if name not in patterns:
                    content = msgspec.json.encode(it.content).decode()
                    patterns[name] = (name, kind_of(it.content), domain, content)
                seqs = ",".join(map(str, it.seqs))
                evidence.append((name, stream, end_seq, it.occurrences, it.ok, it.failed, success, at, f"[{seqs}]"))
        found = (
            Change(tables.ADD_EPISODE, episodes),
            Change(tables.ADD_PATTERN, list(patterns.values())),
            Change(tables.ADD_EVIDENCE, evidence),
            *self._advice.changes(),
            Change(tables.FORGET_EPISODE, gone),
            Change(tables.FORGET_RECOMMENDATION, gone),
            Change(tables.FORGET_SKILL, gone),
        )
        return [change for change in found if change.rows]


_ids: dict[tuple[str, PatternContent], str] = {}
_IDS_KEPT = 50_000


def _pattern_id(domain: str, content: PatternContent) -> str:
    """As `pattern_id`, remembered: most patterns come again."""
    key = (domain, content)
    found = _ids.get(key)
    if found is None:
        if len(_ids) >= _IDS_KEPT:
            _ids.clear()
        found = _ids[key] = pattern_id(domain, content)
    return found


def _kind(payload: bytes) -> str | None:
    """The kind of a record, if it is one that the learner looks at."""
    for head, kind in _HEADS.items():
        if payload.startswith(head):
            return kind
    return None


def _episode(stream: bytes, payloads: list[bytes]) -> Episode | None:
    """The episode that records make from its first on; None if they are not sound, or are no episode's."""
    together = decode_records(payloads)
    try:
        decoded = together or [decode_record(payload, "a record") for payload in payloads]
        meta = decoded[0].meta or {}
        name = meta.get("id")
        if meta.get("stream") != EPISODE_STREAM or not isinstance(name, str):
            return None
        if stream_id(EPISODE_STREAM, name) != stream:
            return None  # their names collide on disk, or the record lies
        fold = EpisodeFold(name)
        for seq, it in enumerate(decoded, 1):
            fold.add(seq, 0, it)  # where it lies in the log teaches nothing
        return fold.episode()
    except EpisodeUnavailable:
        return None
