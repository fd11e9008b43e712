"""The index of a sealed segment, read from its footer (or its sidecar) where it is asked: only the fingerprints are in
memory, 4 bytes for each stream."""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator

from stepstore.log import footer as ft
from stepstore.log.footer import IndexHead
from stepstore.log.live_index import STREAM_DELETED, StreamEntry
from stepstore.log.packed_table import PackedTable, ReadAt, UnsoundIndex

_SLICE = 1024
_BATCH_SLICE = 16 * 1024
_SNAPSHOT = struct.Struct(">16s5Q")


class SealedIndex:
    """Streams and frames of one sealed segment. Calls block, and raise `UnsoundIndex` where a checksum fails."""

    def __init__(self, read: ReadAt, base: int, head: IndexHead):
        self.head = head
        self._read, self._base = read, base
        self._frames = PackedTable(read, base + head.frames_at, head.frames, ft.FRAME_ENTRY.size)
        self._streams = PackedTable(read, base + head.streams_at, head.streams, ft.STREAM_ENTRY.size)
        self._batches = PackedTable(read, base + head.batches_at, head.batches, ft.BATCH_ENTRY_BYTES)
        self._snapshots = PackedTable(read, base + head.snapshots_at, head.snapshots, ft.SNAPSHOT_BYTES)
        self._fingerprints = self._load_fingerprints()
        self._frame_slice: tuple[int, bytes] = (0, b"")

    def _whole(self, at: int, size: int, crc: int, what: str) -> bytes:
        data = self._read(self._base + at, size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise UnsoundIndex(f"{what} of the index fail their checksum")
        return data

    def _load_fingerprints(self) -> array[int]:
        head = self.head
        found = array("I")
        found.frombytes(
            self._whole(
                head.fingerprints_at, head.streams * ft.FINGERPRINT_BYTES, head.fingerprints_crc, "the fingerprints"
            )
        )
        if sys.byteorder == "little":
            found.byteswap()
        return found

    @property
    def records(self) -> int:
        """Records in the segment's frames."""
        return self.head.records

    @property
    def tombstones(self) -> int:
        """How many streams were deleted in the segment."""
        return self.head.tombstones

    @property
    def frame_count(self) -> int:
        """How many data frames the segment holds."""
        return self.head.frames

    def open_streams(self) -> dict[bytes, None]:
        """The streams that were open when the segment ended."""
        head = self.head
        data = self._whole(head.open_at, head.open_streams * ft.OPEN_BYTES, head.open_crc, "the open streams")
        return {data[at : at + ft.OPEN_BYTES]: None for at in range(0, len(data), ft.OPEN_BYTES)}

    def might_hold(self, stream: bytes) -> bool:
        """False if the segment surely has no record of the stream. Reads nothing."""
        wanted = int.from_bytes(stream[:4], "big")
        prints = self._fingerprints
        at = bisect_left(prints, wanted)
        return at < len(prints) and prints[at] == wanted

    def find(self, stream: bytes) -> StreamEntry | None:
        """The stream as this segment has it."""
        wanted = int.from_bytes(stream[:4], "big")
        prints = self._fingerprints
        at = bisect_left(prints, wanted)
        while at < len(prints) and prints[at] == wanted:
            entry = StreamEntry._make(ft.STREAM_ENTRY.unpack(self._streams.entries(at, at + 1)))
            if entry.stream == stream:
                return entry
            at += 1
        return None

    def tail(self, stream: bytes) -> tuple[int, int] | None:
        """(last seq, flags) of a stream, None if the segment does not have it."""
        entry = self.find(stream)
        return None if entry is None else (entry.last_seq, entry.flags)

    def batch_words(self, entry: StreamEntry, start: int, end: int) -> array[int]:
        """The words of batches `start` to `end` (not included) of a stream, counted from its first."""
        return self._words(entry.first_batch + start, entry.first_batch + end)

    def batches_of_many(self, streams: Collection[bytes]) -> Iterator[tuple[StreamEntry, array[int]]]:
        """Those of these streams that the segment has, with the words of all their batches: for many streams in few
        reads (each of which may have to wait for the GIL)."""
        begin = end = 0
        words = array("Q")
        for entry in self.streams():  # sorted, and their batches lie in the same order
            if entry.stream in streams:
                last = entry.first_batch + entry.batches
                if entry.first_batch < begin or last > end:
                    begin, end = (
                        entry.first_batch,
                        max(last, min(entry.first_batch + _BATCH_SLICE, self._batches.count)),
                    )
                    words = self._words(begin, end)
                yield entry, words[(entry.first_batch - begin) * ft.BATCH_WORDS : (last - begin) * ft.BATCH_WORDS]

    def _words(self, start: int, end: int) -> array[int]:
        found = array("Q")
        found.frombytes(self._batches.entries(start, end))
        if sys.byteorder == "little":
            found.byteswap()
        return found

    def snapshot(self, stream: bytes) -> tuple[int, int, int, int, int] | None:
        """The words of the newest snapshot of a stream in this segment."""
        low, high = 0, self._snapshots.count
        while low < high:
            middle = (low + high) // 2
            found = self._snapshots.entries(middle, middle + 1)
            if found[:16] < stream:
                low = middle + 1
            elif found[:16] > stream:
                high = middle
            else:
                a, b, c, d, e = (int.from_bytes(found[16 + n * 8 : 24 + n * 8], "big") for n in range(ft.BATCH_WORDS))
                return a, b, c, d, e
        return None

    @property
    def snapshot_count(self) -> int:
        """How many streams have a snapshot in the segment."""
        return self.head.snapshots

    def snapshot_words(self) -> Iterator[tuple[bytes, tuple[int, int, int, int, int]]]:
        """The newest snapshot of each stream that has one in the segment, sorted by stream."""
        for start in range(0, self._snapshots.count, _SLICE):
            page = self._snapshots.entries(start, min(start + _SLICE, self._snapshots.count))
            for stream, *words in _SNAPSHOT.iter_unpack(page):
                yield stream, tuple(words)

    @property
    def payload_bytes(self) -> int:
        """Payload bytes in the segment's frames."""
        return self.head.payload_bytes

    @property
    def superseded_bytes(self) -> int:
        """Payload bytes of snapshots that have a newer one in the same segment."""
        return self.head.superseded_bytes

    def deleted_streams(self) -> list[bytes]:
        """The streams whose tombstone lies in the segment. Reads the table of streams if there are any."""
        if not self.head.tombstones:
            return []
        return [entry.stream for entry in self.streams() if entry.flags & STREAM_DELETED]

    @property
    def size_so_far(self) -> int:
        """Bytes of the index, without the open streams."""
        return self.head.size - self.head.open_streams * ft.OPEN_BYTES

    def streams(self) -> Iterator[StreamEntry]:
        """Every stream, sorted by id."""
        for start in range(0, self._streams.count, _SLICE):
            page = self._streams.entries(start, min(start + _SLICE, self._streams.count))
            for fields in ft.STREAM_ENTRY.iter_unpack(page):
                yield StreamEntry._make(fields)

    def check_streams(self) -> None:
        """Read the table of streams once, so that `streams` will not fail half way."""
        self._streams.check()

    def frame_place(self, number: int) -> tuple[int, int]:
        """(first LSN, offset of the header) of a frame."""
        start, data = self._frame_slice
        at = (number - start) * ft.FRAME_ENTRY.size
        if not 0 <= at < len(data):
            start = number - number % _SLICE
            data = self._frames.entries(start, min(start + _SLICE, self._frames.count))
            self._frame_slice = start, data
            at = (number - start) * ft.FRAME_ENTRY.size
        found: tuple[int, int] = ft.FRAME_ENTRY.unpack_from(data, at)
        return found

    def check(self) -> None:
        """Read every part of the index once."""
        self._load_fingerprints()
        self.open_streams()
        for table in (self._frames, self._streams, self._batches, self._snapshots):
            table.check()
