"""Batches compressed and encrypted: what was put in comes out, and nothing else ever does."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Sequence

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from stepstore.errors import CorruptLog, InvalidInput, KeyDestroyed, Unavailable
from stepstore.log import frame
from stepstore.log.batch_codec import (
    ENCRYPTION_OVERHEAD,
    FLAG_ENCRYPTED,
    FLAG_ZSTD,
    NONCE_BYTES,
    TAG_BYTES,
    BatchCodec,
    Compression,
    DecodeFailed,
)
from stepstore.log.frame import MAX_BATCH_BYTES
from stepstore.log.key_provider import LocalKeyProvider
from stepstore.log.key_ring import KeyRing
from stepstore.log.memory_files import MemoryFileSystem
from tests.stepstore.log_lab import A, B, payload, steady, stream_id

NONE, ZSTD = Compression(), Compression("zstd")
TEXT = [b'{"tool": "grep", "args": ["-r", "needle", "haystack"]}' * n for n in (9, 1, 4)]
NOISE = [payload(400), payload(300, 2)]


def ring(log_uuid: int = 7, disk: MemoryFileSystem | None = None) -> KeyRing:
    return KeyRing.open(disk or MemoryFileSystem(), "/", uuid.UUID(int=log_uuid), LocalKeyProvider(bytes(32)))


def lengths(payloads: Sequence[bytes]) -> list[int]:
    return [len(payload) for payload in payloads]


def decodes(codec: BatchCodec, payloads: Sequence[bytes], stored: bytes, flags: int, seq: int = 5) -> bool:
    return codec.decode(A, seq, flags, stored, lengths(payloads)) == b"".join(payloads)


# ---- round trip ------------------------------------------------------------------------------------------------------

compressible = st.builds(lambda part, n: part * n, st.binary(max_size=20), st.integers(0, 200))
batches = st.lists(st.one_of(st.binary(max_size=200), compressible), min_size=1, max_size=8)
compressions = st.one_of(st.just(NONE), st.builds(Compression, st.just("zstd"), st.integers(1, 19)))


@steady
@given(batches, compressions, st.booleans(), st.integers(1, 2**64 - 1), st.integers(0, 15))
@example([b""], ZSTD, True, 1, 0)
@example([b"", bytes(100_000), b""], ZSTD, True, 1, 15)
def test_what_was_encoded_is_decoded(
    payloads: list[bytes], compression: Compression, encrypted: bool, first_seq: int, other_flags: int
) -> None:
    keys = ring() if encrypted else None
    stored, flags = BatchCodec(compression, keys).encode(A, first_seq, payloads)
    assert bool(flags & FLAG_ENCRYPTED) == encrypted
    assert not flags & ~(FLAG_ENCRYPTED | FLAG_ZSTD)
    raw = b"".join(payloads)
    size = len(stored) - (ENCRYPTION_OVERHEAD if encrypted else 0)
    assert size < len(raw) if flags & FLAG_ZSTD else size == len(raw)
    for reading in (NONE, ZSTD):  # whatever this life compresses with
        assert BatchCodec(reading, keys).decode(A, first_seq, flags | other_flags, stored, lengths(payloads)) == raw


def test_without_compression_and_keys_a_batch_is_stored_as_it_is() -> None:
    assert BatchCodec(NONE).encode(A, 1, TEXT) == (b"".join(TEXT), 0)


def test_what_does_not_get_smaller_is_stored_plain() -> None:
    codec = BatchCodec(ZSTD)
    assert codec.encode(A, 1, NOISE) == (b"".join(NOISE), 0)
    assert codec.encode(A, 1, [b"", b""]) == (b"", 0)
    stored, flags = codec.encode(A, 1, TEXT)
    assert flags == FLAG_ZSTD
    assert len(stored) < sum(lengths(TEXT)) // 4


def test_a_higher_level_gives_smaller_batches() -> None:
    words = [payload(7, n) for n in range(500)]
    dice = random.Random(1)
    payloads = [b" ".join(dice.choices(words, k=20_000))]
    sizes = [len(BatchCodec(Compression("zstd", level)).encode(A, 1, payloads)[0]) for level in (1, 19)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("level", [1, 3, 12, 19, 22])
@pytest.mark.parametrize("size", [600, 70_000, 3_000_000])
def test_frames_of_every_level_pass_the_bounds(level: int, size: int) -> None:
    payloads = [payload(size // 20, level) * 20]
    codec = BatchCodec(Compression("zstd", level))
    stored, flags = codec.encode(A, 5, payloads)
    assert flags == FLAG_ZSTD
    assert decodes(codec, payloads, stored, flags)


@pytest.mark.parametrize("compression", [NONE, ZSTD])
def test_a_batch_of_the_largest_size_goes_through(compression: Compression) -> None:
    payloads = [TEXT[0] * (MAX_BATCH_BYTES // len(TEXT[0])), bytes(MAX_BATCH_BYTES % len(TEXT[0]))]
    assert sum(lengths(payloads)) == MAX_BATCH_BYTES
    codec = BatchCodec(compression, ring())
    stored, flags = codec.encode(A, 5, payloads)
    assert decodes(codec, payloads, stored, flags)


def test_the_bits_are_no_others_of_a_directory_entry() -> None:
    bits = [value for name, value in vars(frame).items() if name.startswith("FLAG_")]
    assert not any(bit & (FLAG_ZSTD | FLAG_ENCRYPTED) for bit in bits)
    assert (FLAG_ZSTD, FLAG_ENCRYPTED) == (16, 32)


@pytest.mark.parametrize("level", [0, 23, -1])
def test_a_level_that_does_not_exist_is_refused(level: int) -> None:
    with pytest.raises(InvalidInput, match="level"):
        Compression("zstd", level)


def test_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match="gzip"):
        Compression("gzip")  # type: ignore[arg-type]


# ---- tampering -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payloads", [TEXT, NOISE, [b""]], ids=["compressed", "plain", "empty"])
def test_every_flipped_bit_of_an_encrypted_batch_is_noticed(payloads: list[bytes]) -> None:
    codec = BatchCodec(ZSTD, ring())
    stored, flags = codec.encode(A, 5, payloads)
    assert decodes(codec, payloads, stored, flags)
    for offset, bit in itertools.product(range(len(stored)), range(8)):
        altered = bytearray(stored)
        altered[offset] ^= 1 << bit
        with pytest.raises(DecodeFailed):
            codec.decode(A, 5, flags, bytes(altered), lengths(payloads))


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("compression", [NONE, ZSTD])
def test_every_other_length_of_a_batch_is_noticed(compression: Compression, encrypted: bool) -> None:
    codec = BatchCodec(compression, ring() if encrypted else None)
    stored, flags = codec.encode(A, 5, TEXT)
    for length in range(len(stored)):
        with pytest.raises(DecodeFailed):
            codec.decode(A, 5, flags, stored[:length], lengths(TEXT))
    for more in (b"\0", stored, b"x" * 1000):
        with pytest.raises(DecodeFailed):
            codec.decode(A, 5, flags, stored + more, lengths(TEXT))


def test_a_flipped_byte_of_a_compressed_batch_gives_an_error_or_as_many_bytes() -> None:
    codec = BatchCodec(ZSTD)
    stored, flags = codec.encode(A, 5, TEXT)
    noticed = 0
    for offset, bit in itertools.product(range(len(stored)), range(8)):
        altered = bytearray(stored)
        altered[offset] ^= 1 << bit
        try:
            assert len(codec.decode(A, 5, flags, bytes(altered), lengths(TEXT))) == sum(lengths(TEXT))
        except DecodeFailed:
            noticed += 1
    assert noticed  # the rest is the business of the CRC in the directory entry


@pytest.mark.parametrize("payloads", [TEXT, NOISE], ids=["compressed", "plain"])
def test_a_batch_at_another_place_does_not_decode(payloads: list[bytes]) -> None:
    keys = ring()
    codec = BatchCodec(ZSTD, keys)
    keys.add((A, B))
    stored, flags = codec.encode(A, 5, payloads)
    sizes = lengths(payloads)
    with pytest.raises(DecodeFailed):
        codec.decode(B, 5, flags, stored, sizes)
    for other_seq in (4, 6, 5 + 2**32):
        with pytest.raises(DecodeFailed):
            codec.decode(A, other_seq, flags, stored, sizes)
    for other_flags in (flags ^ FLAG_ZSTD, flags ^ FLAG_ENCRYPTED):
        with pytest.raises(DecodeFailed):
            codec.decode(A, 5, other_flags, stored, sizes)
    boundaries = [sizes[0] + 1, sizes[1] - 1, *sizes[2:]]
    assert sum(boundaries) == sum(sizes)
    for other_lengths in (boundaries, [sum(sizes)], [*sizes, 0], [0, *sizes], sizes[:-1]):
        with pytest.raises(DecodeFailed):
            codec.decode(A, 5, flags, stored, other_lengths)
    assert decodes(codec, payloads, stored, flags)


def test_a_batch_of_another_log_with_the_same_keys_does_not_decode() -> None:
    disk = MemoryFileSystem()
    keys = ring(7, disk)
    stored, flags = BatchCodec(NONE, keys).encode(A, 5, TEXT)
    keys.log_uuid = uuid.UUID(int=8)
    with pytest.raises(DecodeFailed):
        BatchCodec(NONE, keys).decode(A, 5, flags, stored, lengths(TEXT))


def test_the_stored_form_is_what_the_module_says() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    keys = ring(7)
    for compression, payloads in ((NONE, TEXT), (ZSTD, TEXT), (ZSTD, NOISE)):
        stored, flags = BatchCodec(compression, keys).encode(A, 5, payloads)
        zstd = flags & FLAG_ZSTD
        aad = uuid.UUID(int=7).bytes + A + (5).to_bytes(8, "big") + bytes([zstd])
        aad += b"".join(struct.pack(">I", len(payload)) for payload in payloads)
        nonce, ciphertext = stored[:NONCE_BYTES], stored[NONCE_BYTES:]
        data = AESGCM(keys.key(A)).decrypt(nonce, ciphertext, aad)
        assert len(ciphertext) == len(data) + TAG_BYTES
        assert (zstandard.decompress(data) if zstd else data) == b"".join(payloads)


def test_no_payload_is_in_an_encrypted_batch_in_clear() -> None:
    stored, _ = BatchCodec(NONE, ring()).encode(A, 1, TEXT)
    assert not any(stored[n : n + 4] in TEXT[0] for n in range(len(stored) - 4))


def test_no_nonce_comes_twice() -> None:
    codec = BatchCodec(NONE, ring())
    stored = [codec.encode(A, 1, [b"the same"])[0] for _ in range(5000)]
    assert len({body[:NONCE_BYTES] for body in stored}) == len(set(stored)) == 5000
    bits = [sum(body[n // 8] >> n % 8 & 1 for body in stored) for n in range(NONCE_BYTES * 8)]
    assert all(2000 < ones < 3000 for ones in bits), "a bit of the nonces is not random"


# ---- bombs -----------------------------------------------------------------------------------------------------------


def zstd_frame(
    declared: int | None,
    blocks: Sequence[tuple[bytes, int]],
    *,
    window_log: int | None = None,
    dict_id: int = 0,
) -> bytes:
    """A zstd frame made by hand (RFC 8878): blocks of one byte, repeated; any declared content size, any window."""
    single = window_log is None
    assert declared is not None or not single
    descriptor = (0 if declared is None else 0xC0) | (0x20 if single else 0) | (1 if dict_id else 0)
    data = b"\x28\xb5\x2f\xfd" + bytes([descriptor])
    if window_log is not None:
        data += bytes([(window_log - 10) << 3])
    if dict_id:
        data += bytes([dict_id])
    if declared is not None:
        data += struct.pack("<Q", declared)
    for n, (byte, times) in enumerate(blocks):
        last = n == len(blocks) - 1
        data += struct.pack("<I", times << 3 | 1 << 1 | int(last))[:3] + byte
    return data


BLOCK = 100_000
SAID = 3 * BLOCK


def test_frames_made_by_hand_are_frames() -> None:
    """Else the refusals below would prove nothing."""
    codec = BatchCodec(NONE)
    for made in (
        zstd_frame(SAID, [(b"x", BLOCK)] * 3),
        zstd_frame(SAID, [(b"x", BLOCK)] * 3, window_log=17),
    ):
        assert codec.decode(A, 1, FLAG_ZSTD, made, [SAID]) == b"x" * SAID
    smallest = zstd_frame(500, [(b"x", 500)], window_log=10)  # there is no smaller window
    assert codec.decode(A, 1, FLAG_ZSTD, smallest, [500]) == b"x" * 500


HOSTILE = {
    "it says less than it holds": zstd_frame(SAID, [(b"x", BLOCK)] * 4),
    "it says more than it holds": zstd_frame(SAID, [(b"x", BLOCK)] * 2),
    "it says another size, and holds it": zstd_frame(4 * BLOCK, [(b"x", BLOCK)] * 4),
    "it says 2 GiB": zstd_frame(2**31, [(b"x", BLOCK)] * 3),
    "it says 2**64 - 3": zstd_frame(2**64 - 3, [(b"x", BLOCK)] * 3),
    "it says 0": zstd_frame(0, [(b"x", BLOCK)] * 3),
    "it says nothing": zstd_frame(None, [(b"x", BLOCK)] * 3, window_log=20),
    "its window is larger than its content": zstd_frame(SAID, [(b"x", BLOCK)] * 3, window_log=24),
    "its window is 2 GiB": zstd_frame(SAID, [(b"x", BLOCK)] * 3, window_log=31),
    "its window is 128 MiB and it is cut": zstd_frame(SAID, [(b"x", BLOCK)] * 3, window_log=27)[:-2],
    "it wants a dictionary": zstd_frame(SAID, [(b"x", BLOCK)] * 3, dict_id=5),
    "it is cut": zstd_frame(SAID, [(b"x", BLOCK)] * 3)[:-1],
    "another follows": zstd_frame(SAID, [(b"x", BLOCK)] * 3) + zstd_frame(SAID, [(b"x", BLOCK)] * 3),
    "something follows": zstd_frame(SAID, [(b"x", BLOCK)] * 3) + b"x",
    "an empty frame is in front": zstandard.compress(b"") + zstd_frame(SAID, [(b"x", BLOCK)] * 3),
    "a skippable frame is in front": struct.pack("<II", 0x184D2A50, 4)
    + b"skip"
    + zstd_frame(SAID, [(b"x", BLOCK)] * 3),
    "a skippable frame of that size": struct.pack("<II", 0x184D2A50, SAID) + bytes(SAID),
    "no frame": b"x" * 50,
    "nothing": b"",
    "a head": zstd_frame(SAID, [(b"x", BLOCK)])[:9],
}


@pytest.mark.parametrize("encrypted", [False, True], ids=["", "encrypted"])
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_frame_is_refused_and_takes_no_memory(hostile: bytes, encrypted: bool) -> None:
    flags = FLAG_ZSTD
    codec = BatchCodec(NONE)
    if encrypted:
        keys = ring()
        codec = BatchCodec(NONE, keys)
        keys.add((A,))
        hostile = seal(keys, hostile, [SAID])
        flags |= FLAG_ENCRYPTED
    tracemalloc.start()
    try:
        with pytest.raises(DecodeFailed):
            codec.decode(A, 1, flags, hostile, [SAID])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * SAID + 4 * len(hostile) + 1_000_000


def seal(keys: KeyRing, data: bytes, sizes: Sequence[int]) -> bytes:
    """What somebody with the key could store."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    aad = keys.log_uuid.bytes + A + (1).to_bytes(8, "big") + bytes([FLAG_ZSTD])
    aad += b"".join(struct.pack(">I", size) for size in sizes)
    return bytes(12) + AESGCM(keys.key(A)).encrypt(bytes(12), data, aad)


