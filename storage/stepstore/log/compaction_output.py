"""What a compaction writes: one file of batches as they are stored, whose frames cover every LSN of its range."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import posixpath
import secrets
import time
from collections.abc import Sequence

from stepstore.errors import StepwellError
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.files import File, write_all
from stepstore.log.footer import Trailer
from stepstore.log.frame import StoredBatch, header_position
from stepstore.log.index_building import settle_doubts
from stepstore.log.indexed_batch import batch_from_words
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.names import COMPACTION_TEMPORARY, SegmentName
from stepstore.log.open_files import OpenFiles
from stepstore.log.opening import OpenLog
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import open_index
from stepstore.log.segment import Cut, write_seal
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.stream_reader import StreamReader

FRAME_BYTES = 1024 * 1024
"""Batches are joined into frames of up to this, a quarter of the largest group: longer ones would save nothing more to
speak of, and one that is damaged would cost a follower more records."""
MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024
"""Offsets in an index have 32 bits."""
MAX_SPAN = 0xFFFF_FFFF
"""LSNs that one frame can cover."""


class CompactionOutput:
    """The file that is to stand for these segments: `begin`, `add` …, `end`, `seal`; or `discard`.

    Every call raises `OSError` or `StepwellError`; then `discard` is the only thing left to do.
    """

    def __init__(self, log: OpenLog, sources: Sequence[IndexedSegment]):
        self.path = posixpath.join(log.path, COMPACTION_TEMPORARY)
        self.size = 0
        self._log, self._sources = log, sources
        self._file: File | None = None
        self._header = _header_of(log, sources)
        self._header_copy, self._header_crc = sh.encode_segment_header(self._header)
        self._offset, self._chain = sh.HEADER_BYTES, self._header_crc
        self._digest = hashlib.blake2b(digest_size=32)
        # Frames are written and hashed several at a time: after each call that releases the GIL this thread has to wait
        # for it again, behind a busy host for 5 ms.
        self._unwritten = bytearray()
        self._index = LiveIndex()
        self._lsn = self._header.first_lsn  # the first that no frame covers yet
        self._pending: list[StoredBatch] = []
        self._pending_bytes = 0
        self._trailer: Trailer | None = None

    @property
    def name(self) -> SegmentName:
        """What the file will be called."""
        return SegmentName(self._header.seq, self._header.first_lsn, self._header.generation)

    @property
    def is_begun(self) -> bool:
        """Whether the file is there."""
        return self._file is not None

    def begin(self) -> None:
        """Make the file."""
        files = self._log.files
        if files.stat(self.path) is not None:
            files.unlink(self.path)
        self._file = files.open(self.path, create=True)
        write_all(self._file, 0, self._header_copy)
        self._digest.update(self._header_copy)

    # ---- batches -----------------------------------------------------------------------------------------------------

    def add(self, batch: StoredBatch) -> None:
        """Take up a batch behind all that were taken up before."""
        cost = fr.batch_cost(len(batch.content), batch.records)
        if self._pending_bytes + cost > FRAME_BYTES or _last_lsn(batch) - self._lsn >= MAX_SPAN:
            self._flush_pending()
            self._skip_to(batch.first_lsn, room=MAX_SPAN - batch.records)
        self._pending.append(batch)
        self._pending_bytes += cost

    def _flush_pending(self) -> None:
        if self._pending:
            self._flush(_last_lsn(self._pending[-1]))

    def _skip_to(self, lsn: int, *, room: int) -> None:
        """Cover what lies before `lsn` with empty frames, as far as one frame cannot with `room` LSNs."""
        while lsn - self._lsn > room:
            self._flush(min(self._lsn + MAX_SPAN, lsn) - 1)

    def _flush(self, last_lsn: int) -> None:
        """Write a frame of what is pending that covers everything up to `last_lsn`."""
        if last_lsn < self._lsn:
            return
        at = header_position(self._offset)
        data, crc, entries = fr.build_copied_frame(
            self._pending,
            offset=at,
            first_lsn=self._lsn,
            last_lsn=last_lsn,
            durable_lsn=self._lsn - 1,
            segment_tag=self._header.segment_tag,
            prev_crc=self._chain,
        )
        if at + len(data) > 2 * MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, "the rewritten file would be longer than its index can say")
        self._unwritten += bytes(at - self._offset)
        self._unwritten += data
        self._index.add_frame(at, self._lsn, entries)
        self._offset, self._chain, self._lsn = at + len(data), crc, last_lsn + 1
        self._pending, self._pending_bytes = [], 0

    def holds(self, batch: StoredBatch) -> bool:
        """Whether this very batch was taken up already; its stream was."""
        self._flush_pending()
        self._write_out()
        entry = self._index.find(batch.stream)
        assert entry is not None, "a batch of the stream was taken up, and is in a frame by now"
        assert self._file is not None
        for n in range(entry.batches):
            indexed = batch_from_words(self._sources[0], self._index.batch_words(entry, n, n + 1))
            same = (indexed.first_seq, indexed.records, indexed.size, indexed.crc, indexed.flags) == (
                batch.first_seq,
                batch.records,
                len(batch.content),
                batch.crc,
                batch.flags & 0xFFFF,
            )
            if same and self._file.read(indexed.payload_at, indexed.size) == batch.content:
                return self._file.read(indexed.lengths_at, 4 * indexed.records) == batch.lengths
        return False

    def write_out(self, at_least: int) -> None:
        """Write what has gathered, once it is so much, and have it reach the medium."""
        if len(self._unwritten) >= at_least:
            self._write_out()
            assert self._file is not None
            self._file.datasync()  # a little each time: one sync of the whole would hold up those of the writer

    def _write_out(self) -> None:
        assert self._file is not None
        write_all(self._file, self._offset - len(self._unwritten), self._unwritten)
        self._digest.update(self._unwritten)
        self._unwritten = bytearray()

    # ---- ending ------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Nothing more will be taken up: write the frames that are missing."""
        end_lsn = self._header.orig_end_lsn
        if self._pending and end_lsn - self._lsn >= MAX_SPAN:
            self._flush_pending()
        self._skip_to(end_lsn + 1, room=MAX_SPAN)
        self._flush(end_lsn)
        self._write_out()
        self._settle_doubts()

    def _settle_doubts(self) -> None:
        """Rows 10 and 11, as an opening does: numbers that one stream has twice."""
        if not self._index.doubts:
            return
        reading = OpenFiles(self._log.files)
        try:
            settle_doubts(self.indexed(self.path), StreamReader(reading, self._log.index).same_records)
        finally:
            reading.close()

    def seal(self, open_streams: Sequence[bytes]) -> None:
        """Write footer, close frame and trailer. On return the file is durable, and still without its name."""
        assert self._file is not None
        self._trailer = write_seal(
            self._file,
            self._header,
            self._header_copy,
            Cut(self._header.seq_last, self._offset, self._header.orig_end_lsn, self._chain),
            self._index,
            open_streams,
            times=_times(self._sources),
            digest=self._digest.digest(),
        )
        self.size = self._file.size()
        self._file.close()

    def indexed(self, path: str) -> IndexedSegment:
        """The new file under the name `path`, with its index in memory."""
        return IndexedSegment(
            path,
            self._header,
            self._header_crc,
            self._index,
            self._offset,
            self._header.orig_end_lsn,
            self._chain,
            sealed=True,
        )

    def open(self, path: str) -> IndexedSegment:
        """The finished file, which is now called `path`, with its index on the medium if that can be read."""
        assert self._trailer is not None
        segment = self.indexed(path)
        with contextlib.suppress(OSError, UnsoundIndex, StepwellError):  # the one in memory is as good
            segment.index = open_index(self._log.reading, path, self._trailer)
            segment.index_path = path
        return segment

    def discard(self) -> None:
        """Give the file up. Raises nothing: what cannot be removed now, the next opening removes."""
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(OSError):
                if self._log.files.stat(self.path) is not None:
                    self._log.files.unlink(self.path)


