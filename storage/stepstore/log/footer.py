"""The index of a segment as bytes: what a footer frame and a sidecar file hold, and the trailer that says where it is.

    index    = head, fingerprints, open set, frame table, stream table, batch table, snapshot table

The head is a fixed struct with its own CRC and holds the counts, from which every offset follows, a copy of the segment
header, and the BLAKE2b-256 digest of the segment's bytes before the footer. Fingerprints (the first 4 bytes of each
stream id, sorted) and the open set (16 bytes for each stream that was open when the segment ended, in the order in
which they were opened) are read whole; the
tables are paged (`packed_table`) and read where needed. Stream entries are sorted by id, the batches of a stream lie
together, oldest first.

The trailer is the last 64 bytes of a sealed segment, and of a sidecar: one CBOR byte string within one sector.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from stepstore.log.packed_table import UnsoundIndex, table_bytes

FRAME_ENTRY = struct.Struct(">QQ")
"""first LSN, offset of the frame's header."""
STREAM_ENTRY = struct.Struct(">16sIIQQQI")
"""stream id, number of its first batch, batches, first seq, last seq, first LSN, flags."""
BATCH_WORDS = 5
BATCH_ENTRY_BYTES = BATCH_WORDS * 8
"""first seq; first LSN; offsets of the u32 lengths and of the payloads (32 bits each); records and bytes; CRC and
flags."""
SNAPSHOT_BYTES = 16 + BATCH_ENTRY_BYTES
FINGERPRINT_BYTES, OPEN_BYTES = 4, 16

_HEAD = struct.Struct(">8sI512sQQQIqqQQQIIIIII32sIII")
_MAGIC = b"stepindx"
_VERSION = 1
HEAD_BYTES = _HEAD.size
_TRAILER = struct.Struct(">BB4sIQIIQQIQ6xI")
TRAILER_BYTES = _TRAILER.size
_TRAILER_MAGIC = b"swtr"
_BYTES8 = 0x58


class IndexHead(NamedTuple):
    """The head of an index.

    `end_offset`, `end_lsn`, `chain`: where the segment's records end, as its successor's header names it. `first_ns`,
    `last_ns`: the wall times of the first and the last commit, 0 where not known. `records` and `payload_bytes` count
    what the frames hold, `superseded_bytes` those payload bytes that are snapshots with a newer one in the same segment
    (which no table names); `digest` is over the bytes [0, end_offset).
    """

    header_copy: bytes
    first_lsn: int
    end_lsn: int
    end_offset: int
    chain: int
    first_ns: int
    last_ns: int
    records: int
    payload_bytes: int
    superseded_bytes: int
    frames: int
    streams: int
    batches: int
    snapshots: int
    open_streams: int
    tombstones: int
    digest: bytes
    fingerprints_crc: int
    open_crc: int

    @property
    def fingerprints_at(self) -> int:
        """Offsets below are relative to the start of the index."""
        return HEAD_BYTES

    @property
    def open_at(self) -> int:
        return self.fingerprints_at + self.streams * FINGERPRINT_BYTES

    @property
    def frames_at(self) -> int:
        return self.open_at + self.open_streams * OPEN_BYTES

    @property
    def streams_at(self) -> int:
        return self.frames_at + table_bytes(self.frames, FRAME_ENTRY.size)

    @property
    def batches_at(self) -> int:
        return self.streams_at + table_bytes(self.streams, STREAM_ENTRY.size)

    @property
    def snapshots_at(self) -> int:
        return self.batches_at + table_bytes(self.batches, BATCH_ENTRY_BYTES)

    @property
    def size(self) -> int:
        """Bytes of the whole index."""
        return self.snapshots_at + table_bytes(self.snapshots, SNAPSHOT_BYTES)


def encode_head(head: IndexHead) -> bytes:
    """The head as bytes, its CRC at the end."""
    data = _HEAD.pack(_MAGIC, _VERSION, *head, 0)[:-4]
    return data + struct.pack(">I", zlib.crc32(data))


def parse_head(data: bytes) -> IndexHead:
    """The head at the start of `data`. Raises: `UnsoundIndex`."""
    if len(data) < HEAD_BYTES:
        raise UnsoundIndex("the file ends inside the head of the index")
    magic, version, *fields, crc = _HEAD.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION) or crc != zlib.crc32(data[: HEAD_BYTES - 4]):
        raise UnsoundIndex("the head of the index is not what was written")
    return IndexHead(*fields)


class Trailer(NamedTuple):
    """`index_at`, `index_bytes`: where the index lies in the file. `head_crc`: the CRC of its head. The rest as in
    `IndexHead`. `segment_tag` ties it to its segment."""

    segment_tag: int
    index_at: int
    index_bytes: int
    head_crc: int
    end_offset: int
    end_lsn: int
    chain: int
    records: int


def encode_trailer(trailer: Trailer) -> bytes:
    """The trailer as 64 bytes: one CBOR byte string."""
    data = _TRAILER.pack(_BYTES8, TRAILER_BYTES - 2, _TRAILER_MAGIC, *trailer, 0)[:-4]
    return data + struct.pack(">I", zlib.crc32(data))


def parse_trailer(data: bytes) -> Trailer | None:
    """The trailer in these 64 bytes, None unless every byte is as it was written."""
    if len(data) != TRAILER_BYTES:
        return None
    head, length, magic, *fields, crc = _TRAILER.unpack(data)
    if (head, length, magic) != (_BYTES8, TRAILER_BYTES - 2, _TRAILER_MAGIC) or crc != zlib.crc32(data[:-4]):
        return None
    if data[-10:-4] != bytes(6):
        return None
    return Trailer(*fields)
