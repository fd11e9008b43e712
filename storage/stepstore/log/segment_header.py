"""The 512-byte header of a segment: one CBOR item, one sector, so that it is on the medium as a whole or not at all."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from stepstore.errors import RecoveryFailed

HEADER_BYTES = 512
LARGEST_SEGMENT_BYTES = 4 * 1024 * 1024 * 1024
"""No segment is larger. Behind the last record every byte up to the end of the file is looked at, so a file that claims
a terabyte, and takes none on the medium, would keep whoever opens it for hours."""
FORMAT_MAJOR, FORMAT_MINOR = 1, 0
FEATURE_NOT_PREALLOCATED = 1
"""Compatible feature bit: the file was not preallocated, so only an end of file inside a frame is a tear (row 4)."""
KNOWN_INCOMPATIBLE = 0

_MAGIC = b"stepwell"
_SELF_DESCRIBED = b"\xd9\xd9\xf7"  # tag 55799
_PREFIX = _SELF_DESCRIBED + b"\x98\x1b" + b"\x68" + _MAGIC  # array(27), text(8)
_UUID_HEAD, _U32, _U64, _BYTES16 = 0x50, 0x1A, 0x1B, 0x59
_BODY = struct.Struct(
    ">" + "BI" * 2 + "BQ" * 2 + "B16s" * 2 + "BQ" * 6 + "BI" * 4 + "BQ" * 3 + "BI" + "BQ" * 2 + "BI" * 2
)
_TYPES = (
    *([_U32] * 2),
    *([_U64] * 2),
    *([_UUID_HEAD] * 2),
    *([_U64] * 6),
    *([_U32] * 4),
    *([_U64] * 3),
    _U32,
    *([_U64] * 2),
    *([_U32] * 2),
)
_CRC_BYTES = 5
_LARGEST = 2**63 - 1
_PADDING = HEADER_BYTES - len(_PREFIX) - _BODY.size - 3 - _CRC_BYTES


class SegmentHeader(NamedTuple):
    """The fields of a segment header, in their order on disk (magic, padding and CRC left out).

    `prev_*` name the cut: the segment before, where it ends, its last LSN, and the CRC of its last header there.
    `orig_*` are those of the file a compaction rewrote, zero otherwise. `align` is the group alignment in bytes.
    """

    format_major: int
    format_minor: int
    features_incompatible: int
    features_compatible: int
    log_uuid: bytes
    branch_uuid: bytes
    seq: int
    seq_last: int
    generation: int
    first_lsn: int
    epoch: int
    created_ns: int
    codec: int
    cipher: int
    segment_tag: int
    align: int
    prev_seq: int
    prev_end_offset: int
    prev_end_lsn: int
    prev_chain: int
    orig_end_offset: int
    orig_end_lsn: int
    orig_chain: int
    reserved: int = 0

    @property
    def preallocated(self) -> bool:
        """Whether space was set aside for the segment, so that a hole of zeros can be a tear."""
        return not self.features_compatible & FEATURE_NOT_PREALLOCATED


def encode_segment_header(header: SegmentHeader) -> tuple[bytes, int]:
    """The header as 512 bytes, and its CRC, which is the `prev_crc` of the first frame."""
    flat: list[object] = []
    for type_byte, value in zip(_TYPES, header, strict=True):
        flat += (type_byte, value)
    data = _PREFIX + _BODY.pack(*flat) + struct.pack(">BH", _BYTES16, _PADDING) + bytes(_PADDING)
    crc = zlib.crc32(data)
    return data + struct.pack(">BI", _U32, crc), crc


def parse_segment_header(data: bytes) -> tuple[SegmentHeader, int] | None:
    """The header in the first 512 bytes of a segment and its CRC, or None unless every byte is as it was written."""
    if len(data) < HEADER_BYTES or not data.startswith(_PREFIX):
        return None
    flat = _BODY.unpack_from(data, len(_PREFIX))
    if flat[::2] != _TYPES:
        return None
    type_byte, crc = struct.unpack_from(">BI", data, HEADER_BYTES - _CRC_BYTES)
    if type_byte != _U32 or zlib.crc32(data[: HEADER_BYTES - _CRC_BYTES]) != crc:
        return None
    header = SegmentHeader(*flat[1::2])
    # Nothing counts so far; what comes behind could not be counted any more.
    if max(header.seq_last, header.first_lsn, header.epoch, header.prev_end_lsn, header.orig_end_lsn) > _LARGEST:
        return None
    return header, crc


def check_segment_size(path: str, size: int) -> None:
    """Raises: `RecoveryFailed` if no segment is as large."""
    if size > LARGEST_SEGMENT_BYTES:
        raise RecoveryFailed(
            f"{path!r} has {size:,} bytes, and no segment has more than {LARGEST_SEGMENT_BYTES:,}. Nothing was "
            "changed; restore the file from a backup, or cut it behind what was written.",
            file=path,
        )
