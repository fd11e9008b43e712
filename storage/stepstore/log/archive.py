"""Copy a log into an archive while it is written to. All calls block.

An archive is a directory with the files of the log up to some record: segments, all complete, with their sidecars where
they have no footer; a MANIFEST that lists exactly them; FORMAT; and ARCHIVE, a list of the files with their digests, as
JSON for people. ARCHIVE gets its name last, so an archive is whole or is none. It holds no keys.

The files are pinned first, by a second name each, so that a compaction meanwhile takes nothing away;
`archive_finished`, which changes nothing of the log, begins again instead. Each copy is read back and compared: with
what was read from the source, and with the digest that the segment's own index has. `restore` makes a log of it again.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import posixpath
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field

from stepstore.errors import CorruptLog, InvalidState, Unavailable
from stepstore.log import names
from stepstore.log.archive_list import ArchivedFile, write_list
from stepstore.log.archive_report import ArchiveReport, OnProgress
from stepstore.log.archive_target import begin, check_empty, refuse_inside
from stepstore.log.copying import blocks, copy_file, size_of
from stepstore.log.directory import write_format
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.index_building import rebuild_index
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import LiveIndex
from stepstore.log.manifest import Manifest, manifest_of, name_manifest, prepare_manifest
from stepstore.log.opening import OpenLog, open_log_read_only
from stepstore.log.restore import restore_archive as restore_archive
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import sidecar_path

_LOOKS = 5


@dataclass
class _Copy:
    """A file to be copied. `source`: where it can be read from, which is a pin if it has one. `size`: how much of it;
    `digest`: of its first `digest_end` bytes, as its index has it."""

    name: str
    source: str
    size: int
    digest_end: int = 0
    digest: bytes = b""
    segment: IndexedSegment | None = None


@dataclass
class _Pinned:
    copies: list[_Copy] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)


class Archiving:
    """One archive being made, in this order: `check_target`, `pin`, `copy`, `finish`; and `unpin` whatever happens."""

    def __init__(self, log: OpenLog, target: str):
        self._log, self._files, self._target = log, log.files, target
        self._began = time.perf_counter()
        self._pinned = _Pinned()
        self._manifest: Manifest | None = None
        self._records = self._end_lsn = 0
        self._listed: list[ArchivedFile] = []

    def check_target(self) -> None:
        """Raises: `InvalidInput` unless the target is absent, empty, or what an archive that was cut off has left;
        `OSError`."""
        files, target = self._files, posixpath.normpath(self._target)
        refuse_inside(files, posixpath.normpath(self._log.path), target)
        check_empty(files, target, lambda inside: names.ARCHIVING in inside and names.ARCHIVE not in inside)

    def pin(self, segments: Sequence[IndexedSegment]) -> bool:
        """Give the files of these segments, the first of the log, a second name each. False if the medium cannot: then
        nothing may be compacted until they are copied."""
        self.take(segments)
        try:
            for copy in self._pinned.copies:
                pin = copy.source + names.PIN
                if self._files.stat(pin) is not None:
                    self._files.unlink(pin)
                self._files.link(copy.source, pin)
                self._pinned.pins.append(pin)
        except OSError:
            self.unpin()
            return False
        for copy in self._pinned.copies:
            copy.source += names.PIN
        return True

    def take(self, segments: Sequence[IndexedSegment]) -> None:
        """Copy these segments, the first of the log, from where they are: `pin` without the second names."""
        if segments:
            self._manifest = manifest_of(self._log.manifest, self._log.identity, segments)
            self._end_lsn = self._manifest.end_lsn
        self._records = sum(segment.index.records for segment in segments)
        self._pinned.copies = [copy for segment in segments for copy in self._copies_of(segment)]

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes of the files that are copied and compared, and of all."""
        return sum(file.bytes for file in self._listed), sum(copy.size for copy in self._pinned.copies)

    def _copies_of(self, segment: IndexedSegment) -> Iterable[_Copy]:
        index, path = segment.index, segment.path
        copy = _Copy(posixpath.basename(path), path, size_of(self._files, path), segment=segment)
        sidecar = sidecar_path(path)
        if not segment.sealed:
            copy.size = segment.end_offset  # what a write that was never acknowledged has left behind it is no record
            if self._files.stat(sidecar) is not None:
                yield _Copy(posixpath.basename(sidecar), sidecar, size_of(self._files, sidecar))
        if isinstance(index, SealedIndex):
            copy.digest_end, copy.digest = index.head.end_offset, index.head.digest
        yield copy

    def unpin(self) -> None:
        """Remove the second names. Raises: `OSError`; the next opening removes them."""
        while self._pinned.pins:
            self._files.unlink(self._pinned.pins[-1])
            self._pinned.pins.pop()

    def copy(self) -> Generator[None, None, None]:
        """Copy everything, a few MiB at a time, and compare.

        Raises: `OSError`, `CorruptLog` (a file of the log is damaged), `InvalidInput` (something came there).
        """
        files, target = self._files, self._target
        self.check_target()  # again: whoever compacted was waited for, and `begin` empties it
        begin(files, target, names.ARCHIVING)
        for copy in self._pinned.copies:
            digest = hashlib.blake2b(digest_size=32)
            where = posixpath.join(target, copy.name)
            yield from copy_file(files, copy.source, where, copy.size, digest.update)
            yield from self._compare(copy, where, digest.digest())
            self._listed.append(ArchivedFile(copy.name, copy.size, digest.hexdigest()))

    def _compare(self, copy: _Copy, where: str, digest: bytes) -> Generator[None, None, None]:
        again = hashlib.blake2b(digest_size=32)
        upto = b""
        for start, block in blocks(self._files, where, copy.size):
            inside = copy.digest_end - start
            if 0 <= inside <= len(block):
                upto_here = again.copy()
                upto_here.update(block[:inside])
                upto = upto_here.digest()
            again.update(block)
            yield
        if again.digest() != digest:
            raise OSError(errno.EIO, "what was read back is not what was written", where)
        if copy.digest and upto != copy.digest:
            raise _damaged(copy, "its bytes are not those that its footer has the digest of")
        segment = copy.segment
        if segment is not None and isinstance(segment.index, LiveIndex):
            # No index on the medium tells its digest: the frames have checksums of their own.
            rebuild_index(self._files, _at(segment, where))

    def finish(self) -> ArchiveReport:
        """Write MANIFEST, FORMAT and ARCHIVE: from the return on it is an archive. Raises: `OSError`."""
        log, files, target = self._log, self._files, self._target
        if self._manifest is not None:
            prepare_manifest(files, target, self._manifest)
            name_manifest(files, target, self._manifest)
        write_format(files, target, log.identity)
        write_list(files, target, log.identity, self._end_lsn, self._records, self._listed)
        files.unlink(posixpath.join(target, names.ARCHIVING))
        files.sync_directory(target)
        keys = () if log.keys is None else ("the keys of encrypted streams are not in it; keep the directory keys too",)
        return ArchiveReport(
            path=target,
            files=len(self._listed),
            bytes=sum(file.bytes for file in self._listed),
            records=self._records,
            end_lsn=self._end_lsn,
            notes=keys,
            seconds=time.perf_counter() - self._began,
        )