def _last_lsn(batch: StoredBatch) -> int:
    return batch.first_lsn + batch.records - 1


def _times(sources: Sequence[IndexedSegment]) -> tuple[int, int]:
    heads = [source.index.head for source in sources if isinstance(source.index, SealedIndex)]
    firsts = [head.first_ns for head in heads if head.first_ns]
    return (min(firsts) if firsts else 0), max((head.last_ns for head in heads), default=0)


def _header_of(log: OpenLog, sources: Sequence[IndexedSegment]) -> SegmentHeader:
    first, last = sources[0].header, sources[-1].header
    end_offset, end_lsn, chain = sources[-1].named_end
    return SegmentHeader(
        format_major=sh.FORMAT_MAJOR,
        format_minor=sh.FORMAT_MINOR,
        features_incompatible=0,
        features_compatible=sh.FEATURE_NOT_PREALLOCATED,
        log_uuid=log.identity.log_uuid.bytes,
        branch_uuid=log.identity.branch_uuid.bytes,
        seq=first.seq,
        seq_last=last.seq_last,
        generation=max(source.header.generation for source in sources) + 1,
        first_lsn=first.first_lsn,
        epoch=last.epoch,
        created_ns=time.time_ns(),
        codec=last.codec,
        cipher=last.cipher,
        segment_tag=secrets.randbits(32),
        align=0,
        prev_seq=first.prev_seq,
        prev_end_offset=first.prev_end_offset,
        prev_end_lsn=first.prev_end_lsn,
        prev_chain=first.prev_chain,
        orig_end_offset=end_offset,
        orig_end_lsn=end_lsn,
        orig_chain=chain,
    )
