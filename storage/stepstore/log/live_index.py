"""The index of one segment in memory: of the one being written, and of any that had to be scanned.

A batch is records of one stream that were stored together: contiguous payloads in one frame. The batches of a stream
are five machine words each in an array of their own, so that a million of them cost the garbage collector nothing and
sealing only has to join them.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from stepstore.log import footer as ft
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS, DirectoryEntry
from stepstore.log.packed_table import pack_table

STREAM_OPENED, STREAM_CLOSED = FLAG_OPENS, FLAG_CLOSES
STREAM_GAP, STREAM_FORKED, STREAM_DELETED = 4, 8, 16
_LOW = 0xFFFFFFFF
_TURNS = FLAG_OPENS | FLAG_CLOSES | FLAG_TOMBSTONE


class StreamEntry(NamedTuple):
    """A stream as one segment has it. `flags`: STREAM_… bits set by this segment alone. `first_batch`: the number of
    its first batch in the segment's batch table (0 in memory, where each stream has a table of its own)."""

    stream: bytes
    first_batch: int
    batches: int
    first_seq: int
    last_seq: int
    first_lsn: int
    flags: int


Doubt = tuple[bytes, tuple[int, int, int, int, int]]
"""A batch whose numbers the stream had before (rows 10 and 11): stream, and its words in the index."""


