"""Check every byte of a log without touching it."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from stepstore.errors import CorruptLog, RecoveryFailed, StepwellError
from stepstore.log import segment_header as sh
from stepstore.log.directory import Identity, must_exist
from stepstore.log.examine import examine, name_streams
from stepstore.log.files import File, FileSystem, OsFileSystem
from stepstore.log.footer import TRAILER_BYTES, Trailer, parse_trailer
from stepstore.log.frame import HEADER_BYTES, MARK_ALIGNMENT, DirectoryEntry, FrameHeader, looks_like_header
from stepstore.log.header_checks import read_headers
from stepstore.log.keys_file import check_keys
from stepstore.log.listing import again_if_replaced, list_log
from stepstore.log.manifest import read_manifest
from stepstore.log.names import LOCK, parse_manifest_name, parse_segment_name
from stepstore.log.open_files import OpenFiles
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.problems import NO_RECORD, REMOVE_SIDECAR, SALVAGE, UNREADABLE, Problem, StreamName
from stepstore.log.salvage_listing import list_sources
from stepstore.log.salvage_source import Source
from stepstore.log.scan import SegmentScan, Window, open_for_reading, scan_segment
from stepstore.log.sealing import find_seal, open_index, read_trailer, sidecar_is_sound, sidecar_path
from stepstore.log.segment import digest_of
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.tail_verdict import judge_newest
from stepstore.log.tolerant_file import TolerantFiles


@dataclass(kw_only=True)
class VerifyReport:
    """What a log holds, and what is wrong with it.

    `problems`: each thing that is damaged; empty means sound. `notes`: what a crash left and the next opening cleans
    up; nothing acknowledged is in it. `live_tail`: what was not judged because a process has the log open and may be
    writing there, None otherwise.
    """

    segments: int = 0
    sealed: int = 0
    frames: int = 0
    records: int = 0
    streams: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    live_tail: str | None = None

    def add(self, part: VerifyReport) -> None:
        """Take up what was found of one more segment; streams are counted elsewhere."""
        self.segments += part.segments
        self.sealed += part.sealed
        self.frames += part.frames
        self.records += part.records
        self.bytes += part.bytes
        self.problems += part.problems
        self.notes += part.notes
        self.live_tail = part.live_tail or self.live_tail


def verify_log(
    path: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    digests: bool = False,
    files: FileSystem | None = None,
    name: StreamName | None = None,
) -> VerifyReport:
    """Read every segment of the log at `path` and its index, check every CRC, chain and cut; and, with `digests`, the
    BLAKE2b digest of each sealed segment, which takes about three times as long. Blocks; writes nothing.

    `progress(done, total)` is called with bytes after each segment. `name` says what the streams are called that damage
    concerns.
    Raises: `NotFound`, `InvalidInput`, `RecoveryFailed`; damage is reported, not raised, and so is what the medium does
    not give back: it is read around.
    """
    medium = files or OsFileSystem()
    layer = TolerantFiles(medium)

    def look() -> VerifyReport:
        return _verify(layer, medium, path, progress, digests=digests, name=name)

    try:
        report = again_if_replaced(layer, path, look)
    except CorruptLog as error:  # of the log as a whole; what is in its files can be looked at all the same
        report = _examine_all(layer, path, error, name)
    report.problems[:0] = [_unreadable(*piece) for piece in layer.unreadable()]
    return report


def _unreadable(path: str, offset: int, length: int) -> Problem:
    text = f"the medium does not give back {length:,} bytes; what is said of them here takes them for zeros"
    return Problem(file=path, text=text, offset=offset, advice=UNREADABLE)


def _verify(
    files: FileSystem,
    medium: FileSystem,
    path: str,
    progress: Callable[[int, int], None] | None,
    *,
    digests: bool,
    name: StreamName | None,
) -> VerifyReport:
    report = VerifyReport()
    try:
        identity = must_exist(files, path)
        listing = list_log(files, path, identity)
        names = listing.names
        headers = read_headers(files, path, identity, listing, lenient=True)
        sizes = [found.size if (found := files.stat(posixpath.join(path, str(name)))) else 0 for name in names]
        live = bool(names) and is_locked(medium, path)
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=path) from error
    if not live:
        report.notes += [
            f"{posixpath.join(path, left)}: left over from a compaction; the next opening removes it"
            for left in listing.leftovers
        ]
    report.problems += _check_files_beside(files, path, identity, live=live)
    reading = OpenFiles(files)
    checks = [
        _SegmentCheck(
            files,
            reading,
            posixpath.join(path, str(name)),
            *headers[number],
            headers[number + 1][0] if number + 1 < len(headers) else None,
            listing.end_lsn_of(name),
            live=live,
            digests=digests,
        )
        for number, name in enumerate(names)
    ]
    streams: set[bytes] = set()
    # Checksums and reads let go of the interpreter, so two threads check more. A file layer in memory is not for them.
    pool = ThreadPoolExecutor(2, thread_name_prefix="stepwell verify") if files.needs_thread else None
    try:
        results = map(_SegmentCheck.run, checks) if pool is None else pool.map(_SegmentCheck.run, checks)
        for number, part in enumerate(results):
            report.add(part)
            streams |= checks[number].streams
            checks[number].streams.clear()
            if progress is not None:
                progress(sum(sizes[: number + 1]), sum(sizes))
        if name is not None and any(problem.streams for problem in report.problems):
            sources = [
                functools.partial(Source, files, reading, check.path, segment)
                for check, segment in zip(checks, names, strict=True)
            ]
            name_streams(report.problems, sources, name)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        reading.close()
    report.streams = len(streams)
    return report


def _check_files_beside(files: FileSystem, path: str, identity: Identity, *, live: bool) -> list[Problem]:
    """What is wrong with the keys, and with manifests that a later one supersedes. Raises: `RecoveryFailed`."""
    problems: list[Problem] = []
    try:
        for name in files.list_names(path):
            full = posixpath.join(path, name)
            if parse_manifest_name(name) is not None and read_manifest(files, full) is None:
                problems.append(Problem(file=full, text="it is not what was written", advice=NO_RECORD))
        check_keys(files, path, identity.log_uuid, live=live)
    except CorruptLog as error:
        problems.append(Problem.of_error(error))
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=path) from error
    return problems


def _examine_all(files: FileSystem, path: str, error: CorruptLog, name: StreamName | None) -> VerifyReport:
    """What can be said of the segments of a log that cannot be taken for one."""
    report = VerifyReport(problems=[Problem.of_error(error)])
    reading = OpenFiles(files)
    try:
        sources = list_sources(files, path, reading).segments
        streams: set[bytes] = set()
        for source in sources:
            found = examine(source, None, 0)
            report.segments += 1
            report.sealed += source.sealed
            report.frames += found.frames
            report.records += found.records
            report.bytes += source.size
            report.problems += [problem for problem in found.problems if problem.file != error.file]
            report.notes += source.notes
            streams |= found.streams
        report.streams = len(streams)
        if name is not None:
            name_streams(report.problems, [functools.partial(_same, source) for source in sources], name)
    finally:
        reading.close()
    return report


def _same(source: Source) -> Source:
    return source


class _SegmentCheck:
    """The checks of one segment."""

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


def is_locked(files: FileSystem, path: str) -> bool:
    """Whether a process has the log open for writing. On Linux the kernel's table tells, and the lock is not touched:
    taking it for a moment could refuse a process that opens the log just then."""
    found = files.stat(posixpath.join(path, LOCK))
    if found is None:
        return False
    if isinstance(files, OsFileSystem):
        device, inode = found.identity
        mine = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
        try:
            with open("/proc/locks", encoding="ascii") as table:
                return any("FLOCK" in line and mine in line.split() for line in table)
        except OSError:
            pass  # no such table here: ask the lock itself
    try:
        file = files.open(posixpath.join(path, LOCK), write=False)
    except OSError:
        return False
    try:
        return not file.lock()
    except (OSError, StepwellError):
        return False
    finally:
        file.close()
