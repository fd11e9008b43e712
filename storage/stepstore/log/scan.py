"""Walk one segment from its header: read every frame, check every byte, and say where and how the chain ends.

Nothing is judged here; `recovery` does that with the facts in `Tail`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stepstore.errors import RecoveryFailed
from stepstore.log import frame as fr
from stepstore.log.files import File, FileSystem
from stepstore.log.frame import (
    KIND_CLOSE,
    KIND_DATA,
    KIND_FOOTER,
    KIND_MARK,
    MARK_ALIGNMENT,
    DirectoryEntry,
    FrameHeader,
)
from stepstore.log.segment_header import HEADER_BYTES, SegmentHeader

_BLOCK = 1024 * 1024
_ZEROS = memoryview(bytes(_BLOCK))

_IN_LINE_KINDS, _ALIGNED_KINDS = (KIND_DATA, KIND_FOOTER), (KIND_MARK, KIND_CLOSE)

OnFrame = Callable[[FrameHeader, int, list[DirectoryEntry]], None]
"""Called for each sound data frame: its header, the file offset of the header, its directory."""
OnHead = Callable[[FrameHeader], None]
"""Called for each sound data frame with its header."""


class Tail(NamedTuple):
    """What lies where the chain of frames ends.

    `size`: of the file. `last_nonzero`: offset of the last byte that is not zero, None if all are. `place`: what stands
    where the next header is due: "zero", "bad" (not zero, not a header), "end" (the file ends inside it), "stray" (a
    sound header that does not continue the chain), "sound". `header`: the sound header; then `body_cut` tells that the
    file ends inside the frame, and `extra_zero_pieces` how many zero pieces the frame has beyond those recorded.
    `later_durable`: the highest `durable_lsn`, and `later_lsn` the highest `last_lsn`, in any sound header behind: that
    of a mark, a footer or a close frame is the last record before it.
    """

    size: int
    last_nonzero: int | None
    place: str
    header: FrameHeader | None
    body_cut: bool
    extra_zero_pieces: int
    later_durable: int
    later_lsn: int


class SegmentScan(NamedTuple):
    """Where the chain of frames of a segment ends.

    `end_offset`: behind the last sound data frame or mark; `end_lsn`: the last LSN; `chain`: the CRC of that header.
    `proven_lsn`: up to where a later header of this file proves durability. `unproven`: (offset, length) of the frames
    behind that. `index_at`, `index_bytes`: the content of the footer, 0 if there is none. `closed`: whether a close
    frame was seen. `after`: behind the last sound frame of any kind.
    """

    end_offset: int
    end_lsn: int
    chain: int
    proven_lsn: int
    unproven: list[tuple[int, int]]
    index_at: int
    index_bytes: int
    closed: bool
    after: int
    tail: Tail


_NOT_EXAMINED = Tail(0, None, "zero", None, False, 0, 0, 0)


class Window:
    """A file read through one block at a time. A read that comes back short of the file's size is an error (row 18)."""

    def __init__(self, file: File, name: str, block: int = _BLOCK):
        self._file, self._name, self._block = file, name, block
        try:
            self.size = file.size()
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=name) from error
        self._start, self._data = 0, b""

    def at(self, offset: int, length: int) -> memoryview:
        """`length` bytes from `offset`, fewer only where the file ends."""
        start = offset - self._start
        if start < 0 or start + length > len(self._data):
            want = min(max(length, self._block), self.size - offset)
            if want <= 0:
                return memoryview(b"")
            try:
                self._data = self._file.read(offset, want)
            except OSError as error:
                raise RecoveryFailed.from_os_error("read", error, file=self._name, offset=offset) from error
            if len(self._data) != want:
                self._must_have_shrunk(offset, want)
            self._start, start = offset, 0
        return memoryview(self._data)[start : start + length]

    def _must_have_shrunk(self, offset: int, want: int) -> None:
        """A read came back short: fine if a writer has just closed the segment, and cut off the space set aside."""
        try:
            now = self._file.size()
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=self._name) from error
        if now >= self.size or len(self._data) < now - offset:
            raise RecoveryFailed(
                f"reading {self._name!r} at offset {offset} gave {len(self._data)} of {want} bytes although the "
                "file is longer. Nothing was changed; check the medium and open again.",
                file=self._name,
                offset=offset,
            )
        self.size = now

    def is_zero(self, start: int, end: int) -> bool:
        """Whether every byte in [start, end) is zero; bytes behind the file count as zero."""
        return self.last_nonzero(start, end) is None

    def last_nonzero(self, start: int, end: int) -> int | None:
        """The offset of the last byte in [start, end) that is not zero."""
        found = None
        for block in range(start, min(end, self.size), _BLOCK):
            data = self.at(block, min(_BLOCK, min(end, self.size) - block))
            if data != _ZEROS[: len(data)]:
                found = block + len(bytes(data).rstrip(b"\0")) - 1
        return found


