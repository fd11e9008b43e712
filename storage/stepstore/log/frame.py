"""Frames: one commit group as bytes.

A frame is three CBOR items. The header is an array of 14 unsigned integers in fixed-width encodings, so that one
`struct.Struct` reads it and its type bytes double as a magic; it never crosses a 512-byte boundary, so that it is on
the medium as a whole or not at all. The directory and the payloads are byte strings with 4-byte lengths.

Directory: `DIRECTORY_ENTRY`s (one per batch), then one u32 length per record, in the same order.
"""

from __future__ import annotations

import itertools
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

SECTOR = 512

KIND_DATA, KIND_MARK, KIND_FOOTER, KIND_CLOSE = 1, 2, 3, 4
MARK_ALIGNMENT = 4096
"""A mark and a close frame start at a multiple of this: in the sector they protect they would be lost with it."""

MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Upper bound of one batch as stored: payloads, plus 4 bytes a record, plus its directory entry."""
MAX_GROUP_BYTES = 4 * 1024 * 1024
"""A group takes batches up to this, unless a single batch is larger."""
MAX_FRAME_BYTES = MAX_BATCH_BYTES + SECTOR
"""No frame is longer; recovery relies on it (rows 4 and 6)."""
_LOCKED_BYTES = 5 * 1024
"""Of so many `zlib.crc32` does not give up the interpreter's lock."""
MAX_NUMBER = 2**63 - 1
"""No LSN and no sequence number is larger."""

_HEADER = struct.Struct(">B BB BB BQ BI BI BQ BI BI BI BI BI BI BI BI")
HEADER_BYTES = _HEADER.size
_ARRAY14, _U8, _U32, _U64, _BYTES32 = 0x8E, 0x18, 0x1A, 0x1B, 0x5A
_TYPES = (_ARRAY14, _U8, _U8, _U64, _U32, _U32, _U64, *([_U32] * 8))
_CRC_OFFSET = HEADER_BYTES - 5
TAG_OFFSET = 1 + 2 + 2 + 9 + 5 + 5 + 9
"""Where the segment tag's type byte lies in a header; `scan` searches for it when it looks for later frames."""
_BYTES_HEAD = struct.Struct(">BI")
BODY_OVERHEAD = 2 * _BYTES_HEAD.size
WRAPPER_BYTES = HEADER_BYTES + BODY_OVERHEAD
"""A frame without a directory has its content behind so many bytes."""

DIRECTORY_ENTRY = struct.Struct(">16sQIIIIHH")
"""stream id, first seq, LSN offset in the frame, records, payload bytes, CRC of those bytes, flags, entry kind."""
ENTRY_BYTES = DIRECTORY_ENTRY.size
ENTRY_EVENTS, ENTRY_SNAPSHOT, ENTRY_TOMBSTONE = 1, 2, 3
"""What a batch is: records of its stream; a snapshot of it (one record without a number of its own, whose
`first_seq` is the last number it covers); the stream's last record, behind which it is deleted."""
FLAG_OPENS, FLAG_CLOSES = 1, 2
"""The batch holds the record that opens, or that closes, its stream."""
_KIND_SHIFT = 16
FLAG_SNAPSHOT = (ENTRY_SNAPSHOT - ENTRY_EVENTS) << _KIND_SHIFT
FLAG_TOMBSTONE = (ENTRY_TOMBSTONE - ENTRY_EVENTS) << _KIND_SHIFT
KIND_FLAGS = FLAG_SNAPSHOT | FLAG_TOMBSTONE
"""In memory the kind of an entry stands above its flags, so that ordinary batches have nothing there."""
_LENGTH = struct.Struct(">I")


