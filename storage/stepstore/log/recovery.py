"""Judge what the segments of a log hold. Changes nothing; `repair` carries out what is decided here.

The decision table. Every segment without a valid footer is judged, and the newest. Let *o* be the first offset where
the chain of frames breaks, expecting LSN *L*. The rows are tried in the order 2, 3, 1, 9, 6, 4, 5: proof before looks.

     1  nothing but zeros behind o, or the end of the file;
        or, behind a footer, its close frame and trailer         end of log
     2  a later frame of this file says durable >= L; or o lies
        before the successor's `prev_end_offset`; or the
        manifest or the sidecar says that the file reaches to
        L; or the file was rewritten, which is whole before it
        has its name                                             corruption: refuse
     3  a footer or a close frame was seen, and something
        else behind it                                           corruption: refuse
     4  the file ends inside the frame; or (preallocated files)
        the header's place is all zero and a non-zero byte
        follows within one maximal frame, or the header is
        sound, the body is not, and there are *more* zero
        pieces than the writer recorded                          torn tail: quarantine, cut at o, go on
     5  the header's place is not zero and no sound header; or
        the body is not sound with not more zero pieces than
        recorded; no proof either way                            suspected rot in the last group: refuse with
                                                                 tail="strict", as row 4 with tail="cut"
     6  a non-zero byte farther than one maximal frame behind o,
        or a sound header of a later record behind o             corruption: refuse
     7  segment numbers or LSNs not contiguous, a file that the
        manifest lists not there, or the manifest not sound, or
        missing beside a rewritten file                          corruption: refuse, naming the LSN range
     9  a sound header of this file that does not continue the
        chain                                                    corruption: refuse
    12  unknown major version or incompatible feature            newer format: refuse, naming the version
    13  log or branch uuid of another log; in the manifest's
        range: not the branch that it names for the file         stray file: refuse
    15  FORMAT missing or malformed but segments present         half-made or tampered: refuse
    16  the header of a .seg is not sound                        corruption: refuse; an older segment that is
                                                                 sealed is read with the copy in its footer
    17  *.tmp of a dead incarnation; a .seg or .idx in the
        manifest's range that is not listed                      garbage: removed by `repair`
    18  a read error, or a read that ends before the file does   RecoveryFailed, nothing is known

Rows about single records and streams, which hurt nothing else:

     8  a sealed segment fails a checksum when it is read        those streams are `Damaged`, a follower gets a `Gap`
        (`reading`); its index does (`index`)                    … and is built again from the frames
    10  a number of a stream twice, equal bytes (`index`)        the first is kept, and counted
    11  a number of a stream twice, different bytes (`index`)    `Forked`: readable up to there, no writes
    14  a payload that cannot be decoded (`stepwell.model`)      only that stream's rebuild fails
"""

from __future__ import annotations

import errno
import gc
import posixpath
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log import segment_header as sh
from stepstore.log.directory import Identity
from stepstore.log.files import File, FileSystem
from stepstore.log.footer import HEAD_BYTES, TRAILER_BYTES, Trailer, parse_head
from stepstore.log.frame import (
    MARK_ALIGNMENT,
    MAX_FRAME_BYTES,
    WRAPPER_BYTES,
    DirectoryEntry,
    FrameHeader,
    header_position,
)
from stepstore.log.index import IndexedSegment, LogIndex, SameRecords, open_streams_after, run_of
from stepstore.log.listing import Listing, list_log
from stepstore.log.live_index import LiveIndex
from stepstore.log.manifest import Manifest, ManifestFile
from stepstore.log.names import SegmentName
from stepstore.log.open_files import OpenFiles
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.reading import SegmentReader
from stepstore.log.scan import SegmentScan, Window, scan_segment
from stepstore.log.sealing import belongs_to, find_seal, read_trailer, sidecar_path
from stepstore.log.segment_header import SegmentHeader

TailPolicy = Literal["strict", "cut"]


