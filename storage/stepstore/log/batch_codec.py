"""What a batch looks like in its frame: compressed where that pays, and encrypted where the log keeps keys.

The payloads of a batch are joined, then compressed (zstd), then encrypted (AES-256-GCM). What was done stands in the
flags of the batch's directory entry; the directory itself, the payload lengths in it included, stays in clear, so that
integrity checks and recovery need neither library nor key, and so that the size of what is decoded is known beforehand.

    encrypted = nonce (12 random bytes) + ciphertext + tag (16 bytes)
    AAD       = log uuid (16) + stream (16) + first seq (u64) + flags & FLAG_ZSTD (1 byte) + payload lengths (u32 each)

All integers big-endian. The AAD ties a batch to its place, and to the boundaries between its records, which stand in
the directory with nothing but a CRC to protect them. Nonces made of LSNs would repeat, since LSNs are used again after
a cut; random ones allow 2**32 batches per key, and every stream has its own.
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from stepstore.errors import InvalidInput, StepwellError, Unavailable
from stepstore.log.frame import MAX_BATCH_BYTES
from stepstore.log.key_provider import not_installed
from stepstore.log.key_ring import KeyRing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from zstandard import ZstdCompressor, ZstdDecompressor

FLAG_ZSTD, FLAG_ENCRYPTED = 16, 32
"""The batch's stored bytes are a zstd frame, or are encrypted; both: a zstd frame that was encrypted."""

NONCE_BYTES, TAG_BYTES = 12, 16
ENCRYPTION_OVERHEAD = NONCE_BYTES + TAG_BYTES
"""Bytes by which an encrypted batch is longer than what was encrypted."""

_SMALLEST_WINDOW = 1024  # of a zstd frame; the encoder takes none that is larger than what it encodes
_PLACE = struct.Struct(">16s16sQB")


class DecodeFailed(StepwellError):
    """The stored bytes of a batch do not decode to what its directory entry says. For the reader, who knows the file
    and the offset and turns it into `Damaged`; no caller of the log sees it."""


@dataclass(frozen=True)
class Compression:
    """How batches are compressed when they are written; reading goes by the flags of each batch.

    `method`: "none", or "zstd" at `level` 1 (fast) to 22 (small). Raises: `InvalidInput`.
    """

    method: Literal["none", "zstd"] = "none"
    level: int = 3

    def __post_init__(self) -> None:
        if self.method not in ("none", "zstd"):
            raise InvalidInput(f"compression: {self.method!r} is none of 'none' and 'zstd'")
        if not 1 <= self.level <= 22:
            raise InvalidInput(f"compression level: {self.level} is not between 1 and 22")


