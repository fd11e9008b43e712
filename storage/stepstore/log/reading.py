"""Fetch records by the index: one stream's batches, or frames in log order. Every CRC is checked. All calls block."""

from __future__ import annotations

import contextlib
import itertools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from stepstore.errors import Damaged, InvalidInput, KeyDestroyed, RecoveryFailed, Unavailable
from stepstore.log import frame as fr
from stepstore.log.batch_codec import DecodeFailed
from stepstore.log.frame import FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS
from stepstore.log.index import LogIndex, Part
from stepstore.log.indexed_batch import CODED, IndexedBatch, places_of_batch
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.open_files import OpenFiles
from stepstore.log.places import Place, Span, read_places, spans_of
from stepstore.log.segment_header import HEADER_BYTES

_WORDS = 256
_WINDOW = 1024 * 1024
_SLICE_BYTES = 8 * 1024 * 1024
"""A follower is given so much at once, unless one frame is larger."""

Decode = Callable[[bytes, int, int, bytes, Sequence[int]], bytes]
"""(stream, first seq, flags, stored bytes, lengths) → the payloads joined (see `batch_codec`)."""


class Record(NamedTuple):
    """One record: its stream, its number in it, its number in the log, and its opaque payload."""

    stream: bytes
    seq: int
    lsn: int
    payload: bytes

    def batch(self) -> RecordBatch:
        """A batch of it alone."""
        return RecordBatch(self.stream, self.seq, self.lsn, [self.payload])


_make_record: Callable[[Iterable[object]], Record] = partial(tuple.__new__, Record)
_make_indexed_batch: Callable[[Iterable[object]], IndexedBatch] = partial(tuple.__new__, IndexedBatch)

_Fields = tuple[IndexedSegment, int, int, int, int, int, int, int, int]
"""Those of an `IndexedBatch`, which is made of them only where one is needed: not for a record that is stored by
itself."""


def _records(stream: bytes, first_seq: int, first_lsn: int, payloads: list[bytes]) -> list[Record]:
    """The records with these payloads, numbered from these on. Without a call in Python for each: reading an episode
    and following a log spend a tenth of their time here otherwise."""
    numbers = itertools.count(first_seq), itertools.count(first_lsn)
    return list(map(_make_record, zip(itertools.repeat(stream), *numbers, payloads, strict=False)))


class RecordBatch(NamedTuple):
    """Records of one stream that follow each other in the log, as they were stored together."""

    stream: bytes
    first_seq: int
    first_lsn: int
    payloads: list[bytes]

    def records(self) -> list[Record]:
        """The same one by one."""
        return _records(*self)


class StoredBatch(msgspec.Struct, gc=False):
    """The same, not cut into records yet: of most batches, most who follow a log need no record. The garbage collector
    does not know of it: thousands are held at a time, and nothing in them refers back.

    It lies at `at` in `content`, which holds what was read together with it: who keeps a batch keeps all of that.
    """

    stream: bytes
    first_seq: int
    first_lsn: int
    lengths: tuple[int, ...]
    content: bytes
    at: int

    @property
    def payloads(self) -> list[bytes]:
        """The payloads, cut anew each time."""
        content, at = self.content, self.at
        if len(self.lengths) == 1:
            return [content[at : at + self.lengths[0]]]
        out: list[bytes] = []
        for length in self.lengths:
            out.append(content[at : at + length])
            at += length
        return out

    def cut(self) -> RecordBatch:
        """The same, cut into records."""
        return _make_batch((self.stream, self.first_seq, self.first_lsn, self.payloads))


_make_batch: Callable[[Iterable[object]], RecordBatch] = partial(tuple.__new__, RecordBatch)


class Gap(NamedTuple):
    """Records of the log that a follower cannot be given: their bytes are damaged, or their key was destroyed."""

    first_lsn: int
    last_lsn: int


Stored = StoredBatch | RecordBatch | Gap
"""What a follower is given: a batch as it is stored, one that had to be decoded, or what cannot be given."""


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


class FramePosition(NamedTuple):
    """Where a reader in log order stands: behind record `after`; the rest is a hint."""

    after: int
    segment: IndexedSegment | None = None
    frame: int = 0


