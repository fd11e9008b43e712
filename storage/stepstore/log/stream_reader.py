"""Read one stream by the index: its records slice by slice, its newest snapshot. Every CRC is checked. All calls
block."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from stepstore.errors import Damaged, InvalidInput, KeyDestroyed, RecoveryFailed, Unavailable
from stepstore.log.index import LogIndex, Part
from stepstore.log.indexed_batch import CODED, IndexedBatch, places_of_batch
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.open_files import OpenFiles
from stepstore.log.places import Place, Span, read_places, spans_of
from stepstore.log.records import Record, make_record, records_of
from stepstore.log.stored_payloads import Decode, payloads_of

_WORDS = 256

_make_indexed_batch: Callable[[Iterable[object]], IndexedBatch] = partial(tuple.__new__, IndexedBatch)

_Fields = tuple[IndexedSegment, int, int, int, int, int, int, int, int]
"""Those of an `IndexedBatch`, which is made of them only where one is needed: not for a record that is stored by
itself."""


class Position(NamedTuple):
    """Where a reader of one stream stands: behind number `after`; the rest is valid for one version of the index."""

    after: int
    version: int = -1
    parts: tuple[Part, ...] = ()
    part: int = 0
    batch: int = 0
    flags: int = 0
    last_seq: int = 0

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left to read."""
        return self.version >= 0 and self.part >= len(self.parts)