def archive_finished(
    path: str, target: str, progress: OnProgress | None = None, *, files: FileSystem | None = None
) -> ArchiveReport:
    """Copy the finished segments of the log in `path` into an archive: all but the one that is written to. Blocks.

    Beside a living writer, and nothing of the log is changed, so nothing is pinned: if a compaction takes a file away
    meanwhile, everything is begun again with the files there are then.
    Raises: `NotFound`, `InvalidState` (no segment is finished yet), `InvalidInput` (the target is neither absent nor
    empty, or lies inside), `CorruptLog`, `RecoveryFailed`, `OSError`, `Unavailable` (it was compacted all the time).
    """
    files = files or OsFileSystem()
    path, target = posixpath.normpath(path), posixpath.normpath(target)
    taken_away: FileNotFoundError | None = None
    for _ in range(_LOOKS):
        log = open_log_read_only(files, path)
        try:
            finished = list(itertools.takewhile(lambda segment: _is_finished(files, segment), log.index.segments[:]))
            if not finished:
                raise InvalidState(
                    f"no file of the log in {path!r} is finished yet: all {log.index.records} records are in the one "
                    "that is written to. Copy it from the process that writes it, or close it first."
                )
            archiving = Archiving(log, target)
            archiving.check_target()
            archiving.take(finished)
            for _block in archiving.copy():
                if progress is not None:
                    progress(*archiving.progress)
            report = archiving.finish()
            if progress is not None:
                progress(*archiving.progress)
            return report
        except FileNotFoundError as error:
            taken_away = error
        finally:
            log.release()
    raise Unavailable(
        f"the log in {path!r} was compacted each of the {_LOOKS} times that it was copied; try again later"
    ) from taken_away


def _is_finished(files: FileSystem, segment: IndexedSegment) -> bool:
    """Whether nothing will be written to a segment any more: it has a footer, or a sidecar instead."""
    return segment.sealed or files.stat(sidecar_path(segment.path)) is not None


def _damaged(copy: _Copy, why: str) -> CorruptLog:
    segment = copy.segment
    assert segment is not None
    return CorruptLog(
        f"{segment.path!r} is damaged: {why} (row 8). It was not archived; run `stepwell verify`.",
        file=segment.path,
        first_lsn=segment.header.first_lsn,
        last_lsn=segment.end_lsn,
        row=8,
    )


def _at(segment: IndexedSegment, path: str) -> IndexedSegment:
    return IndexedSegment(
        path,
        segment.header,
        segment.header_crc,
        segment.index,
        segment.end_offset,
        segment.end_lsn,
        segment.chain,
    )
