"""Which records of which stream lie where, over all segments of a log.

Each segment brings its own index, in memory (`live_index`) or read from its footer (`sealed_index`). What spans
segments is put together here: the last number of a stream, whether its parts continue one another, the streams that are
open. The tuple of segments is replaced as a whole, so a reader in another thread sees one state or the next.
"""

from __future__ import annotations

import errno
import logging
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from stepstore.errors import RecoveryFailed
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_TOMBSTONE, KIND_FLAGS, DirectoryEntry
from stepstore.log.indexed_batch import IndexedBatch, SameRecords, batch_from_words
from stepstore.log.indexed_segment import IndexedSegment, Rebuild, SegmentIndex
from stepstore.log.live_index import STREAM_DELETED, STREAM_FORKED, STREAM_GAP, LiveIndex, StreamEntry
from stepstore.log.packed_table import UnsoundIndex

T = TypeVar("T")

_TAILS_KEPT = 100_000
INDEX_BYTES = 8 * 1024 * 1024
"""A segment is left when its index has grown to this; one group adds 4 MiB at the most, and a footer is one frame."""
_logger = logging.getLogger("stepstore.log")


class Part(NamedTuple):
    """What one segment has of a stream, from its batch number `first` on. `source`: the index that `entry` is of; that
    of the segment may be another by now."""

    segment: IndexedSegment
    source: SegmentIndex
    entry: StreamEntry
    first: int


class Located(NamedTuple):
    """A stream over all segments, oldest part first. `flags`: STREAM_… bits."""

    parts: tuple[Part, ...]
    last_seq: int
    flags: int


