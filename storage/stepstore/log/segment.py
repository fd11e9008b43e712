"""A segment being written: one `pwrite` and one `fdatasync` per frame, and a header that names the cut before it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import posixpath
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stepstore.log import segment_header as sh
from stepstore.log.directory import Identity, LogLock
from stepstore.log.files import File, FileSystem, write_all
from stepstore.log.footer import TRAILER_BYTES, Trailer, encode_trailer
from stepstore.log.frame import (
    KIND_CLOSE,
    KIND_FOOTER,
    KIND_MARK,
    MARK_ALIGNMENT,
    Batch,
    DirectoryEntry,
    Encode,
    build_frame,
    build_wrapper,
    header_position,
)
from stepstore.log.live_index import LiveIndex
from stepstore.log.names import SPARE, SegmentName
from stepstore.log.segment_header import SegmentHeader

_DIGEST_BLOCK = 8 * 1024 * 1024
"""In few pieces: after each read and each update, the thread that seals may have to wait 5 ms for the GIL."""
SEGMENT_BYTES = 64 * 1024 * 1024
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_PREALLOCATION = frozenset({*NO_ROOM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EFBIG})


class Cut(NamedTuple):
    """Where the log ends: segment number, offset in it, last LSN, and the CRC of the last frame header there."""

    seq: int
    end_offset: int
    end_lsn: int
    chain: int


START = Cut(0, 0, 0, 0)


class Frame(NamedTuple):
    """A frame ready to be written at `at`."""

    data: bytearray
    at: int
    header_crc: int
    first_lsn: int
    last_lsn: int
    entries: list[DirectoryEntry]

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.at + len(self.data)


class Segment:
    """The newest segment. Only `write`, `seal` and `release` touch the medium; they block, and run in a worker thread.

    After an error of any of them, nothing more is written to it: the operating system may have marked as clean what
    never reached the medium, so a retry would acknowledge nothing.
    """

    def __init__(
        self, file: File, path: str, header: SegmentHeader, header_crc: int, header_copy: bytes, capacity: int
    ):
        self._file, self.path, self.header, self.header_crc = file, path, header, header_crc
        self._header_copy, self._capacity = header_copy, capacity
        self._offset, self._chain = sh.HEADER_BYTES, header_crc
        self._durable_lsn = header.first_lsn - 1
        self._first_ns = self._last_ns = 0

    @property
    def cut(self) -> Cut:
        """Where it ends, by what was acknowledged."""
        return Cut(self.header.seq, self._offset, self._durable_lsn, self._chain)

    @property
    def used(self) -> float:
        """How much of the space set aside is taken, from 0 to 1."""
        return min(self._offset / self._capacity, 1.0)

    def has_room(self, size: int) -> bool:
        """Whether a frame of about `size` bytes belongs here: it fits, or the segment is still empty."""
        return self._offset + size <= self._capacity or self._offset == sh.HEADER_BYTES

    def prepare(self, batches: Sequence[Batch], encode: Encode | None = None) -> Frame:
        """The frame that holds `batches`, at the place where it goes. Computes only."""
        at = header_position(self._offset, self.header.align)
        first_lsn = self._durable_lsn + 1
        data, crc, entries = build_frame(
            batches,
            offset=at,
            first_lsn=first_lsn,
            durable_lsn=self._durable_lsn,
            segment_tag=self.header.segment_tag,
            prev_crc=self._chain,
            encode=encode,
        )
        return Frame(data, at, crc, first_lsn, first_lsn + sum(len(b.payloads) for b in batches) - 1, entries)

    def write(self, frame: Frame) -> None:
        """Put the frame on the medium. Raises `OSError`; then the segment must be left."""
        write_all(self._file, frame.at, frame.data)
        self._file.datasync()

    def acknowledge(self, frame: Frame) -> None:
        """Take note that `write` of this frame has returned."""
        self._offset, self._chain, self._durable_lsn = frame.end, frame.header_crc, frame.last_lsn
        self._last_ns = time.time_ns()
        self._first_ns = self._first_ns or self._last_ns

    def mark(self) -> Frame:
        """A mark: it proves that everything before it was durable. To be written and acknowledged like any frame."""
        end, at = self.cut, _aligned(self._offset)
        data, crc = _wrapper(KIND_MARK, b"", at, end, self.header.segment_tag)
        return Frame(data, at, crc, end.end_lsn + 1, end.end_lsn, [])

    def seal(self, index: LiveIndex, open_streams: Sequence[bytes]) -> Trailer:
        """End the segment for good: footer, close frame, trailer, and no zeros behind it. Gives the file back.

        `index`: what it holds. `open_streams`: those open at its end. Raises `OSError`; nothing is lost then.
        """
        try:
            return write_seal(
                self._file,
                self.header,
                self._header_copy,
                self.cut,
                index,
                open_streams,
                times=(self._first_ns, self._last_ns),
                digest=digest_of(self._file, self._offset),
            )
        finally:
            self.release()

    def release(self) -> None:
        """Close the file, whatever state it is in."""
        self._file.close()


def write_seal(
    file: File,
    header: SegmentHeader,
    header_copy: bytes,
    end: Cut,
    index: LiveIndex,
    open_streams: Iterable[bytes],
    *,
    times: tuple[int, int],
    digest: bytes,
) -> Trailer:
    """Write behind the records, which end at `end`: the footer, then the close frame and the trailer, and cut the file
    there. Durable on return. Raises `OSError`."""
    content, head_crc = index.encode(
        header_copy=header_copy,
        first_lsn=header.first_lsn,
        end_lsn=end.end_lsn,
        end_offset=end.end_offset,
        chain=end.chain,
        first_ns=times[0],
        last_ns=times[1],
        digest=digest,
        open_streams=open_streams,
    )
    at = header_position(end.end_offset, header.align)
    footer, crc = _wrapper(KIND_FOOTER, content, at, end, header.segment_tag)
    write_all(file, at, footer)
    file.datasync()
    behind = end._replace(end_offset=at + len(footer), chain=crc)
    at = _aligned(behind.end_offset)
    close, _crc = _wrapper(KIND_CLOSE, b"", at, behind, header.segment_tag)
    trailer = Trailer(
        segment_tag=header.segment_tag,
        index_at=behind.end_offset - len(content),
        index_bytes=len(content),
        head_crc=head_crc,
        end_offset=end.end_offset,
        end_lsn=end.end_lsn,
        chain=end.chain,
        records=index.records,
    )
    write_all(file, at, close + encode_trailer(trailer))
    file.datasync()
    file.truncate(at + len(close) + TRAILER_BYTES)
    file.datasync()
    return trailer


def _wrapper(kind: int, content: bytes, at: int, behind: Cut, segment_tag: int) -> tuple[bytearray, int]:
    """A frame without records at offset `at`, the next one behind a cut; and its header's CRC."""
    return build_wrapper(
        kind,
        content,
        offset=at,
        first_lsn=behind.end_lsn + 1,
        durable_lsn=behind.end_lsn,
        segment_tag=segment_tag,
        prev_crc=behind.chain,
    )