def test_the_library_does_not_see_a_frame_that_claims_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    class Library:
        def decompress(self, data: bytes, **_: object) -> bytes:
            seen.append(data)
            return b"x" * SAID

    codec = BatchCodec(NONE)
    monkeypatch.setattr(codec, "_decompressor", Library)
    for what, hostile in HOSTILE.items():
        if what.startswith(("it says 2", "it says 0", "it says nothing", "its window", "it wants")):
            with pytest.raises(DecodeFailed):
                codec.decode(A, 1, FLAG_ZSTD, hostile, [SAID])
            assert not seen, what
    assert codec.decode(A, 1, FLAG_ZSTD, zstd_frame(SAID, [(b"x", BLOCK)] * 3), [SAID])
    assert seen


def test_a_frame_of_nothing_is_refused_whatever_follows() -> None:
    for hostile in (zstandard.compress(b""), HOSTILE["it says 0"]):
        with pytest.raises(DecodeFailed):
            BatchCodec(NONE).decode(A, 1, FLAG_ZSTD, hostile, [0])


def test_a_library_that_gives_too_little_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def decompress(self, data: bytes, **_: object) -> bytes:
            return b"x" * (SAID - 1)

    codec = BatchCodec(NONE)
    monkeypatch.setattr(codec, "_decompressor", Library)
    with pytest.raises(DecodeFailed):
        codec.decode(A, 1, FLAG_ZSTD, zstd_frame(SAID, [(b"x", BLOCK)] * 3), [SAID])


