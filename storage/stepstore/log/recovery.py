"""Judge what the segments of a log hold. Changes nothing; `repair` carries out what is decided here.

The decision table. Every segment without a valid footer is judged, and the newest. Let *o* be the first offset where
the chain of frames breaks, expecting LSN *L*. The rows are tried in the order 2, 3, 1, 9, 6, 4, 5: proof before looks.

     1  nothing but zeros behind o, or the end of the file       end of log
     2  a later frame of this file says durable >= L; or o lies
        before the successor's `prev_end_offset`                 corruption: refuse
     3  a close frame was seen, and something behind it          corruption: refuse
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
     7  segment numbers or LSNs not contiguous                   corruption: refuse, naming the LSN range
     9  a sound header of this file that does not continue the
        chain                                                    corruption: refuse
    12  unknown major version or incompatible feature            newer format: refuse, naming the version
    13  log or branch uuid of another log                        stray file: refuse
    15  FORMAT missing or malformed but segments present         half-made or tampered: refuse
    16  the header of a .seg is not sound                        corruption: refuse
    17  *.tmp of a dead incarnation                              garbage: removed by `repair`
    18  a read error, or a read that ends before the file does   RecoveryFailed, nothing is known

Rows 8, 10, 11 and 14 are about reading and about single streams: see `reading` and `index`.
"""

from __future__ import annotations

import errno
import gc
import itertools
import posixpath
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log import segment_header as sh
from stepstore.log.directory import Identity
from stepstore.log.files import File, FileSystem
from stepstore.log.frame import MAX_FRAME_BYTES, DirectoryEntry, FrameHeader, header_position
from stepstore.log.index import LogIndex
from stepstore.log.names import SegmentName, parse_segment_name
from stepstore.log.scan import SegmentScan, Window, scan_segment
from stepstore.log.segment_header import SegmentHeader

TailPolicy = Literal["strict", "cut"]


class SegmentState(NamedTuple):
    """One segment as recovery found it: where it ends, what lies behind its end, and what must be written again.

    `leftover_end` is None unless non-zero bytes lie behind `end_offset` that are to be quarantined and cut; it is the
    offset behind the last of them. `unproven` lists (offset, length) of frames whose durability nothing later proves.
    """

    name: str
    path: str
    header: SegmentHeader
    header_crc: int
    size: int
    end_offset: int
    end_lsn: int
    chain: int
    leftover_end: int | None
    unproven: list[tuple[int, int]]


@dataclass(frozen=True)
class Recovered:
    """A log as it stands: its segments, the index of everything in it, and whether the newest tail was torn."""

    segments: list[SegmentState]
    index: LogIndex
    torn: bool
    notes: list[str]

    @property
    def end_lsn(self) -> int:
        """The last LSN of the log, 0 if it is empty."""
        return self.segments[-1].end_lsn if self.segments else 0


def list_segments(files: FileSystem, path: str) -> list[SegmentName]:
    """The segments of a log by name, in order.

    Raises: `CorruptLog` (row 7) if their numbers leave a gap, `RecoveryFailed`.
    """
    try:
        listed = files.list_names(path)
    except OSError as error:
        raise RecoveryFailed.from_os_error("list", error, file=path) from error
    found = sorted(name for name in map(parse_segment_name, listed) if name is not None)
    if found and found[0].seq != 1:
        raise CorruptLog(
            f"segments 1 to {found[0].seq - 1} are missing from {path!r}: the first is {found[0]}, so records up to "
            f"LSN {found[0].first_lsn - 1} are not there. Restore the files from a backup.",
            file=posixpath.join(path, str(found[0])),
            first_lsn=1,
            last_lsn=found[0].first_lsn - 1,
            row=7,
        )
    for before, after in itertools.pairwise(found):
        if after.seq == before.seq:
            raise CorruptLog(
                f"{path!r} holds two files for segment {after.seq}: {before} and {after} (row 7). Move out the one "
                "that does not belong there.",
                file=posixpath.join(path, str(after)),
                first_lsn=after.first_lsn,
                row=7,
            )
        if after.seq != before.seq + 1:
            raise CorruptLog(
                f"segments {before.seq + 1} to {after.seq - 1} are missing from {path!r}: {before} is followed by "
                f"{after}, so records up to LSN {after.first_lsn - 1} are not there. Restore the files from a backup.",
                file=posixpath.join(path, str(after)),
                first_lsn=before.first_lsn,
                last_lsn=after.first_lsn - 1,
                row=7,
            )
    return found


