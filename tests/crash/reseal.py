"""Make the checksums and chains of a changed log right again, so that hostile fields reach the code behind them.

The structures are restated here on purpose: what repairs a checksum must take anything that has the right shape, while
the product's own parser refuses it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from stepstore.log import footer as ft
from stepstore.log import segment_header as sh
from stepstore.log.frame import KIND_CLOSE, KIND_FOOTER, count_zero_pieces
from stepstore.log.packed_table import UnsoundIndex

SEGMENT_HEADER_BYTES = 512
_SELF_DESCRIBED_CBOR = b"\xd9\xd9\xf7"
_CRC_ITEM = struct.Struct(">BI")
_U32 = 0x1A

FRAME_BITS = (8, 8, 64, 32, 32, 64, *([32] * 8))
"""The numbers in a frame header: kind, flags, first LSN, span, records, durable LSN, tag, previous CRC, body length,
directory length, directory CRC, body CRC, zero pieces, CRC."""
KIND, FLAGS, FIRST_LSN, SPAN, RECORDS, DURABLE, TAG, PREVIOUS, BODY_LEN, DIR_LEN, DIR_CRC, BODY_CRC, ZEROS, CRC = range(
    14
)
_FRAME = struct.Struct(">BBBBBBQBIBIBQ" + "BI" * 8)
_FRAME_TYPES = (0x18, 0x18, 0x1B, _U32, _U32, 0x1B, *([_U32] * 8))
FRAME_HEADER_BYTES = _FRAME.size
_FRAME_SHAPE = re.compile(
    rb"\x8e\x18.\x18.\x1b.{8}\x1a.{4}\x1a.{4}\x1b.{8}" + rb"\x1a.{4}" * 8,
    re.DOTALL,
)
ENTRY_BITS = (128, 64, 32, 32, 32, 32, 16, 16)
"""The numbers in a directory entry: stream, first seq, LSN offset, records, bytes, CRC, flags, kind."""
ENTRY = struct.Struct(">16sQIIIIHH")
ITEM_HEAD_BYTES = 5


def frame_places(data: bytes | bytearray) -> list[int]:
    """Where a frame header stands, by its shape alone; what lies in the body of another one is left out."""
    places: list[int] = []
    match = _FRAME_SHAPE.search(data, SEGMENT_HEADER_BYTES)
    while match is not None:
        places.append(match.start())
        body_len = frame_fields(data, match.start())[BODY_LEN]
        end = match.end() + (body_len if match.end() + body_len <= len(data) else 0)
        match = _FRAME_SHAPE.search(data, end)
    return places


def frame_fields(data: bytes | bytearray, at: int) -> list[int]:
    """The 14 numbers of the frame header at `at`."""
    return list(_FRAME.unpack_from(data, at)[2::2])


def put_frame_fields(data: bytearray, at: int, fields: Sequence[int]) -> int:
    """Set the numbers of the frame header at `at`, and its CRC, which is given back."""
    flat: list[int] = []
    for type_byte, value in zip(_FRAME_TYPES, fields, strict=True):
        flat += (type_byte, value)
    _FRAME.pack_into(data, at, 0x8E, *flat)
    end = at + FRAME_HEADER_BYTES
    crc = zlib.crc32(data[at : end - _CRC_ITEM.size])
    _CRC_ITEM.pack_into(data, end - _CRC_ITEM.size, _U32, crc)
    return crc


class End(NamedTuple):
    """Where the records of a segment end: offset, last LSN, CRC of the last header."""

    offset: int
    lsn: int
    chain: int


def reseal(data: bytearray, *, batches: bool = True, ends: bool = True) -> End | None:
    """Make every checksum of a segment right, and the chain of its frames. None if it is no segment.

    `batches`: those of batches, too. `ends`: have the footer and the trailer tell where the records end.
    """
    if len(data) < SEGMENT_HEADER_BYTES or not data.startswith(_SELF_DESCRIBED_CBOR):
        return None
    crc_at = SEGMENT_HEADER_BYTES - _CRC_ITEM.size
    chain = zlib.crc32(data[:crc_at])
    _CRC_ITEM.pack_into(data, crc_at, _U32, chain)
    parsed = sh.parse_segment_header(bytes(data[:SEGMENT_HEADER_BYTES]))
    end = End(SEGMENT_HEADER_BYTES, 0 if parsed is None else parsed[0].first_lsn - 1, chain)
    index: tuple[int, int] | None = None
    crcs: dict[int, int] = {}
    for at in frame_places(data):
        fields = frame_fields(data, at)
        body_at = at + FRAME_HEADER_BYTES
        behind = body_at + fields[BODY_LEN]
        if behind <= len(data):
            directory_at = body_at + ITEM_HEAD_BYTES
            if batches:
                crcs |= _reseal_batches(data, directory_at, fields, behind)
            if fields[KIND] == KIND_FOOTER:
                index = body_at + 2 * ITEM_HEAD_BYTES, behind
                reseal_index(data, *index, end if ends else None, crcs)
            fields[DIR_CRC] = zlib.crc32(data[directory_at : directory_at + fields[DIR_LEN]])
            fields[BODY_CRC] = zlib.crc32(data[body_at:behind])
            fields[ZEROS] = count_zero_pieces(data[at:behind], at)
        fields[PREVIOUS] = chain
        chain = put_frame_fields(data, at, fields)
        if fields[KIND] not in (KIND_FOOTER, KIND_CLOSE):
            end = End(min(behind, len(data)), fields[FIRST_LSN] + fields[SPAN] - 1, chain)
    if index is not None:
        reseal_trailer(data, *index)
    return end


def _reseal_batches(data: bytearray, directory_at: int, fields: Sequence[int], end: int) -> dict[int, int]:
    """The CRCs by the offset of the bytes that they are of."""
    crcs: dict[int, int] = {}
    entries = (fields[DIR_LEN] - 4 * fields[RECORDS]) // ENTRY.size
    payload_at = directory_at + fields[DIR_LEN] + ITEM_HEAD_BYTES
    for number in range(entries):
        at = directory_at + number * ENTRY.size
        if at + ENTRY.size > end:
            break
        entry = list(ENTRY.unpack_from(data, at))
        size = entry[4]
        entry[5] = crcs[payload_at] = zlib.crc32(data[payload_at : min(payload_at + size, end)])
        ENTRY.pack_into(data, at, *entry)
        payload_at += size
    return crcs


def relink(segments: Sequence[bytearray], *, batches: bool = True) -> None:
    """Reseal the segments of a log, in order, and have each header name the end of the segment before."""
    before: End | None = None
    for data in segments:
        if before is not None and (parsed := sh.parse_segment_header(bytes(data[:SEGMENT_HEADER_BYTES]))):
            header = parsed[0]._replace(
                prev_end_offset=before.offset, prev_end_lsn=before.lsn % 2**64, prev_chain=before.chain
            )
            data[:SEGMENT_HEADER_BYTES] = sh.encode_segment_header(header)[0]
        before = reseal(data, batches=batches)


# ---- footers, trailers, sidecars -------------------------------------------------------------------------------------

SIDECAR_INDEX_AT = 8
TABLE_PAGE_BYTES = 4096
_BATCH_PAYLOAD_AT, _BATCH_CRC = 20, 32


def index_head(data: bytes | bytearray, at: int) -> ft.IndexHead | None:
    """The head of the index at `at`, whatever its checksum says; None if it is not of that shape."""
    head = bytearray(data[at : at + ft.HEAD_BYTES])
    if len(head) < ft.HEAD_BYTES:
        return None
    struct.pack_into(">I", head, ft.HEAD_BYTES - 4, zlib.crc32(head[:-4]))
    try:
        return ft.parse_head(bytes(head))
    except UnsoundIndex:  # another magic or version
        return None


def reseal_index(data: bytearray, at: int, end: int, records_end: End | None, crcs: Mapping[int, int]) -> None:
    """Make the checksums of the index in [at, end) right; with `records_end`, have it tell that. `crcs`: those of the
    batches, by where they lie, for the entries of the batch table that are there."""
    head = index_head(data, at)
    if head is None:
        return
    for page in range(at + head.batches_at, min(at + head.snapshots_at, end, len(data)), TABLE_PAGE_BYTES):
        last = min(page + TABLE_PAGE_BYTES, len(data)) - ft.BATCH_ENTRY_BYTES
        for entry in range(page, last, ft.BATCH_ENTRY_BYTES):
            (payload_at,) = struct.unpack_from(">I", data, entry + _BATCH_PAYLOAD_AT)
            if payload_at in crcs:
                struct.pack_into(">I", data, entry + _BATCH_CRC, crcs[payload_at])
    for page in range(at + head.frames_at, min(end, len(data)) - TABLE_PAGE_BYTES + 1, TABLE_PAGE_BYTES):
        struct.pack_into(">I", data, page + TABLE_PAGE_BYTES - 4, zlib.crc32(data[page : page + TABLE_PAGE_BYTES - 4]))
    head = head._replace(
        fingerprints_crc=zlib.crc32(data[at + head.fingerprints_at : at + head.open_at]),
        open_crc=zlib.crc32(data[at + head.open_at : at + head.frames_at]),
    )
    if records_end is not None:
        head = head._replace(
            header_copy=bytes(data[:SEGMENT_HEADER_BYTES]),
            end_offset=records_end.offset,
            end_lsn=records_end.lsn % 2**64,
            chain=records_end.chain,
            digest=blake2b(data[: records_end.offset], digest_size=32).digest(),
        )
    data[at : at + ft.HEAD_BYTES] = ft.encode_head(head)


def reseal_trailer(data: bytearray, index_at: int, index_end: int) -> None:
    """Have the trailer at the end of a segment or a sidecar name the index in [index_at, index_end)."""
    head = index_head(data, index_at)
    at = len(data) - ft.TRAILER_BYTES
    if head is None or not index_at + ft.HEAD_BYTES <= index_end <= at:
        return
    trailer = ft.Trailer(
        segment_tag=int.from_bytes(data[at + 6 : at + 10]),
        index_at=index_at,
        index_bytes=index_end - index_at,
        head_crc=zlib.crc32(data[index_at : index_at + ft.HEAD_BYTES - 4]),
        end_offset=head.end_offset,
        end_lsn=head.end_lsn,
        chain=head.chain,
        records=head.records,
    )
    data[at:] = ft.encode_trailer(trailer)


def reseal_sidecar(data: bytearray) -> None:
    """Make the checksums of a sidecar right, whatever it tells."""
    end = len(data) - ft.TRAILER_BYTES
    if end >= SIDECAR_INDEX_AT + ft.HEAD_BYTES:
        reseal_index(data, SIDECAR_INDEX_AT, end, None, {})
        reseal_trailer(data, SIDECAR_INDEX_AT, end)


def index_place(data: bytes | bytearray, *, sidecar: bool) -> tuple[int, int] | None:
    """Where the index of a segment (its footer's content) or of a sidecar lies: start and end. None if nowhere."""
    if sidecar:
        end = len(data) - ft.TRAILER_BYTES
        return (SIDECAR_INDEX_AT, end) if end >= SIDECAR_INDEX_AT + ft.HEAD_BYTES else None
    for at in frame_places(data):
        fields = frame_fields(data, at)
        start = at + FRAME_HEADER_BYTES + 2 * ITEM_HEAD_BYTES
        end = at + FRAME_HEADER_BYTES + fields[BODY_LEN]
        if fields[KIND] == KIND_FOOTER and start + ft.HEAD_BYTES <= end <= len(data):
            return start, end
    return None