@pytest.mark.parametrize("flags", [0, FLAG_ZSTD, FLAG_ENCRYPTED, FLAG_ZSTD | FLAG_ENCRYPTED])
def test_a_directory_that_promises_more_than_a_batch_may_hold_is_refused(flags: int) -> None:
    size = MAX_BATCH_BYTES + 1
    frame = zstd_frame(size, [(b"x", 1)])
    for sizes in ([size], [MAX_BATCH_BYTES, 1], [2**32 - 1] * 1000):
        with pytest.raises(DecodeFailed, match="limit"):
            BatchCodec(NONE, ring()).decode(A, 1, flags, frame, sizes)


@steady
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\x60"]), st.integers(0, 63)
)
def test_any_bytes_give_an_error_or_the_promised_number_of_bytes(data: bytes, head: bytes, flags: int) -> None:
    codec = BatchCodec(NONE, KEYS_OF_A)
    for sizes in ([100], [len(head + data)], [0], []):
        with contextlib.suppress(DecodeFailed):
            assert len(codec.decode(A, 1, flags, head + data, sizes)) == sum(sizes)


KEYS_OF_A = ring()
KEYS_OF_A.add((A,))


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_a_new_stream_gets_a_key_that_is_on_the_medium_before_its_batch_can_be() -> None:
    disk = MemoryFileSystem()
    codec = BatchCodec(ZSTD, ring(7, disk))
    stored, flags = codec.encode(A, 5, TEXT)
    later = BatchCodec(NONE, ring(7, disk.durable_copy()))
    assert decodes(later, TEXT, stored, flags)


