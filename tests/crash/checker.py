"""The checker of the crash suites that drive a journal: what was promised, compared with what a log holds.

The rule: every acknowledged record is there exactly once, in order, at its LSN, byte for byte; nothing that was refused
is there; what had an unknown outcome is there whole or not at all, and at most once; nothing is there that was never
sent; a stream whose deletion was acknowledged never comes back; and a second opening finds the same.

Payloads are unique, so a record found says by itself which submission it comes from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS, Record
from tests.crash.promises import Attempt, Expectation, Fate, Found

Objection = Callable[["Wrong", str], None]


class Wrong(Enum):
    """The kinds of broken promises."""

    LOST = "a record that was acknowledged, or shown by an opening, is missing"
    CHANGED = "such a record has other bytes"
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


def name_of(stream: bytes) -> str:
    """A stream, short enough to be read."""
    return stream.hex()[:6]


def show(record: Record) -> str:
    """A record on one line."""
    content = record.payload if len(record.payload) <= 24 else record.payload[:24] + b"..."
    return f"{name_of(record.stream)} seq {record.seq} lsn {record.lsn} {content!r}"


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
                object_to(Wrong.DISORDER, f"{show(record)} is given as a record of {name_of(stream)}")
            if record.seq != n:
                repeated = any(record.seq == other.seq for other in own[: n - 1])
                object_to(Wrong.DOUBLED if repeated else Wrong.DISORDER, f"{show(record)} where seq {n} is due")
                break
        for before, after in itertools.pairwise(own):
            if after.lsn < before.lsn:
                object_to(Wrong.DISORDER, f"{show(after)} follows {show(before)}")
    for before, after in itertools.pairwise(records):
        if before.lsn == after.lsn:
            object_to(Wrong.DOUBLED, f"{show(before)} and {show(after)} have one LSN")


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
            object_to(Wrong.PHANTOM, show(record))
        elif fate is Fate.REFUSED:
            object_to(Wrong.REFUSED, show(record))
        elif record.payload in place:
            object_to(Wrong.DOUBLED, f"{show(place[record.payload])} and {show(record)}")
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
                object_to(Wrong.CHANGED if same_place else Wrong.LOST, show(record))
        else:
            if there:
                sent = attempt.records(place[sent[there[0]].payload].lsn - there[0])
                if gone:
                    text = f"submission {attempt.number}: {show(sent[there[0]])} but not {show(gone[0])}"
                    object_to(Wrong.HALF, text)
                if missing_before is not None and fate is Fate.UNDER_WAY:
                    object_to(Wrong.OVERTAKEN, f"submission {attempt.number}, but not {missing_before.number}")
            elif gone and fate is Fate.UNDER_WAY:
                missing_before = missing_before or attempt
        for n in there:
            if place[sent[n].payload] != sent[n]:
                object_to(Wrong.MOVED, f"{show(sent[n])} is {show(place[sent[n].payload])}")


def _judge_deletions(expected: Expectation, found: Found, object_to: Objection) -> None:
    for stream, fate in expected.deletions.items():
        own = found.streams.get(stream)
        if fate is Fate.STORED:
            if own is not None or stream in found.open_streams or stream not in found.deleted:
                object_to(Wrong.RESURRECTED, f"{name_of(stream)} with {len(own or ())} records")
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
                object_to(Wrong.LOST, f"{name_of(stream)} is not deleted, but has {len(own)} of {certain} records")
    for stream in found.deleted - expected.deletions.keys():
        object_to(Wrong.LOST, f"{name_of(stream)} is deleted, which was refused")


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
            object_to(Wrong.SNAPSHOT, f"{name_of(stream)}: {shown and show(shown)}")


def _judge_open_streams(expected: Expectation, found: Found, place: dict[bytes, Record], object_to: Objection) -> None:
    flags: dict[bytes, int] = {}
    for attempt, _fate, _lsn in expected.attempts:
        for batch in attempt.batches:
            if attempt.is_of_records and batch.payloads[0] in place:
                flags[batch.stream] = flags.get(batch.stream, 0) | batch.flags
    still_open = {s for s, seen in flags.items() if seen & (FLAG_OPENS | FLAG_CLOSES) == FLAG_OPENS}
    for stream in (still_open ^ found.open_streams) - expected.deletions.keys():
        object_to(Wrong.OPEN_STREAMS, f"{name_of(stream)} is {'' if stream in still_open else 'not '}open")


def judge_followed(expected: Expectation, followed: list[Record], records: list[Record]) -> list[Violation]:
    """What a follower sees is what the streams hold, in log order; and of a deleted stream its tombstone, which is gone
    only when nothing is left that it would hide."""
    wrong: list[Violation] = []

    def object_to(kind: Wrong, text: str) -> None:
        wrong.append(Violation(kind, text))

    lsns = [record.lsn for record in followed]
    if lsns != sorted(set(lsns)):
        object_to(Wrong.DISORDER, f"a follower sees the LSNs {lsns}")
    tombstones = {
        record.payload: (fate, record)
        for attempt, fate, lsn in expected.attempts
        if attempt.is_tombstone
        for record in attempt.records(lsn)
    }
    there = set(records)
    seen: list[Record] = []
    for record in followed:
        if record.payload in tombstones:
            fate, sent = tombstones.pop(record.payload)
            if fate is Fate.REFUSED:
                object_to(Wrong.REFUSED, f"a follower sees {show(record)}")
            elif record != (sent if sent.lsn else sent._replace(lsn=record.lsn)):
                object_to(Wrong.MOVED, f"a follower sees {show(sent)} as {show(record)}")
        elif record.stream in expected.deletions and record not in there:
            object_to(Wrong.RESURRECTED, f"a follower sees {show(record)}")
        else:
            seen.append(record)
    for fate, sent in tombstones.values():
        if fate is Fate.STORED and sent.stream not in expected.purged:
            object_to(Wrong.LOST, f"a follower does not see {show(sent)}")
    if seen != records:
        odd = next(iter(set(seen) ^ there), None)
        object_to(Wrong.ANOTHER_ANSWER, f"a follower sees {len(seen)} of {len(records)} records; {odd and show(odd)}")
    return wrong