class SegmentState(NamedTuple):
    """What recovery found of one segment that `repair` has to know.

    `leftover_end` is None unless non-zero bytes lie behind the end of the records that are to be quarantined and cut;
    it is the offset behind the last of them. `unproven` lists (offset, length) of frames whose durability nothing later
    proves. `cut_to`: the size the file must be cut to, None if it may stay as it is.
    """

    segment: IndexedSegment
    leftover_end: int | None
    unproven: list[tuple[int, int]]
    cut_to: int | None


@dataclass(frozen=True)
class Recovered:
    """A log as it stands: its segments, the index of everything in it, and whether the newest tail was torn.

    `duplicates`: records that were stored twice, equally (row 10). `reading`: the files the index is read through.
    `leftovers`: names of files that are to be removed: what a compaction has left behind, a stale sidecar.
    """

    segments: list[SegmentState]
    index: LogIndex
    reading: OpenFiles
    torn: bool
    notes: list[str]
    duplicates: int = 0
    manifest: Manifest | None = None
    leftovers: tuple[str, ...] = ()

    @property
    def newest(self) -> IndexedSegment | None:
        """The newest segment."""
        return self.segments[-1].segment if self.segments else None

    @property
    def end_lsn(self) -> int:
        """The last LSN of the log, 0 if it is empty."""
        return self.segments[-1].segment.end_lsn if self.segments else 0


