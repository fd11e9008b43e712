"""Tables of fixed-width entries in pages that each carry their own CRC, so that one entry is read and trusted by
reading one page."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

PAGE_BYTES = 4096
_CRC = struct.Struct(">I")
_ROOM = PAGE_BYTES - _CRC.size

ReadAt = Callable[[int, int], bytes]
"""(offset, size) → bytes, fewer only where the file ends. Blocks."""


class UnsoundIndex(Exception):
    """A part of a footer or of a sidecar index is not what was written. The records are not concerned: the index is
    built again from the frames."""


def table_bytes(count: int, entry_bytes: int) -> int:
    """How many bytes a table of `count` entries takes."""
    per_page = _ROOM // entry_bytes
    return -(-count // per_page) * PAGE_BYTES


def pack_table(entries: bytes | bytearray, entry_bytes: int) -> bytes:
    """The pages that hold these entries, one after another."""
    step = _ROOM // entry_bytes * entry_bytes
    parts: list[bytes] = []
    for start in range(0, len(entries), step):
        page = bytes(entries[start : start + step]).ljust(_ROOM, b"\0")
        parts += (page, _CRC.pack(zlib.crc32(page)))
    return b"".join(parts)


class PackedTable:
    """A table at `offset` of something that can be read. All calls block and raise `UnsoundIndex`."""

    def __init__(self, read: ReadAt, offset: int, count: int, entry_bytes: int):
        self._read, self._offset, self.count, self._entry_bytes = read, offset, count, entry_bytes
        self._per_page = _ROOM // entry_bytes

    def entries(self, start: int, end: int) -> bytes:
        """Entries start, start + 1, … up to `end` (not included), back to back."""
        if not 0 <= start <= end <= self.count:
            raise UnsoundIndex(f"entries {start} to {end} of a table of {self.count}")
        if start == end:
            return b""
        first, last = start // self._per_page, (end - 1) // self._per_page
        data = self._read(self._offset + first * PAGE_BYTES, (last - first + 1) * PAGE_BYTES)
        if len(data) != (last - first + 1) * PAGE_BYTES:
            raise UnsoundIndex("the file ends inside the table")
        size = self._entry_bytes
        parts: list[bytes] = []
        for number in range(first, last + 1):
            base = (number - first) * PAGE_BYTES
            page = data[base : base + _ROOM]
            if _CRC.unpack_from(data, base + _ROOM)[0] != zlib.crc32(page):
                raise UnsoundIndex(f"page {number} of a table fails its checksum")
            begin = max(start - number * self._per_page, 0)
            parts.append(page[begin * size : (min(end - number * self._per_page, self._per_page)) * size])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self) -> None:
        """Read the whole table once."""
        step = self._per_page * 256
        for start in range(0, self.count, step):
            self.entries(start, min(start + step, self.count))
