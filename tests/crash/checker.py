"""The checker of the crash suites that drive a journal: what was promised, compared with what a log holds.

The rule: every acknowledged record is there exactly once, in order, at its LSN, byte for byte; nothing that was refused
is there; what had an unknown outcome is there whole or not at all, and at most once; nothing is there that was never
sent; a stream whose deletion was acknowledged never comes back; and a second opening finds the same.

Payloads are unique, so a record found says by itself which submission it comes from.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from stepstore.errors import InvalidState, Rejected, StepwellError
from stepstore.journal.contract import (
    FLAG_CLOSES,
    FLAG_OPENS,
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    Batch,
    Gap,
    Record,
)
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, RecoveryReport

LOG = "/log"

Objection = Callable[["Wrong", str], None]


# ---- what was promised -----------------------------------------------------------------------------------------------


class Fate(Enum):
    """What the caller was told about what it sent."""

    UNDER_WAY = "under way"
    STORED = "stored"
    UNKNOWN = "unknown"
    REFUSED = "refused"

    @property
    def is_open(self) -> bool:
        """Whether it may be there or not."""
        return self in (Fate.UNDER_WAY, Fate.UNKNOWN)


class Attempt:
    """One submission: of records, or (alone in it) of a snapshot, or of the tombstone that deletes its stream."""

    __slots__ = ("batches", "is_snapshot", "is_tombstone", "key", "number")

    def __init__(self, number: int, batches: Sequence[Batch]):
        self.number, self.batches = number, batches
        kind = batches[0].flags & (FLAG_SNAPSHOT | FLAG_TOMBSTONE)
        self.is_snapshot, self.is_tombstone = kind == FLAG_SNAPSHOT, kind == FLAG_TOMBSTONE
        self.key = hashlib.blake2b(repr((number, batches)).encode(), digest_size=8).digest()

    @property
    def is_of_records(self) -> bool:
        """Whether it is neither a snapshot nor a tombstone."""
        return not (self.is_snapshot or self.is_tombstone)

    def records(self, first_lsn: int) -> list[Record]:
        """What it must look like when it is read, if its first record has this LSN."""
        found: list[Record] = []
        for stream, first_seq, payloads, _flags in self.batches:
            for n, payload in enumerate(payloads):
                found.append(Record(stream, first_seq + n, first_lsn + len(found), payload))
        return found


Known = tuple[Attempt, Fate, int]
"""An attempt, what is known of it, and its first LSN if it is stored and that is known, else 0."""


@dataclass(frozen=True)
class Expectation:
    """What had been promised at one moment: attempts in the order in which they were sent. `purged`: the streams of
    which nothing at all may be left."""

    attempts: Sequence[Known] = ()
    purged: frozenset[bytes] = frozenset()

    @cached_property
    def deletions(self) -> dict[bytes, Fate]:
        """The streams whose deletion was asked for, and not refused, and whether it was acknowledged."""
        asked = {a.batches[0].stream: fate for a, fate, _lsn in self.attempts if a.is_tombstone and fate.is_open}
        kept = {a.batches[0].stream: fate for a, fate, _lsn in self.attempts if a.is_tombstone and fate is Fate.STORED}
        return asked | kept

    @property
    def with_snapshots(self) -> list[bytes]:
        """The streams of which snapshots were sent."""
        return list(dict.fromkeys(a.batches[0].stream for a, _fate, _lsn in self.attempts if a.is_snapshot))

    def settled(self, found: Found) -> Expectation:
        """What is promised once an opening has found this: what it shows is durable, the rest is gone for good."""
        place = {record.payload: record for record in found.records()}
        place |= {snapshot.payload: snapshot for snapshot in found.snapshots.values() if snapshot is not None}
        attempts: list[Known] = []
        for attempt, fate, lsn in self.attempts:
            if fate.is_open and attempt.is_tombstone:
                fate = Fate.STORED if attempt.batches[0].stream in found.deleted else Fate.REFUSED
            elif fate.is_open:
                sent = attempt.records(0)
                there = next((n for n, record in enumerate(sent) if record.payload in place), None)
                fate = Fate.REFUSED if there is None else Fate.STORED
                lsn = 0 if there is None else place[sent[there].payload].lsn - there
            attempts.append((attempt, fate, lsn))
        return Expectation(attempts, self.purged)

    def digest(self) -> bytes:
        """The same for equal expectations only."""
        known = hashlib.blake2b(b"".join(sorted(self.purged)), digest_size=16)
        for attempt, fate, first_lsn in self.attempts:
            known.update(attempt.key + fate.value.encode() + first_lsn.to_bytes(8, "big"))
        return known.digest()


# ---- what is there ---------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What an opened journal shows: the records of each stream; which streams are open; and of those that an
    expectation names, the newest snapshot and whether the journal calls them deleted."""

    streams: dict[bytes, list[Record]] = field(default_factory=dict)
    open_streams: set[bytes] = field(default_factory=set)
    snapshots: dict[bytes, Record | None] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)

    def records(self) -> list[Record]:
        """All of them, in the order of their LSNs."""
        return sorted((record for found in self.streams.values() for record in found), key=lambda record: record.lsn)


