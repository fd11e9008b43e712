"""The payloads of a batch from its bytes as they are stored."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from stepstore.errors import RecoveryFailed
from stepstore.log.batch_codec import DecodeFailed
from stepstore.log.frame import split_payloads
from stepstore.log.indexed_batch import CODED

Decode = Callable[[bytes, int, int, bytes, Sequence[int]], bytes]
"""(stream, first seq, flags, stored bytes, lengths) → the payloads joined (see `batch_codec`)."""


def payloads_of(
    decode: Decode | None,
    stream: bytes,
    first_seq: int,
    flags: int,
    lengths: bytes | memoryview,
    data: bytes | memoryview,
) -> list[bytes] | None:
    """The payloads of the batch whose lengths and bytes these are; `decode` undoes compression and encryption. None if
    they are not what was written.

    Raises: `RecoveryFailed` if it takes a `decode` and there is none; what `decode` raises.
    """
    if flags & CODED:
        sizes = [length for (length,) in struct.iter_unpack(">I", lengths)]
        if decode is None:
            raise RecoveryFailed(
                "a batch is stored compressed or encrypted, and this log was opened without what reads that"
            )
        try:
            data = decode(stream, first_seq, flags, bytes(data), sizes)
        except DecodeFailed:
            return None
    return split_payloads(lengths, data)