class BatchCodec:
    """Encodes and decodes the batches of one log. Any number of threads may use it at once; all calls block.

    Batches are encrypted when `keys` can make keys. The libraries are imported when the first batch needs them, except
    that one which every batch will need is asked for here.
    Raises: `InvalidInput` if that one is not installed.
    """

    def __init__(self, compression: Compression, keys: KeyRing | None = None):
        self._compression, self._keys = compression, keys
        self._local = _PerThread()
        if compression.method == "zstd":
            self._compressor()
        if keys is not None and keys.makes_keys:
            _aes_gcm()

    @property
    def changes_anything(self) -> bool:
        """Whether batches are compressed or encrypted when they are written."""
        return self._compression.method != "none" or (self._keys is not None and self._keys.makes_keys)

    def encode(self, stream: bytes, first_seq: int, payloads: Sequence[bytes]) -> tuple[bytes, int]:
        """The bytes to store for a batch and the bits to add to the flags of its directory entry.

        They are at most `ENCRYPTION_OVERHEAD` bytes longer than the payloads. A stream without a key gets one, which is
        on the medium when this returns; `KeyRing.add` for all streams of a group beforehand costs one sync instead of
        one per stream.
        Raises: `Unavailable` (the key cannot be had), `KeyDestroyed` (just now), `InvalidInput` (a library is missing),
        and what `KeyRing.add` raises, `OSError` included.
        """
        stored, flags = b"".join(payloads), 0
        if self._compression.method == "zstd":
            smaller = self._compressor().compress(stored)
            if len(smaller) < len(stored):
                stored, flags = smaller, FLAG_ZSTD
        keys = self._keys
        if keys is None:
            return stored, flags
        if stream not in keys:
            if not keys.makes_keys:
                return stored, flags
            keys.add((stream,))
        aad = _aad(keys, stream, first_seq, flags, [len(payload) for payload in payloads])
        nonce = secrets.token_bytes(NONCE_BYTES)
        ciphertext = _aes_gcm()(keys.key(stream)).encrypt(nonce, stored, aad)
        return nonce + ciphertext, flags | FLAG_ENCRYPTED

    def decode(self, stream: bytes, first_seq: int, flags: int, stored: bytes, lengths: Sequence[int]) -> bytes:
        """The joined payloads of a batch, exactly `sum(lengths)` bytes. Other bits of `flags` do not matter.

        Allocates in proportion to the payloads and `stored`, whatever the bytes claim to be.
        Raises: `DecodeFailed` if the bytes are not what the directory says; `KeyDestroyed`; `Unavailable` if the key
        cannot be had for another reason; `InvalidInput` if a library is missing, or the key provider has another
        master key.
        """
        size = sum(lengths)
        if size > MAX_BATCH_BYTES:
            raise DecodeFailed(f"a batch of {size} bytes; the limit is {MAX_BATCH_BYTES}")
        if flags & FLAG_ENCRYPTED:
            stored = self._decrypt(stream, first_seq, flags, stored, lengths)
        if flags & FLAG_ZSTD:
            return self._decompress(stored, size)
        if len(stored) != size:
            raise DecodeFailed(f"a batch of {len(stored)} bytes instead of {size}")
        return stored

    def _decrypt(self, stream: bytes, first_seq: int, flags: int, stored: bytes, lengths: Sequence[int]) -> bytes:
        if self._keys is None:
            raise Unavailable("the batch is encrypted; open the memory with the key_provider it was written with")
        if len(stored) < ENCRYPTION_OVERHEAD:
            raise DecodeFailed(f"an encrypted batch of {len(stored)} bytes; nonce and tag alone take more")
        key = self._keys.key(stream)
        aes_gcm = _aes_gcm()
        from cryptography.exceptions import InvalidTag

        try:
            aad = _aad(self._keys, stream, first_seq, flags, lengths)
            return aes_gcm(key).decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], aad)
        except InvalidTag as error:
            raise DecodeFailed("an encrypted batch is not what was encrypted with the key of its stream") from error

    def _decompress(self, stored: bytes, size: int) -> bytes:
        decompressor = self._decompressor()
        import zstandard

        try:
            # The library allocates what the frame header claims: hence the look at it. A dictionary or a missing size
            # is nothing that `encode` writes.
            claimed = zstandard.get_frame_parameters(stored)
            if claimed.content_size != size or not size or claimed.dict_id:
                raise DecodeFailed(f"a zstd frame of {claimed.content_size} bytes instead of {size}")
            if claimed.window_size > max(size, _SMALLEST_WINDOW):
                raise DecodeFailed(f"a zstd frame with a window of {claimed.window_size} bytes")
            data = decompressor.decompress(stored, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DecodeFailed(f"not a zstd frame as it was written ({error})") from error
        if len(data) != size:
            raise DecodeFailed(f"a zstd frame gave {len(data)} bytes instead of {size}")
        return data

    # zstandard objects must not be used by two threads at once, and cost ten times a small batch to make.

    def _compressor(self) -> ZstdCompressor:
        compressor = self._local.compressor
        if compressor is None:
            compressor = self._local.compressor = _zstandard().ZstdCompressor(level=self._compression.level)
        return compressor

    def _decompressor(self) -> ZstdDecompressor:
        decompressor = self._local.decompressor
        if decompressor is None:
            decompressor = self._local.decompressor = _zstandard().ZstdDecompressor()
        return decompressor


class _PerThread(threading.local):
    compressor: ZstdCompressor | None = None
    decompressor: ZstdDecompressor | None = None


def _aad(keys: KeyRing, stream: bytes, first_seq: int, flags: int, lengths: Sequence[int]) -> bytes:
    place = _PLACE.pack(keys.log_uuid.bytes, stream, first_seq, flags & FLAG_ZSTD)
    return place + struct.pack(f">{len(lengths)}I", *lengths)


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise not_installed("compressed with zstd", "zstd") from error
    return zstandard


def _aes_gcm() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise not_installed("encrypted", "encryption") from error
    return AESGCM