def read_segment_header(
    files: FileSystem,
    path: str,
    name: SegmentName,
    identity: Identity,
    *,
    listed: ManifestFile | None = None,
    newest: bool = True,
) -> tuple[SegmentHeader, int]:
    """The header of a segment and its CRC, checked against its name, the log it is in, and what the manifest says of it
    (rows 7, 12, 13, 16). The copy in its footer does for one that is sealed and not the newest.

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    full = posixpath.join(path, str(name))
    try:
        file = files.open(full, write=False)
        try:
            data, size = file.read(0, sh.HEADER_BYTES), file.size()
            if len(data) < min(sh.HEADER_BYTES, size):
                raise OSError(errno.EIO, f"a read ended after {len(data)} bytes although the file is longer")
        finally:
            file.close()
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=full) from error
    sh.check_segment_size(full, size)
    parsed = sh.parse_segment_header(data)
    if parsed is None and not newest:
        parsed = _header_from_footer(files, full)
    if parsed is None:
        raise CorruptLog(
            f"the header of {full!r} is not what was written (row 16). A .seg file exists only once its header is "
            "durable, so the medium has changed it; restore the file from a backup.",
            file=full,
            first_lsn=name.first_lsn,
            row=16,
        )
    header, _crc = parsed
    if header.format_major != sh.FORMAT_MAJOR or header.features_incompatible & ~sh.KNOWN_INCOMPATIBLE:
        raise RecoveryFailed(
            f"{full!r} was written in segment format {header.format_major}.{header.format_minor} with features "
            f"{header.features_incompatible:#x}; this Stepwell reads {sh.FORMAT_MAJOR}.{sh.FORMAT_MINOR}. Nothing was "
            "changed; open it with a Stepwell that knows this format.",
            file=full,
        )
    branch = identity.branch_uuid.bytes if listed is None else listed.branch_uuid
    if (header.log_uuid, header.branch_uuid) != (identity.log_uuid.bytes, branch):
        raise CorruptLog(
            f"{full!r} belongs to another log than the FORMAT file beside it (row 13). Move it out of the directory.",
            file=full,
            first_lsn=header.first_lsn,
            row=13,
        )
    if (header.seq, header.first_lsn, header.generation) != name:
        raise CorruptLog(
            f"{full!r} says inside that it is {SegmentName(header.seq, header.first_lsn, header.generation)} (row 7). "
            "Give it back its own name.",
            file=full,
            first_lsn=header.first_lsn,
            row=7,
        )
    if header.seq_last != (header.seq if listed is None else listed.seq_last):
        raise CorruptLog(
            f"{full!r} says inside that it reaches to segment {header.seq_last}, and the MANIFEST does not (row 7). "
            "Nothing was changed.",
            file=full,
            first_lsn=header.first_lsn,
            row=7,
        )
    return parsed


def _header_from_footer(files: FileSystem, path: str) -> tuple[SegmentHeader, int] | None:
    try:
        file = files.open(path, write=False)
        try:
            trailer = read_trailer(file, file.size(), None)
            if trailer is None:
                return None
            parsed = sh.parse_segment_header(parse_head(file.read(trailer.index_at, HEAD_BYTES)).header_copy)
            # One that the trailer does not belong to would be cut off with the footer as soon as the file is scanned.
            return parsed if parsed is not None and belongs_to(trailer, parsed[0]) else None
        finally:
            file.close()
    except UnsoundIndex:
        return None
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=path) from error


def recover(
    files: FileSystem,
    path: str,
    identity: Identity,
    *,
    tail: TailPolicy = "strict",
    live: bool = False,
    reading: OpenFiles | None = None,
) -> Recovered:
    """Judge a whole log, and index it: from footers and sidecars where there are sound ones, else from the frames. With
    `live`, another process may be writing: whatever follows the last sound frame of the newest segment is "not yet",
    and not judged, unless a later frame proves that it was durable. `reading`: the files that indexes are read through.

    Raises: `CorruptLog`, `RecoveryFailed`. Nothing is changed.
    """
    reading = reading or OpenFiles(files)
    try:
        return _recover(files, reading, path, identity, tail, live=live)
    except BaseException:
        reading.close()
        raise


def _recover(
    files: FileSystem, reading: OpenFiles, path: str, identity: Identity, tail: TailPolicy, *, live: bool
) -> Recovered:
    listing = list_log(files, path, identity)
    names = listing.names
    headers = read_headers(files, path, identity, listing)
    states: list[SegmentState] = []
    notes: list[str] = []
    leftovers = list(listing.leftovers)
    torn = False
    for number, (name, (header, header_crc)) in enumerate(zip(names, headers, strict=True)):
        full = posixpath.join(path, str(name))
        successor = headers[number + 1][0] if number + 1 < len(headers) else None
        if states:
            _check_continues(header, states[-1].segment, full)
        found = _from_seal(files, reading, full, header, header_crc, successor)
        if found is None:
            until = None if successor is None or header.generation else successor.prev_end_offset
            scan, scanned = _scan(files, full, header, header_crc, until)
            if live and successor is None:
                scan, scanned = _look_twice(files, full, header, header_crc, scan, scanned)
            segment = IndexedSegment(full, header, header_crc, scanned, scan.end_offset, scan.end_lsn, scan.chain)
            leftover = None
            to_keep = scan.tail.size if header.generation else _size_to_keep(scan)
            if successor is None and not header.generation and not live:
                if _is_sidecar_stale(files, reading, segment, scan):
                    leftovers.append(posixpath.basename(sidecar_path(full)))
                if to_keep < scan.tail.size and not _heed_footer(files, reading, segment, to_keep):
                    to_keep = scan.end_offset
            if header.generation:
                _check_whole(segment, scan)
            elif successor is not None:
                _check_cut(segment, successor, scan)
                leftover = scan.tail.last_nonzero
            elif not live and (row := judge_newest(scan, header, full, tail, listing.end_lsn_of(name))):
                torn, leftover = True, scan.tail.last_nonzero
                notes.append(_note_of_a_cut(row, scan, full))
            found = SegmentState(
                segment,
                None if leftover is None else leftover + 1,
                [] if successor is not None or header.generation else scan.unproven,
                to_keep if scan.tail.size > to_keep else None,
            )
        _check_listed(found.segment, listing.end_lsn_of(name))
        states.append(found)
    segments = [state.segment for state in states]
    reader_of: list[SegmentReader] = []

    def rebuild(segment: IndexedSegment) -> LiveIndex:
        return rebuild_index(files, segment)

    index = LogIndex(
        segments,
        open_streams=open_streams_after(segments, rebuild),
        rebuild=rebuild,
        same_records=lambda one, other: reader_of[0].same_records(one, other),
    )
    reader_of.append(SegmentReader(reading, index))
    duplicates = sum(settle_doubts(segment, reader_of[0].same_records) for segment in index.segments)
    return Recovered(states, index, reading, torn, notes, duplicates, listing.manifest, tuple(leftovers))


def read_headers(
    files: FileSystem, path: str, identity: Identity, listing: Listing, *, lenient: bool = False
) -> list[tuple[SegmentHeader, int]]:
    """The header of every segment, and its CRC; `lenient`: the copy in its footer does for the newest too.

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    return [
        read_segment_header(
            files,
            path,
            name,
            identity,
            listed=listing.listed.get(name),
            newest=not lenient and number == len(listing.names) - 1,
        )
        for number, name in enumerate(listing.names)
    ]


