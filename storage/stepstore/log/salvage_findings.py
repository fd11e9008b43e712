"""What salvage finds in a segment: batches whose checksum holds, and places that are damaged."""

from __future__ import annotations

import struct
from typing import NamedTuple

from stepstore.log.frame import split_payloads


class FoundBatch(NamedTuple):
    """A batch whose checksum holds. `stored`: its bytes as they lie in the frame, of payloads with these `lengths`;
    `flags` as in a directory entry."""

    stream: bytes
    first_seq: int
    first_lsn: int
    flags: int
    lengths: tuple[int, ...]
    stored: bytes

    @property
    def last_seq(self) -> int:
        """The number of its last record."""
        return self.first_seq + len(self.lengths) - 1

    def payloads(self) -> list[bytes]:
        """The records, of a batch that is stored as it is."""
        found = split_payloads(struct.pack(f">{len(self.lengths)}I", *self.lengths), self.stored)
        assert found is not None
        return found


LostPart = tuple[bytes, int, int]
"""Records of one stream that are lost: (stream, first seq, last seq)."""


class Lost(NamedTuple):
    """A place that is damaged. `last_lsn` as in `Break`. `parts`: what of which stream lay there, None if not known."""

    path: str
    offset: int
    end: int
    first_lsn: int
    last_lsn: int | None
    parts: tuple[LostPart, ...] | None
    what: str

    @property
    def concerns_records(self) -> bool:
        """Whether a record is lost, or may be."""
        if self.parts is not None:
            return bool(self.parts)
        return self.last_lsn is None or self.last_lsn >= self.first_lsn
