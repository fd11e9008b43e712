"""Copy a log into an archive while it is written to, and make a log of an archive again. All calls block.

An archive is a directory with the files of the log up to some record: segments, all complete, with their sidecars where
they have no footer; a MANIFEST that lists exactly them; FORMAT; and ARCHIVE, a list of the files with their digests, as
JSON for people. ARCHIVE gets its name last, so an archive is whole or is none. It holds no keys.

The files are pinned first, by a second name each, so that a compaction meanwhile takes nothing away;
`archive_finished`, which changes nothing of the log, begins again instead. Each copy is read back and compared: with
what was read from the source, and with the digest that the segment's own index has.

A restored log has a branch uuid of its own; the MANIFEST says which branch each file is from. It gets its FORMAT last,
and until then has a file RESTORING, so a restore that was cut off is no log, and is begun anew by restoring again.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import itertools
import json
import posixpath
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stepstore.errors import CorruptLog, InvalidInput, InvalidState, NotFound, RecoveryFailed, Unavailable
from stepstore.log import names
from stepstore.log.directory import Identity, make_levels, must_exist, sync_levels, write_format
from stepstore.log.files import File, FileSystem, OsFileSystem, write_all
from stepstore.log.index_building import rebuild_index
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.listing import list_log
from stepstore.log.live_index import LiveIndex
from stepstore.log.manifest import Manifest, manifest_of, name_manifest, prepare_manifest
from stepstore.log.names import parse_manifest_name, parse_segment_name, parse_sidecar_name
from stepstore.log.opening import OpenLog, open_log_read_only
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import sidecar_path

VERSION = 1
_BLOCK = 4 * 1024 * 1024
_LOOKS = 5
_LARGEST_LIST = 64 * 1024 * 1024

OnProgress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""


@dataclass(frozen=True, kw_only=True)
class ArchiveReport:
    """What is in an archive, or was restored from one. `end_lsn`: it holds everything up to this record."""

    path: str
    files: int = 0
    bytes: int = 0
    records: int = 0
    end_lsn: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class ArchivedFile(NamedTuple):
    """One file as ARCHIVE lists it. `blake2b`: BLAKE2b-256 of all its bytes, hex."""

    name: str
    bytes: int
    blake2b: str


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
        """Raises: `InvalidInput` unless the target is absent, empty, or what an archive that was cut off has left."""
        files, target = self._files, posixpath.normpath(self._target)
        _refuse_inside(posixpath.normpath(self._log.path), target)
        _check_empty(files, target, lambda inside: names.ARCHIVING in inside and names.ARCHIVE not in inside)

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
        copy = _Copy(posixpath.basename(path), path, _size_of(self._files, path), segment=segment)
        sidecar = sidecar_path(path)
        if not segment.sealed:
            copy.size = segment.end_offset  # what a write that was never acknowledged has left behind it is no record
            if self._files.stat(sidecar) is not None:
                yield _Copy(posixpath.basename(sidecar), sidecar, _size_of(self._files, sidecar))
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

        Raises: `OSError`, `CorruptLog` (a file of the log is damaged).
        """
        files, target = self._files, self._target
        _begin(files, target, names.ARCHIVING)
        for copy in self._pinned.copies:
            digest = hashlib.blake2b(digest_size=32)
            where = posixpath.join(target, copy.name)
            yield from _copy_file(files, copy.source, where, copy.size, digest.update)
            yield from self._compare(copy, where, digest.digest())
            self._listed.append(ArchivedFile(copy.name, copy.size, digest.hexdigest()))

    def _compare(self, copy: _Copy, where: str, digest: bytes) -> Generator[None, None, None]:
        again = hashlib.blake2b(digest_size=32)
        upto = b""
        for start, block in _blocks(self._files, where, copy.size):
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
        _write_list(files, target, log.identity, self._end_lsn, self._records, self._listed)
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