class SegmentReader:
    """Reads the segments of a log. `decode` undoes compression and encryption."""

    def __init__(self, files: OpenFiles, index: LogIndex, decode: Decode | None = None):
        self._files, self._index, self._decode = files, index, decode

    # ---- one stream --------------------------------------------------------------------------------------------------

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
                    found.append(_make_record((stream, first_seq, first_lsn, data)))
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
            payloads = self._split(stream, batch.first_seq, batch.flags, lengths, data)
        if payloads is None:
            raise _damaged(stream, batch)
        return _records(stream, batch.first_seq, batch.first_lsn, payloads)

    def _split(
        self, stream: bytes, first_seq: int, flags: int, lengths: bytes | memoryview, data: bytes | memoryview
    ) -> list[bytes] | None:
        if flags & CODED:
            sizes = [length for (length,) in struct.iter_unpack(">I", lengths)]
            if self._decode is None:
                raise RecoveryFailed(
                    "a batch is stored compressed or encrypted, and this log was opened without what reads that"
                )
            try:
                data = self._decode(stream, first_seq, flags, bytes(data), sizes)
            except DecodeFailed:
                return None
        return fr.split_payloads(lengths, data)

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
        """Whether what two batches of one stream have in common is equal, byte for byte."""
        mine = {record.seq: record.payload for record in self.read_batch(b"", one)}
        return all(mine.get(record.seq, record.payload) == record.payload for record in self.read_batch(b"", other))

    # ---- in log order ------------------------------------------------------------------------------------------------

    def read_frames(self, position: FramePosition, upto: int, records: int) -> tuple[list[Record | Gap], FramePosition]:
        """As `read_stored`, record by record."""
        found, position = self.read_stored(position, upto, records)
        items: list[Record | Gap] = []
        for item in found:
            if isinstance(item, Gap):
                items.append(item)
            else:
                items += _records(item.stream, item.first_seq, item.first_lsn, item.payloads)
        return items, position

    def read_stored(self, position: FramePosition, upto: int, records: int) -> tuple[list[Stored], FramePosition]:
        """The next records in log order behind a position, up to record `upto`, about so many (whole frames, until they
        take _SLICE_BYTES); what is damaged is a `Gap`. Snapshots are left out, and so is all of a deleted stream but
        its tombstone. An empty list: nothing is left behind the old position and up to the new one.

        Raises: `RecoveryFailed` on an I/O error; `Unavailable` or `InvalidInput` if the very next record is encrypted
        and its key cannot be had.
        """
        while True:
            version = self._index.version
            try:
                return self._read_frames(position, upto, records)
            except RecoveryFailed as error:
                if not self._index.was_replaced(version, error):
                    raise
                position = FramePosition(position.after)

    def _read_frames(self, position: FramePosition, upto: int, records: int) -> tuple[list[Stored], FramePosition]:
        index = self._index
        after, segment, number = position
        segments = index.segments
        if segment is None or segment not in segments:
            if not segments:
                return [], position
            segment = segments[index.segment_of_lsn(after + 1, segments)]
            number = index.frame_of_lsn(segment, after + 1)
        found: list[Stored] = []
        count = size = 0
        deleting = index.holding_deletions()
        window = _Window(self._files)
        while count < records and size < _SLICE_BYTES and after < upto:
            ends = segment.end_lsn  # asked first: a frame taken up meanwhile is counted before this moves
            is_behind = number >= segment.index.frame_count
            lsn, offset = (ends + 1, 0) if is_behind else index.frame_place(segment, number)
            if lsn > after + 1:  # frames follow each other without a hole, also in a file that was rewritten
                before, after = after, min(lsn - 1, upto)
                found.append(Gap(before + 1, after))
                count += 1
                continue
            if is_behind:
                place = segments.index(segment) + 1
                if place >= len(segments):
                    break
                segment, number = segments[place], 0
                continue
            end_lsn, end = ends + 1, segment.end_offset
            if number + 1 < segment.index.frame_count:
                end_lsn, end = index.frame_place(segment, number + 1)
            try:
                size += max(0, end - offset)
                items = self._read_frame(window, segment, lsn, offset, end, end_lsn - 1, after, deleting)
                if lsn > after and end_lsn - 1 <= upto:  # all of it is wanted, as nearly always
                    found.extend(items)
                    count += end_lsn - lsn
                    items = iter(())
                for item in items:
                    if not isinstance(item, Gap):
                        item = between(item, after, upto)
                        if (many := last_lsn_of(item) + 1 - item.first_lsn) > 0:
                            count += many
                            found.append(item)
                    elif item.last_lsn > after and item.first_lsn <= upto:
                        count += 1
                        found.append(item)
            except (Unavailable, InvalidInput):
                if not found:
                    raise
                after = last_lsn_of(found[-1])
                break
            after = max(after, min(end_lsn - 1, upto))
            if after < end_lsn - 1:
                break  # compaction has made one frame of several since `upto` was asked: the rest of it comes next time
            number += 1
        return found, FramePosition(after, segment, number)

    def _read_frame(
        self,
        window: _Window,
        segment: IndexedSegment,
        first_lsn: int,
        offset: int,
        end: int,
        last_lsn: int,
        after: int,
        deleting: list[IndexedSegment],
    ) -> Iterator[Stored]:
        """The batches of the frame whose header is at `offset`, in log order, that end behind `after`. `end`: where the
        next one is, if the index does not lie. `deleting`: the segments that hold tombstones."""
        path = segment.path
        if not HEADER_BYTES <= offset < segment.end_offset:  # the index lies
            yield Gap(first_lsn, last_lsn)
            return
        try:
            content, start = window.at(segment, offset, fr.HEADER_BYTES, end)
            header = fr.parse_header(content[start : start + fr.HEADER_BYTES])
            body = memoryview(b"")
            if header is not None:
                content, start = window.at(segment, offset + fr.HEADER_BYTES, header.body_len, end)
                body = memoryview(content)[start : start + header.body_len]
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=path, offset=offset) from error
        whole = header is not None and fr.body_is_sound(header, body, fr.crc32_in_pieces)
        entries = None
        if header is not None and len(body) == header.body_len and (whole or fr.directory_is_sound(header, body)):
            entries = fr.parse_directory(header, body, offset)
        if entries is None or header is None or header.first_lsn != first_lsn:
            yield Gap(first_lsn, last_lsn)
            return
        base = offset + fr.HEADER_BYTES
        start -= base
        lengths_from = entries[0][8] if entries else base
        all_lengths = struct.unpack_from(f">{header.record_count}I", content, start + lengths_from) if whole else ()
        for stream, first_seq, lsn, count, size, crc, flags, payload_at, lengths_at in entries:
            if flags & KIND_FLAGS == FLAG_SNAPSHOT or lsn + count - 1 <= after:
                continue
            if deleting and flags & KIND_FLAGS != FLAG_TOMBSTONE and self._index.is_deleted_in(deleting, stream):
                continue
            if whole and not flags & CODED:  # nearly all of them
                first = (lengths_at - lengths_from) // 4
                of_batch = all_lengths[first : first + count]
                if sum(of_batch) == size:
                    yield StoredBatch(stream, first_seq, lsn, of_batch, content, start + payload_at)
                else:
                    yield Gap(lsn, lsn + count - 1)
                continue
            payloads = None
            if whole or zlib.crc32(body[payload_at - base : payload_at - base + size]) == crc:
                lengths = body[lengths_at - base : lengths_at - base + count * 4]
                data = body[payload_at - base : payload_at - base + size]
                with contextlib.suppress(KeyDestroyed):
                    payloads = self._split(stream, first_seq, flags & 0xFFFF, lengths, data)
            if payloads is None:
                yield Gap(lsn, lsn + count - 1)
            else:
                yield _make_batch((stream, first_seq, lsn, payloads))
        if header.last_lsn < last_lsn:
            yield Gap(header.last_lsn + 1, last_lsn)  # the index lacks a frame