class LiveIndex:
    """Streams and frames of one segment. Everything in it is durable, but for what a read-only opening shows."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._first_seq = array("Q")
        self._last_seq = array("Q")
        self._flags = array("I")
        self._batches: list[array[int]] = []
        self._frame_lsns = array("Q")
        self._frame_offsets = array("Q")
        self._turns = array("Q")  # streams opened and closed, in that order: number, and in the lowest bit "closed"
        self.snapshots: dict[bytes, tuple[int, int, int, int, int]] = {}
        self.doubts: list[Doubt] = []
        self.deleted: list[bytes] = []
        self.records = 0
        self.payload_bytes = 0
        self.superseded_bytes = 0
        self.batch_count = 0

    def add_frame(self, offset: int, first_lsn: int, entries: Iterable[DirectoryEntry]) -> None:
        """Take up one frame. A number that does not continue its stream marks the stream unsound."""
        self._frame_lsns.append(first_lsn)
        self._frame_offsets.append(offset)
        numbers, last_seqs, all_flags, all_batches = self._numbers, self._last_seq, self._flags, self._batches
        for stream, first_seq, entry_lsn, count, size, crc, flags, payload_at, lengths_at in entries:
            self.records += count
            self.payload_bytes += size
            words = (
                first_seq,
                entry_lsn,
                lengths_at << 32 | payload_at,
                count << 32 | size,
                crc << 32 | flags & 0xFFFF,
            )
            if flags & KIND_FLAGS == FLAG_SNAPSHOT:
                older = self.snapshots.get(stream)
                if older is not None:
                    self.superseded_bytes += older[3] & _LOW
                self.snapshots[stream] = words
                continue
            number = numbers.get(stream)
            if number is None:
                number = len(numbers)
                self._first_seq.append(first_seq)
                last_seqs.append(first_seq + count - 1)
                all_flags.append(0)
                all_batches.append(array("Q", words))
                numbers[stream] = number  # last: a reader in another thread that finds it finds all of it
            elif first_seq == last_seqs[number] + 1:
                all_batches[number].extend(words)
                last_seqs[number] = first_seq + count - 1
            else:
                if first_seq > last_seqs[number]:
                    all_flags[number] |= STREAM_GAP
                else:
                    self.doubts.append((stream, words))
                continue
            self.batch_count += 1
            if flags:
                if flags & FLAG_OPENS:
                    all_flags[number] &= ~FLAG_CLOSES  # a stream may be opened again
                all_flags[number] |= flags & (FLAG_OPENS | FLAG_CLOSES)
                if flags & KIND_FLAGS == FLAG_TOMBSTONE:
                    all_flags[number] |= STREAM_DELETED
                    self.deleted.append(stream)
                if flags & _TURNS:
                    self._turns.append(number << 1 | bool(flags & ~FLAG_OPENS & _TURNS))

    @property
    def tombstones(self) -> int:
        """How many streams were deleted in the segment."""
        return len(self.deleted)

    @property
    def snapshot_count(self) -> int:
        """How many streams have a snapshot in the segment."""
        return len(self.snapshots)

    def snapshot_words(self) -> Iterator[tuple[bytes, tuple[int, int, int, int, int]]]:
        """The newest snapshot of each stream that has one in the segment, as of this call."""
        return iter(list(self.snapshots.items()))

    def deleted_streams(self) -> list[bytes]:
        """The streams whose tombstone lies in the segment, as of this call."""
        return list(self.deleted)

    def mark_forked(self, stream: bytes, lsn: int) -> None:
        """Two different records carry one number of the stream, the second of them behind record `lsn` (row 11): what
        it has behind that may continue either, and is not readable."""
        number = self._numbers[stream]
        self._flags[number] |= STREAM_FORKED
        words = self._batches[number]
        while not self._flags[number] & STREAM_DELETED and words[1 - ft.BATCH_WORDS] > lsn:
            del words[-ft.BATCH_WORDS :]
            self.batch_count -= 1

    def __contains__(self, stream: bytes) -> bool:
        return stream in self._numbers

    @property
    def frame_count(self) -> int:
        """How many data frames the segment holds."""
        return len(self._frame_offsets)

    def might_hold(self, stream: bytes) -> bool:
        """Whether the segment has records of the stream; True may be wrong elsewhere, here it never is."""
        return stream in self._numbers

    def find(self, stream: bytes) -> StreamEntry | None:
        """The stream as this segment has it."""
        number = self._numbers.get(stream)
        if number is None:
            return None
        words = self._batches[number]
        batches = len(words) // ft.BATCH_WORDS
        return StreamEntry(
            stream, 0, batches, self._first_seq[number], self._last_seq[number], words[1], self._flags[number]
        )

    def tail(self, stream: bytes) -> tuple[int, int] | None:
        """(last seq, flags) of a stream, None if the segment does not have it. For the hot path."""
        number = self._numbers.get(stream)
        return None if number is None else (self._last_seq[number], self._flags[number])

    def batch_words(self, entry: StreamEntry, start: int, end: int) -> array[int]:
        """The words of batches `start` to `end` (not included) of a stream, counted from its first."""
        return self._batches[self._numbers[entry.stream]][start * ft.BATCH_WORDS : end * ft.BATCH_WORDS]

    def snapshot(self, stream: bytes) -> tuple[int, int, int, int, int] | None:
        """The words of the newest snapshot of a stream in this segment."""
        return self.snapshots.get(stream)

    def streams(self) -> Iterator[StreamEntry]:
        """Every stream, as of this call, in the order of first appearance."""
        for stream in list(self._numbers):
            entry = self.find(stream)
            assert entry is not None
            yield entry

    def batches_of_many(self, streams: Collection[bytes]) -> Iterator[tuple[StreamEntry, array[int]]]:
        """Those of these streams that the segment has, with the words of all their batches."""
        for stream in streams:
            entry = self.find(stream)
            if entry is not None:
                yield entry, self.batch_words(entry, 0, entry.batches)

    def check_streams(self) -> None:
        """Nothing in memory can be unsound."""

    def frame_place(self, number: int) -> tuple[int, int]:
        """(first LSN, offset of the header) of a frame."""
        return self._frame_lsns[number], self._frame_offsets[number]

    def apply_open(self, open_streams: dict[bytes, None]) -> None:
        """Turn the streams open at the start of the segment into those at its end."""
        streams = list(self._numbers)
        for turn in self._turns:
            if turn & 1:
                open_streams.pop(streams[turn >> 1], None)
            else:
                open_streams[streams[turn >> 1]] = None

    @property
    def size_so_far(self) -> int:
        """How large the index would be as bytes, about, without the open streams."""
        streams = len(self._numbers) * (ft.FINGERPRINT_BYTES + ft.STREAM_ENTRY.size)
        return (
            streams
            + self.batch_count * ft.BATCH_ENTRY_BYTES
            + self.frame_count * ft.FRAME_ENTRY.size
            + len(self.snapshots) * 56
        )

    def encode(
        self,
        *,
        header_copy: bytes,
        first_lsn: int,
        end_lsn: int,
        end_offset: int,
        chain: int,
        first_ns: int,
        last_ns: int,
        digest: bytes,
        open_streams: Iterable[bytes],
    ) -> tuple[bytes, int]:
        """The index as bytes (see `footer`), and the CRC of its head."""
        ordered = sorted(self._numbers.items())
        fingerprints = b"".join([stream[:4] for stream, _ in ordered])
        still_open = b"".join(open_streams)
        pack = ft.STREAM_ENTRY.pack
        stream_parts: list[bytes] = []
        at = 0
        for stream, number in ordered:
            words = self._batches[number]
            batches = len(words) // ft.BATCH_WORDS
            first, last = self._first_seq[number], self._last_seq[number]
            stream_parts.append(pack(stream, at, batches, first, last, words[1], self._flags[number]))
            at += batches
        batches_bytes = _big_endian(b"".join([self._batches[number] for _stream, number in ordered]))
        frames = array("Q", bytes(16 * self.frame_count))
        frames[::2], frames[1::2] = self._frame_lsns[: self.frame_count], self._frame_offsets[: self.frame_count]
        snapshots = b"".join(
            [stream + _big_endian(array("Q", words).tobytes()) for stream, words in sorted(self.snapshots.items())]
        )
        head = ft.encode_head(
            ft.IndexHead(
                header_copy=header_copy,
                first_lsn=first_lsn,
                end_lsn=end_lsn,
                end_offset=end_offset,
                chain=chain,
                first_ns=first_ns,
                last_ns=last_ns,
                records=self.records,
                payload_bytes=self.payload_bytes,
                superseded_bytes=self.superseded_bytes,
                frames=self.frame_count,
                streams=len(ordered),
                batches=at,
                snapshots=len(self.snapshots),
                open_streams=len(still_open) // ft.OPEN_BYTES,
                tombstones=len(self.deleted),
                digest=digest,
                fingerprints_crc=zlib.crc32(fingerprints),
                open_crc=zlib.crc32(still_open),
            )
        )
        parts = (
            head,
            fingerprints,
            still_open,
            pack_table(_big_endian(frames.tobytes()), ft.FRAME_ENTRY.size),
            pack_table(b"".join(stream_parts), ft.STREAM_ENTRY.size),
            pack_table(batches_bytes, ft.BATCH_ENTRY_BYTES),
            pack_table(snapshots, ft.SNAPSHOT_BYTES),
        )
        return b"".join(parts), int.from_bytes(head[-4:], "big")


def _big_endian(words: bytes) -> bytes:
    if sys.byteorder == "big":
        return words
    swapped = array("Q")
    swapped.frombytes(words)
    swapped.byteswap()
    return swapped.tobytes()
