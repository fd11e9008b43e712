"""Write a whole log in one go, without a task: what `salvage` writes. The same segments, frames and footers as those
of the writer, made by the same code. All calls block."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from stepstore.log.files import FileSystem
from stepstore.log.frame import FLAG_TOMBSTONE, KIND_FLAGS, MAX_GROUP_BYTES, Batch, batch_cost
from stepstore.log.index import LogIndex
from stepstore.log.live_index import LiveIndex
from stepstore.log.names import FORMAT
from stepstore.log.opening import LogOptions, OpenLog, open_log
from stepstore.log.sealing import open_index
from stepstore.log.segment import Segment
from stepstore.log.stream_reader import StreamReader

UNFINISHED = "FORMAT.unfinished"


class NewLog:
    """A log that is written from beginning to end. Until `finish`, its FORMAT has another name, so that what a crash
    leaves of it is refused (row 15) instead of being taken for all there was.

    Raises what `open_log` raises, and `OSError`.
    """

    def __init__(self, files: FileSystem, path: str, options: LogOptions | None = None):
        self._files, self._path = files, path
        self._log: OpenLog = open_log(files, path, options)
        self._pending: list[Batch] = []
        self._stored: dict[tuple[bytes, int], tuple[bytes, int]] = {}
        self._cost = 0
        self._codec = self._log.codec
        self.reader = StreamReader(self._log.reading, self._log.index, self._codec.decode)
        try:
            self._rename(FORMAT, UNFINISHED)
        except BaseException:
            self.release()
            raise

    def _rename(self, source: str, target: str) -> None:
        self._files.rename(posixpath.join(self._path, source), posixpath.join(self._path, target))
        self._files.sync_directory(self._path)

    @property
    def log_uuid(self) -> str:
        """Which log this is."""
        return str(self._log.identity.log_uuid)

    @property
    def index(self) -> LogIndex:
        """What was flushed."""
        return self._log.index

    @property
    def records(self) -> int:
        """How many records were flushed."""
        return self._log.end_lsn

    def add(self, batch: Batch, stored: tuple[bytes, int] | None = None) -> None:
        """Append one batch. `stored`: its bytes as they are to be stored and the flags that say how, where the payloads
        themselves are not known; then only their lengths count."""
        cost = batch_cost(sum(map(len, batch.payloads)), len(batch.payloads))
        if self._cost and (self._cost + cost > MAX_GROUP_BYTES or batch.flags & KIND_FLAGS):
            self.flush()  # a snapshot has the number of a batch before it, and `_stored` must tell them apart
        self._pending.append(batch)
        self._cost += cost
        if stored is not None:
            self._stored[batch.stream, batch.first_seq] = stored

    def flush(self) -> None:
        """Have everything that was added on the medium."""
        if not self._pending:
            return
        log = self._log
        segment = log.segment
        assert segment is not None
        if not segment.has_room(self._cost) or not log.index.newest_has_room:
            segment = self._leave(segment)
        if log.keys is not None and log.keys.makes_keys:
            log.keys.add({batch.stream for batch in self._pending if not batch.flags & FLAG_TOMBSTONE})
        frame = segment.prepare(self._pending, self._encode if self._stored or self._codec.changes_anything else None)
        segment.write(frame)
        segment.acknowledge(frame)
        log.index.add_frame(frame.at, frame.end, frame.first_lsn, frame.last_lsn, frame.header_crc, frame.entries)
        log.end_lsn = frame.last_lsn
        self._pending, self._stored, self._cost = [], {}, 0

    def _encode(self, stream: bytes, first_seq: int, payloads: Sequence[bytes]) -> tuple[bytes, int]:
        return self._stored.get((stream, first_seq)) or self._codec.encode(stream, first_seq, payloads)

    def _leave(self, segment: Segment) -> Segment:
        """Go on in another segment."""
        log = self._log
        assert log.sequence is not None
        new = log.sequence.begin(segment.cut, new_epoch=False)
        self._seal(segment)
        log.begin_segment(new)
        return new

    def _seal(self, segment: Segment) -> None:
        indexed = self._log.index.segments[-1]
        assert isinstance(indexed.index, LiveIndex)
        trailer = segment.seal(indexed.index, list(self._log.index.open_streams))
        indexed.sealed = True
        indexed.index = open_index(self._log.reading, segment.path, trailer)
        indexed.index_path = segment.path

    def finish(self) -> None:
        """Seal the log and give it its name."""
        self.flush()
        segment, self._log.segment = self._log.segment, None
        assert segment is not None
        self._seal(segment)
        self._rename(UNFINISHED, FORMAT)

    def release(self) -> None:
        """Give the lock and the files back, finished or not."""
        self._log.release()