def test_batches_of_a_stream_whose_key_was_destroyed_cannot_be_read_and_are_not_damaged() -> None:
    keys = ring()
    codec = BatchCodec(ZSTD, keys)
    stored, flags = codec.encode(A, 5, TEXT)
    other, other_flags = codec.encode(B, 5, TEXT)
    keys.destroy((A,))
    with pytest.raises(KeyDestroyed) as caught:
        codec.decode(A, 5, flags, stored, lengths(TEXT))
    assert not isinstance(caught.value, CorruptLog | DecodeFailed)
    assert caught.value.stream == A
    assert codec.decode(B, 5, other_flags, other, lengths(TEXT)) == b"".join(TEXT)


def test_a_stream_that_got_a_new_key_does_not_read_what_the_old_one_wrote() -> None:
    keys = ring()
    codec = BatchCodec(ZSTD, keys)
    stored, flags = codec.encode(A, 5, TEXT)
    keys.destroy((A,))
    keys.add((A,))
    with pytest.raises(DecodeFailed):
        codec.decode(A, 5, flags, stored, lengths(TEXT))


def test_without_a_ring_or_a_provider_an_encrypted_batch_is_unavailable() -> None:
    disk = MemoryFileSystem()
    stored, flags = BatchCodec(NONE, ring(7, disk)).encode(A, 5, TEXT)
    no_provider = KeyRing.open(disk, "/", uuid.UUID(int=7), None)
    for codec in (BatchCodec(NONE), BatchCodec(NONE, no_provider)):
        with pytest.raises(Unavailable, match="key_provider"):
            codec.decode(A, 5, flags, stored, lengths(TEXT))


