"""Read the batches of a segment that may be damaged anywhere: by its frames, or by its index where those are broken."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterator

from stepstore.errors import StepwellError
from stepstore.log import frame as fr
from stepstore.log.frame import FLAG_TOMBSTONE, KIND_FLAGS, DirectoryEntry
from stepstore.log.frame_search import OnProgress, directory_of, find_frames
from stepstore.log.indexed_batch import CODED, fields_from_words
from stepstore.log.live_index import STREAM_DELETED
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.resync import Break, FoundFrame
from stepstore.log.salvage_findings import FoundBatch, Lost, LostPart
from stepstore.log.salvage_source import Source
from stepstore.log.scan import Window


def batches_of(source: Source, progress: OnProgress) -> Iterator[FoundBatch | Lost]:
    """Every batch that can be read, in log order, and every damaged place. Raises: `RecoveryFailed`."""
    file = source.open()
    try:
        search = _BatchSearch(source, Window(file, source.path))
        breaks = sorted(source.breaks, key=lambda item: item[0].offset)
        at_break = told = 0
        for at in source.frames:
            while at_break < len(breaks) and breaks[at_break][0].offset <= at:
                yield from search.at_break(*breaks[at_break])
                at_break += 1
            yield from search.of_frame(at)
            progress(at - told)
            told = at
        for found in breaks[at_break:]:
            yield from search.at_break(*found)
        progress(source.size - told)
    finally:
        file.close()


def first_records(source: Source, wanted: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The first record of each of these streams that lies here and can be read: (stream, payload).

    Raises: `RecoveryFailed`.
    """
    index = source.index()
    if index is None:
        if not source.frames:
            find_frames(source, set(), lambda _count: None)
        for item in batches_of(source, lambda _count: None):
            if isinstance(item, Lost) or item.first_seq != 1 or item.stream not in wanted or item.flags & CODED:
                continue
            yield item.stream, item.payloads()[0]
        return
    file = source.open()
    try:
        for stream in sorted(wanted):
            entry = index.find(stream) if index.might_hold(stream) else None
            if entry is None or entry.first_seq != 1:
                continue
            _seq, _lsn, count, size, crc, flags, at, lengths_at = fields_from_words(index.batch_words(entry, 0, 1))
            if size > fr.MAX_BATCH_BYTES:  # it lies
                continue
            data = file.read(at, size)
            first = size if count == 1 else int.from_bytes(file.read(lengths_at, 4), "big")
            if zlib.crc32(data) == crc and not flags & CODED:
                yield stream, data[:first]
    except UnsoundIndex:
        return
    finally:
        file.close()


class _BatchSearch:
    """One look at a segment through a window."""

    def __init__(self, source: Source, window: Window):
        self._source, self._window = source, window
        self._batches: list[tuple[int, bytes, DirectoryEntry]] | None = None

    def of_frame(self, at: int) -> Iterator[FoundBatch | Lost]:
        """What is in the frame at an offset."""
        head = fr.parse_header(self._window.at(at, fr.HEADER_BYTES))
        assert head is not None
        body = self._window.at(at + fr.HEADER_BYTES, head.body_len)
        entries = directory_of(FoundFrame(at, head), body)
        base = at + fr.HEADER_BYTES
        if entries is None:
            yield from self._by_index(
                Break(at, at + head.frame_len, head.first_lsn, head.last_lsn), "the directory of a frame"
            )
            return
        for stream, first_seq, lsn, count, size, crc, flags, payload_at, lengths_at in entries:
            lengths = struct.unpack(f">{count}I", body[lengths_at - base : lengths_at - base + 4 * count])
            data = bytes(body[payload_at - base : payload_at - base + size])
            if len(data) == size and zlib.crc32(data) == crc and (flags & CODED or sum(lengths) == size):
                yield FoundBatch(stream, first_seq, lsn, flags, lengths, data)
            else:
                numbers = (stream, first_seq, first_seq + count - 1)
                parts = () if flags & KIND_FLAGS == fr.FLAG_SNAPSHOT else (numbers,)
                end = payload_at + size
                yield Lost(self._source.path, payload_at, end, lsn, lsn + count - 1, parts, "a batch of records")

    def at_break(self, found: Break, what: str) -> Iterator[FoundBatch | Lost]:
        """What is in a broken place."""
        if found.last_lsn is not None and found.last_lsn < found.first_lsn:
            yield Lost(self._source.path, found.offset, found.end, found.first_lsn, found.last_lsn, (), what)
        else:
            yield from self._by_index(found, what)

    def _by_index(self, found: Break, what: str) -> Iterator[FoundBatch | Lost]:
        """What the index of the segment knows to lie in a broken place, as far as it can be read there."""
        batches = self._index_batches()
        if batches is None:
            yield Lost(*self._place(found), None, what)
            return
        parts: list[LostPart] = []
        saved: list[FoundBatch] = []
        first = bisect_left(batches, (found.first_lsn,))
        for lsn, stream, entry in batches[first:]:
            if found.last_lsn is not None and lsn > found.last_lsn:
                break
            _stream, first_seq, _lsn, count, size, crc, flags, payload_at, lengths_at = entry
            end = payload_at + size
            if not lengths_at < lengths_at + 4 * count <= payload_at <= end <= self._window.size:  # it lies
                parts.append((stream, first_seq, first_seq + count - 1))
                continue
            data = bytes(self._window.at(payload_at, size))
            lengths = struct.unpack(f">{count}I", bytes(self._window.at(lengths_at, 4 * count)))
            if count == 1 and not flags & CODED:
                lengths = (size,)
            # Of several records only their lengths say where one ends; with the checksum of the directory gone, it is
            # taken for good that they add up. Of a coded batch not even that can be told.
            sound = len(data) == size and zlib.crc32(data) == crc and sum(lengths) == size and not flags & CODED
            if sound:
                saved.append(FoundBatch(stream, first_seq, lsn, flags, lengths, data))
            else:
                parts.append((stream, first_seq, first_seq + count - 1))
        yield Lost(*self._place(found), tuple(parts), what)
        yield from saved

    def _place(self, found: Break) -> tuple[str, int, int, int, int | None]:
        return self._source.path, found.offset, found.end, found.first_lsn, found.last_lsn

    def _index_batches(self) -> list[tuple[int, bytes, DirectoryEntry]] | None:
        """Every batch that the index names, by LSN: (LSN, stream, entry). None if there is no sound index."""
        if self._batches is not None:
            return self._batches
        index = self._source.index()
        if index is None:
            return None
        found: list[tuple[int, bytes, DirectoryEntry]] = []
        try:
            for entry in index.streams():
                words = index.batch_words(entry, 0, entry.batches)
                for at in range(0, len(words), 5):
                    first_seq, lsn, count, size, crc, flags, *places = fields_from_words(words, at)
                    if entry.flags & STREAM_DELETED and at + 5 == len(words):
                        flags |= FLAG_TOMBSTONE
                    packed = (entry.stream, first_seq, lsn, count, size, crc, flags, places[0], places[1])
                    found.append((lsn, entry.stream, packed))
        except (UnsoundIndex, OSError, StepwellError):
            return None
        found.sort()
        self._batches = found
        return found
