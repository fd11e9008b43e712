"""The file of keys, `KEYS-<n>`: its bytes, and what they prove.

Every encrypted stream has a random 256-bit key. The log keeps it only wrapped (encrypted under a key of the host's that
the log never holds), in one file:

    keys/KEYS-<n> = header (512 bytes), *slot, zeros
    header        = 55799(["stepwell keys", version, slot bytes, proven, tag, n, log uuid, padding, crc])
    slot          = [tag, number, durable, stream, wrapped key, padding, crc]

Like a segment it is a CBOR sequence of fixed-width items, and a CRC is the CRC-32 of all bytes of its item before it. A
slot takes 128, 256 or 512 bytes, whichever holds the longest wrapped key, so it never crosses a sector and is on the
medium as a whole or not at all: a crash in an append leaves zeros or the end of the file where a slot should be, never
half a slot. `durable` in a slot, and `proven` in the header, say how many slots were durable when it was written: one
that is missing although it was durable is damage, and so is one that is neither whole nor zero. `tag` is random and
ties the slots to their file. A slot whose wrapped key is empty only fills an alignment unit.

Destroying a key writes the next file without it and removes the old one; the highest number counts. The medium may keep
the freed blocks for a while; what is in them is wrapped.

Nothing of a torn append goes to quarantine: the keys in it have encrypted nothing, and a copy would outlive their end.
"""

from __future__ import annotations

import errno
import posixpath
import re
import struct
import uuid
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log.files import File, FileSystem

KEYS_DIRECTORY = "keys"
HEADER_BYTES = 512
VERSION = 1
_U32, _U64, _BYTES16, _BYTES, _TEXT13 = 0x1A, 0x1B, 0x50, 0x59, 0x6D
_MAGIC = b"\xd9\xd9\xf7" + b"\x89" + bytes([_TEXT13]) + b"stepwell keys"  # tag 55799, array(9), text(13)
_HEADER = struct.Struct(">" + "BI" * 4 + "BQ" + "B16s" + "BH")
_HEADER_TYPES = (_U32, _U32, _U32, _U32, _U64, _BYTES16, _BYTES)
_SLOT = struct.Struct(">B" + "BI" * 3 + "B16s" + "BH")
_SLOT_TYPES = (_U32, _U32, _U32, _BYTES16, _BYTES)
_ARRAY7 = 0x87
_BYTES_HEAD = struct.Struct(">BH")
_CRC = struct.Struct(">BI")
_SLOT_OVERHEAD = _SLOT.size + _BYTES_HEAD.size + _CRC.size
_SLOT_BYTES = (128, 256, 512)
_LARGEST_FILE_BYTES = 1024 * 1024 * 1024
MAX_WRAPPED_BYTES = _SLOT_BYTES[-1] - _SLOT_OVERHEAD
"""The longest wrapped key that fits, in bytes."""
KEYS_NAME = re.compile(r"KEYS-([1-9]\d{0,17})(\.tmp)?")


class KeysHeader(NamedTuple):
    """The header of a KEYS file, behind its magic."""

    version: int
    slot_bytes: int
    proven: int
    tag: int
    number: int
    log_uuid: bytes


def encode_header(header: KeysHeader) -> bytes:
    """The bytes of a header, with its CRC."""
    padding = HEADER_BYTES - len(_MAGIC) - _HEADER.size - _CRC.size
    flat = [part for pair in zip(_HEADER_TYPES, (*header, padding), strict=True) for part in pair]
    data = _MAGIC + _HEADER.pack(*flat) + bytes(padding)
    return data + _CRC.pack(_U32, zlib.crc32(data))


def _parse_header(data: bytes) -> KeysHeader | None:
    if len(data) < HEADER_BYTES or not data.startswith(_MAGIC):
        return None
    flat = _HEADER.unpack_from(data, len(_MAGIC))
    if flat[::2] != _HEADER_TYPES or not _crc_is_sound(data[:HEADER_BYTES]):
        return None
    return KeysHeader(*flat[1:-2:2])


class Slot(NamedTuple):
    """One key of a stream, wrapped. `durable`: how many slots were durable when it was written."""

    durable: int
    stream: bytes
    wrapped: bytes


def encode_slot(slot: Slot, slot_bytes: int, tag: int, number: int) -> bytes:
    """The bytes of slot `number` of the file with this tag, with its CRC."""
    durable, stream, wrapped = slot
    values = (tag, number, durable, stream, len(wrapped))
    flat = [part for pair in zip(_SLOT_TYPES, values, strict=True) for part in pair]
    padding = slot_bytes - _SLOT_OVERHEAD - len(wrapped)
    data = _SLOT.pack(_ARRAY7, *flat) + wrapped + _BYTES_HEAD.pack(_BYTES, padding) + bytes(padding)
    return data + _CRC.pack(_U32, zlib.crc32(data))


