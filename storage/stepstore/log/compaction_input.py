"""What a compaction reads: the frames of the segments to be rewritten, one after another, each checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepstore.errors import Damaged
from stepstore.log import frame as fr
from stepstore.log.files import File
from stepstore.log.frame import KIND_DATA, DirectoryEntry, FrameHeader
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.opening import OpenLog
from stepstore.log.scan import Window


class InputFrame(NamedTuple):
    """A sound frame: its header, its body and where that lies, and the entries of its directory."""

    head: FrameHeader
    body_at: int
    body: memoryview
    entries: list[DirectoryEntry]


class CompactionInput:
    """Neighbouring segments that have ended, read `ahead` bytes at a time. `size`: of those files that were begun.

    Every call raises `OSError`, or `StepwellError`: `Damaged` if something is not what was written.
    """

    def __init__(self, log: OpenLog, sources: Sequence[IndexedSegment], ahead: int):
        self.size = 0
        self._log, self._sources, self._ahead = log, sources, ahead
        self._open: tuple[File, Window] | None = None
        self._place = self._number = 0
        self._due_lsn = sources[0].header.first_lsn  # of the next frame

    @property
    def is_read(self) -> bool:
        """Whether nothing is left for `next_frame`."""
        return self._place >= len(self._sources)

    def next_frame(self) -> InputFrame | None:
        """The next frame, None if nothing is left."""
        while self._place < len(self._sources):
            source = self._sources[self._place]
            if self._number < source.index.frame_count:
                lsn, at = self._log.index.frame_place(source, self._number)
                self._number += 1
                return self._read_frame(source, lsn, at)
            if self._due_lsn != source.end_lsn + 1:
                raise _damaged(source, source.end_offset, self._due_lsn, source.end_lsn)
            self.close()
            self._place, self._number = self._place + 1, 0
        return None

    def _read_frame(self, source: IndexedSegment, lsn: int, at: int) -> InputFrame:
        if self._open is None:
            file = self._log.files.open(source.path, write=False)
            self._open = file, Window(file, source.path, self._ahead)
            self.size += file.size()
        window = self._open[1]
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
        entries = fr.parse_directory(head, body, at)
        if entries is None:
            raise _damaged(source, at, lsn, head.last_lsn)
        return InputFrame(head, at + fr.HEADER_BYTES, body, entries)

    def close(self) -> None:
        """Let go of the file that is being read."""
        if self._open is not None:
            self._open[0].close()
            self._open = None


def _damaged(source: IndexedSegment, at: int, first_lsn: int, last_lsn: int) -> Damaged:
    return Damaged(
        f"{source.path!r} is damaged at offset {at}; it is left as it is. Run `stepwell verify`.",
        file=source.path,
        offset=at,
        first_lsn=first_lsn,
        last_lsn=last_lsn,
        row=8,
    )