def last_lsn_of(item: Stored) -> int:
    """The last record that an item stands for."""
    if isinstance(item, Gap):
        return item.last_lsn
    return item.first_lsn + len(item.lengths if isinstance(item, StoredBatch) else item.payloads) - 1


def between(batch: StoredBatch | RecordBatch, after: int, upto: int) -> StoredBatch | RecordBatch:
    """What a batch has behind one record and up to another."""
    if batch.first_lsn > after and last_lsn_of(batch) <= upto:
        return batch
    stream, first_seq, first_lsn, payloads = batch.cut() if isinstance(batch, StoredBatch) else batch
    cut = max(0, after + 1 - first_lsn)
    return RecordBatch(stream, first_seq + cut, first_lsn + cut, payloads[cut : max(0, upto + 1 - first_lsn)])


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


class _Window:
    """Reads ahead within a segment, so that many small frames cost one read."""

    def __init__(self, files: OpenFiles):
        self._files = files
        self._path, self._start, self._data = "", 0, b""

    def at(self, segment: IndexedSegment, offset: int, size: int, end: int) -> tuple[bytes, int]:
        """What holds so many bytes from an offset on, if there are, and where they are in it. `end`: up to there more
        will be wanted."""
        start = offset - self._start
        if segment.path != self._path or start < 0 or start + size > len(self._data):
            ahead = min(max(_WINDOW, min(end - offset, fr.MAX_FRAME_BYTES)), segment.end_offset - offset)
            self._data = self._files.read(segment.path, offset, max(size, ahead))
            self._path, self._start, start = segment.path, offset, 0
        return self._data, start