def _parse_slot(data: bytes, tag: int, number: int) -> Slot | None:
    head = _SLOT.unpack_from(data)
    found_tag, found_number, durable, stream, length = head[2::2]
    if (
        head[0] != _ARRAY7
        or head[1::2] != _SLOT_TYPES
        or not _crc_is_sound(data)
        or (found_tag, found_number) != (tag, number)
        or length > len(data) - _SLOT_OVERHEAD
    ):
        return None
    return Slot(durable, stream, data[_SLOT.size : _SLOT.size + length])


def _crc_is_sound(item: bytes) -> bool:
    return _CRC.unpack_from(item, len(item) - _CRC.size) == (_U32, zlib.crc32(item[: -_CRC.size]))


def slot_bytes_for(wrapped: Iterable[bytes]) -> int:
    """How large slots must be that hold these wrapped keys."""
    longest = max(map(len, wrapped), default=0)
    return next(size for size in _SLOT_BYTES if longest <= size - _SLOT_OVERHEAD)


class KeysContent(NamedTuple):
    """What a KEYS file holds. Slots [proven, slots) may be not on the medium; `torn`: not all of those are whole."""

    header: KeysHeader
    wrapped: dict[bytes, bytes]
    slots: int
    proven: int
    torn: bool


def parse_keys(data: bytes, path: str, number: int, log_uuid: uuid.UUID, *, live: bool) -> KeysContent:
    """Judge a KEYS file. With `live` (a writer may be at it) a slot that nothing proves durable may be half there."""

    def corrupt(what: str, offset: int = 0, row: int = 0) -> CorruptLog:
        return CorruptLog(
            f"{path!r} is damaged at offset {offset}: {what}. Restore the directory {KEYS_DIRECTORY!r} from a backup; "
            "nothing was changed.",
            file=path,
            offset=offset,
            row=row,
        )

    header = _parse_header(data)
    if header is None:
        raise corrupt("its header is not what was written")
    if header.version != VERSION:
        raise RecoveryFailed(
            f"{path!r} has version {header.version}; this Stepwell reads version {VERSION}. Nothing was changed; open "
            "it with a newer Stepwell.",
            file=path,
        )
    if header.log_uuid != log_uuid.bytes:
        raise corrupt("it belongs to another log", row=13)
    if header.number != number or header.slot_bytes not in _SLOT_BYTES:
        raise corrupt("its header contradicts its name or itself")
    size = header.slot_bytes
    wrapped: dict[bytes, bytes] = {}
    proven, holes, rotten = header.proven, [], []
    slots = -(-(len(data) - HEADER_BYTES) // size)
    for n in range(slots):
        at = HEADER_BYTES + n * size
        piece = data[at : at + size]
        if len(piece) < size or not piece.strip(b"\0"):
            holes.append(n)
            continue
        slot = _parse_slot(piece, header.tag, n)
        if slot is None:
            rotten.append(n)
            continue
        if slot.stream in wrapped:
            raise corrupt("a stream has two keys", at)
        proven = max(proven, slot.durable)
        if slot.wrapped:
            wrapped[slot.stream] = slot.wrapped
    whole = min(holes + rotten, default=slots)
    if whole < proven:
        raise corrupt(f"slot {whole} was durable and is not what was written", HEADER_BYTES + whole * size)
    if rotten and not live:
        raise corrupt(f"slot {rotten[0]} is not what was written", HEADER_BYTES + rotten[0] * size)
    return KeysContent(header, wrapped, slots, proven, whole < slots)


def read_keys(file: File, path: str) -> bytes:
    """A KEYS file as a whole. Raises: `OSError`."""
    size = file.size()
    if size > _LARGEST_FILE_BYTES:
        raise OSError(errno.EFBIG, f"{size:,} bytes of keys, which are more than can be held in memory", path)
    data = file.read(0, size)
    if len(data) < size:
        raise OSError(errno.EIO, f"a read ended after {len(data)} bytes although the file is longer", path)
    return data


def check_keys(files: FileSystem, directory: str, log_uuid: uuid.UUID, *, live: bool) -> None:
    """Check every byte of the keys of a log without touching them. With `live` a process may be writing at their end.

    Raises: `CorruptLog`, `RecoveryFailed` (a newer format), `OSError`.
    """
    folder = posixpath.join(directory, KEYS_DIRECTORY)
    if files.stat(folder) is None:
        return
    for name in files.list_names(folder):
        match = KEYS_NAME.fullmatch(name)
        if match is None or match[2]:
            continue
        path = posixpath.join(folder, name)
        file = files.open(path, write=False)
        try:
            parse_keys(read_keys(file, path), path, int(match[1]), log_uuid, live=live)
        finally:
            file.close()


def key_file_name(number: int) -> str:
    """The name of the file with this number."""
    return f"KEYS-{number}"


def key_file_numbers(files: FileSystem, folder: str) -> list[int]:
    """The numbers of the files of keys in a folder, lowest first. Raises: `OSError`."""
    if files.stat(folder) is None:
        return []
    matches = map(KEYS_NAME.fullmatch, files.list_names(folder))
    return sorted(int(match[1]) for match in matches if match and not match[2])
