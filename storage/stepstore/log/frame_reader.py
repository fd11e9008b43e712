"""Read a log frame by frame, in log order, as who follows it is given it. Every CRC is checked. All calls block."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from stepstore.errors import InvalidInput, KeyDestroyed, RecoveryFailed, Unavailable
from stepstore.giving_way import give_way
from stepstore.log import frame as fr
from stepstore.log.frame import FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS
from stepstore.log.index import LogIndex
from stepstore.log.indexed_batch import CODED
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.open_files import OpenFiles
from stepstore.log.read_ahead import ReadAhead
from stepstore.log.records import Gap, Record, Stored, StoredBatch, between, last_lsn_of, make_batch, records_of
from stepstore.log.segment_header import HEADER_BYTES
from stepstore.log.stored_payloads import Decode, payloads_of

_SLICE_BYTES = 8 * 1024 * 1024
"""A follower is given so much at once, unless one frame is larger."""


class FramePosition(NamedTuple):
    """Where a reader in log order stands: behind record `after`; the rest is a hint."""

    after: int
    segment: IndexedSegment | None = None
    frame: int = 0


class FrameReader:
    """Reads the frames of a log one after another. `decode` undoes compression and encryption."""

    def __init__(self, files: OpenFiles, index: LogIndex, decode: Decode | None = None):
        self._files, self._index, self._decode = files, index, decode

    def read_frames(self, position: FramePosition, upto: int, records: int) -> tuple[list[Record | Gap], FramePosition]:
        """As `read_stored`, record by record."""
        found, position = self.read_stored(position, upto, records)
        items: list[Record | Gap] = []
        for item in found:
            if isinstance(item, Gap):
                items.append(item)
            else:
                items += records_of(item.stream, item.first_seq, item.first_lsn, item.payloads)
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
        ahead = ReadAhead(self._files)
        while count < records and size < _SLICE_BYTES and after < upto:
            give_way()
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
                items = self._read_frame(ahead, segment, lsn, offset, end, end_lsn - 1, after, deleting)
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
        ahead: ReadAhead,
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
            content, start = ahead.at(segment, offset, fr.HEADER_BYTES, end)
            header = fr.parse_header(content[start : start + fr.HEADER_BYTES])
            body = memoryview(b"")
            if header is not None:
                content, start = ahead.at(segment, offset + fr.HEADER_BYTES, header.body_len, end)
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
                    payloads = payloads_of(self._decode, stream, first_seq, flags & 0xFFFF, lengths, data)
            if payloads is None:
                yield Gap(lsn, lsn + count - 1)
            else:
                yield make_batch((stream, first_seq, lsn, payloads))
        if header.last_lsn < last_lsn:
            yield Gap(header.last_lsn + 1, last_lsn)  # the index lacks a frame
