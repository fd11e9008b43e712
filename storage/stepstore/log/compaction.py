"""Rewrite segments without what is dead in them, and put the new file in their place. All calls block.

A rewritten file stands for one segment or for several neighbours. Every record that is alive keeps its LSN, and every
batch is copied as the bytes that are stored, be they compressed or encrypted; its frames still cover every LSN of the
range, with holes. Its header names the end of the last file it stands for, so the chain of segments stays whole.

    choose → Rewriting: step, step, …, seal → put_in_place → (the index is changed) → remove

`compaction_policy` chooses, `segment_replacement` puts in place. Until then everything is in `compact.tmp`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from stepstore.log.compaction_input import CompactionInput, InputFrame
from stepstore.log.compaction_output import CompactionOutput
from stepstore.log.frame import FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS, DirectoryEntry, StoredBatch
from stepstore.log.index_building import rebuild_index
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.names import SegmentName
from stepstore.log.open_streams import open_streams_after
from stepstore.log.opening import OpenLog

STEP_BYTES = 8 * 1024 * 1024
"""One step reads about so much, unless one frame is larger, and so much is written at a time: closing a log waits for
one step at most."""

OnDead = Callable[[DirectoryEntry, bytes], None]
"""Called for each dead batch with its entry and the bytes that are stored for it."""


class Rewriting:
    """One file made of neighbouring segments that have ended, without what is dead in them.

    `deleted`: streams whose tombstone is durable. Every call raises `OSError` or `StepwellError`; then `discard` is the
    only thing left to do. `Damaged`: something in the sources is not what was written, so they must stay as they are.
    """

    def __init__(
        self, log: OpenLog, sources: Sequence[IndexedSegment], deleted: Collection[bytes], on_dead: OnDead | None = None
    ):
        self.sources = list(sources)
        self.records_removed = 0
        self.streams_removed: set[bytes] = set()
        self._log, self._deleted, self._on_dead = log, deleted, on_dead
        # Frames are read and written several at a time: after each call that releases the GIL this thread has to wait
        # for it again, behind a busy host for 5 ms.
        self._input = CompactionInput(log, self.sources, STEP_BYTES)
        self._output = CompactionOutput(log, self.sources)
        self._last_seq: dict[bytes, int] = {}
        self._newest_snapshot: dict[bytes, int] = {}

    @property
    def name(self) -> SegmentName:
        """What the new file will be called."""
        return self._output.name

    @property
    def path(self) -> str:
        """Where the new file is until it has its name."""
        return self._output.path

    @property
    def bytes_before(self) -> int:
        """The sizes of those sources together that were begun."""
        return self._input.size

    @property
    def bytes_after(self) -> int:
        """The size of the new file, once it is sealed."""
        return self._output.size

    @property
    def is_copied(self) -> bool:
        """Whether nothing is left for `step`."""
        return self._input.is_read

    def step(self) -> int:
        """Copy some of the sources. Gives how many bytes were read, which may be 0 when nothing was left."""
        if not self._output.is_begun:
            self._output.begin()
        read = 0
        while read < STEP_BYTES:
            found = self._input.next_frame()
            if found is None:
                break
            read += found.head.frame_len
            self._copy(found)
        self._output.write_out(STEP_BYTES)
        return read

    def _copy(self, frame: InputFrame) -> None:
        _head, base, body, entries = frame
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
                if first_seq <= self._last_seq.get(stream, 0) and self._output.holds(batch):
                    self.records_removed += count
                    continue
                self._last_seq[stream] = max(self._last_seq.get(stream, 0), first_seq + count - 1)
            self._output.add(batch)

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

    def seal(self) -> None:
        """Write footer, close frame and trailer. On return the file is durable, and still without its name."""
        self._output.end()
        segments = self._log.index.segments
        upto = segments[: segments.index(self.sources[-1]) + 1]
        files = self._log.files
        open_streams = open_streams_after(upto, lambda segment: rebuild_index(files, segment))
        self._output.seal([stream for stream in open_streams if stream not in self._deleted])

    def indexed(self, path: str) -> IndexedSegment:
        """The new file under the name `path`, with its index in memory."""
        return self._output.indexed(path)

    def open(self, path: str) -> IndexedSegment:
        """The finished file, which is now called `path`, with its index on the medium if that can be read."""
        return self._output.open(path)

    def discard(self) -> None:
        """Give everything up. Raises nothing: what cannot be removed now, the next opening removes."""
        self._input.close()
        self._output.discard()