class FrameHeader(NamedTuple):
    """The fields of a frame header, in their order on disk."""

    kind: int
    flags: int
    first_lsn: int
    lsn_span: int
    record_count: int
    durable_lsn: int
    segment_tag: int
    prev_crc: int
    body_len: int
    dir_len: int
    dir_crc: int
    body_crc: int
    zero_pieces: int
    header_crc: int

    @property
    def last_lsn(self) -> int:
        """The last LSN of the frame; `first_lsn - 1` if it holds no record."""
        return self.first_lsn + self.lsn_span - 1

    @property
    def frame_len(self) -> int:
        """Bytes of the whole frame: header and body."""
        return HEADER_BYTES + self.body_len


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Records of one stream that are stored together: `first_seq` and on, as opaque payloads.

    `flags`: FLAG_… bits. A batch with FLAG_SNAPSHOT holds one record, takes no number, and names in `first_seq` the
    last one it covers; one with FLAG_TOMBSTONE holds the last record of its stream.
    """

    # Thousands may wait for the medium at once, so the garbage collector does not know them (`gc=False`). That is safe
    # because a batch holds bytes, which refer to nothing.

    stream: bytes
    first_seq: int
    payloads: Sequence[bytes]
    flags: int


class StoredBatch(NamedTuple):
    """A batch as its frame holds it, to be copied into another: its records have their LSNs, its bytes are opaque."""

    stream: bytes
    first_seq: int
    first_lsn: int
    records: int
    crc: int
    flags: int
    lengths: bytes
    content: bytes


Encode = Callable[[bytes, int, Sequence[bytes]], tuple[bytes, int]]
"""(stream, first_seq, payloads) → the bytes stored for them, and the flag bits that say how (see `batch_codec`)."""


DirectoryEntry = tuple[bytes, int, int, int, int, int, int, int, int]
"""Where one batch lies: (stream, first_seq, first_lsn, count, size, crc, flags, payload_at, lengths_at).