def restore_archive(
    source: str, target: str, progress: OnProgress | None = None, *, files: FileSystem | None = None
) -> ArchiveReport:
    """Make a log at `target`, which must be absent or empty, of the archive at `source`. Blocks.

    Every byte of the archive is checked before and while it is copied. The new log has a branch uuid of its own, so
    cursors of the old one are not taken for its own. Keys are not in an archive: of an encrypted log, copy the
    directory `keys` beside it.
    Raises: `NotFound` (there is no archive), `InvalidInput`, `CorruptLog`, `RecoveryFailed`, `OSError` (the target
    cannot be written; what is left there is no log, and restoring again begins anew).
    """
    files = files or OsFileSystem()
    began = time.perf_counter()
    source, target = posixpath.normpath(source), posixpath.normpath(target)
    identity, listed = _read_list(files, source)
    _refuse_inside(source, target)
    _check_empty(files, target, lambda inside: names.RESTORING in inside and names.FORMAT not in inside)
    manifest, records = _checked(files, source, identity, listed)
    restored = Identity(identity.log_uuid, uuid.uuid4())
    _begin(files, target, names.RESTORING)
    done, total = 0, sum(file.bytes for file in listed)
    for file in listed:
        where = posixpath.join(target, file.name)
        original, copy = hashlib.blake2b(digest_size=32), hashlib.blake2b(digest_size=32)
        for _ in _copy_file(files, posixpath.join(source, file.name), where, file.bytes, original.update):
            pass
        for _start, block in _blocks(files, where, file.bytes):
            copy.update(block)
        if original.hexdigest() != file.blake2b:
            raise _not_as_listed(posixpath.join(source, file.name))
        if copy.digest() != original.digest():
            raise OSError(errno.EIO, "what was read back is not what was written", where)
        done += file.bytes
        if progress is not None:
            progress(done, total)
    if manifest is not None:
        renewed = manifest._replace(number=manifest.number + 1, branch_uuid=restored.branch_uuid.bytes)
        prepare_manifest(files, target, renewed)
        name_manifest(files, target, renewed)
    write_format(files, target, restored)  # from here on it is a log
    files.unlink(posixpath.join(target, names.RESTORING))
    files.sync_directory(target)
    return ArchiveReport(
        path=target,
        files=len(listed),
        bytes=total,
        records=records,
        end_lsn=0 if manifest is None else manifest.end_lsn,
        seconds=time.perf_counter() - began,
    )


def _checked(
    files: FileSystem, source: str, identity: Identity, listed: Sequence[ArchivedFile]
) -> tuple[Manifest | None, int]:
    """The manifest of an archive, whose every byte was looked at, and how many records it holds."""
    for file in listed:
        found = files.stat(posixpath.join(source, file.name))
        if found is None or found.size != file.bytes:
            raise _not_as_listed(posixpath.join(source, file.name))
    if must_exist(files, source) != identity:
        raise _not_as_listed(posixpath.join(source, names.FORMAT))
    from stepstore.log.verify import verify_log  # not at the top: whoever only logs does without it

    report = verify_log(source, digests=True, files=files)
    if report.problems:
        raise CorruptLog(f"the archive in {source!r} is damaged: {report.problems[0]}", file=report.problems[0].file)
    listing = list_log(files, source, identity)
    there = {str(name) for name in listing.listed}
    if listing.names and there != {file.name for file in listed if parse_segment_name(file.name)}:
        raise _not_as_listed(posixpath.join(source, names.ARCHIVE))
    return listing.manifest, report.records


# ---- the list of files -----------------------------------------------------------------------------------------------


def _write_list(
    files: FileSystem, target: str, identity: Identity, end_lsn: int, records: int, listed: list[ArchivedFile]
) -> None:
    head = {
        "archive": "stepwell log",
        "version": VERSION,
        "log_uuid": str(identity.log_uuid),
        "branch_uuid": str(identity.branch_uuid),
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "end_lsn": end_lsn,
        "records": records,
        "files": [file._asdict() for file in listed],
    }
    scratch = posixpath.join(target, names.ARCHIVE_TEMPORARY)
    file = files.open(scratch, create=True)
    try:
        write_all(file, 0, json.dumps(head, indent=1).encode() + b"\n")
        file.datasync()
    finally:
        file.close()
    files.rename(scratch, posixpath.join(target, names.ARCHIVE))
    files.sync_directory(target)


