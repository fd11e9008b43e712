"""How many items a piece of CBOR has, from its heads alone: decoding a crafted payload could fill memory, counting
cannot."""

from __future__ import annotations

MAX_ITEMS = 500_000
"""Most items a large record may have."""
COUNTED_FROM = 64 * 1024
"""Smaller records are not counted: what they can decode to is small."""

_LENGTH_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}


def has_too_many_items(data: bytes, limit: int = MAX_ITEMS) -> bool:
    """Whether `data` holds more than `limit` items, nested ones included. What is not well-formed is left to the
    decoder, which refuses it where it finds it."""
    at = count = 0
    end = len(data)
    while at < end:
        count += 1
        if count > limit:
            return True
        first = data[at]
        at += 1
        kind, length = first >> 5, first & 31
        if length >= 24:
            size = _LENGTH_BYTES.get(length)
            if size is None:
                return False  # indefinite or reserved
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if kind in (2, 3):  # strings are skipped; numbers, heads of arrays, maps and tags are single items
            at += length
    return False