`payload_at` and `lengths_at` are offsets in the file. A plain tuple: recovery makes one per batch of the whole log.
"""


def batch_cost(payload_bytes: int, records: int) -> int:
    """Bytes a batch takes in a frame, its directory entry and lengths included."""
    return payload_bytes + records * _LENGTH.size + ENTRY_BYTES


def header_position(offset: int, align: int = 0) -> int:
    """Where a frame header goes that is due at `offset`: there, or at the next sector where it would cross one."""
    if align:
        return -(-offset // align) * align
    if offset % SECTOR + HEADER_BYTES > SECTOR:
        return (offset // SECTOR + 1) * SECTOR
    return offset


def count_zero_pieces(frame: bytes | bytearray | memoryview, offset: int) -> int:
    """How many intersections of the frame at file `offset` with aligned sectors, the header's excepted, are all zero.

    A tear leaves sectors unwritten, so a torn frame has *more* zero pieces than the writer counted; a flipped bit does
    not make one.
    """
    data = bytes(frame) if isinstance(frame, memoryview) else frame
    first = (offset // SECTOR + 1) * SECTOR - offset
    end = len(data)
    if first >= end:
        return 0
    tail = first + (end - first) // SECTOR * SECTOR
    pieces = int(tail < end and data.count(0, tail) == end - tail)
    at = data.find(_ZERO_SECTOR, first, tail)
    while at >= 0:
        piece = first + -(-(at - first) // SECTOR) * SECTOR  # at most at tail - SECTOR, as `at` is
        if data.startswith(_ZERO_SECTOR, piece):
            pieces += 1
            piece += SECTOR
        at = data.find(_ZERO_SECTOR, piece, tail)
    return pieces


_ZERO_SECTOR = bytes(SECTOR)
_BLANK_HEADER = bytes(HEADER_BYTES)


def build_frame(
    batches: Sequence[Batch],
    *,
    offset: int,
    first_lsn: int,
    durable_lsn: int,
    segment_tag: int,
    prev_crc: int,
    encode: Encode | None = None,
) -> tuple[bytearray, int, list[DirectoryEntry]]:
    """The bytes of one frame to be written at `offset`, the CRC of its header, and its directory as a reader sees it.

    LSNs are given out in the order of the batches, from `first_lsn` on. `encode` compresses or encrypts each batch.
    """
    records = sum([len(batch.payloads) for batch in batches])
    dir_len = len(batches) * ENTRY_BYTES + records * _LENGTH.size
    lengths_at = offset + HEADER_BYTES + _BYTES_HEAD.size + len(batches) * ENTRY_BYTES
    payload_at = offset + HEADER_BYTES + BODY_OVERHEAD + dir_len
    lengths = array("I")
    bodies: list[bytes] = []
    packed: list[bytes] = []
    entries: list[DirectoryEntry] = []
    pack, crc32 = DIRECTORY_ENTRY.pack, zlib.crc32
    lsn_offset = 0
    for batch in batches:
        stream, payloads, flags = batch.stream, batch.payloads, batch.flags
        if encode is None or flags & FLAG_TOMBSTONE:  # a deletion must be readable when the key is destroyed
            body = b"".join(payloads)
        else:
            body, how = encode(stream, batch.first_seq, payloads)
            flags |= how
        count, size, crc = len(payloads), len(body), crc32(body)
        bodies.append(body)
        lengths.extend(map(len, payloads))
        kind_of_batch = ENTRY_EVENTS + (flags >> _KIND_SHIFT)
        first_seq = batch.first_seq
        packed.append(pack(stream, first_seq, lsn_offset, count, size, crc, flags & 0xFFFF, kind_of_batch))
        entries.append((stream, first_seq, first_lsn + lsn_offset, count, size, crc, flags, payload_at, lengths_at))
        lsn_offset += count
        lengths_at += count * _LENGTH.size
        payload_at += size
    if sys.byteorder == "little":
        lengths.byteswap()
    packed.append(lengths.tobytes())
    directory = b"".join(packed)
    payload_bytes = payload_at - (offset + HEADER_BYTES + BODY_OVERHEAD + dir_len)
    # One buffer for the whole frame: a group is up to 4 MiB, and every further copy of it would cost a millisecond.
    frame = bytearray().join(
        (
            _BLANK_HEADER,
            _BYTES_HEAD.pack(_BYTES32, dir_len),
            directory,
            _BYTES_HEAD.pack(_BYTES32, payload_bytes),
            *bodies,
        )
    )
    with memoryview(frame) as view:
        body_crc = crc32(view[HEADER_BYTES:])
        _HEADER.pack_into(
            *(frame, 0, _ARRAY14),
            *(_U8, KIND_DATA, _U8, 0, _U64, first_lsn, _U32, lsn_offset, _U32, records, _U64, durable_lsn),
            *(_U32, segment_tag, _U32, prev_crc, _U32, len(frame) - HEADER_BYTES, _U32, dir_len),
            *(_U32, crc32(directory), _U32, body_crc, _U32, count_zero_pieces(frame, offset), _U32, 0),
        )
        header_crc = crc32(view[:_CRC_OFFSET])
    _LENGTH.pack_into(frame, HEADER_BYTES - _LENGTH.size, header_crc)
    return frame, header_crc, entries


def build_copied_frame(
    batches: Sequence[StoredBatch],
    *,
    offset: int,
    first_lsn: int,
    last_lsn: int,
    durable_lsn: int,
    segment_tag: int,
    prev_crc: int,
) -> tuple[bytearray, int, list[DirectoryEntry]]:
    """A frame of batches that were stored before and keep their LSNs, for the range `first_lsn` to `last_lsn`, in which
    there may be holes, or nothing at all. Else as `build_frame`."""
    records = sum([batch.records for batch in batches])
    dir_len = len(batches) * ENTRY_BYTES + records * _LENGTH.size
    lengths_at = offset + HEADER_BYTES + _BYTES_HEAD.size + len(batches) * ENTRY_BYTES
    payload_at = offset + HEADER_BYTES + BODY_OVERHEAD + dir_len
    packed: list[bytes] = []
    entries: list[DirectoryEntry] = []
    for stream, first_seq, lsn, count, crc, flags, lengths, content in batches:
        size, kind = len(content), ENTRY_EVENTS + (flags >> _KIND_SHIFT)
        packed.append(DIRECTORY_ENTRY.pack(stream, first_seq, lsn - first_lsn, count, size, crc, flags & 0xFFFF, kind))
        entries.append((stream, first_seq, lsn, count, size, crc, flags, payload_at, lengths_at))
        lengths_at += len(lengths)
        payload_at += size
    directory = b"".join([*packed, *(batch.lengths for batch in batches)])
    content_bytes = sum([len(batch.content) for batch in batches])
    frame = bytearray().join(
        (
            _BLANK_HEADER,
            _BYTES_HEAD.pack(_BYTES32, dir_len),
            directory,
            _BYTES_HEAD.pack(_BYTES32, content_bytes),
            *(batch.content for batch in batches),
        )
    )
    with memoryview(frame) as view:
        body_crc = zlib.crc32(view[HEADER_BYTES:])
        _HEADER.pack_into(
            *(frame, 0, _ARRAY14),
            *(_U8, KIND_DATA, _U8, 0, _U64, first_lsn, _U32, last_lsn - first_lsn + 1, _U32, records),
            *(_U64, durable_lsn, _U32, segment_tag, _U32, prev_crc, _U32, len(frame) - HEADER_BYTES, _U32, dir_len),
            *(_U32, zlib.crc32(directory), _U32, body_crc, _U32, count_zero_pieces(frame, offset), _U32, 0),
        )
        header_crc = zlib.crc32(view[:_CRC_OFFSET])
    _LENGTH.pack_into(frame, HEADER_BYTES - _LENGTH.size, header_crc)
    return frame, header_crc, entries


def build_wrapper(
    kind: int, content: bytes, *, offset: int, first_lsn: int, durable_lsn: int, segment_tag: int, prev_crc: int
) -> tuple[bytearray, int]:
    """A frame without records: a mark, a close, or (with its index as `content`) a footer; and its header's CRC."""
    frame = bytearray().join(
        (_BLANK_HEADER, _BYTES_HEAD.pack(_BYTES32, 0), _BYTES_HEAD.pack(_BYTES32, len(content)), content)
    )
    with memoryview(frame) as view:
        body_crc = zlib.crc32(view[HEADER_BYTES:])
    _HEADER.pack_into(
        *(frame, 0, _ARRAY14),
        *(_U8, kind, _U8, 0, _U64, first_lsn, _U32, 0, _U32, 0, _U64, durable_lsn),
        *(_U32, segment_tag, _U32, prev_crc, _U32, len(frame) - HEADER_BYTES, _U32, 0),
        *(_U32, 0, _U32, body_crc, _U32, count_zero_pieces(frame, offset), _U32, 0),
    )
    header_crc = zlib.crc32(bytes(frame[:_CRC_OFFSET]))
    _LENGTH.pack_into(frame, HEADER_BYTES - _LENGTH.size, header_crc)
    return frame, header_crc


