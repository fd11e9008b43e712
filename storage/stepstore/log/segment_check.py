"""Check every byte of one segment, of its index and of its sidecar."""

from __future__ import annotations

import posixpath

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log import segment_header as sh
from stepstore.log.examine import examine
from stepstore.log.files import File, FileSystem
from stepstore.log.footer import TRAILER_BYTES, Trailer, parse_trailer
from stepstore.log.frame import HEADER_BYTES, MARK_ALIGNMENT, DirectoryEntry, FrameHeader, looks_like_header
from stepstore.log.names import parse_segment_name
from stepstore.log.open_files import OpenFiles
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.problems import NO_RECORD, REMOVE_SIDECAR, SALVAGE, Problem
from stepstore.log.salvage_source import Source
from stepstore.log.scan import SegmentScan, Window, open_for_reading, scan_segment
from stepstore.log.sealing import find_seal, open_index, read_trailer, sidecar_is_sound, sidecar_path
from stepstore.log.segment import digest_of
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.tail_verdict import judge_newest
from stepstore.log.verify_report import VerifyReport


class SegmentCheck:
    """The checks of one segment. `streams`: those it holds, once it was checked."""

    def __init__(
        self,
        files: FileSystem,
        reading: OpenFiles,
        path: str,
        header: SegmentHeader,
        header_crc: int,
        successor: SegmentHeader | None,
        listed_end_lsn: int | None,
        *,
        live: bool,
        digests: bool,
    ):
        self.files, self.reading, self.path = files, reading, path
        self.sidecar = sidecar_path(path)
        self.header, self.header_crc, self.successor = header, header_crc, successor
        self.listed_end_lsn = listed_end_lsn
        self.live, self.digests = live, digests
        self.report = VerifyReport()
        self.streams: set[bytes] = set()

    def run(self) -> VerifyReport:
        """What the segment holds, and what is wrong with it; streams are not counted. Raises: `RecoveryFailed`."""
        file = open_for_reading(self.files, self.path)
        try:
            self._check(file)
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=self.path) from error
        finally:
            file.close()
        return self.report

    def _check(self, file: File) -> None:
        report = self.report
        report.segments += 1
        if sh.parse_segment_header(file.read(0, sh.HEADER_BYTES)) is None:
            self._problem("its header is damaged; the copy in its footer was used", offset=0, row=16)
        size = file.size()
        trailer = read_trailer(file, size, self.header.segment_tag)
        if trailer is None:
            self._check_unsealed(file)
            return
        frames = records = 0

        def on_head(head: FrameHeader) -> None:
            nonlocal frames, records
            frames, records = frames + 1, records + head.record_count

        scan = scan_segment(Window(file, self.path), self.header, self.header_crc, on_head=on_head)
        report.frames += frames
        report.records += records
        report.bytes += scan.after
        digest = digest_of(file, trailer.end_offset) if self.digests else None
        self._check_sealed(trailer, scan, size, digest, frames, records)

    def _check_sealed(
        self, trailer: Trailer, scan: SegmentScan, size: int, digest: bytes | None, frames: int, records: int
    ) -> None:
        self.report.sealed += 1
        if (scan.end_offset, scan.end_lsn, scan.chain) != (trailer.end_offset, trailer.end_lsn, trailer.chain):
            self._damage(
                f"its trailer says that records up to LSN {trailer.end_lsn} reach to offset {trailer.end_offset}, and "
                f"what can be read from the start ends at {scan.end_offset} with LSN {scan.end_lsn}",
                scan,
                8,
            )
        elif not scan.index_bytes or not scan.closed or scan.after + TRAILER_BYTES != size:
            self._problem("the footer or the close frame behind it is damaged; no record is", offset=scan.after)
        elif self.successor is not None and _named_end(self.header, scan) != _named_cut(self.successor):
            self._problem("it does not end where the segment behind it says that it ends", row=2, advice=SALVAGE)
        self._check_end(trailer.end_lsn)
        try:
            index = open_index(self.reading, self.path, trailer)
            index.check()
        except UnsoundIndex as error:
            self._problem(f"its index is damaged ({error}); no record is", offset=trailer.index_at)
            return
        head = index.head
        if (head.frames, head.records) != (frames, records) and scan.end_offset == trailer.end_offset:
            self._problem("its index does not tell what is in its frames", advice=SALVAGE)
        if digest is not None and head.digest != digest:
            self._problem("its digest does not match", advice=SALVAGE)
        self.streams.update(entry.stream for entry in index.streams())

    def _check_unsealed(self, file: File) -> None:
        report = self.report
        own_streams: set[bytes] = set()

        def on_frame(head: FrameHeader, _at: int, entries: list[DirectoryEntry]) -> None:
            report.frames += 1
            report.records += head.record_count
            own_streams.update([entry[0] for entry in entries])

        generation = self.header.generation
        until = None if self.successor is None or generation else self.successor.prev_end_offset
        scan = scan_segment(Window(file, self.path), self.header, self.header_crc, until=until, on_frame=on_frame)
        self.streams.update(own_streams)
        report.bytes += scan.end_offset
        sound = f"{self.path}: sound up to offset {scan.end_offset} (LSN {scan.end_lsn})"
        if generation and scan.end_lsn != self.header.orig_end_lsn:
            self._damage(f"{sound}, but a rewritten file is whole before it has its name", scan, 2)
            return
        self._check_end(scan.end_lsn)
        if generation:
            self._problem("its footer, or what belongs behind it, is damaged", offset=scan.after)
            return
        proven = self._check_sidecar(scan)
        if self.successor is None and proven > scan.end_offset:
            self._damage(f"{sound}, but the index beside it proves it durable up to {proven}", scan, 2)
        elif self.successor is not None:
            named = _named_cut(self.successor)
            if _named_end(self.header, scan) != named:
                self._damage(f"{sound}, but the next segment proves it durable up to {named[0]}", scan, 2)
            elif scan.tail.last_nonzero is not None and not self.live:
                whole = scan_segment(Window(file, self.path), self.header, self.header_crc)
                if whole.index_bytes:
                    self._judge_seal(file, whole, sound)
                else:
                    report.notes.append(f"{sound}; left over behind it: a write that was never acknowledged")
        elif self.live and (scan.index_bytes or scan.tail.last_nonzero is not None):
            report.live_tail = f"{sound}; the log is open, so what follows may be a write in progress"
        elif scan.closed or scan.index_bytes:
            self._judge_seal(file, scan, sound)
        elif scan.tail.last_nonzero is not None:
            self._judge(file, scan, sound)

    def _judge_seal(self, file: File, scan: SegmentScan, sound: str) -> None:
        """What follows a footer where no trailer ends the file. The close frame and the trailer lie within one sector,
        so a crash leaves both of them or neither."""
        behind = scan.tail.last_nonzero
        trailer = parse_trailer(file.read(scan.after, TRAILER_BYTES)) if scan.closed else None
        if behind is None and not scan.closed:
            self.report.notes.append(f"{sound}; behind it a footer that was not finished, and nothing else")
        elif trailer is not None and behind is not None and behind < scan.after + TRAILER_BYTES:
            self.report.notes.append(f"{sound}, and sealed; behind the trailer zeros that were not cut off yet")
        else:
            self._problem(f"{sound}, and sealed, but its trailer is damaged; no record is", offset=scan.after)

    def _judge(self, file: File, scan: SegmentScan, sound: str) -> None:
        try:
            judge_newest(scan, self.header, self.path, "strict", self.listed_end_lsn)
        except CorruptLog as error:
            self._damage(str(error), scan, error.row)
            return
        mark_at = -(-scan.after // MARK_ALIGNMENT) * MARK_ALIGNMENT
        if looks_like_header(file.read(mark_at, HEADER_BYTES)):
            # A mark lies within one sector, so it is there or it is not: a part of one is damage. It holds no record.
            self._problem(f"{sound}; behind it a mark, or a close frame, that is damaged; no record is", offset=mark_at)
            return
        self.report.notes.append(f"{sound}; behind it a write that a crash tore, never acknowledged")

    def _check_sidecar(self, scan: SegmentScan) -> int:
        """Up to which offset a sound sidecar proves the segment durable, 0 if there is none."""
        if self.files.stat(self.sidecar) is None:
            return 0
        why, proven = None, 0
        try:
            seal = find_seal(self.files, self.reading, self.path, self.header, sidecar=True)
            if seal is None or seal.found is None or not sidecar_is_sound(self.reading, self.sidecar, seal):
                why = "it is not what was written"
            else:
                seal.found.check()
                proven = seal.trailer.end_offset
                ends = (seal.trailer.end_offset, seal.trailer.end_lsn, seal.trailer.chain)
                if ends != (scan.end_offset, scan.end_lsn, scan.chain) and self.successor is not None:
                    why = "it is of another state of the segment"
        except UnsoundIndex as error:
            why = str(error)
        if why is not None:
            self.report.problems.append(Problem(file=self.sidecar, text=why, advice=REMOVE_SIDECAR))
        return proven

    def _check_end(self, end_lsn: int) -> None:
        """A rewritten file, and one in the manifest's range, ends where its header and the manifest say."""
        for who, said in (
            ("its header", self.header.orig_end_lsn if self.header.generation else end_lsn),
            ("the MANIFEST", end_lsn if self.listed_end_lsn is None else self.listed_end_lsn),
        ):
            if said != end_lsn:
                self._problem(f"it ends with LSN {end_lsn}, and {who} says with {said}", row=2, advice=SALVAGE)

    def _problem(self, what: str, *, offset: int | None = None, row: int = 0, advice: str = NO_RECORD) -> None:
        self.report.problems.append(Problem(file=self.path, text=what, offset=offset, row=row, advice=advice))

    def _damage(self, why: str, scan: SegmentScan, row: int) -> None:
        """Records are damaged: say which. Only the header of the segment has been told of already."""
        segment = parse_segment_name(posixpath.basename(self.path))
        assert segment is not None
        found = examine(Source(self.files, self.reading, self.path, segment), self.successor, row)
        damaged = [problem for problem in found.problems if problem.offset]
        if not damaged:
            error = CorruptLog(
                why, file=self.path, offset=scan.after, first_lsn=scan.end_lsn + 1, last_lsn=None, row=row
            )
            damaged = [Problem.of_error(error)]
        self.report.problems += damaged
        self.report.frames, self.report.records = found.frames, found.records  # what is left, behind damage too
        self.streams |= found.streams


def _named_cut(successor: SegmentHeader) -> tuple[int, int, int]:
    return successor.prev_end_offset, successor.prev_end_lsn, successor.prev_chain


def _named_end(header: SegmentHeader, scan: SegmentScan) -> tuple[int, int, int]:
    if header.generation:
        return header.orig_end_offset, header.orig_end_lsn, header.orig_chain
    return scan.end_offset, scan.end_lsn, scan.chain
