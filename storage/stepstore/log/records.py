"""What is read from a log: a record, records that were stored together, a gap where they cannot be given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import msgspec


class Record(NamedTuple):
    """One record: its stream, its number in it, its number in the log, and its opaque payload."""

    stream: bytes
    seq: int
    lsn: int
    payload: bytes

    def batch(self) -> RecordBatch:
        """A batch of it alone."""
        return RecordBatch(self.stream, self.seq, self.lsn, [self.payload])


make_record: Callable[[Iterable[object]], Record] = partial(tuple.__new__, Record)
"""A record of its fields, without a call in Python."""


def records_of(stream: bytes, first_seq: int, first_lsn: int, payloads: list[bytes]) -> list[Record]:
    """The records with these payloads, numbered from these on. Without a call in Python for each: reading an episode
    and following a log spend a tenth of their time here otherwise."""
    numbers = itertools.count(first_seq), itertools.count(first_lsn)
    return list(map(make_record, zip(itertools.repeat(stream), *numbers, payloads, strict=False)))


class RecordBatch(NamedTuple):
    """Records of one stream that follow each other in the log, as they were stored together."""

    stream: bytes
    first_seq: int
    first_lsn: int
    payloads: list[bytes]

    def records(self) -> list[Record]:
        """The same one by one."""
        return records_of(*self)


class StoredBatch(msgspec.Struct, gc=False):
    """The same, not cut into records yet: of most batches, most who follow a log need no record. The garbage collector
    does not know of it: thousands are held at a time, and nothing in them refers back.

    It lies at `at` in `content`, which holds what was read together with it: who keeps a batch keeps all of that.
    """

    stream: bytes
    first_seq: int
    first_lsn: int
    lengths: tuple[int, ...]
    content: bytes
    at: int

    @property
    def payloads(self) -> list[bytes]:
        """The payloads, cut anew each time."""
        content, at = self.content, self.at
        if len(self.lengths) == 1:
            return [content[at : at + self.lengths[0]]]
        out: list[bytes] = []
        for length in self.lengths:
            out.append(content[at : at + length])
            at += length
        return out

    def cut(self) -> RecordBatch:
        """The same, cut into records."""
        return make_batch((self.stream, self.first_seq, self.first_lsn, self.payloads))


make_batch: Callable[[Iterable[object]], RecordBatch] = partial(tuple.__new__, RecordBatch)
"""A batch of its fields, without a call in Python."""


class Gap(NamedTuple):
    """Records of the log that a follower cannot be given: their bytes are damaged, or their key was destroyed."""

    first_lsn: int
    last_lsn: int


Stored = StoredBatch | RecordBatch | Gap
"""What a follower is given: a batch as it is stored, one that had to be decoded, or what cannot be given."""


def last_lsn_of(item: Stored) -> int:
    """The last record that an item stands for."""
    if isinstance(item, Gap):
        return item.last_lsn
    return item.first_lsn + len(item.lengths if isinstance(item, StoredBatch) else item.payloads) - 1


def between(batch: StoredBatch | RecordBatch, after: int, upto: int) -> StoredBatch | RecordBatch:
    """What a batch has behind one record and up to another."""
    if batch.first_lsn > after and last_lsn_of(batch) <= upto:
        return batch
    stream, first_seq, first_lsn, payloads = batch.cut() if isinstance(batch, StoredBatch) else batch
    cut = max(0, after + 1 - first_lsn)
    return RecordBatch(stream, first_seq + cut, first_lsn + cut, payloads[cut : max(0, upto + 1 - first_lsn)])
