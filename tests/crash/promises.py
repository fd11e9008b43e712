"""What was promised to those who used a journal, and what an opened journal shows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from stepstore.journal.contract import FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch, Record


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
        for batch in self.batches:
            stream, first_seq, payloads = batch.stream, batch.first_seq, batch.payloads
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

    def settled(self, found: Found, *, for_good: bool = True) -> Expectation:
        """What is promised once an opening has found this: what it shows is durable, the rest is gone for good, or
        still unknown if the opening could not finish its repairs."""
        missing = Fate.REFUSED if for_good else Fate.UNKNOWN
        place = {record.payload: record for record in found.records()}
        place |= {snapshot.payload: snapshot for snapshot in found.snapshots.values() if snapshot is not None}
        attempts: list[Known] = []
        for attempt, fate, lsn in self.attempts:
            if fate.is_open and attempt.is_tombstone:
                fate = Fate.STORED if attempt.batches[0].stream in found.deleted else missing
            elif fate.is_open:
                sent = attempt.records(0)
                there = next((n for n, record in enumerate(sent) if record.payload in place), None)
                fate = missing if there is None else Fate.STORED
                lsn = 0 if there is None else place[sent[there].payload].lsn - there
            attempts.append((attempt, fate, lsn))
        return Expectation(attempts, self.purged)

    def digest(self) -> bytes:
        """The same for equal expectations only."""
        known = hashlib.blake2b(b"".join(sorted(self.purged)), digest_size=16)
        for attempt, fate, first_lsn in self.attempts:
            known.update(attempt.key + fate.value.encode() + first_lsn.to_bytes(8, "big"))
        return known.digest()


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
