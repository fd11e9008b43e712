"""Find the index of a segment that need not be scanned: in its own footer, or in a sidecar file beside it; write the
sidecar of one that had to be."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import NamedTuple

from stepstore.errors import RecoveryFailed
from stepstore.log import footer as ft
from stepstore.log.files import File, FileSystem, write_all
from stepstore.log.footer import TRAILER_BYTES, Trailer, encode_trailer, parse_head, parse_trailer
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.names import SIDECAR_TEMPORARY, sidecar_name
from stepstore.log.open_files import OpenFiles
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.segment import digest_of
from stepstore.log.segment_header import HEADER_BYTES, SegmentHeader

_SIDECAR_HEAD = b"\xd9\xd9\xf7\x5a"  # tag 55799, byte string with a 4-byte length
SIDECAR_INDEX_AT = len(_SIDECAR_HEAD) + 4


class Seal(NamedTuple):
    """A trailer that was found, and the index it points to (None if that is unsound). `path`: the file of the index."""

    trailer: Trailer
    found: SealedIndex | None
    path: str


def read_trailer(file: File, size: int, segment_tag: int | None) -> Trailer | None:
    """The trailer at the end of a file, if it is sound and belongs to the segment with this tag (None: to any).

    Raises: `OSError`.
    """
    if size < TRAILER_BYTES:
        return None
    data = file.read(size - TRAILER_BYTES, TRAILER_BYTES)
    if len(data) != TRAILER_BYTES:
        if (now := file.size()) < size:  # its writer has just closed it, and cut off the space set aside
            return read_trailer(file, now, segment_tag)
        raise OSError(5, f"reading the last {TRAILER_BYTES} bytes gave {len(data)}")
    found = parse_trailer(data)
    if found is None or segment_tag not in (None, found.segment_tag) or found.index_at + found.index_bytes > size:
        return None
    return found


def belongs_to(trailer: Trailer, header: SegmentHeader) -> bool:
    """Whether a trailer in a segment is that of the segment with this header, and its records end before its index."""
    return trailer.segment_tag == header.segment_tag and trailer.end_offset <= trailer.index_at


def find_seal(
    files: FileSystem,
    reading: OpenFiles,
    path: str,
    header: SegmentHeader,
    *,
    sidecar: bool = False,
    end: int | None = None,
) -> Seal | None:
    """The seal of the segment at `path`: in it, or (`sidecar`) in the file beside it. None if there is no sound one.
    `end`: as if the file ended there.

    Raises: `RecoveryFailed`.
    """
    where = sidecar_path(path) if sidecar else path
    at = 0
    try:
        if sidecar and files.stat(where) is None:
            return None
        file = files.open(where, write=False)
        try:
            size = file.size() if end is None else end
            at = max(size - TRAILER_BYTES, 0)
            trailer = read_trailer(file, size, header.segment_tag)
        finally:
            file.close()
        if trailer is None or not (sidecar or belongs_to(trailer, header)):
            return None
        at = trailer.index_at
        try:
            index = open_index(reading, where, trailer)
        except UnsoundIndex:
            return Seal(trailer, None, where)
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=where, offset=at) from error
    return Seal(trailer, index, where)


def open_index(reading: OpenFiles, path: str, trailer: Trailer) -> SealedIndex:
    """The index that a trailer points to. Raises: `UnsoundIndex`, `OSError`."""

    def read(offset: int, size: int) -> bytes:
        try:
            return reading.read(path, offset, size)
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=path, offset=offset) from error

    data = reading.read(path, trailer.index_at, ft.HEAD_BYTES)
    head = parse_head(data)
    named = (trailer.index_bytes, trailer.end_offset, trailer.end_lsn, trailer.chain, trailer.records)
    if int.from_bytes(data[-4:], "big") != trailer.head_crc or named != (
        head.size,
        head.end_offset,
        head.end_lsn,
        head.chain,
        head.records,
    ):
        raise UnsoundIndex("the head of the index is not the one that the trailer names")
    return SealedIndex(read, trailer.index_at, head)


def sidecar_path(path: str) -> str:
    """The path of the sidecar index of the segment at `path`."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, sidecar_name(name))


def sidecar_is_sound(reading: OpenFiles, path: str, seal: Seal) -> bool:
    """Whether the bytes of a sidecar around its index are what was written. Raises: `OSError`."""
    size = seal.trailer.index_bytes
    if seal.trailer.index_at != SIDECAR_INDEX_AT:
        return False
    head = reading.read(path, 0, SIDECAR_INDEX_AT)
    behind = reading.read(path, SIDECAR_INDEX_AT + size, TRAILER_BYTES + 1)
    return head == _SIDECAR_HEAD + size.to_bytes(4, "big") and behind == encode_trailer(seal.trailer)


def write_sidecar(files: FileSystem, segment: IndexedSegment, open_streams: Iterable[bytes]) -> Trailer:
    """Write the index of a segment that was scanned beside it, durable, so that the next opening need not. Blocks.

    Raises: `OSError`; an index that cannot be written is only missing.
    """
    index = segment.index
    assert isinstance(index, LiveIndex)
    source = files.open(segment.path, write=False)
    try:
        digest = digest_of(source, segment.end_offset)
        header_copy = source.read(0, HEADER_BYTES)
    finally:
        source.close()
    content, head_crc = index.encode(
        header_copy=header_copy,
        first_lsn=segment.header.first_lsn,
        end_lsn=segment.end_lsn,
        end_offset=segment.end_offset,
        chain=segment.chain,
        first_ns=0,
        last_ns=0,
        digest=digest,
        open_streams=open_streams,
    )
    trailer = Trailer(
        segment_tag=segment.header.segment_tag,
        index_at=SIDECAR_INDEX_AT,
        index_bytes=len(content),
        head_crc=head_crc,
        end_offset=segment.end_offset,
        end_lsn=segment.end_lsn,
        chain=segment.chain,
        records=index.records,
    )
    target = sidecar_path(segment.path)
    folder = posixpath.dirname(target)
    scratch = posixpath.join(folder, SIDECAR_TEMPORARY)
    if files.stat(scratch) is not None:
        files.unlink(scratch)
    file = files.open(scratch, create=True)
    try:
        write_all(file, 0, _SIDECAR_HEAD + len(content).to_bytes(4, "big") + content + encode_trailer(trailer))
        file.datasync()
    finally:
        file.close()
    if files.stat(target) is not None:
        files.unlink(target)
    files.rename(scratch, target)
    files.sync_directory(folder)
    return trailer