def scan_segment(
    window: Window,
    header: SegmentHeader,
    header_crc: int,
    *,
    until: int | None = None,
    start: tuple[int, int, int] | None = None,
    examine: bool = True,
    on_frame: OnFrame | None = None,
    on_head: OnHead | None = None,
) -> SegmentScan:
    """Follow the chain of frames from the segment header to its end, or to offset `until` where a successor's header
    says that this file ends. `start`: begin at (offset, LSN due there, chain) instead. Without `examine` nothing is
    said about what lies behind the end.

    Raises: `RecoveryFailed` where the file cannot be read.
    """
    end = window.size if until is None else min(until, window.size)
    offset, lsn, chain = start or (HEADER_BYTES, header.first_lsn, header_crc)
    end_offset, end_chain = offset, chain
    proven, closed = lsn - 1, False
    index_at = index_bytes = 0
    unproven: list[tuple[int, int, int]] = []
    while not closed and (until is None or offset < until):
        found = _sound_frame(window, header, offset, lsn, chain, end, parse=on_frame is not None or on_head is None)
        if found is None:
            break
        at, head, entries = found
        if index_at and head.kind != KIND_CLOSE:
            break
        if head.durable_lsn > proven:
            proven = head.durable_lsn
            unproven = [item for item in unproven if item[2] > proven]
        offset, lsn, chain = at + head.frame_len, head.last_lsn + 1, head.header_crc
        if head.kind == KIND_FOOTER:
            index_at, index_bytes = at + fr.WRAPPER_BYTES, head.body_len - fr.BODY_OVERHEAD
        elif head.kind == KIND_CLOSE:
            closed = True
        else:
            end_offset, end_chain = offset, chain
            unproven.append((at, head.frame_len, head.last_lsn))
            if head.kind == KIND_DATA:
                if on_frame is not None:
                    on_frame(head, at, entries)
                if on_head is not None:
                    on_head(head)
    tail = _examine_tail(window, header, offset, lsn, chain, until) if examine else _NOT_EXAMINED
    rewrite = [item[:2] for item in unproven]
    return SegmentScan(end_offset, lsn - 1, end_chain, proven, rewrite, index_at, index_bytes, closed, offset, tail)


def _continues(head: FrameHeader, header: SegmentHeader, lsn: int, chain: int) -> bool:
    return (
        head.segment_tag == header.segment_tag
        and head.prev_crc == chain
        and head.first_lsn == lsn
        and head.durable_lsn < lsn
    )