def _look_twice(
    files: FileSystem, path: str, header: SegmentHeader, header_crc: int, scan: SegmentScan, index: LiveIndex
) -> tuple[SegmentScan, LiveIndex]:
    """Row 2, of a file that another process may be writing to: what it wrote while we read can look like a later frame
    behind a gap, but then the gap is closed when it is read again.

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    while scan.tail.later_durable > scan.end_lsn:
        end = scan.after
        scan, index = _scan(files, path, header, header_crc, None)
        if scan.after == end and scan.tail.later_durable > scan.end_lsn:
            raise _corrupt(2, path, scan, f"a later frame proves that LSN {scan.tail.later_durable} was durable")
    return scan, index


def _size_to_keep(scan: SegmentScan) -> int:
    """A footer that was finished stays, with what belongs behind it. One that was not is an index and no record: it
    goes like the zeros behind the records."""
    return min(scan.after + TRAILER_BYTES, scan.tail.size) if scan.closed else scan.end_offset


def _scan(
    files: FileSystem, path: str, header: SegmentHeader, header_crc: int, until: int | None
) -> tuple[SegmentScan, LiveIndex]:
    index = LiveIndex()

    def on_frame(head: FrameHeader, at: int, entries: list[DirectoryEntry]) -> None:
        index.add_frame(at, head.first_lsn, entries)

    file = open_for_reading(files, path)
    collecting = gc.isenabled()
    gc.disable()  # the scan makes no cycles, and the collector would look at every object of the host for nothing
    try:
        return scan_segment(Window(file, path), header, header_crc, until=until, on_frame=on_frame), index
    finally:
        file.close()
        if collecting:
            gc.enable()


def rebuild_index(files: FileSystem, segment: IndexedSegment) -> LiveIndex:
    """The index of a sealed segment from its frames, because the one in its footer is unsound.

    Raises: `CorruptLog` if the frames are damaged as well, `RecoveryFailed`.
    """
    scan, index = _scan(files, segment.path, segment.header, segment.header_crc, segment.end_offset)
    if scan.end_offset != segment.end_offset:
        raise CorruptLog(
            f"{segment.path!r} is damaged at offset {scan.end_offset}, and so is its index; records {scan.end_lsn + 1} "
            f"to {segment.end_lsn} cannot be read. Nothing was changed; `stepwell salvage` saves the rest.",
            file=segment.path,
            offset=scan.end_offset,
            first_lsn=scan.end_lsn + 1,
            last_lsn=segment.end_lsn,
            row=8,
        )
    return index


def _from_seal(
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
            raise _shorter_than_its_sidecar(path, size, trailer)
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
            raise _not_whole(segment)
        if successor is not None and segment.named_end != _named_cut(successor):
            if sidecar:
                continue  # of an earlier state of the file; it is written anew
            raise _contradiction(segment, successor)
        if seal.found is None and sidecar:
            continue
        segment.index = rebuild_index(files, segment) if seal.found is None else seal.found
        cut_to = trailer.end_offset if sidecar and size > trailer.end_offset else None
        leftover = _last_nonzero(files, path, trailer.end_offset) if cut_to is not None else None
        return SegmentState(segment, None if leftover is None else leftover + 1, [], cut_to)
    return None


def _is_sidecar_stale(files: FileSystem, reading: OpenFiles, segment: IndexedSegment, scan: SegmentScan) -> bool:
    """Whether a file that had to be scanned has an index beside it all the same. It is to be made anew: once the file
    is cut where its records end, the next opening would ask this one, and might show something else.

    Raises: `CorruptLog` if it proves to have been durable what is not there (row 2).
    """
    seal = find_seal(files, reading, segment.path, segment.header, sidecar=True)
    if seal is None:
        return False
    if scan.end_offset < seal.trailer.end_offset and seal.trailer.end_lsn >= segment.header.first_lsn:
        raise _shorter_than_its_sidecar(segment.path, scan.end_offset, seal.trailer)
    return True


def _heed_footer(files: FileSystem, reading: OpenFiles, segment: IndexedSegment, size: int) -> bool:
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


def _shorter_than_its_sidecar(path: str, size: int, trailer: Trailer) -> CorruptLog:
    return CorruptLog(
        f"{path!r} ends at offset {size}, and the index beside it proves that it was durable up to "
        f"{trailer.end_offset} (row 2). Nothing was changed; `stepwell verify` says what is concerned.",
        file=path,
        offset=size,
        last_lsn=trailer.end_lsn,
        row=2,
    )


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


def settle_doubts(segment: IndexedSegment, same_records: SameRecords) -> int:
    """Rows 10 and 11 within one segment: compare what was stored twice. Gives how many records were stored equally.

    Raises: `Damaged`, `RecoveryFailed`.
    """
    live = segment.index
    if not isinstance(live, LiveIndex):
        return 0
    duplicates = 0
    for stream, words in live.doubts:
        run = run_of(segment, words)
        kept = live.find(stream)
        assert kept is not None
        mine = [run_of(segment, live.run_words(kept, n, n + 1)) for n in range(kept.runs)]
        shared = [other for other in mine if run.overlaps(other)]
        covered = kept.first_seq <= run.first_seq and run.last_seq <= kept.last_seq
        if covered and all(same_records(run, other) for other in shared):
            duplicates += run.records
        else:
            live.mark_forked(stream, run.first_lsn)
    return duplicates


def _note_of_a_cut(row: int, scan: SegmentScan, path: str) -> str:
    size = (scan.tail.last_nonzero or scan.end_offset) + 1 - scan.end_offset
    cut = f"{path}: {size:,} bytes from offset {scan.end_offset} on went to quarantine and are cut"
    if row == 4:
        return f"{cut}: the last write before the crash was torn, and nothing in it was ever acknowledged"
    return f'{cut}, given up with tail="cut": they look like damage, so acknowledged steps may have been among them'


def open_for_reading(files: FileSystem, path: str) -> File:
    try:
        return files.open(path, write=False)
    except OSError as error:
        raise RecoveryFailed.from_os_error("open", error, file=path) from error


def _check_continues(header: SegmentHeader, before: IndexedSegment, path: str) -> None:
    end_lsn = before.named_end[1]
    if header.first_lsn != end_lsn + 1 or header.prev_seq != before.header.seq_last:
        raise CorruptLog(
            f"{path!r} begins with LSN {header.first_lsn} and continues segment {header.prev_seq}, but the segment "
            f"before it is {before.header.seq_last} and ends with LSN {end_lsn} (row 7).",
            file=path,
            first_lsn=end_lsn + 1,
            last_lsn=header.first_lsn - 1,
            row=7,
        )


def _named_cut(successor: SegmentHeader) -> tuple[int, int, int]:
    return successor.prev_end_offset, successor.prev_end_lsn, successor.prev_chain


def _check_cut(segment: IndexedSegment, successor: SegmentHeader, scan: SegmentScan) -> None:
    """The successor's header proves every byte before `prev_end_offset` durable (row 2)."""
    if segment.named_end != _named_cut(successor):
        raise _corrupt(
            2,
            segment.path,
            scan,
            f"the next segment proves it durable up to offset {successor.prev_end_offset} "
            f"(LSN {successor.prev_end_lsn})",
        )


