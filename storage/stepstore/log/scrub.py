"""Read one segment slowly from its beginning to its end, a block at a time, and check its frames by their checksums.

Nothing is judged and nothing is changed: a frame that does not hold is told, with its place and its LSNs, and the next
one is looked for by the index. All calls block.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from stepstore.errors import StepwellError
from stepstore.log import frame as fr
from stepstore.log.files import FileSystem
from stepstore.log.footer import TRAILER_BYTES
from stepstore.log.frame import KIND_CLOSE, FrameHeader
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.scan import header_places
from stepstore.log.segment_header import HEADER_BYTES, parse_segment_header

BLOCK = 1024 * 1024
_SMALLEST_BLOCK = 2 * fr.MARK_ALIGNMENT
"""A header is at most an alignment away from where it is due, so that in so much something is found, or given up."""


class Finding(NamedTuple):
    """A frame that is not what was written. No record is concerned if `last_lsn` is smaller than `first_lsn`."""

    path: str
    offset: int
    first_lsn: int
    last_lsn: int
    what: str

    def __str__(self) -> str:
        lsns = f"LSN {self.first_lsn} to {self.last_lsn}" if self.last_lsn >= self.first_lsn else "no record"
        return f"{self.path} is damaged at offset {self.offset} ({self.what}; {lsns})"


class _Frame:
    """A frame whose body is being read."""

    def __init__(self, at: int, head: FrameHeader):
        self.at, self.head = at, head
        self._left = head.body_len
        self._body_crc = 0

    def take(self, data: memoryview) -> int:
        """Read on; how many bytes of `data` belong to this frame."""
        part = data[: self._left]
        self._body_crc = zlib.crc32(part, self._body_crc)
        self._left -= len(part)
        return len(part)

    @property
    def is_read(self) -> bool:
        return not self._left

    @property
    def is_sound(self) -> bool:
        return self._body_crc == self.head.body_crc


class SegmentScrub:
    """One reading of one segment that nothing is written to any more."""

    def __init__(self, files: FileSystem, segment: IndexedSegment):
        self._files, self.segment = files, segment
        self._at = 0
        self._lsn = segment.header.first_lsn
        self._chain: int | None = segment.header_crc
        self._frame: _Frame | None = None
        self.is_done = False

    def step(self, size: int = BLOCK) -> tuple[int, list[Finding]]:
        """Read the next block: how many bytes that were, and what is wrong in it. Sets `is_done` behind the last.

        Raises: `OSError`; the next step, if there is one, goes on behind the block that could not be read.
        """
        path = self.segment.path
        start = self._at
        self.is_done = True  # if it cannot be opened
        file = self._files.open(path, write=False)
        self.is_done = False
        try:
            end = self.segment.end_offset
            if self.segment.sealed:
                end = max(end, file.size() - TRAILER_BYTES)
            want = min(max(size, _SMALLEST_BLOCK), end - start)
            drop = getattr(file, "will_not_need", None)
            if drop is not None:
                drop(start, want)  # what is in the page cache says nothing about the medium
            try:
                data = file.read(start, want) if want > 0 else b""
            except OSError:
                self._skip_to(start + want)
                self.is_done = self._at >= end
                raise
            if drop is not None:
                drop(start, want)  # and reading it once must not push out what is read often
        finally:
            file.close()
        findings = list(self._check(memoryview(data), start, end, len(data) < want))
        if not self.is_done and self._at >= end:
            self.is_done = True
            if self.segment.sealed and self._chain is not None:  # a close frame would have ended it
                findings.append(self._finding(end, self._lsn - 1, "the file ends before its footer does"))
        return len(data), findings

    def _check(self, data: memoryview, start: int, end: int, is_short: bool) -> Iterator[Finding]:
        at = start
        if is_short:
            yield self._finding(start + len(data), self.segment.end_lsn, "the file is shorter than it was")
            self.is_done = True
            return
        if at == 0:
            if parse_segment_header(bytes(data[:HEADER_BYTES])) is None:
                yield self._finding(0, self._lsn - 1, "the header of the segment")
            at = HEADER_BYTES
        while at < start + len(data):
            if self._frame is None:
                found = self._header(data, start, at)
                if found is None:
                    if start + len(data) - at < fr.MARK_ALIGNMENT + fr.HEADER_BYTES and start + len(data) < end:
                        break  # it may begin in the next block
                    yield from self._lost_header(at)
                    return
                if bytes(data[at - start : found.at - start]).strip(b"\0"):
                    yield self._finding(at, self._lsn - 1, "the zeros between two frames")
                self._frame = found
                at = found.at + fr.HEADER_BYTES
            at += self._frame.take(data[at - start :])
            if not self._frame.is_read:
                break
            yield from self._end_of_frame(self._frame)
            if self._frame.head.kind == KIND_CLOSE:
                self.is_done = True
            self._frame = None
        self._at = at

    def _header(self, data: memoryview, start: int, at: int) -> _Frame | None:
        for place in header_places(self.segment.header.align, at):
            head = fr.parse_header(data, place - start)
            if head is None or head.segment_tag != self.segment.header.segment_tag:
                continue
            if self._chain in (None, head.prev_crc):
                return _Frame(place, head)
        return None

    def _end_of_frame(self, frame: _Frame) -> Iterator[Finding]:
        head = frame.head
        if not frame.is_sound:
            self._lsn = head.first_lsn
            yield self._finding(frame.at, head.last_lsn, "what a frame holds")
        self._lsn, self._chain = head.last_lsn + 1, head.header_crc

    def _lost_header(self, at: int) -> Iterator[Finding]:
        """The chain breaks: go on at the next frame that the index names behind this place."""
        place = header_places(self.segment.header.align, at)[0]
        following = self._first_frame_behind(place)
        last_lsn = self.segment.end_lsn if following is None else following[0] - 1
        yield self._finding(at, last_lsn, "the header of a frame")
        if following is None:
            self.is_done = True
        else:
            self._lsn = following[0]
            self._skip_to(following[1])

    def _first_frame_behind(self, offset: int) -> tuple[int, int] | None:
        """(first LSN, offset) of the first frame behind an offset, None if there is none or the index is unsound."""
        index = self.segment.index
        low, high = 0, index.frame_count
        try:
            while low < high:
                middle = (low + high) // 2
                if index.frame_place(middle)[1] > offset:
                    high = middle
                else:
                    low = middle + 1
            return index.frame_place(low) if low < index.frame_count else None
        except (UnsoundIndex, StepwellError):
            return None

    def _skip_to(self, offset: int) -> None:
        self._at, self._frame, self._chain = offset, None, None

    def _finding(self, offset: int, last_lsn: int, what: str) -> Finding:
        return Finding(self.segment.path, offset, self._lsn, last_lsn, what)