def parse_header(data: bytes | bytearray | memoryview, at: int = 0) -> FrameHeader | None:
    """The frame header at `at`, or None unless it is whole, its types and CRC are right and its sizes make sense."""
    if len(data) - at < HEADER_BYTES:
        return None
    fields = _HEADER.unpack_from(data, at)
    if fields[0] != _ARRAY14 or fields[1::2] != _TYPES[1:]:
        return None
    header = FrameHeader(*fields[2::2])
    if zlib.crc32(data[at : at + _CRC_OFFSET]) != header.header_crc:
        return None
    entry_bytes = header.dir_len - header.record_count * _LENGTH.size
    if (
        header.body_len + HEADER_BYTES > MAX_FRAME_BYTES
        or header.dir_len + BODY_OVERHEAD > header.body_len
        or entry_bytes < 0
        or entry_bytes % ENTRY_BYTES
        or header.record_count > header.lsn_span
        or header.first_lsn + header.lsn_span - 1 > MAX_NUMBER
    ):
        return None
    return header


def looks_like_header(data: bytes) -> bool:
    """Whether these bytes were a frame header once: most of its fixed bytes are in their places."""
    if len(data) < HEADER_BYTES:
        return False
    fields = _HEADER.unpack_from(data)
    alike: list[bool] = [bool(a == b) for a, b in zip((fields[0], *fields[1::2]), _TYPES, strict=True)]
    return alike.count(True) >= len(_TYPES) - 2