class LogIndex:
    """Streams and frames of a log. Everything in it is durable, but for what a read-only opening shows.

    `version` rises whenever a segment is replaced by a rewritten one: positions in older ones are void. `reload`: what
    a read-only opening calls when a file is gone, because another process has rewritten it; False if nothing was.
    """

    def __init__(
        self,
        segments: Iterable[IndexedSegment] = (),
        *,
        open_streams: dict[bytes, None] | None = None,
        rebuild: Rebuild | None = None,
        same_records: SameRecords | None = None,
    ) -> None:
        self.segments: tuple[IndexedSegment, ...] = tuple(segments)
        self.open_streams = {} if open_streams is None else open_streams
        self.version = 0
        self.index_rebuilds = 0
        self._rebuild, self._same_records = rebuild, same_records
        self.reload: Callable[[], bool] | None = None
        self._forked: set[bytes] = set()
        # What was read of a stream, with the newest segment on the medium that might have it: one that was sealed since
        # may know more.
        self._tails: dict[bytes, tuple[IndexedSegment, tuple[int, int]]] = {}
        self._records_before = sum(segment.index.records for segment in self.segments[:-1])

    # ---- changes -----------------------------------------------------------------------------------------------------

    def begin_segment(self, segment: IndexedSegment) -> None:
        """Another segment was begun; what is added from now on lies in it."""
        if self.segments:
            self._records_before += self.segments[-1].index.records
        self.segments = (*self.segments, segment)

    def add_frame(
        self, offset: int, end: int, first_lsn: int, last_lsn: int, chain: int, entries: list[DirectoryEntry]
    ) -> None:
        """Take up a frame of the newest segment."""
        newest = self.segments[-1]
        index = newest.index
        assert isinstance(index, LiveIndex)
        newest.end_offset = end  # first: a reader in another thread trusts no batch behind it
        index.add_frame(offset, first_lsn, entries)
        newest.end_lsn, newest.chain = last_lsn, chain
        for entry in entries:
            flags = entry[6]
            if flags:
                if flags & FLAG_CLOSES or flags & KIND_FLAGS == FLAG_TOMBSTONE:
                    self.open_streams.pop(entry[0], None)
                elif flags & FLAG_OPENS:
                    self.open_streams[entry[0]] = None

    def take_over(self, other: LogIndex) -> None:
        """Become what another index of the same log is; positions in this one are void."""
        self.open_streams = other.open_streams
        self._exchange(other.segments)

    def add_mark(self, end: int, chain: int) -> None:
        """Take up a mark behind the last frame."""
        newest = self.segments[-1]
        newest.end_offset, newest.chain = end, chain

    @property
    def newest_has_room(self) -> bool:
        """Whether the newest segment's index still fits into a footer together with another group."""
        index = self.segments[-1].index
        return not isinstance(index, LiveIndex) or index.size_so_far + 16 * len(self.open_streams) < INDEX_BYTES

    def replace(self, old: Sequence[IndexedSegment], new: IndexedSegment) -> None:
        """Put a rewritten segment in the place of those it stands for, which are neighbours."""
        at = self.segments.index(old[0])
        assert self.segments[at : at + len(old)] == tuple(old)
        self._exchange((*self.segments[:at], new, *self.segments[at + len(old) :]))

    def _exchange(self, segments: tuple[IndexedSegment, ...]) -> None:
        self.segments = segments
        self._records_before = sum(segment.index.records for segment in segments[:-1])
        self._tails = {}
        self.version += 1  # last: whoever still sees the old number looks again

    # ---- one stream --------------------------------------------------------------------------------------------------

    def ask(self, segment: IndexedSegment, question: Callable[[SegmentIndex], T]) -> T:
        """Ask a segment's index; an unsound one costs time, not data: it is built again from the frames."""
        index = segment.index
        try:
            return question(index)
        except UnsoundIndex as error:
            return question(self._built_again(segment, index, error))

    def _built_again(self, segment: IndexedSegment, unsound: SegmentIndex, error: UnsoundIndex) -> SegmentIndex:
        if segment.index is unsound:
            if self._rebuild is None:
                raise error
            _logger.warning("the index of %s is unsound (%s); it is read from its frames instead", segment.path, error)
            segment.index = self._rebuild(segment)
            self.index_rebuilds += 1
        return segment.index

    def tail(self, stream: bytes) -> tuple[int, int]:
        """(last number, STREAM_… bits of the newest segment that has it) of a stream, (0, 0) if there is none.

        Reads from the medium only if no segment in memory has the stream and one on the medium does.
        """
        newest: IndexedSegment | None = None
        answer = (0, 0)
        for segment in reversed(self.segments):
            index = segment.index
            if isinstance(index, LiveIndex):
                found = index.tail(stream)
            elif index.might_hold(stream):
                if newest is None:
                    newest = segment
                    kept = self._tails.get(stream)
                    if kept is not None and kept[0] is newest:
                        answer, newest = kept[1], None
                        break
                found = self.ask(segment, lambda index: index.tail(stream))
            else:
                continue
            if found is not None:
                answer = found
                break
        if newest is not None:
            if len(self._tails) >= _TAILS_KEPT:
                self._tails = {}
            self._tails[stream] = newest, answer
        return answer if stream not in self._forked else (answer[0], answer[1] | STREAM_FORKED)

    def knows(self, stream: bytes) -> bool:
        """Whether `tail` answers for this stream without reading from the medium."""
        for segment in reversed(self.segments):
            index = segment.index
            if isinstance(index, LiveIndex):
                if stream in index:
                    return True
            elif index.might_hold(stream):
                kept = self._tails.get(stream)
                return kept is not None and kept[0] is segment
        return True

    def last_seq(self, stream: bytes) -> int:
        """The last sequence number stored for a stream, 0 if there is none."""
        return self.tail(stream)[0]

    def flags(self, stream: bytes) -> int:
        """STREAM_… bits of a stream."""
        return self.locate(stream).flags

    def __contains__(self, stream: bytes) -> bool:
        return bool(self.tail(stream)[0])

    def locate(self, stream: bytes) -> Located:
        """Where the records of a stream lie. May read from the medium.

        A part that does not continue the one before ends what is readable: `flags` says STREAM_GAP or STREAM_FORKED.
        A part that repeats records byte for byte is passed over (row 10). Behind that end only a deletion counts.
        """
        parts: list[Part] = []
        last_seq = flags = 0
        ended = False
        for segment in self.segments:
            if not segment.index.might_hold(stream):
                continue
            index, entry = self.ask(segment, lambda index: (index, index.find(stream)))
            if entry is None:
                continue
            flags |= entry.flags if not ended else entry.flags & STREAM_DELETED
            first = 0
            if flags & STREAM_DELETED:
                last_seq = entry.last_seq
                continue
            if ended:
                continue
            if entry.first_seq <= last_seq:
                first = self._pass_over(parts, Part(segment, index, entry, 0), last_seq)
                if first < 0:
                    flags |= STREAM_FORKED
                    self._forked.add(stream)
            elif entry.first_seq > last_seq + 1:
                flags |= STREAM_GAP
            if flags & (STREAM_GAP | STREAM_FORKED) & ~entry.flags:
                ended = True
                continue
            parts.append(Part(segment, index, entry, first))
            last_seq = max(last_seq, entry.last_seq)
            ended = bool(entry.flags & (STREAM_GAP | STREAM_FORKED))
        return Located(() if flags & STREAM_DELETED else tuple(parts), last_seq, flags)

    def _pass_over(self, parts: list[Part], later: Part, last_seq: int) -> int:
        """How many batches of a part only repeat what earlier ones hold; -1 if something in them differs (row 11)."""
        assert self._same_records is not None
        earlier = [batch for part in parts for batch in self._batches_of(part)]
        passed = 0
        for batch in self._batches_of(later):
            if batch.first_seq > last_seq:
                break
            for other in earlier:
                if batch.overlaps(other) and (batch.last_seq > last_seq or not self._same_records(batch, other)):
                    return -1
            passed += 1
        return passed

    def _batches_of(self, part: Part) -> Iterator[IndexedBatch]:
        words = self.batch_words(part, part.first, part.entry.batches)
        for at in range(0, len(words), 5):
            yield batch_from_words(part.segment, words, at)

    def batch_words(self, part: Part, start: int, end: int) -> array[int]:
        """The words of batches `start` to `end` (not included) of a part; none if the index had lied about them."""
        segment, index, entry, _first = part
        try:
            return index.batch_words(entry, start, end)
        except UnsoundIndex as error:
            again = self._built_again(segment, index, error)
            found = again.find(entry.stream)
            return array("Q") if found is None else again.batch_words(found, start, end)

    def batches_after(self, stream: bytes, seq: int) -> list[IndexedBatch]:
        """All batches that hold records of the stream behind `seq`, oldest first. For short streams and for tests."""
        return [batch for part in self.locate(stream).parts for batch in self._batches_of(part) if batch.last_seq > seq]

    def first_batch_after(self, part: Part, seq: int) -> int:
        """The number of the first batch of a part that holds records behind `seq`."""
        low, high = part.first, part.entry.batches
        while low < high:
            middle = (low + high) // 2
            words = self.batch_words(part, middle, middle + 1)
            if not words or batch_from_words(part.segment, words).last_seq > seq:
                high = middle
            else:
                low = middle + 1
        return low

    def snapshot_batch(self, stream: bytes) -> IndexedBatch | None:
        """Where the newest snapshot of a stream lies, None if it has none or is deleted."""
        return None if self.tail(stream)[1] & STREAM_DELETED else self.newest_snapshot(stream)

    def newest_snapshot(self, stream: bytes) -> IndexedBatch | None:
        """Where the newest snapshot of a stream lies, deleted or not. May read from the medium."""
        for segment in reversed(self.segments):
            batch = self.snapshot_in(segment, stream)
            if batch is not None:
                return batch
        return None

    # ---- one segment -------------------------------------------------------------------------------------------------

    def batches_of_many(
        self, segment: IndexedSegment, streams: Collection[bytes]
    ) -> list[tuple[StreamEntry, array[int]]]:
        """Those of these streams that a segment has, with the words of all their batches. May read from the medium."""
        return self.ask(segment, lambda index: list(index.batches_of_many(streams)))

    def snapshot_in(self, segment: IndexedSegment, stream: bytes) -> IndexedBatch | None:
        """The newest snapshot of a stream that lies in a segment. May read from the medium."""
        if not segment.index.snapshot_count:
            return None
        words = self.ask(segment, lambda index: index.snapshot(stream))
        return None if words is None else batch_from_words(segment, words)

    def snapshots_in(self, segment: IndexedSegment) -> list[tuple[bytes, IndexedBatch]]:
        """The newest snapshot of each stream that has one in a segment. May read from the medium."""
        found = self.ask(segment, lambda index: list(index.snapshot_words()))
        return [(stream, batch_from_words(segment, words)) for stream, words in found]

    def deleted_in(self, segment: IndexedSegment) -> list[bytes]:
        """The streams whose tombstone lies in a segment. Reads its table of streams, if there are any."""
        return self.ask(segment, lambda index: index.deleted_streams())

    # ---- all of them -------------------------------------------------------------------------------------------------

    @property
    def records(self) -> int:
        """Records stored, those of deleted streams included until they are compacted away."""
        return self._records_before + (self.segments[-1].index.records if self.segments else 0)

    def was_replaced(self, version: int, error: RecoveryFailed) -> bool:
        """Whether a read failed because the file was replaced by a rewritten one since the index had this version; then
        the index knows the new one by now. May read from the medium."""
        if self.version != version:
            return True
        return error.errno == errno.ENOENT and self.reload is not None and self.reload()

    def holding_deletions(self) -> list[IndexedSegment]:
        """The segments that hold a tombstone."""
        return [segment for segment in self.segments if self.ask(segment, lambda index: index.tombstones)]

    def is_deleted_in(self, segments: Iterable[IndexedSegment], stream: bytes) -> bool:
        """Whether one of these segments holds the tombstone of a stream. May read from the medium."""
        for segment in segments:
            if segment.index.might_hold(stream):
                tail = self.ask(segment, lambda index: index.tail(stream))
                if tail is not None and tail[1] & STREAM_DELETED:
                    return True
        return False

    def deleted_streams(self) -> Iterator[bytes]:
        """Every stream that was deleted. Reads the streams of those segments only that hold a deletion."""
        for segment in self.segments:
            yield from self.deleted_in(segment)

    def streams_still_open(self) -> Iterator[bytes]:
        """Streams whose opening record is stored and whose closing record is not, in the order of opening."""
        return iter(list(self.open_streams))

    def segment_of_lsn(self, lsn: int, segments: Sequence[IndexedSegment] | None = None) -> int:
        """The place in `segments` (default: those of now) of the one that holds, or would hold, record `lsn`."""
        among = self.segments if segments is None else segments
        return max(bisect_right(among, lsn, key=lambda segment: segment.header.first_lsn) - 1, 0)

    def frame_of_lsn(self, segment: IndexedSegment, lsn: int) -> int:
        """The number of the first frame of a segment that can hold records from `lsn` on."""
        low, high = 0, segment.index.frame_count
        while low < high:
            middle = (low + high) // 2
            if self.frame_place(segment, middle)[0] > lsn:
                high = middle
            else:
                low = middle + 1
        return max(low - 1, 0)

    def frame_place(self, segment: IndexedSegment, number: int) -> tuple[int, int]:
        """(first LSN, offset of the header) of a frame."""
        return self.ask(segment, lambda index: index.frame_place(number))