def _read_list(files: FileSystem, source: str) -> tuple[Identity, list[ArchivedFile]]:
    path = posixpath.join(source, names.ARCHIVE)
    try:
        if files.stat(path) is None:
            raise NotFound(f"there is no archive in {source!r}: an archive has a file {names.ARCHIVE}, written last")
        file = files.open(path, write=False)
        try:
            content = file.read(0, min(file.size(), _LARGEST_LIST))
        finally:
            file.close()
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=path) from error
    try:
        head = json.loads(content.decode())
        if head["archive"] != "stepwell log" or head["version"] != VERSION:
            raise RecoveryFailed(
                f"{path!r} was written by another version of Stepwell; restore it with that one.", file=path
            )
        listed = [ArchivedFile(str(item["name"]), int(item["bytes"]), str(item["blake2b"])) for item in head["files"]]
        identity = Identity(uuid.UUID(head["log_uuid"]), uuid.UUID(head["branch_uuid"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptLog(f"{path!r} is not what was written. Take another copy of the archive.", file=path) from error
    if not all(parse_segment_name(file.name) or parse_sidecar_name(file.name) for file in listed):
        raise _not_as_listed(path)
    return identity, listed


def _not_as_listed(path: str) -> CorruptLog:
    return CorruptLog(f"{path!r} is not as the archive lists it. Take another copy of the archive.", file=path)


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


# ---- files -----------------------------------------------------------------------------------------------------------


def _refuse_inside(source: str, target: str) -> None:
    if (target + "/").startswith(source.rstrip("/") + "/"):
        raise InvalidInput(
            f"target: {target!r} lies inside {source!r}, which is not to be changed. Name another place."
        )


def _check_empty(files: FileSystem, target: str, is_left_over: Callable[[list[str]], bool]) -> None:
    """Raises: `InvalidInput` unless there is nothing at the target, or only what was left there by a run that was cut
    off, `RecoveryFailed`."""
    try:
        at = files.stat(target)
        if at is None:
            return
        inside = files.list_names(target) if at.is_directory else [""]
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=target) from error
    if inside and not (is_left_over(inside) and all(map(_is_of_an_archive, inside))):
        raise InvalidInput(f"target: {target!r} exists and is not an empty directory. Name a new one.")


def _is_of_an_archive(name: str) -> bool:
    return (
        name in (names.FORMAT, names.RESTORING)
        or name.endswith(".tmp")
        or any(parse(name) is not None for parse in (parse_segment_name, parse_sidecar_name, parse_manifest_name))
    )


def _begin(files: FileSystem, target: str, marker: str) -> None:
    """Make the target, or empty it, with a durable sign that it is not finished."""
    make_levels(files, target)
    sync_levels(files, target)
    path = posixpath.join(target, marker)
    if files.stat(path) is None:
        files.open(path, create=True).close()
    files.sync_directory(target)
    for name in files.list_names(target):
        if name != marker:
            files.unlink(posixpath.join(target, name))
    files.sync_directory(target)


def _size_of(files: FileSystem, path: str) -> int:
    found = files.stat(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
    return found.size


def _blocks(files: FileSystem, path: str, size: int) -> Generator[tuple[int, bytes], None, None]:
    """(offset, bytes) of the first `size` bytes of a file, a few MiB at a time. Raises: `OSError`."""
    file = files.open(path, write=False)
    try:
        for start in range(0, size, _BLOCK):
            wanted = min(_BLOCK, size - start)
            block = file.read(start, wanted)
            if len(block) != wanted:
                raise OSError(errno.EIO, f"reading {wanted} bytes at offset {start} gave {len(block)}", path)
            yield start, block
    finally:
        file.close()


def _copy_file(
    files: FileSystem, source: str, target: str, size: int, update: Callable[[bytes], None]
) -> Generator[None, None, None]:
    file: File = files.open(target, create=True)
    try:
        for start, block in _blocks(files, source, size):
            write_all(file, start, block)
            update(block)
            yield
        file.datasync()
    finally:
        file.close()


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