def crc32_in_pieces(data: bytes | bytearray | memoryview) -> int:
    """As `zlib.crc32`, which lets other threads run meanwhile, without that: where an event loop is busy, each time the
    interpreter's lock is given up costs a thread five milliseconds until it has it again."""
    crc = 0
    for start in range(0, len(data), _LOCKED_BYTES):
        crc = zlib.crc32(data[start : start + _LOCKED_BYTES], crc)
    return crc


def body_is_sound(
    header: FrameHeader,
    body: bytes | bytearray | memoryview,
    crc32: Callable[[bytes | bytearray | memoryview], int] = zlib.crc32,
) -> bool:
    """Whether `body` is what the writer wrote: its CRC, its directory's, and the heads of its two byte strings."""
    payload_head = _BYTES_HEAD.size + header.dir_len
    return (
        len(body) == header.body_len
        and crc32(body) == header.body_crc
        and crc32(body[_BYTES_HEAD.size : payload_head]) == header.dir_crc
        and _BYTES_HEAD.unpack_from(body, 0) == (_BYTES32, header.dir_len)
        and _BYTES_HEAD.unpack_from(body, payload_head) == (_BYTES32, header.body_len - BODY_OVERHEAD - header.dir_len)
    )


def directory_is_sound(header: FrameHeader, body: bytes | bytearray | memoryview) -> bool:
    """Whether the directory is what the writer wrote, whatever has become of the payloads behind it."""
    return zlib.crc32(body[_BYTES_HEAD.size : _BYTES_HEAD.size + header.dir_len]) == header.dir_crc


def parse_directory(
    header: FrameHeader, body: bytes | bytearray | memoryview, offset: int
) -> list[DirectoryEntry] | None:
    """The directory of the frame at file `offset`, or None where it contradicts itself (only a crafted file can)."""
    entries_len = header.dir_len - header.record_count * _LENGTH.size
    start = _BYTES_HEAD.size
    lengths_at = offset + HEADER_BYTES + start + entries_len
    payload_at = offset + HEADER_BYTES + BODY_OVERHEAD + header.dir_len
    end = offset + header.frame_len
    first_lsn, span = header.first_lsn, header.lsn_span
    entries: list[DirectoryEntry] = []
    records = expected_lsn = 0
    for stream, first_seq, lsn_offset, count, size, crc, flags, kind in DIRECTORY_ENTRY.iter_unpack(
        body[start : start + entries_len]
    ):
        if lsn_offset < expected_lsn or lsn_offset + count > span or not count or not first_seq:
            return None
        if first_seq + count - 1 > MAX_NUMBER:
            return None
        if kind != ENTRY_EVENTS:
            if count != 1 or kind not in (ENTRY_SNAPSHOT, ENTRY_TOMBSTONE):
                return None
            flags |= (kind - ENTRY_EVENTS) << _KIND_SHIFT
        entries.append((stream, first_seq, first_lsn + lsn_offset, count, size, crc, flags, payload_at, lengths_at))
        expected_lsn = lsn_offset + count
        records += count
        payload_at += size
        lengths_at += count * _LENGTH.size
    if records != header.record_count or payload_at != end:
        return None
    return entries


def split_payloads(
    lengths: bytes | bytearray | memoryview, payloads: bytes | bytearray | memoryview
) -> list[bytes] | None:
    """Cut a batch's payload bytes by its packed u32 lengths; None if they do not add up."""
    data = bytes(payloads)
    ends = list(itertools.accumulate(struct.unpack(f">{len(lengths) // _LENGTH.size}I", lengths)))
    out = [data[at:end] for at, end in zip(itertools.chain((0,), ends), ends, strict=False)]
    at = ends[-1] if ends else 0
    return out if at == len(data) else None
