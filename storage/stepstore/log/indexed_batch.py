"""One batch of a stream where it lies in its segment, from the five words that an index has of it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import NamedTuple

from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, MAX_BATCH_BYTES
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.segment_header import HEADER_BYTES

_NEAR = 16 * 1024
"""Lengths and payloads with less than this between them are read together."""
CODED = 0xFFFF & ~(FLAG_OPENS | FLAG_CLOSES)
"""Flag bits that say a batch is not stored as it is."""


class IndexedBatch(NamedTuple):
    """One batch of a stream: `records` of them from `first_seq` and `first_lsn` on. `flags`: how they are stored."""

    segment: IndexedSegment
    first_seq: int
    first_lsn: int
    records: int
    size: int
    crc: int
    flags: int
    payload_at: int
    lengths_at: int

    @property
    def last_seq(self) -> int:
        """The number of its last record."""
        return self.first_seq + self.records - 1

    @property
    def places(self) -> tuple[tuple[int, int], ...] | None:
        """The (offset, size) to read for its bytes: one, unless its lengths lie far from its payloads. Of a single
        record that is stored as it is, the payload alone. None if it does not lie where a batch of its segment can: an
        index with sound checksums may still lie."""
        segment, _seq, _lsn, records, size, _crc, flags, payload_at, lengths_at = self
        return places_of_batch(segment.end_offset, records, size, flags, payload_at, lengths_at)

    def overlaps(self, other: IndexedBatch) -> bool:
        """Whether two batches of one stream have a number in common."""
        return self.first_seq <= other.last_seq and other.first_seq <= self.last_seq


SameRecords = Callable[[IndexedBatch, IndexedBatch], bool]
"""Whether what two batches of a stream have in common is equal, byte for byte. Raises `StepwellError`."""


def places_of_batch(
    end_offset: int, records: int, size: int, flags: int, payload_at: int, lengths_at: int
) -> tuple[tuple[int, int], ...] | None:
    """As `IndexedBatch.places`, of a batch in a segment that ends at `end_offset`."""
    behind = lengths_at + records * 4
    if not HEADER_BYTES <= lengths_at <= behind <= payload_at or size > MAX_BATCH_BYTES:
        return None
    end = payload_at + size
    if end > end_offset:
        return None
    if records == 1 and not flags & CODED:
        return ((payload_at, size),)
    if payload_at - behind < _NEAR:
        return ((lengths_at, end - lengths_at),)
    return (lengths_at, records * 4), (payload_at, size)


def batch_from_words(segment: IndexedSegment, words: array[int] | tuple[int, ...], at: int = 0) -> IndexedBatch:
    """The batch whose five words begin at place `at`."""
    return IndexedBatch(segment, *fields_from_words(words, at))


def fields_from_words(
    words: array[int] | tuple[int, ...], at: int = 0
) -> tuple[int, int, int, int, int, int, int, int]:
    """The fields of an `IndexedBatch` behind its segment, from the five words that begin at place `at`."""
    first_seq, first_lsn, places, amounts, crc_flags = words[at : at + 5]
    return (
        first_seq,
        first_lsn,
        amounts >> 32,
        amounts & 0xFFFFFFFF,
        crc_flags >> 32,
        crc_flags & 0xFFFFFFFF,
        places & 0xFFFFFFFF,
        places >> 32,
    )
