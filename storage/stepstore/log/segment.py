"""A segment being written: one `pwrite` and one `fdatasync` per frame, and a header that names the cut before it."""

from __future__ import annotations

import errno
import posixpath
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

from stepstore.log import segment_header as sh
from stepstore.log.directory import Identity, LogLock
from stepstore.log.files import File, FileSystem, write_all
from stepstore.log.frame import CLOSE_ALIGNMENT, KIND_CLOSE, Batch, DirectoryEntry, build_frame, header_position
from stepstore.log.names import SPARE, SegmentName
from stepstore.log.segment_header import SegmentHeader

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
    """The newest segment. Only `write` and `close` touch the medium; they block, and run in a worker thread.

    After an error of either, nothing more is written to it: the operating system may have marked as clean what never
    reached the medium, so a retry would acknowledge nothing.
    """

    def __init__(self, file: File, name: SegmentName, header: SegmentHeader, header_crc: int, capacity: int):
        self._file, self.name, self._header, self._capacity = file, name, header, capacity
        self._offset, self._chain = sh.HEADER_BYTES, header_crc
        self._durable_lsn = header.first_lsn - 1

    @property
    def cut(self) -> Cut:
        """Where it ends, by what was acknowledged."""
        return Cut(self._header.seq, self._offset, self._durable_lsn, self._chain)

    def has_room(self, size: int) -> bool:
        """Whether a frame of about `size` bytes belongs here: it fits, or the segment is still empty."""
        return self._offset + size <= self._capacity or self._offset == sh.HEADER_BYTES

    def prepare(self, batches: Sequence[Batch], *, kind: int | None = None) -> Frame:
        """The frame that holds `batches`, at the place where it goes. Computes only."""
        if kind is None:
            at = header_position(self._offset, self._header.align)
            kind_byte = 1
        else:
            at = -(-self._offset // CLOSE_ALIGNMENT) * CLOSE_ALIGNMENT
            kind_byte = kind
        first_lsn = self._durable_lsn + 1
        data, crc, entries = build_frame(
            batches,
            offset=at,
            first_lsn=first_lsn,
            durable_lsn=self._durable_lsn,
            segment_tag=self._header.segment_tag,
            prev_crc=self._chain,
            kind=kind_byte,
        )
        return Frame(data, at, crc, first_lsn, first_lsn + sum(len(b.payloads) for b in batches) - 1, entries)

    def write(self, frame: Frame) -> None:
        """Put the frame on the medium. Raises `OSError`; then the segment must be left."""
        write_all(self._file, frame.at, frame.data)
        self._file.datasync()

    def acknowledge(self, frame: Frame) -> None:
        """Take note that `write` of this frame has returned."""
        self._offset, self._chain, self._durable_lsn = frame.end, frame.header_crc, frame.last_lsn

    def close(self) -> None:
        """End the segment for good: a close frame, and no zeros behind it. Raises `OSError`."""
        frame = self.prepare((), kind=KIND_CLOSE)
        self.write(frame)
        self.acknowledge(frame)
        self.trim()
        self.release()

    def trim(self) -> None:
        """Cut the space set aside behind the end. Only after a successor's header names that end, or a close frame."""
        self._file.truncate(self._offset)
        self._file.datasync()

    def release(self) -> None:
        """Close the file, whatever state it is in."""
        self._file.close()


class SegmentSequence:
    """Makes segments one after another in a log directory. `paths[n]` is the file the index calls segment n."""

    def __init__(
        self,
        files: FileSystem,
        directory: str,
        identity: Identity,
        lock: LogLock,
        *,
        paths: list[str],
        cut: Cut,
        epoch: int,
        segment_bytes: int = SEGMENT_BYTES,
        align: int = 0,
    ):
        self.files, self.directory, self.paths = files, directory, paths
        self._identity, self._lock = identity, lock
        self._cut, self._epoch = cut, epoch
        self._segment_bytes, self._align = segment_bytes, align

    @property
    def last_seq(self) -> int:
        """The number of the newest segment."""
        return self._cut.seq

    def begin(self, cut: Cut | None = None, *, new_epoch: bool = True, preallocate: bool = True) -> Segment:
        """Make the next segment, durable, naming `cut` (default: where the log ended when it was opened).

        The header is on the medium before the name ends in .seg, and the name before the first frame is written.
        Raises: `OSError`, `Fenced`.
        """
        self._lock.check()
        cut = self._cut if cut is None else cut
        spare = posixpath.join(self.directory, SPARE)
        if self.files.stat(spare) is not None:
            self.files.unlink(spare)
        file = self.files.open(spare, create=True)
        try:
            capacity = self._allocate(file) if preallocate else 0
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
                epoch=self._epoch + (1 if new_epoch else 0),
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
                # The name may be durable or not. Were the segment before it written on, the next opening might find the
                # cut named here and drop what was acknowledged behind it. So this is never "no room": it is the end.
                raise OSError(errno.EIO, f"whether {path!r} exists is not known ({error})") from error
        except BaseException:
            file.close()
            raise
        self._epoch = header.epoch
        self.paths.append(path)
        segment = Segment(file, name, header, crc, capacity or self._segment_bytes)
        self._cut = segment.cut
        return segment

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