class Wrong(Enum):
    """The kinds of broken promises."""

    LOST = "an acknowledged record is missing"
    CHANGED = "an acknowledged record has other bytes"
    MOVED = "a record has another LSN, or stands elsewhere in its stream"
    DOUBLED = "something is there twice"
    DISORDER = "records are out of order, or a number is left out"
    REFUSED = "something is there that was refused"
    PHANTOM = "something is there that was never sent"
    HALF = "a submission is there in part"
    OVERTAKEN = "a submission is there although an earlier one of the same process is not"
    RESURRECTED = "a deleted stream is there, or can be written again"
    SNAPSHOT = "the newest snapshot is not the one that is shown"
    OPEN_STREAMS = "the streams said to be open are not those that are"
    ANOTHER_ANSWER = "another way of reading, or a second opening, shows something else"
    NOT_OPENED = "the log does not open"
    NOT_READ = "the log cannot be read"
    UNDECLARED = "an exception left the journal that is none of its own"
    REFUSAL = "a healthy log refused"
    STUCK = "nothing moves any more"


@dataclass(frozen=True)
class Violation:
    """One broken promise."""

    wrong: Wrong
    text: str

    def __str__(self) -> str:
        return f"{self.wrong.name}: {self.wrong.value}: {self.text}"


class Broken(AssertionError):
    """A promise was broken."""

    def __init__(self, violations: Sequence[Violation], at: str = ""):
        super().__init__("; ".join(map(str, violations[:4])) + (f" [{at}]" if at else ""))
        self.violations, self.at = list(violations), at


def _name(stream: bytes) -> str:
    return stream.hex()[:6]


def _show(record: Record) -> str:
    content = record.payload if len(record.payload) <= 24 else record.payload[:24] + b"..."
    return f"{_name(record.stream)} seq {record.seq} lsn {record.lsn} {content!r}"


# ---- the comparison --------------------------------------------------------------------------------------------------


def judge(expected: Expectation, found: Found) -> list[Violation]:
    """Compare. Gives every broken promise; none is what is wanted."""
    wrong: list[Violation] = []

    def object_to(kind: Wrong, text: str) -> None:
        wrong.append(Violation(kind, text))

    records = found.records()
    _judge_order(found.streams, records, object_to)
    place = _places(expected, records, object_to)
    _judge_attempts(expected, place, records, object_to)
    _judge_deletions(expected, found, object_to)
    _judge_snapshots(expected, found, object_to)
    _judge_open_streams(expected, found, place, object_to)
    return wrong