def _aligned(offset: int) -> int:
    return -(-offset // MARK_ALIGNMENT) * MARK_ALIGNMENT


def digest_of(file: File, end: int) -> bytes:
    """BLAKE2b-256 of the first `end` bytes of a file. Raises `OSError`."""
    digest = hashlib.blake2b(digest_size=32)
    for offset in range(0, end, _DIGEST_BLOCK):
        size = min(_DIGEST_BLOCK, end - offset)
        block = file.read(offset, size)
        if len(block) != size:
            raise OSError(errno.EIO, f"reading {size} bytes at offset {offset} gave {len(block)}")
        digest.update(block)
    return digest.digest()


class SegmentSequence:
    """Makes segments one after another in a log directory. `prepare_spare` may run in another thread than `begin`."""

    def __init__(
        self,
        files: FileSystem,
        directory: str,
        identity: Identity,
        lock: LogLock,
        *,
        cut: Cut,
        epoch: int,
        segment_bytes: int = SEGMENT_BYTES,
        align: int = 0,
    ):
        self.files, self.directory = files, directory
        self._identity, self._lock = identity, lock
        self._cut, self._epoch = cut, epoch
        self._segment_bytes, self._align = segment_bytes, align
        self._spare: tuple[File, int] | None = None
        self._spare_lock = threading.Lock()

    def begin(self, cut: Cut | None = None, *, new_epoch: bool = True, preallocate: bool = True) -> Segment:
        """Make the next segment, durable, naming `cut` (default: where the log ended when it was opened).

        The header is on the medium before the name ends in .seg, and the name before the first frame is written.
        Raises: `OSError`, `Fenced`.
        """
        self._lock.check()
        cut = self._cut if cut is None else cut
        with self._spare_lock:  # until the spare has its name: another must not be made in its place before
            segment = self._name_spare(cut, self._epoch + (1 if new_epoch else 0), preallocate=preallocate)
        self._epoch = segment.header.epoch
        self._cut = segment.cut
        return segment

    def _name_spare(self, cut: Cut, epoch: int, *, preallocate: bool) -> Segment:
        spare = posixpath.join(self.directory, SPARE)
        file, capacity = self._take_spare(spare, preallocate=preallocate)
        try:
            name = SegmentName(cut.seq + 1, cut.end_lsn + 1, 0)
            header = SegmentHeader(
                format_major=sh.FORMAT_MAJOR,
                format_minor=sh.FORMAT_MINOR,
                features_incompatible=0,
                features_compatible=0 if capacity else sh.FEATURE_NOT_PREALLOCATED,
                log_uuid=self._identity.log_uuid.bytes,
                branch_uuid=self._identity.branch_uuid.bytes,
                seq=name.seq,
                seq_last=name.seq,
                generation=0,
                first_lsn=name.first_lsn,
                epoch=epoch,
                created_ns=time.time_ns(),
                codec=0,
                cipher=0,
                segment_tag=secrets.randbits(32),
                align=self._align,
                prev_seq=cut.seq,
                prev_end_offset=cut.end_offset,
                prev_end_lsn=cut.end_lsn,
                prev_chain=cut.chain,
                orig_end_offset=0,
                orig_end_lsn=0,
                orig_chain=0,
            )
            data, crc = sh.encode_segment_header(header)
            write_all(file, 0, data)
            file.datasync()
            path = posixpath.join(self.directory, str(name))
            self.files.rename(spare, path)
            try:
                self.files.sync_directory(self.directory)
            except OSError as error:
                # The name may be durable or not. Were the segment before it written on, the next opening might find
                # the cut named here and drop what was acknowledged behind it. So this is never "no room": it is the
                # end.
                raise OSError(errno.EIO, f"whether {path!r} exists is not known ({error})") from error
        except BaseException:
            file.close()
            raise
        return Segment(file, path, header, crc, data, capacity or self._segment_bytes)

    def _take_spare(self, path: str, *, preallocate: bool) -> tuple[File, int]:
        """The file of the next segment and the space set aside in it: the spare, or one made now."""
        taken, self._spare = self._spare, None
        if taken is not None and preallocate:
            return taken
        if taken is not None:
            taken[0].close()
        return self._make_spare(path, preallocate=preallocate)

    def _make_spare(self, path: str, *, preallocate: bool) -> tuple[File, int]:
        if self.files.stat(path) is not None:
            self.files.unlink(path)
        file = self.files.open(path, create=True)
        try:
            return file, self._allocate(file) if preallocate else 0
        except BaseException:
            file.close()
            raise

    @property
    def has_spare(self) -> bool:
        """Whether the file of the next segment lies ready."""
        return self._spare is not None

    def prepare_spare(self) -> None:
        """Set the space of the next segment aside, so that beginning it does not have to wait for that. Blocks.

        Raises: `OSError`.
        """
        with self._spare_lock:
            if self._spare is None:
                self._spare = self._make_spare(posixpath.join(self.directory, SPARE), preallocate=True)

    def forked(self) -> None:
        """This is a child of the process: whichever thread held a lock does not exist here, and would never let go."""
        self._spare_lock = threading.Lock()

    def drop_spare(self, *, unlink: bool = True) -> None:
        """Give the space of the next segment back, or (not `unlink`) only close the file. Blocks."""
        with self._spare_lock:
            taken, self._spare = self._spare, None
            if taken is not None:
                taken[0].close()
                if unlink:
                    with contextlib.suppress(OSError):  # the next opening removes it
                        self.files.unlink(posixpath.join(self.directory, SPARE))

    def _allocate(self, file: File) -> int:
        """Set space aside: all of a segment, an eighth, 1 MiB, or none where the medium cannot or has no room."""
        for size in (self._segment_bytes, self._segment_bytes // 8, 1024 * 1024):
            if size < sh.HEADER_BYTES or size > self._segment_bytes:
                continue
            try:
                file.allocate(size)
            except OSError as error:
                if error.errno not in _NO_PREALLOCATION:
                    raise
                file.truncate(0)  # a refused allocation may have taken part of the space
            else:
                return size
        return 0
