"""Read ahead within a segment, so that many small frames cost one read."""

from __future__ import annotations

from stepstore.log.frame import MAX_FRAME_BYTES
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.open_files import OpenFiles

_AHEAD = 1024 * 1024


class ReadAhead:
    """What was read last, of one segment, as much as will soon be wanted of it."""

    def __init__(self, files: OpenFiles):
        self._files = files
        self._path, self._start, self._data = "", 0, b""

    def at(self, segment: IndexedSegment, offset: int, size: int, end: int) -> tuple[bytes, int]:
        """What holds so many bytes from an offset on, if there are, and where they are in it. `end`: up to there more
        will be wanted."""
        start = offset - self._start
        if segment.path != self._path or start < 0 or start + size > len(self._data):
            ahead = min(max(_AHEAD, min(end - offset, MAX_FRAME_BYTES)), segment.end_offset - offset)
            self._data = self._files.read(segment.path, offset, max(size, ahead))
            self._path, self._start, start = segment.path, offset, 0
        return self._data, start