def _judge_order(streams: dict[bytes, list[Record]], records: list[Record], object_to: Objection) -> None:
    for stream, own in streams.items():
        for n, record in enumerate(own, 1):
            if record.stream != stream:
                object_to(Wrong.DISORDER, f"{_show(record)} is given as a record of {_name(stream)}")
            if record.seq != n:
                repeated = any(record.seq == other.seq for other in own[: n - 1])
                object_to(Wrong.DOUBLED if repeated else Wrong.DISORDER, f"{_show(record)} where seq {n} is due")
                break
        for before, after in itertools.pairwise(own):
            if after.lsn < before.lsn:
                object_to(Wrong.DISORDER, f"{_show(after)} follows {_show(before)}")
    for before, after in itertools.pairwise(records):
        if before.lsn == after.lsn:
            object_to(Wrong.DOUBLED, f"{_show(before)} and {_show(after)} have one LSN")


def _places(expected: Expectation, records: list[Record], object_to: Objection) -> dict[bytes, Record]:
    """Where each payload that was sent as a record is found; object to those that have no business there."""
    source = {
        payload: fate
        for attempt, fate, _lsn in expected.attempts
        if attempt.is_of_records
        for batch in attempt.batches
        for payload in batch.payloads
    }
    place: dict[bytes, Record] = {}
    for record in records:
        fate = source.get(record.payload)
        if fate is None:
            object_to(Wrong.PHANTOM, _show(record))
        elif fate is Fate.REFUSED:
            object_to(Wrong.REFUSED, _show(record))
        elif record.payload in place:
            object_to(Wrong.DOUBLED, f"{_show(place[record.payload])} and {_show(record)}")
        else:
            place[record.payload] = record
    return place


def _judge_attempts(
    expected: Expectation, place: dict[bytes, Record], records: list[Record], object_to: Objection
) -> None:
    at_lsn = {record.lsn: record for record in records}
    missing_before: Attempt | None = None
    for attempt, fate, first_lsn in expected.attempts:
        if not attempt.is_of_records or fate is Fate.REFUSED:
            continue
        sent = attempt.records(first_lsn)
        there = [n for n, record in enumerate(sent) if record.payload in place]
        gone = [r for r in sent if r.payload not in place and r.stream not in expected.deletions]
        if fate is Fate.STORED:
            for record in gone:
                other = at_lsn.get(record.lsn)
                same_place = other is not None and other[:2] == record[:2]
                object_to(Wrong.CHANGED if same_place else Wrong.LOST, _show(record))
        else:
            if there:
                sent = attempt.records(place[sent[there[0]].payload].lsn - there[0])
                if gone:
                    text = f"submission {attempt.number}: {_show(sent[there[0]])} but not {_show(gone[0])}"
                    object_to(Wrong.HALF, text)
                if missing_before is not None and fate is Fate.UNDER_WAY:
                    object_to(Wrong.OVERTAKEN, f"submission {attempt.number}, but not {missing_before.number}")
            elif gone and fate is Fate.UNDER_WAY:
                missing_before = missing_before or attempt
        for n in there:
            if place[sent[n].payload] != sent[n]:
                object_to(Wrong.MOVED, f"{_show(sent[n])} is {_show(place[sent[n].payload])}")


def _judge_deletions(expected: Expectation, found: Found, object_to: Objection) -> None:
    for stream, fate in expected.deletions.items():
        own = found.streams.get(stream)
        if fate is Fate.STORED:
            if own is not None or stream in found.open_streams or stream not in found.deleted:
                object_to(Wrong.RESURRECTED, f"{_name(stream)} with {len(own or ())} records")
        elif own is not None:
            # Not acknowledged: the stream is there as if nobody had asked, or gone altogether.
            certain = sum(
                len(batch.payloads)
                for attempt, known, _lsn in expected.attempts
                if known is Fate.STORED and attempt.is_of_records
                for batch in attempt.batches
                if batch.stream == stream
            )
            if len(own) < certain:
                object_to(Wrong.LOST, f"{_name(stream)} is not deleted, but has {len(own)} of {certain} records")
    for stream in found.deleted - expected.deletions.keys():
        object_to(Wrong.LOST, f"{_name(stream)} is deleted, which was refused")


