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

import posixpath

from stepstore.log.continuity import check_continues, check_cut, check_listed, check_whole
from stepstore.log.directory import Identity
from stepstore.log.files import FileSystem
from stepstore.log.footer import TRAILER_BYTES
from stepstore.log.header_checks import read_headers
from stepstore.log.index import LogIndex
from stepstore.log.index_building import rebuild_index, scan_and_index, settle_doubts
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.listing import list_log
from stepstore.log.live_index import LiveIndex
from stepstore.log.open_files import OpenFiles
from stepstore.log.open_streams import open_streams_after
from stepstore.log.recovered import Recovered, SegmentState
from stepstore.log.scan import SegmentScan
from stepstore.log.seal_ends import from_seal, heed_footer, is_sidecar_stale
from stepstore.log.sealing import sidecar_path
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.stream_reader import StreamReader
from stepstore.log.tail_verdict import TailPolicy, corrupt_at, judge_newest, note_of_a_cut


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
            check_continues(header, states[-1].segment, full)
        found = from_seal(files, reading, full, header, header_crc, successor)
        if found is None:
            until = None if successor is None or header.generation else successor.prev_end_offset
            scan, scanned = scan_and_index(files, full, header, header_crc, until)
            if live and successor is None:
                scan, scanned = _look_twice(files, full, header, header_crc, scan, scanned)
            segment = IndexedSegment(full, header, header_crc, scanned, scan.end_offset, scan.end_lsn, scan.chain)
            leftover = None
            to_keep = scan.tail.size if header.generation else _size_to_keep(scan)
            if successor is None and not header.generation and not live:
                if is_sidecar_stale(files, reading, segment, scan):
                    leftovers.append(posixpath.basename(sidecar_path(full)))
                if to_keep < scan.tail.size and not heed_footer(files, reading, segment, to_keep):
                    to_keep = scan.end_offset
            if header.generation:
                check_whole(segment, scan)
            elif successor is not None:
                check_cut(segment, successor, scan)
                leftover = scan.tail.last_nonzero
            elif not live and (row := judge_newest(scan, header, full, tail, listing.end_lsn_of(name))):
                torn, leftover = True, scan.tail.last_nonzero
                notes.append(note_of_a_cut(row, scan, full))
            found = SegmentState(
                segment,
                None if leftover is None else leftover + 1,
                [] if successor is not None or header.generation else scan.unproven,
                to_keep if scan.tail.size > to_keep else None,
            )
        check_listed(found.segment, listing.end_lsn_of(name))
        states.append(found)
    segments = [state.segment for state in states]
    reader_of: list[StreamReader] = []

    def rebuild(segment: IndexedSegment) -> LiveIndex:
        return rebuild_index(files, segment)

    index = LogIndex(
        segments,
        open_streams=open_streams_after(segments, rebuild),
        rebuild=rebuild,
        same_records=lambda one, other: reader_of[0].same_records(one, other),
    )
    reader_of.append(StreamReader(reading, index))
    duplicates = sum(settle_doubts(segment, reader_of[0].same_records) for segment in index.segments)
    return Recovered(states, index, reading, torn, notes, duplicates, listing.manifest, tuple(leftovers))


def _look_twice(
    files: FileSystem, path: str, header: SegmentHeader, header_crc: int, scan: SegmentScan, index: LiveIndex
) -> tuple[SegmentScan, LiveIndex]:
    """Row 2, of a file that another process may be writing to: what it wrote while we read can look like a later frame
    behind a gap, but then the gap is closed when it is read again.

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    while scan.tail.later_durable > scan.end_lsn:
        end = scan.after
        scan, index = scan_and_index(files, path, header, header_crc, None)
        if scan.after == end and scan.tail.later_durable > scan.end_lsn:
            raise corrupt_at(2, path, scan, f"a later frame proves that LSN {scan.tail.later_durable} was durable")
    return scan, index


def _size_to_keep(scan: SegmentScan) -> int:
    """A footer that was finished stays, with what belongs behind it. One that was not is an index and no record: it
    goes like the zeros behind the records."""
    return min(scan.after + TRAILER_BYTES, scan.tail.size) if scan.closed else scan.end_offset