class StreamReader:
    """Reads streams of a log. `decode` undoes compression and encryption."""

    def __init__(self, files: OpenFiles, index: LogIndex, decode: Decode | None = None):
        self._files, self._index, self._decode = files, index, decode

    def read_slice(
        self, stream: bytes, position: Position, upto: int, records: int, size: int
    ) -> tuple[list[Record], Position]:
        """The next records of a stream behind a position, up to LSN `upto`, at most so many and so large unless one
        batch is larger; and the position behind them. None left: an empty list, and a position whose `flags` and
        `last_seq` tell whether the stream is sound.

        Raises, if it is the very next batch: `Damaged` if the bytes are not those that were written, `KeyDestroyed`,
        `Unavailable` or `InvalidInput` (of the key provider). On an I/O error: `RecoveryFailed`.
        """
        while True:
            version = self._index.version
            try:
                return self._read_slice(stream, position, upto, records, size)
            except RecoveryFailed as error:
                if not self._index.was_replaced(version, error):
                    raise
                position = Position(position.after)

    def _read_slice(
        self, stream: bytes, position: Position, upto: int, records: int, size: int
    ) -> tuple[list[Record], Position]:
        index = self._index
        after, version, parts, part, number, flags, last_seq = position
        if version != index.version:
            version = index.version
            located = index.locate(stream)
            parts, part, number, flags, last_seq = located.parts, 0, -1, located.flags, located.last_seq
        batches: list[_Fields] = []
        wanted: list[tuple[str, list[Place]]] = []
        lie: _Fields | None = None
        taken = taken_bytes = 0
        while part < len(parts):
            here = parts[part]
            if here.entry.last_seq <= after:
                part, number = part + 1, -1
                continue
            if number < 0:
                number = index.first_batch_after(here, after) if after else here.first
            words = index.batch_words(here, number, min(number + _WORDS, here.entry.batches))
            if not words:  # an index that had lied, and was built again meanwhile
                part, number = part + 1, -1
                continue
            full, segment = False, here.segment
            of_segment: list[Place] = []
            wanted.append((segment.path, of_segment))
            end_offset = segment.end_offset  # asked behind the words: where all of those up to `upto` end at least
            for first_seq, first_lsn, at, amounts, crc_flags in zip(*[iter(words)] * 5, strict=True):
                many, batch_bytes, stored = amounts >> 32, amounts & 0xFFFFFFFF, crc_flags & 0xFFFFFFFF
                payload_at, lengths_at = at & 0xFFFFFFFF, at >> 32
                places = places_of_batch(end_offset, many, batch_bytes, stored, payload_at, lengths_at)
                crc = crc_flags >> 32
                fields = (segment, first_seq, first_lsn, many, batch_bytes, crc, stored, payload_at, lengths_at)
                if stored & CODED and places:
                    batch_bytes = self._decoded_size(_make_indexed_batch(fields))
                if first_lsn > upto or (batches and (taken + many > records or taken_bytes + batch_bytes > size)):
                    full = True
                    break
                batches.append(fields)
                taken, taken_bytes, number = taken + many, taken_bytes + batch_bytes, number + 1
                if places is None:  # the index lies: nothing behind it will be given
                    full, lie = True, fields
                    break
                of_segment += places
            if full:
                break
            if number >= here.entry.batches:
                part, number = part + 1, -1
        pieces = iter(self._read_together(wanted, batches))
        found: list[Record] = []
        due = after + 1
        for fields in batches:
            _segment, first_seq, first_lsn, many, stored_size, crc, stored, _payload_at, _lengths_at = fields
            try:
                # Its index names a place where none can be, or a batch out of turn.
                if fields is lie or not first_seq <= due < first_seq + many:
                    raise _damaged(stream, _make_indexed_batch(fields))
                if many == 1 and not stored & CODED:
                    data = next(pieces)
                    if len(data) != stored_size or zlib.crc32(data) != crc:
                        raise _damaged(stream, _make_indexed_batch(fields))
                    found.append(make_record((stream, first_seq, first_lsn, data)))
                else:
                    batch = _make_indexed_batch(fields)
                    found += self._records_of(stream, batch, [next(pieces) for _ in batch.places or ()])
                due = first_seq + many
            except (Damaged, KeyDestroyed, Unavailable, InvalidInput):
                if not found or found[-1].seq <= after:
                    raise
                # What is sound before it is given first; the next call meets it again.
                return [record for record in found if record.seq > after], Position(found[-1].seq)
        if found and found[0].seq <= after:
            found = [record for record in found if record.seq > after]
        end = found[-1].seq if found else after
        return found, Position(end, version, parts, part, number, flags, last_seq)

    def _decoded_size(self, batch: IndexedBatch) -> int:
        """How many bytes the records of a batch will take that is stored compressed, or encrypted."""
        try:
            lengths = self._files.read(batch.segment.path, batch.lengths_at, batch.records * 4)
        except OSError:
            return batch.size  # reading the batch will say what is wrong
        return sum(length for (length,) in struct.iter_unpack(">I", lengths[: len(lengths) // 4 * 4]))

    def _read_together(self, wanted: list[tuple[str, list[Place]]], batches: Sequence[_Fields]) -> list[bytes]:
        """The bytes at each of these places of each file; `batches` are whose they are, in the same order."""
        spans = [spans_of(places) for _path, places in wanted]
        if sum(map(len, spans)) > 1:
            self._fetch_together([(path, some) for (path, _places), some in zip(wanted, spans, strict=True)])
        found: list[bytes] = []
        for (path, places), of_file in zip(wanted, spans, strict=True):
            try:
                with self._files.held(path) as file:
                    for piece in read_places(file.read, places, of_file):
                        found.append(piece)  # one by one: how many there are says which could not be read
            except OSError as error:
                each = map(_make_indexed_batch, batches)
                whose = itertools.chain.from_iterable(
                    itertools.repeat(batch, len(batch.places or ())) for batch in each
                )
                at = next(itertools.islice(whose, len(found), None)).payload_at
                raise RecoveryFailed.from_os_error("read", error, file=path, offset=at) from error
        return found

    def _fetch_together(self, wanted: list[tuple[str, list[Span]]]) -> None:
        """What is not in the page cache is fetched at once instead of one after another."""
        for path, spans in wanted:
            try:
                self._files.will_need(path, spans)
            except OSError:
                return  # a hint; the read itself will say what is wrong

    def read_batch(self, stream: bytes, batch: IndexedBatch) -> list[Record]:
        """The records of one batch.

        Raises: `Damaged` if the bytes are not those that were written, `RecoveryFailed` on an I/O error.
        """
        places = batch.places
        if places is None:
            raise _damaged(stream, batch)
        return self._records_of(stream, batch, self._read_together([(batch.segment.path, list(places))], [batch]))

    def _records_of(self, stream: bytes, batch: IndexedBatch, pieces: list[bytes]) -> list[Record]:
        data = pieces[-1]
        if batch.records == 1 and not batch.flags & CODED:
            if len(data) == batch.size and zlib.crc32(data) == batch.crc:
                return [Record(stream, batch.first_seq, batch.first_lsn, data)]
            raise _damaged(stream, batch)
        lengths_size = batch.records * 4
        lengths = pieces[0][:lengths_size]
        if len(pieces) == 1:
            data = data[batch.payload_at - batch.lengths_at :]
        payloads = None
        if len(lengths) == lengths_size and len(data) == batch.size and zlib.crc32(data) == batch.crc:
            payloads = payloads_of(self._decode, stream, batch.first_seq, batch.flags, lengths, data)
        if payloads is None:
            raise _damaged(stream, batch)
        return records_of(stream, batch.first_seq, batch.first_lsn, payloads)

    def read_snapshot(self, stream: bytes) -> Record | None:
        """The newest snapshot of a stream: its `seq` is the last number it covers. None if there is none.

        Raises: `Damaged`, `RecoveryFailed`.
        """
        while True:
            version = self._index.version
            try:
                batch = self._index.snapshot_batch(stream)
                return None if batch is None else self.read_batch(stream, batch)[0]
            except RecoveryFailed as error:
                if not self._index.was_replaced(version, error):
                    raise

    def same_records(self, one: IndexedBatch, other: IndexedBatch) -> bool:
        """Whether what two batches of one stream have in common is equal, byte for byte. Those that are compressed or
        encrypted are compared as wholes, and as they are stored: a log is opened without keys and libraries.

        Raises: `Damaged`, `RecoveryFailed`.
        """
        if (one.flags | other.flags) & CODED:
            return self._as_stored(one) == self._as_stored(other)
        mine = {record.seq: record.payload for record in self.read_batch(b"", one)}
        return all(mine.get(record.seq, record.payload) == record.payload for record in self.read_batch(b"", other))

    def _as_stored(self, batch: IndexedBatch) -> tuple[int, int, bytes, bytes]:
        places = batch.places
        pieces = [b""] if places is None else self._read_together([(batch.segment.path, list(places))], [batch])
        lengths, data = pieces[0][: batch.records * 4], pieces[-1][-batch.size :] if batch.size else b""
        if len(lengths) != batch.records * 4 or len(data) != batch.size or zlib.crc32(data) != batch.crc:
            raise _damaged(b"", batch)
        return batch.first_seq, batch.flags & CODED, lengths, data


def _damaged(stream: bytes, batch: IndexedBatch) -> Damaged:
    path = batch.segment.path
    return Damaged(
        f"records {batch.first_seq} to {batch.last_seq} of a stream are damaged in {path!r} at offset "
        f"{batch.payload_at}; every other stream is fine. Run `stepwell verify`.",
        file=path,
        offset=batch.payload_at,
        first_lsn=batch.first_lsn,
        last_lsn=batch.first_lsn + batch.records - 1,
        streams=(stream,),
        row=8,
    )