def _judge_snapshots(expected: Expectation, found: Found, object_to: Objection) -> None:
    """The newest acknowledged snapshot is shown, or one that was sent behind it and may be there; none of a deleted
    stream."""
    for stream in expected.with_snapshots:
        allowed: list[Record | None] = [None]
        for attempt, fate, lsn in expected.attempts:
            if attempt.is_snapshot and attempt.batches[0].stream == stream:
                if fate is Fate.STORED:
                    allowed = [*attempt.records(lsn)]
                elif fate.is_open:
                    allowed += attempt.records(0)
        if stream in expected.deletions:
            allowed = [None] if expected.deletions[stream] is Fate.STORED else [*allowed, None]
        shown = found.snapshots.get(stream)
        if shown not in allowed and (shown is None or shown._replace(lsn=0) not in allowed):
            object_to(Wrong.SNAPSHOT, f"{_name(stream)}: {shown and _show(shown)}")


def _judge_open_streams(expected: Expectation, found: Found, place: dict[bytes, Record], object_to: Objection) -> None:
    flags: dict[bytes, int] = {}
    for attempt, _fate, _lsn in expected.attempts:
        for batch in attempt.batches:
            if attempt.is_of_records and batch.payloads[0] in place:
                flags[batch.stream] = flags.get(batch.stream, 0) | batch.flags
    still_open = {s for s, seen in flags.items() if seen & (FLAG_OPENS | FLAG_CLOSES) == FLAG_OPENS}
    for stream in (still_open ^ found.open_streams) - expected.deletions.keys():
        object_to(Wrong.OPEN_STREAMS, f"{_name(stream)} is {'' if stream in still_open else 'not '}open")


def judge_followed(expected: Expectation, followed: list[Record], records: list[Record]) -> list[Violation]:
    """What a follower sees is what the streams hold, in log order; beside it only tombstones, and (until it is purged)
    what was in a deleted stream."""
    wrong: list[Violation] = []

    def object_to(kind: Wrong, text: str) -> None:
        wrong.append(Violation(kind, text))

    lsns = [record.lsn for record in followed]
    if lsns != sorted(set(lsns)):
        object_to(Wrong.DISORDER, f"a follower sees the LSNs {lsns}")
    hidden: dict[bytes, tuple[Attempt, Fate, int, Record]] = {
        record.payload: (attempt, fate, lsn, record)
        for attempt, fate, lsn in expected.attempts
        if not attempt.is_snapshot
        for record in attempt.records(lsn)
        if record.stream in expected.deletions or attempt.is_tombstone
    }
    there = set(records)
    seen: list[Record] = []
    for record in followed:
        if record in there or record.payload not in hidden:
            seen.append(record)
            continue
        attempt, fate, lsn, sent = hidden[record.payload]
        if fate is Fate.REFUSED:
            object_to(Wrong.REFUSED, f"a follower sees {_show(record)}")
        elif record.stream in expected.purged and not attempt.is_tombstone:
            object_to(Wrong.RESURRECTED, f"a follower sees {_show(record)}")
        elif record != (sent if lsn else sent._replace(lsn=record.lsn)):
            object_to(Wrong.MOVED, f"a follower sees {_show(sent)} as {_show(record)}")
    if seen != records:
        odd = next(iter(set(seen) ^ there), None)
        object_to(Wrong.ANOTHER_ANSWER, f"a follower sees {len(seen)} of {len(records)} records; {odd and _show(odd)}")
    return wrong


# ---- reading what a log holds ----------------------------------------------------------------------------------------


@contextmanager
def declared(wrong: Wrong, doing: str) -> Iterator[None]:
    """Object if this raises: as `wrong` to an error of Stepwell's own, as UNDECLARED to any other exception."""
    try:
        yield
    except Broken:
        raise
    except StepwellError as error:
        raise Broken([Violation(wrong, f"{doing}: {type(error).__name__}: {error}")]) from error
    except Exception as error:
        raise Broken([Violation(Wrong.UNDECLARED, f"{doing}: {error!r}")]) from error