def header_places(align: int, offset: int) -> tuple[int, int]:
    """Where the next header may stand: in line, or (marks, close frames) at the next multiple of `MARK_ALIGNMENT`."""
    return fr.header_position(offset, align), -(-offset // MARK_ALIGNMENT) * MARK_ALIGNMENT


def _sound_frame(
    window: Window, header: SegmentHeader, offset: int, lsn: int, chain: int, end: int, *, parse: bool
) -> tuple[int, FrameHeader, list[DirectoryEntry]] | None:
    in_line, aligned = header_places(header.align, offset)
    for at in (in_line, aligned):
        head = fr.parse_header(window.at(at, fr.HEADER_BYTES))
        if head is None or not _continues(head, header, lsn, chain) or at + head.frame_len > end:
            continue
        if not (at == in_line and head.kind in _IN_LINE_KINDS) and not (at == aligned and head.kind in _ALIGNED_KINDS):
            continue
        body = window.at(at + fr.HEADER_BYTES, head.body_len)
        if not fr.body_is_sound(head, body) or not window.is_zero(offset, at):
            continue
        # `body` is a view of the window's block, which `is_zero` may have moved; the bytes it shows stay the same.
        entries = _directory(head, body, at, parse=parse)
        if entries is not None:
            return at, head, entries
    return None


def _directory(head: FrameHeader, body: memoryview, at: int, *, parse: bool) -> list[DirectoryEntry] | None:
    if head.kind == KIND_DATA:
        return fr.parse_directory(head, body, at) if parse else []
    if head.lsn_span or head.record_count or head.dir_len:
        return None
    return [] if head.kind == KIND_FOOTER or head.body_len == fr.BODY_OVERHEAD else None


def _examine_tail(window: Window, header: SegmentHeader, offset: int, lsn: int, chain: int, until: int | None) -> Tail:
    size = window.size
    last_nonzero = window.last_nonzero(offset, size)
    if last_nonzero is None or (until is not None and offset >= until):
        return Tail(size, last_nonzero, "zero", None, False, 0, 0, 0)
    at = header_places(header.align, offset)[0]
    place, head, body_cut, extra = "bad", None, False, 0
    if not window.is_zero(offset, min(at, size)):
        place = "end" if at + fr.HEADER_BYTES > size else "bad"
    elif at + fr.HEADER_BYTES > size:
        place = "end"
    else:
        head = fr.parse_header(window.at(at, fr.HEADER_BYTES))
        if head is None:
            place = "zero" if window.is_zero(at, at + fr.HEADER_BYTES) else "bad"
        elif not _continues(head, header, lsn, chain):
            place, head = ("stray" if head.segment_tag == header.segment_tag else "bad"), None
        else:
            place = "sound"
            body_cut = at + head.frame_len > size
            frame = bytes(window.at(at, min(head.frame_len, size - at)))
            extra = fr.count_zero_pieces(frame, at) - head.zero_pieces
    later_durable, later_lsn = _later_headers(window, header, (at + 1) if head is None else at + head.frame_len)
    return Tail(size, last_nonzero, place, head, body_cut, extra, later_durable, later_lsn)


def _later_headers(window: Window, header: SegmentHeader, start: int) -> tuple[int, int]:
    """The highest `durable_lsn` and `last_lsn` in any sound header of this segment from `start` on, 0 if none."""
    durable = lsn = 0
    for _at, head in sound_headers(window, header.segment_tag, start):
        durable, lsn = max(durable, head.durable_lsn), max(lsn, head.last_lsn)
    return durable, lsn


def sound_headers(window: Window, tag: int | None, start: int) -> Iterator[tuple[int, FrameHeader]]:
    """Every sound frame header from `start` on that carries the tag (None: any), wherever it stands, a payload
    included: (offset, header)."""
    wanted = b".{4}" if tag is None else re.escape(tag.to_bytes(4, "big"))
    pattern = re.compile(rb"\x8e\x18.\x18.\x1b.{8}\x1a.{4}\x1a.{4}\x1b.{8}\x1a" + wanted, re.DOTALL)
    for block in range(start, window.size, _BLOCK):
        # Neighbouring blocks overlap by a header, so that none is missed where they meet.
        data = bytes(window.at(block, min(_BLOCK + fr.HEADER_BYTES, window.size - block)))
        match = pattern.search(data)
        while match is not None and match.start() < _BLOCK:
            place = match.start()
            head = fr.parse_header(data, place)
            if head is not None and (block + place) % fr.SECTOR + fr.HEADER_BYTES <= fr.SECTOR:
                yield block + place, head
            match = pattern.search(data, place + 1)


def open_for_reading(files: FileSystem, path: str) -> File:
    """The file of a segment, to be scanned. Raises: `RecoveryFailed`."""
    try:
        return files.open(path, write=False)
    except OSError as error:
        raise RecoveryFailed.from_os_error("open", error, file=path) from error
