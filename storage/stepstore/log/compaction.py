"""Rewrite segments without what is dead in them, and put the new file in their place. All calls block.

A rewritten file stands for one segment or for several neighbours. Every record that is alive keeps its LSN, and every
batch is copied as the bytes that are stored, be they compressed or encrypted; its frames still cover every LSN of the
range, with holes. Its header names the end of the last file it stands for, so the chain of segments stays whole.

    choose → Rewriting: step, step, …, seal → put_in_place → (the index is changed) → remove

Until `put_in_place` everything is in `compact.tmp`. The order there survives a crash at any point: a manifest that
lists the old files, unless there is one → the new file gets its name; not listed, it is a left-over → the manifest that
lists it instead of the old ones gets its name. From then on those are the left-overs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import posixpath
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stepstore.errors import Damaged, StepwellError
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.files import File, write_all
from stepstore.log.footer import Trailer
from stepstore.log.frame import (
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    KIND_DATA,
    KIND_FLAGS,
    DirectoryEntry,
    FrameHeader,
    StoredBatch,
    header_position,
)
from stepstore.log.index import INDEX_BYTES
from stepstore.log.index_building import rebuild_index, settle_doubts
from stepstore.log.indexed_batch import batch_from_words
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.manifest import Manifest, manifest_of, name_manifest, prepare_manifest, superseded_manifests
from stepstore.log.names import COMPACTION_TEMPORARY, SegmentName
from stepstore.log.open_files import OpenFiles
from stepstore.log.open_streams import open_streams_after
from stepstore.log.opening import OpenLog
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.scan import Window
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import open_index, sidecar_path
from stepstore.log.segment import Cut, write_seal
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.stream_reader import StreamReader

STEP_BYTES = 8 * 1024 * 1024
"""One step reads about so much, unless one frame is larger, and so much is written at a time: closing a log waits for
one step at most."""
FRAME_BYTES = 1024 * 1024
"""Batches are joined into frames of up to this, a quarter of the largest group: longer ones would save nothing more to
speak of, and one that is damaged would cost a follower more records."""
SMALL_BYTES = 8 * 1024 * 1024
MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024
"""Offsets in an index have 32 bits."""
MAX_SPAN = 0xFFFF_FFFF
"""LSNs that one frame can cover."""

OnDead = Callable[[DirectoryEntry, bytes], None]
"""Called for each dead batch with its entry and the bytes that are stored for it."""


@dataclass(frozen=True, kw_only=True)
class CompactionReport:
    """What one compaction did.

    `files_rewritten`: segments that were replaced; `files_written`: by so many. `bytes_before`, `bytes_after`: sizes of
    those files. `streams_removed`, `records_removed`: what was left out; a superseded snapshot is a record too.
    `left_alone`: files that are damaged, which compaction does not touch.
    """

    files_rewritten: int = 0
    files_written: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    streams_removed: int = 0
    records_removed: int = 0
    left_alone: tuple[str, ...] = ()
    seconds: float = 0.0


class Weight(NamedTuple):
    """A segment, and what `choose` goes by. `is_dead_enough`: worth being rewritten for itself."""

    segment: IndexedSegment
    alive_bytes: int
    index_bytes: int
    is_dead_enough: bool


def choose(weights: Sequence[Weight | None], segment_bytes: int, *, neighbours: int) -> list[IndexedSegment]:
    """The first segments, neighbours all, that are to become one: such that are dead enough, and small ones beside
    them; or at least so many small `neighbours`. Empty if there is nothing to do. None stands for a segment that has to
    stay as it is."""
    small = min(SMALL_BYTES, segment_bytes // 8)
    room = min(segment_bytes, MAX_FILE_BYTES)
    group: list[Weight] = []
    for weight in weights:
        joins = weight if weight and (weight.is_dead_enough or weight.alive_bytes < small) else None
        if joins and (not group or _fits([*group, joins], room)):
            group.append(joins)
            continue
        if _is_worth_it(group, neighbours):
            break
        group = [joins] if joins else []
    return [weight.segment for weight in group] if _is_worth_it(group, neighbours) else []


def _fits(group: list[Weight], room: int) -> bool:
    return sum(w.alive_bytes for w in group) <= room and sum(w.index_bytes for w in group) <= INDEX_BYTES


def _is_worth_it(group: list[Weight], neighbours: int) -> bool:
    return len(group) >= neighbours or any(weight.is_dead_enough for weight in group)


class Rewriting:
    """One file made of neighbouring segments that have ended, without what is dead in them.

    `deleted`: streams whose tombstone is durable. Every call raises `OSError` or `StepwellError`; then `discard` is the
    only thing left to do. `Damaged`: something in the sources is not what was written, so they must stay as they are.
    """

    def __init__(
        self, log: OpenLog, sources: Sequence[IndexedSegment], deleted: Collection[bytes], on_dead: OnDead | None = None
    ):
        self.sources = list(sources)
        self.path = posixpath.join(log.path, COMPACTION_TEMPORARY)
        self.bytes_before = self.bytes_after = self.records_removed = 0
        self.streams_removed: set[bytes] = set()
        self._log, self._deleted, self._on_dead = log, deleted, on_dead
        self._file: File | None = None
        self._header = _header_of(log, self.sources)
        self._header_copy, self._header_crc = sh.encode_segment_header(self._header)
        self._offset, self._chain = sh.HEADER_BYTES, self._header_crc
        self._digest = hashlib.blake2b(digest_size=32)
        # Frames are read, written and hashed several at a time: after each call that releases the GIL this thread has
        # to wait for it again, behind a busy host for 5 ms.
        self._unwritten = bytearray()
        self._index = LiveIndex()
        self._lsn = self._header.first_lsn  # the first that no frame covers yet
        self._pending: list[StoredBatch] = []
        self._pending_bytes = 0
        self._last_seq: dict[bytes, int] = {}
        self._newest_snapshot: dict[bytes, int] = {}
        self._source: tuple[File, Window] | None = None
        self._place = self._number = 0
        self._due_lsn = self._lsn  # of the next frame of the sources
        self._trailer: Trailer | None = None

    @property
    def name(self) -> SegmentName:
        """What the new file will be called."""
        return SegmentName(self._header.seq, self._header.first_lsn, self._header.generation)

    @property
    def is_copied(self) -> bool:
        """Whether nothing is left for `step`."""
        return self._place >= len(self.sources)

    def step(self) -> int:
        """Copy some of the sources. Gives how many bytes were read, which may be 0 when nothing was left."""
        if self._file is None:
            self._begin()
        read = 0
        while read < STEP_BYTES:
            found = self._next_frame()
            if found is None:
                break
            head, at, body = found
            read += head.frame_len
            self._copy(head, at, body)
        if len(self._unwritten) >= STEP_BYTES:
            self._write_out()
            assert self._file is not None
            self._file.datasync()  # a little each time: one sync of the whole would hold up those of the writer
        return read

    def _begin(self) -> None:
        files = self._log.files
        if files.stat(self.path) is not None:
            files.unlink(self.path)
        self._file = files.open(self.path, create=True)
        write_all(self._file, 0, self._header_copy)
        self._digest.update(self._header_copy)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def _next_frame(self) -> tuple[FrameHeader, int, memoryview] | None:
        while self._place < len(self.sources):
            source = self.sources[self._place]
            if self._number < source.index.frame_count:
                lsn, at = self._log.index.frame_place(source, self._number)
                self._number += 1
                return self._read_frame(source, lsn, at)
            if self._due_lsn != source.end_lsn + 1:
                raise _damaged(source, source.end_offset, self._due_lsn, source.end_lsn)
            self._leave_source()
            self._place, self._number = self._place + 1, 0
        return None

    def _read_frame(self, source: IndexedSegment, lsn: int, at: int) -> tuple[FrameHeader, int, memoryview]:
        if self._source is None:
            file = self._log.files.open(source.path, write=False)
            self._source = file, Window(file, source.path, STEP_BYTES)
            self.bytes_before += file.size()
        window = self._source[1]
        head = fr.parse_header(window.at(at, fr.HEADER_BYTES))
        if head is None or (head.kind, head.segment_tag, head.first_lsn, lsn) != (
            KIND_DATA,
            source.header.segment_tag,
            self._due_lsn,
            self._due_lsn,
        ):
            raise _damaged(source, at, lsn, source.end_lsn)
        body = window.at(at + fr.HEADER_BYTES, head.body_len)
        if not fr.body_is_sound(head, body):
            raise _damaged(source, at, lsn, head.last_lsn)
        self._due_lsn = head.last_lsn + 1
        return head, at, body

    def _leave_source(self) -> None:
        if self._source is not None:
            self._source[0].close()
            self._source = None

    # ---- copying -----------------------------------------------------------------------------------------------------

    def _copy(self, head: FrameHeader, at: int, body: memoryview) -> None:
        entries = fr.parse_directory(head, body, at)
        if entries is None:
            raise _damaged(self.sources[self._place], at, head.first_lsn, head.last_lsn)
        base = at + fr.HEADER_BYTES
        for entry in entries:
            stream, first_seq, lsn, count, size, crc, flags, payload_at, lengths_at = entry
            if self._is_dead(stream, lsn, flags):
                self.records_removed += count
                if stream in self._deleted:
                    self.streams_removed.add(stream)
                if self._on_dead is not None:
                    self._on_dead(entry, bytes(body[payload_at - base : payload_at - base + size]))
                continue
            # Copied, since a view would keep all that was read with it in memory.
            content = bytes(body[payload_at - base : payload_at - base + size])
            lengths = bytes(body[lengths_at - base : lengths_at - base + 4 * count])
            batch = StoredBatch(stream, first_seq, lsn, count, crc, flags, lengths, content)
            if flags & KIND_FLAGS != FLAG_SNAPSHOT:
                if first_seq <= self._last_seq.get(stream, 0) and self._is_repeat(batch):
                    self.records_removed += count
                    continue
                self._last_seq[stream] = max(self._last_seq.get(stream, 0), first_seq + count - 1)
            self._add(batch)

    def _is_dead(self, stream: bytes, lsn: int, flags: int) -> bool:
        kind = flags & KIND_FLAGS
        if stream in self._deleted:
            return kind != FLAG_TOMBSTONE
        if kind != FLAG_SNAPSHOT:
            return False
        newest = self._newest_snapshot.get(stream)
        if newest is None:
            # Of a deleted stream as well, if its tombstone is not taken up yet: else what was found dead would be kept.
            found = self._log.index.newest_snapshot(stream)
            newest = self._newest_snapshot[stream] = lsn if found is None else found.first_lsn
        return lsn < newest

    def _is_repeat(self, batch: StoredBatch) -> bool:
        """Row 10: whether this very batch was copied already. One that only overlaps another is left to the reader."""
        self._flush_pending()
        self._write_out()
        entry = self._index.find(batch.stream)
        assert entry is not None, "a batch of the stream was copied, and is in a frame by now"
        assert self._file is not None
        for n in range(entry.batches):
            indexed = batch_from_words(self.sources[0], self._index.batch_words(entry, n, n + 1))
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

    def _add(self, batch: StoredBatch) -> None:
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

    def _write_out(self) -> None:
        assert self._file is not None
        write_all(self._file, self._offset - len(self._unwritten), self._unwritten)
        self._digest.update(self._unwritten)
        self._unwritten = bytearray()

    # ---- ending ------------------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """Write footer, close frame and trailer. On return the file is durable, and still without its name."""
        assert self._file is not None
        end_lsn = self._header.orig_end_lsn
        if self._pending and end_lsn - self._lsn >= MAX_SPAN:
            self._flush_pending()
        self._skip_to(end_lsn + 1, room=MAX_SPAN)
        self._flush(end_lsn)
        self._write_out()
        self._settle_doubts()
        segments = self._log.index.segments
        upto = segments[: segments.index(self.sources[-1]) + 1]
        files = self._log.files
        open_streams = open_streams_after(upto, lambda segment: rebuild_index(files, segment))
        self._trailer = write_seal(
            self._file,
            self._header,
            self._header_copy,
            Cut(self._header.seq_last, self._offset, end_lsn, self._chain),
            self._index,
            [stream for stream in open_streams if stream not in self._deleted],
            times=_times(self.sources),
            digest=self._digest.digest(),
        )
        self.bytes_after = self._file.size()
        self._file.close()

    def _settle_doubts(self) -> None:
        """Rows 10 and 11, as an opening does: numbers that one stream has twice."""
        if not self._index.doubts:
            return
        reading = OpenFiles(self._log.files)
        try:
            settle_doubts(self.indexed(self.path), StreamReader(reading, self._log.index).same_records)
        finally:
            reading.close()

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
        """Give everything up. Raises nothing: what cannot be removed now, the next opening removes."""
        self._leave_source()
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(OSError):
                if self._log.files.stat(self.path) is not None:
                    self._log.files.unlink(self.path)


def _last_lsn(batch: StoredBatch) -> int:
    return batch.first_lsn + batch.records - 1


def _damaged(source: IndexedSegment, at: int, first_lsn: int, last_lsn: int) -> Damaged:
    return Damaged(
        f"{source.path!r} is damaged at offset {at}; it is left as it is. Run `stepwell verify`.",
        file=source.path,
        offset=at,
        first_lsn=first_lsn,
        last_lsn=last_lsn,
        row=8,
    )


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


class Replacement(NamedTuple):
    """A rewritten file in its place, and the manifest that lists it. `gone`: paths that are to be removed."""

    segment: IndexedSegment
    manifest: Manifest
    gone: list[str]


class HalfInPlace(Exception):
    """A rewritten file was being put in its place when an error came (its cause): which files are the log, only the
    manifest that is on the medium can tell. The old ones and the new one are all still there. Nothing more may be
    compacted, nothing removed, before the log was opened again."""


def put_in_place(log: OpenLog, rewriting: Rewriting, ended: Sequence[IndexedSegment]) -> Replacement:
    """Make a sealed rewriting count. `ended`: all segments that have ended, the sources among them.

    Raises: `OSError`, `Fenced` (nothing has changed then), `HalfInPlace`.
    """
    files, sources = log.files, rewriting.sources
    assert log.lock is not None
    log.lock.check()
    if log.manifest is None or log.manifest.seq_last < sources[-1].header.seq_last:
        manifest = manifest_of(log.manifest, log.identity, ended)
        prepare_manifest(files, log.path, manifest)
        with _naming():
            name_manifest(files, log.path, manifest)
        log.manifest = manifest
    at = ended.index(sources[0])
    path = posixpath.join(log.path, str(rewriting.name))
    listed = [*ended[:at], rewriting.indexed(path), *ended[at + len(sources) :]]
    manifest = manifest_of(log.manifest, log.identity, listed)
    prepare_manifest(files, log.path, manifest)  # now, while a full disk still changes nothing
    with _naming():
        if files.stat(path) is not None:
            files.unlink(path)  # not listed, so a left-over
        files.rename(rewriting.path, path)
        files.sync_directory(log.path)
        name_manifest(files, log.path, manifest)
    return Replacement(rewriting.open(path), manifest, _replaced_files(log, sources))


@contextlib.contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HalfInPlace from error


def _replaced_files(log: OpenLog, sources: Sequence[IndexedSegment]) -> list[str]:
    paths = [path for source in sources for path in (source.path, sidecar_path(source.path))]
    with contextlib.suppress(OSError):  # old manifests that are not removed now are removed at the next opening
        paths += [posixpath.join(log.path, name) for name in superseded_manifests(log.files.list_names(log.path))]
    return paths


def remove(log: OpenLog, paths: Iterable[str]) -> None:
    """Remove files that are not the log any more, for good; readers let go of them. Raises: `OSError`."""
    for path in paths:
        if log.files.stat(path) is not None:
            log.files.unlink(path)
        log.reading.forget(path)
    log.files.sync_directory(log.path)