def _check_whole(segment: IndexedSegment, scan: SegmentScan) -> None:
    if scan.end_lsn != segment.header.orig_end_lsn:
        raise _corrupt(2, segment.path, scan, "it is a rewritten file, and those are durable before they have a name")


def _not_whole(segment: IndexedSegment) -> CorruptLog:
    return CorruptLog(
        f"{segment.path!r} is to hold records up to LSN {segment.header.orig_end_lsn} and ends with LSN "
        f"{segment.end_lsn} (row 2). Nothing was changed.",
        file=segment.path,
        offset=segment.end_offset,
        first_lsn=segment.end_lsn + 1,
        last_lsn=segment.header.orig_end_lsn,
        row=2,
    )


def _check_listed(segment: IndexedSegment, end_lsn: int | None) -> None:
    """The manifest was written when everything in its range was durable, and nothing is added there any more."""
    found = segment.named_end[1]
    if end_lsn is not None and found != end_lsn:
        raise CorruptLog(
            f"{segment.path!r} ends with LSN {found}, and the MANIFEST says that it ends with LSN {end_lsn} (row 2). "
            "Nothing was changed.",
            file=segment.path,
            offset=segment.end_offset,
            first_lsn=min(found, end_lsn) + 1,
            last_lsn=max(found, end_lsn),
            row=2,
        )


