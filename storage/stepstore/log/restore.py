"""Make a log of an archive again. All calls block.

A restored log has a branch uuid of its own; the MANIFEST says which branch each file is from. It gets its FORMAT last,
and until then has a file RESTORING, so a restore that was cut off is no log, and is begun anew by restoring again.
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
import time
import uuid
from collections.abc import Sequence

from stepstore.errors import CorruptLog
from stepstore.log import names
from stepstore.log.archive_list import ArchivedFile, not_as_listed, read_list
from stepstore.log.archive_report import ArchiveReport, OnProgress
from stepstore.log.archive_target import begin, check_empty, refuse_inside
from stepstore.log.copying import blocks, copy_file
from stepstore.log.directory import Identity, must_exist, write_format
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.listing import list_log
from stepstore.log.manifest import Manifest, name_manifest, prepare_manifest
from stepstore.log.names import parse_segment_name


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
    identity, listed = read_list(files, source)
    refuse_inside(files, source, target)
    _check_target(files, target)
    manifest, records = _checked(files, source, identity, listed)
    # That has read all of the archive: somebody else may have come meanwhile, and `begin` empties the target.
    _check_target(files, target)
    restored = Identity(identity.log_uuid, uuid.uuid4())
    begin(files, target, names.RESTORING)
    done, total = 0, sum(file.bytes for file in listed)
    for file in listed:
        where = posixpath.join(target, file.name)
        original, copy = hashlib.blake2b(digest_size=32), hashlib.blake2b(digest_size=32)
        for _ in copy_file(files, posixpath.join(source, file.name), where, file.bytes, original.update):
            pass
        for _start, block in blocks(files, where, file.bytes):
            copy.update(block)
        if original.hexdigest() != file.blake2b:
            raise not_as_listed(posixpath.join(source, file.name))
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


def _check_target(files: FileSystem, target: str) -> None:
    check_empty(files, target, lambda inside: names.RESTORING in inside and names.FORMAT not in inside)


def _checked(
    files: FileSystem, source: str, identity: Identity, listed: Sequence[ArchivedFile]
) -> tuple[Manifest | None, int]:
    """The manifest of an archive, whose every byte was looked at, and how many records it holds."""
    for file in listed:
        found = files.stat(posixpath.join(source, file.name))
        if found is None or found.size != file.bytes:
            raise not_as_listed(posixpath.join(source, file.name))
    if must_exist(files, source) != identity:
        raise not_as_listed(posixpath.join(source, names.FORMAT))
    from stepstore.log.verify import verify_log  # not at the top: whoever only logs does without it

    report = verify_log(source, digests=True, files=files)
    if report.problems:
        raise CorruptLog(f"the archive in {source!r} is damaged: {report.problems[0]}", file=report.problems[0].file)
    listing = list_log(files, source, identity)
    there = {str(name) for name in listing.listed}
    if listing.names and there != {file.name for file in listed if parse_segment_name(file.name)}:
        raise not_as_listed(posixpath.join(source, names.ARCHIVE))
    return listing.manifest, report.records
