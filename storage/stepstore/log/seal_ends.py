"""Where a segment ends by its own footer, or by the sidecar beside it, without a scan."""

from __future__ import annotations

from stepstore.log.continuity import contradiction, named_cut, not_whole, shorter_than_its_sidecar
from stepstore.log.files import FileSystem
from stepstore.log.index_building import rebuild_index
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.open_files import OpenFiles
from stepstore.log.recovered import SegmentState
from stepstore.log.scan import SegmentScan, Window, open_for_reading
from stepstore.log.sealing import find_seal
from stepstore.log.segment_header import SegmentHeader


def from_seal(
    files: FileSystem,
    reading: OpenFiles,
    path: str,
    header: SegmentHeader,
    header_crc: int,
    successor: SegmentHeader | None,
) -> SegmentState | None:
    """A segment whose end a trailer tells, in it or in its sidecar; None if it has to be scanned."""
    for sidecar in (False, True):
        seal = find_seal(files, reading, path, header, sidecar=sidecar)
        if seal is None:
            continue
        trailer = seal.trailer
        size = _size_of(files, path) if sidecar else 0
        if sidecar and size < trailer.end_offset and trailer.end_lsn >= header.first_lsn:
            raise shorter_than_its_sidecar(path, size, trailer)
        if sidecar and successor is None and size != trailer.end_offset:
            continue  # written to behind what the sidecar knows, or not yet cut there: only a scan can tell
        segment = IndexedSegment(
            path,
            header,
            header_crc,
            LiveIndex(),
            trailer.end_offset,
            trailer.end_lsn,
            trailer.chain,
            sealed=not sidecar,
            index_path=seal.path,
        )
        if header.generation and trailer.end_lsn != header.orig_end_lsn:
            raise not_whole(segment)
        if successor is not None and segment.named_end != named_cut(successor):
            if sidecar:
                continue  # of an earlier state of the file; it is written anew
            raise contradiction(segment, successor)
        if seal.found is None and sidecar:
            continue
        segment.index = rebuild_index(files, segment) if seal.found is None else seal.found
        cut_to = trailer.end_offset if sidecar and size > trailer.end_offset else None
        leftover = _last_nonzero(files, path, trailer.end_offset) if cut_to is not None else None
        return SegmentState(segment, None if leftover is None else leftover + 1, [], cut_to)
    return None


def is_sidecar_stale(files: FileSystem, reading: OpenFiles, segment: IndexedSegment, scan: SegmentScan) -> bool:
    """Whether a file that had to be scanned has an index beside it all the same. It is to be made anew: once the file
    is cut where its records end, the next opening would ask this one, and might show something else.

    Raises: `CorruptLog` if it proves to have been durable what is not there (row 2).
    """
    seal = find_seal(files, reading, segment.path, segment.header, sidecar=True)
    if seal is None:
        return False
    if scan.end_offset < seal.trailer.end_offset and seal.trailer.end_lsn >= segment.header.first_lsn:
        raise shorter_than_its_sidecar(segment.path, scan.end_offset, seal.trailer)
    return True


def heed_footer(files: FileSystem, reading: OpenFiles, segment: IndexedSegment, size: int) -> bool:
    """Ask the footer that ends the file once it is cut at `size`: the next opening will, without a scan, and is to show
    the same. False if it does not end where the records end."""
    seal = find_seal(files, reading, segment.path, segment.header, end=size)
    if seal is None:
        return True
    told = (seal.trailer.end_offset, seal.trailer.end_lsn, seal.trailer.chain)
    if told != (segment.end_offset, segment.end_lsn, segment.chain):
        return False
    if seal.found is not None:
        segment.index, segment.index_path = seal.found, seal.path
    return True


def _size_of(files: FileSystem, path: str) -> int:
    file = open_for_reading(files, path)
    try:
        return Window(file, path).size
    finally:
        file.close()


def _last_nonzero(files: FileSystem, path: str, start: int) -> int | None:
    file = open_for_reading(files, path)
    try:
        window = Window(file, path)
        return window.last_nonzero(start, window.size)
    finally:
        file.close()