async def read_streams(journal: SegmentLogJournal, expected: Expectation) -> Found:
    """Every stream the journal names, and those it does not name but was sent, record by record.

    Raises: `Broken`.
    """
    with declared(Wrong.NOT_READ, "naming the streams"):
        named = list(journal.streams())
        found = Found(open_streams=set(journal.open_streams()))
    if len(set(named)) != len(named):
        raise Broken([Violation(Wrong.DOUBLED, "the journal names a stream twice")])
    for stream in named:
        with declared(Wrong.NOT_READ, f"reading stream {_name(stream)}"):
            found.streams[stream] = await _read(journal, stream)
    for stream in expected.with_snapshots:
        with declared(Wrong.NOT_READ, f"reading the snapshot of {_name(stream)}"):
            found.snapshots[stream] = await journal.read_snapshot(stream)
    for stream in {a.batches[0].stream for a, _fate, _lsn in expected.attempts if a.is_tombstone}:
        with declared(Wrong.NOT_READ, f"asking whether {_name(stream)} is deleted"):
            if journal.is_deleted(stream):
                found.deleted.add(stream)
            if stream not in found.streams and (hidden := await _read(journal, stream)):
                found.streams[stream] = hidden
    return found


async def _read(journal: SegmentLogJournal, stream: bytes) -> list[Record]:
    slices, found = journal.read(stream), []
    while records := await slices.next_slice():
        found += records
    return found


async def _follow(journal: SegmentLogJournal) -> list[Record]:
    followed: list[Record] = []
    async with journal.follow(0) as slices:
        async for items in slices:
            for item in items:
                if isinstance(item, Gap):
                    raise Broken([Violation(Wrong.NOT_READ, f"a follower meets damage: {item}")])
                followed.append(item)
    return followed


def must_stay_deleted(journal: SegmentLogJournal, expected: Expectation) -> None:
    """Object if the id of a deleted stream can be used again. Raises: `Broken`."""
    for stream, fate in expected.deletions.items():
        if fate is Fate.STORED:
            try:
                journal.submit([Batch(stream, journal.last_seq(stream) + 1, [b"to a deleted stream"], 0)])
            except (InvalidState, Rejected):
                continue
            raise Broken([Violation(Wrong.RESURRECTED, f"{_name(stream)} takes records again")])


@dataclass(frozen=True)
class Examined:
    """What an image that breaks no promise holds."""

    found: Found
    report: RecoveryReport


async def examine(disk: MemoryFileSystem, expected: Expectation, options: LogOptions) -> Examined:
    """Open what a crash left, judge what it holds; then cut the power at once, open again and find the same.

    The second opening is on what of the first one is durable, ends in a clean stop, and is read in log order as well.
    `disk` is changed by it. Raises: `Broken`.
    """
    with declared(Wrong.NOT_OPENED, "opening"):
        journal = SegmentLogJournal.open(LOG, options, disk)
    try:
        found = await read_streams(journal, expected)
        report = journal.report
        must_stay_deleted(journal, expected)
    finally:
        journal.release()
    if wrong := judge(expected, found):
        raise Broken(wrong)
    with declared(Wrong.NOT_OPENED, "opening again after a power cut"):
        journal = SegmentLogJournal.open(LOG, options, disk.durable_copy())
    try:
        journal.finish()
        with declared(Wrong.UNDECLARED, "a clean stop after the second opening"):
            await journal.run()
        try:
            with declared(Wrong.NOT_READ, "following"):
                wrong = judge_followed(expected, await _follow(journal), found.records())
        except Broken as broken:
            # Behind a purge there may be no way to follow from the beginning; anywhere else there must be.
            if not expected.deletions or broken.violations[0].wrong is Wrong.UNDECLARED:
                raise
            again = await read_streams(journal, expected)
            wrong = judge_followed(expected, again.records(), found.records())
        if set(journal.streams()) != found.streams.keys() or set(journal.open_streams()) != found.open_streams:
            wrong.append(Violation(Wrong.ANOTHER_ANSWER, "other streams are there, or open"))
    finally:
        journal.release()
    if wrong:
        raise Broken(wrong, "after a power cut behind the opening")
    return Examined(found, report)
