"""Check every byte of a log without touching it."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log.directory import Identity, must_exist
from stepstore.log.examine import examine, name_streams
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.header_checks import read_headers
from stepstore.log.keys_file import check_keys
from stepstore.log.listing import again_if_replaced, list_log
from stepstore.log.lock_probe import is_locked
from stepstore.log.manifest import read_manifest
from stepstore.log.names import parse_manifest_name
from stepstore.log.open_files import OpenFiles
from stepstore.log.problems import NO_RECORD, UNREADABLE, Problem, StreamName
from stepstore.log.salvage_listing import list_sources
from stepstore.log.salvage_source import Source
from stepstore.log.segment_check import SegmentCheck
from stepstore.log.tolerant_file import TolerantFiles
from stepstore.log.verify_report import VerifyReport


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
        SegmentCheck(
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
        results = map(SegmentCheck.run, checks) if pool is None else pool.map(SegmentCheck.run, checks)
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