def read_segment_header(
    files: FileSystem, path: str, name: SegmentName, identity: Identity
) -> tuple[SegmentHeader, int]:
    """The header of a segment and its CRC, checked against its name and the log it is in (rows 12, 13, 16).

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    full = posixpath.join(path, str(name))
    try:
        file = files.open(full, write=False)
        try:
            data = file.read(0, sh.HEADER_BYTES)
            if len(data) < min(sh.HEADER_BYTES, file.size()):
                raise OSError(errno.EIO, f"a read ended after {len(data)} bytes although the file is longer")
        finally:
            file.close()
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=full) from error
    parsed = sh.parse_segment_header(data)
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
    if (header.log_uuid, header.branch_uuid) != (identity.log_uuid.bytes, identity.branch_uuid.bytes):
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
    return parsed


def recover(
    files: FileSystem, path: str, identity: Identity, *, tail: TailPolicy = "strict", live: bool = False
) -> Recovered:
    """Read a whole log, judge it, and index it. With `live`, another process may be writing: whatever follows the last
    sound frame of the newest segment is "not yet", and is never judged.

    Raises: `CorruptLog`, `RecoveryFailed`. Nothing is changed.
    """
    names = list_segments(files, path)
    headers = [read_segment_header(files, path, name, identity) for name in names]
    index = LogIndex()
    states: list[SegmentState] = []
    notes: list[str] = []
    torn = False
    collecting = gc.isenabled()
    gc.disable()  # the scan makes no cycles, and the collector would look at every object of the host for nothing
    try:
        for number, (name, (header, header_crc)) in enumerate(zip(names, headers, strict=True)):
            full = posixpath.join(path, str(name))
            successor = headers[number + 1][0] if number + 1 < len(headers) else None
            if states:
                _check_continues(header, states[-1], full)
            file = open_for_reading(files, full)
            try:
                window = Window(file, full)

                def on_frame(head: FrameHeader, at: int, entries: list[DirectoryEntry], number: int = number) -> None:
                    index.add_frame(number, at, head.first_lsn, entries)

                until = None if successor is None else successor.prev_end_offset
                scan = scan_segment(window, header, header_crc, until=until, on_frame=on_frame)
            finally:
                file.close()
            leftover = None
            if successor is not None:
                _check_cut(scan, successor, full)
                leftover = scan.tail.last_nonzero
            elif not live and (row := judge_newest(scan, header, full, tail)):
                torn, leftover = True, scan.tail.last_nonzero
                notes.append(_note_of_a_cut(row, scan, full))
            states.append(
                SegmentState(
                    str(name),
                    full,
                    header,
                    header_crc,
                    scan.tail.size,
                    scan.end_offset,
                    scan.end_lsn,
                    scan.chain,
                    None if leftover is None else leftover + 1,
                    [] if successor is not None else scan.unproven,
                )
            )
    finally:
        if collecting:
            gc.enable()
    return Recovered(states, index, torn, notes)


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


def _check_continues(header: SegmentHeader, before: SegmentState, path: str) -> None:
    if header.first_lsn != before.end_lsn + 1 or header.prev_seq != before.header.seq_last:
        raise CorruptLog(
            f"{path!r} begins with LSN {header.first_lsn} and continues segment {header.prev_seq}, but the segment "
            f"before it is {before.header.seq} and ends with LSN {before.end_lsn} (row 7).",
            file=path,
            first_lsn=before.end_lsn + 1,
            last_lsn=header.first_lsn - 1,
            row=7,
        )


def _check_cut(scan: SegmentScan, successor: SegmentHeader, path: str) -> None:
    """The successor's header proves every byte before `prev_end_offset` durable (row 2)."""
    named = (successor.prev_end_offset, successor.prev_end_lsn, successor.prev_chain)
    if (scan.end_offset, scan.end_lsn, scan.chain) != named:
        raise _corrupt(
            2,
            path,
            scan,
            f"the next segment proves it durable up to offset {successor.prev_end_offset} "
            f"(LSN {successor.prev_end_lsn})",
        )


def judge_newest(scan: SegmentScan, header: SegmentHeader, path: str, policy: TailPolicy) -> int:
    """The row by which the tail is to be cut (4, and 5 with tail="cut"), or 0 for a clean end (row 1).

    Raises: `CorruptLog` with the row by which it is refused.
    """
    tail, offset, expected = scan.tail, scan.end_offset, scan.end_lsn + 1
    if tail.later_durable >= expected:
        raise _corrupt(2, path, scan, f"a later frame proves that LSN {tail.later_durable} was durable")
    if scan.closed and tail.last_nonzero is not None:
        raise _corrupt(3, path, scan, "the segment was closed before it, and nothing is written behind a close frame")
    if tail.last_nonzero is None:
        return 0
    if tail.place == "stray":
        raise _corrupt(9, path, scan, "a sound frame header stands there that does not continue the chain")
    if tail.last_nonzero - header_position(offset, header.align) > MAX_FRAME_BYTES or tail.later_lsn > expected:
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


def _corrupt(row: int, path: str, scan: SegmentScan, why: str) -> CorruptLog:
    head = scan.tail.header
    return CorruptLog(
        f"{path!r} is damaged at offset {scan.end_offset}, where LSN {scan.end_lsn + 1} is due: {why} (row {row}). "
        "Nothing was changed.",
        file=path,
        offset=scan.end_offset,
        first_lsn=scan.end_lsn + 1,
        last_lsn=None if head is None else head.last_lsn,
        row=row,
    )
