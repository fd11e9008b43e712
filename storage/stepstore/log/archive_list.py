"""The file ARCHIVE: which files an archive has, with their digests, as JSON for people."""

from __future__ import annotations

import datetime as dt
import json
import posixpath
import uuid
from typing import NamedTuple

from stepstore.errors import CorruptLog, NotFound, RecoveryFailed
from stepstore.log import names
from stepstore.log.directory import Identity
from stepstore.log.files import FileSystem, write_all
from stepstore.log.names import parse_segment_name, parse_sidecar_name

VERSION = 1
_LARGEST_LIST = 64 * 1024 * 1024


class ArchivedFile(NamedTuple):
    """One file as ARCHIVE lists it. `blake2b`: BLAKE2b-256 of all its bytes, hex."""

    name: str
    bytes: int
    blake2b: str


def write_list(
    files: FileSystem, target: str, identity: Identity, end_lsn: int, records: int, listed: list[ArchivedFile]
) -> None:
    """Write the list, under its name last: from then on there is an archive in `target`. Raises: `OSError`."""
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


def read_list(files: FileSystem, source: str) -> tuple[Identity, list[ArchivedFile]]:
    """Which log the archive in `source` is of, and its files.

    Raises: `NotFound` (there is no archive), `RecoveryFailed`, `CorruptLog` (the list is not what was written).
    """
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
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptLog(f"{path!r} is not what was written. Take another copy of the archive.", file=path) from error
    listed_names = {file.name for file in listed}
    if len(listed_names) < len(listed) or not all(map(_can_be_listed, listed_names)):
        raise not_as_listed(path)
    return identity, listed


def _can_be_listed(name: str) -> bool:
    return parse_segment_name(name) is not None or parse_sidecar_name(name) is not None


def not_as_listed(path: str) -> CorruptLog:
    """The error for a file of an archive that is another than the list says."""
    return CorruptLog(f"{path!r} is not as the archive lists it. Take another copy of the archive.", file=path)