def test_without_a_provider_an_encrypted_stream_is_not_written_in_clear_and_others_are() -> None:
    disk = MemoryFileSystem()
    ring(7, disk).add((A,))
    codec = BatchCodec(NONE, KeyRing.open(disk, "/", uuid.UUID(int=7), None))
    with pytest.raises(Unavailable, match="key_provider"):
        codec.encode(A, 6, TEXT)
    assert codec.encode(B, 1, TEXT) == (b"".join(TEXT), 0)


def test_with_keys_batches_from_before_there_were_any_are_still_read() -> None:
    stored, flags = BatchCodec(ZSTD).encode(A, 5, TEXT)
    codec = BatchCodec(NONE, ring())
    assert decodes(codec, TEXT, stored, flags)
    assert decodes(codec, NOISE, b"".join(NOISE), 0)


# ---- libraries and threads -------------------------------------------------------------------------------------------


def in_a_new_process(program: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_no_library_is_imported_before_it_is_used() -> None:
    in_a_new_process("""
import sys
from stepstore.log.batch_codec import BatchCodec, Compression
codec = BatchCodec(Compression())
stored, flags = codec.encode(bytes(16), 1, [b"payload"])
assert codec.decode(bytes(16), 1, flags, stored, [7]) == b"payload"
assert not {"cryptography", "zstandard"} & set(sys.modules), "imported"
BatchCodec(Compression("zstd"))
assert "zstandard" in sys.modules and "cryptography" not in sys.modules
""")


def test_a_missing_zstd_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, flags = BatchCodec(ZSTD).encode(A, 1, TEXT)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InvalidInput, match=r'pip install "stepwell\[zstd\]"'):
        BatchCodec(ZSTD)
    with pytest.raises(InvalidInput, match=r'pip install "stepwell\[zstd\]"'):
        BatchCodec(NONE).decode(A, 1, flags, stored, lengths(TEXT))


def test_a_missing_cryptography_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ring()
    codec = BatchCodec(NONE, keys)
    stored, flags = codec.encode(A, 1, TEXT)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(InvalidInput, match=r'pip install "stepwell\[encryption\]"'):
        BatchCodec(NONE, keys)
    with pytest.raises(InvalidInput, match=r'pip install "stepwell\[encryption\]"'):
        codec.decode(A, 1, flags, stored, lengths(TEXT))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_many_threads_use_one_codec() -> None:
    codec = BatchCodec(ZSTD, ring())
    compressors: set[object] = set()

    def work(number: int) -> None:
        dice = random.Random(number)
        for n in range(60):
            stream = stream_id(f"stream {dice.randrange(8)}")
            payloads = [dice.choice(TEXT) * dice.randrange(400), dice.randbytes(dice.randrange(2000))]
            stored, flags = codec.encode(stream, n + 1, payloads)
            assert codec.decode(stream, n + 1, flags, stored, lengths(payloads)) == b"".join(payloads)
        compressors.add(codec._compressor())
        assert codec._compressor() is codec._compressor()

    in_threads(6, work)
    assert len(compressors) == 6