def _contradiction(segment: IndexedSegment, successor: SegmentHeader) -> CorruptLog:
    offset, lsn, _chain = segment.named_end
    return CorruptLog(
        f"{segment.path!r} says that it ends at offset {offset} with LSN {lsn}, and the next segment that it ends at "
        f"{successor.prev_end_offset} with LSN {successor.prev_end_lsn} (row 2). Nothing was changed.",
        file=segment.path,
        offset=min(offset, successor.prev_end_offset),
        first_lsn=min(lsn, successor.prev_end_lsn) + 1,
        last_lsn=max(lsn, successor.prev_end_lsn),
        row=2,
    )


def judge_newest(
    scan: SegmentScan, header: SegmentHeader, path: str, policy: TailPolicy, listed_end_lsn: int | None = None
) -> int:
    """The row by which the tail is to be cut (4, and 5 with tail="cut"), or 0 for a clean end (row 1).

    `listed_end_lsn`: where the manifest says that the segment ends, if it lists it.
    Raises: `CorruptLog` with the row by which it is refused.
    """
    tail, offset, expected = scan.tail, scan.after, scan.end_lsn + 1
    if tail.later_durable >= expected:
        raise _corrupt(2, path, scan, f"a later frame proves that LSN {tail.later_durable} was durable")
    if listed_end_lsn is not None and listed_end_lsn >= expected:
        raise _corrupt(2, path, scan, f"the MANIFEST proves that LSN {listed_end_lsn} was durable")
    if tail.last_nonzero is None:
        return 0
    if scan.index_bytes and tail.last_nonzero < _end_of_seal(scan):
        return 0  # a close frame or a trailer that is not sound; the footer before it proves that no record is missing
    if scan.closed or scan.index_bytes:
        raise _corrupt(3, path, scan, "the segment was sealed before it, and nothing is written behind that")
    if tail.place == "stray":
        raise _corrupt(9, path, scan, "a sound frame header stands there that does not continue the chain")
    if tail.last_nonzero - header_position(offset, header.align) > MAX_FRAME_BYTES or tail.later_lsn >= expected:
        raise _corrupt(6, path, scan, "something is written farther behind it than one commit group reaches")
    if tail.place == "end" or tail.body_cut:
        return 4
    if header.preallocated and (tail.place == "zero" or (tail.place == "sound" and tail.extra_zero_pieces > 0)):
        return 4
    if policy == "cut":
        return 5
    raise _corrupt(
        5,
        path,
        scan,
        "it looks like damage to the last commit group rather than a write that a crash tore, so acknowledged steps "
        'may be in it. Restore the file from a backup, or open with MemoryConfig(tail="cut") to give the group up',
    )


def _end_of_seal(scan: SegmentScan) -> int:
    """Behind the close frame and the trailer that belong behind a footer."""
    if scan.closed:
        return scan.after + TRAILER_BYTES
    return -(-scan.after // MARK_ALIGNMENT) * MARK_ALIGNMENT + WRAPPER_BYTES + TRAILER_BYTES


def _corrupt(row: int, path: str, scan: SegmentScan, why: str) -> CorruptLog:
    head = scan.tail.header
    return CorruptLog(
        f"{path!r} is damaged at offset {scan.after}, where LSN {scan.end_lsn + 1} is due: {why} (row {row}). "
        "Nothing was changed; `stepwell verify` says what is concerned, and what to do.",
        file=path,
        offset=scan.after,
        first_lsn=scan.end_lsn + 1,
        last_lsn=None if head is None else head.last_lsn,
        row=row,
    )
