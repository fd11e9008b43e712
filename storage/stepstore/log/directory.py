"""The directory of a log: whose it is (FORMAT), who may write to it (LOCK), and how it comes into being.

First open, in the order that leaves a crash at any point repeatable: look → make each missing level and sync its
parent → LOCK → FORMAT.tmp, sync, rename, sync the directory → first segment. Nothing is created before the look. LOCK
stays empty until FORMAT is durable, so that a directory with an empty LOCK and *.tmp files is a first open that a
crash interrupted, and any other directory without FORMAT is somebody else's.
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import posixpath
import re
import socket
import uuid
from typing import NamedTuple

from stepstore.errors import CorruptLog, Fenced, InvalidInput, LogLocked, NotFound, RecoveryFailed
from stepstore.log import names
from stepstore.log.files import File, FileSystem, write_all

_FORMAT_LINE = re.compile(
    r"stepwell log v(\d+) ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\n"
)
FORMAT_VERSION = 1


class Identity(NamedTuple):
    """Which log this is: `log_uuid` for life, `branch_uuid` renewed when a copy is restored beside the original."""

    log_uuid: uuid.UUID
    branch_uuid: uuid.UUID


class LogLock:
    """The held LOCK of a log directory. The lock is `flock` alone; what stands in the file is for people."""

    def __init__(self, files: FileSystem, path: str, file: File):
        self._files, self._path, self._file = files, path, file

    def check(self) -> None:
        """Raises: `Fenced` if the name LOCK no longer is the file that we hold."""
        found = self._files.stat(self._path)
        if found is None or found.identity != self._file.identity():
            raise Fenced(
                f"{self._path!r} was replaced or removed while this process held it, so another process may be writing "
                "to the log. This one has stopped; close the memory and open it again."
            )

    def describe(self) -> None:
        """Write down who holds the lock."""
        text = json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "boot_id": _boot_id(),
                "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            }
        )
        try:
            self._file.truncate(0)
            write_all(self._file, 0, text.encode() + b"\n")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise  # on a full disk the log opens all the same; the lock is held without a word of ours

    def release(self) -> None:
        """Let somebody else open the log."""
        self._file.close()


def _boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def look(files: FileSystem, path: str) -> Identity | None:
    """What is at `path`: a log's identity, or None where a new log may be made. Creates nothing.

    Raises: `InvalidInput` (not a directory, or one of something else), `CorruptLog` (row 15), `RecoveryFailed`.
    """
    try:
        found = files.stat(path)
        if found is None:
            return None
        if not found.is_directory:
            raise InvalidInput(f"path: {path!r} is a file; a memory is a directory. Name another place.")
        inside = files.list_names(path)
        if names.FORMAT in inside:
            return _read_format(files, path)
        segments = [name for name in inside if names.parse_segment_name(name)]
        if segments:
            raise CorruptLog(
                f"{path!r} holds {len(segments)} segments but no FORMAT file (row 15): it is half of a log. Restore "
                "FORMAT from a backup; nothing was created or changed.",
                file=posixpath.join(path, names.FORMAT),
                row=15,
            )
        others = [name for name in inside if name != names.LOCK and not name.endswith(".tmp")]
        lock = files.stat(posixpath.join(path, names.LOCK))
        if lock is not None and lock.size:
            others.insert(0, names.LOCK)
        if others:
            raise InvalidInput(
                f"path: {path!r} is a directory of something else (it holds {', '.join(others[:3])}"
                f"{' …' if len(others) > 3 else ''}). Name an empty or a new directory; nothing was created."
            )
    except NotADirectoryError as error:
        raise InvalidInput(f"path: a part of {path!r} is a file, not a directory. Name another place.") from error
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=path) from error
    return None


def _read_format(files: FileSystem, path: str) -> Identity:
    full = posixpath.join(path, names.FORMAT)
    file = files.open(full, write=False)
    try:
        data = file.read(0, 4096)
        if len(data) < min(4096, file.size()):
            raise OSError(errno.EIO, f"a read ended after {len(data)} bytes although the file is longer", full)
        text = data.decode("ascii", "replace")
    finally:
        file.close()
    match = _FORMAT_LINE.fullmatch(text)
    if match is None:
        raise CorruptLog(
            f"{full!r} is not the line a log begins with (row 15). Restore it from a backup; nothing was changed.",
            file=full,
            row=15,
        )
    if int(match[1]) != FORMAT_VERSION:
        raise RecoveryFailed(
            f"{path!r} is a Stepwell log of version {match[1]}; this Stepwell reads version {FORMAT_VERSION}. Nothing "
            "was changed; open it with a newer Stepwell.",
            file=full,
        )
    return Identity(uuid.UUID(match[2]), uuid.UUID(match[3]))


def must_exist(files: FileSystem, path: str) -> Identity:
    """The identity of the log at `path`, for openings that create nothing.

    Raises: `NotFound` if there is none, and all that `look` raises.
    """
    identity = look(files, path)
    if identity is None:
        raise NotFound(f"there is no Stepwell memory in {path!r}; open it for writing once to create one")
    return identity


def prepare(files: FileSystem, path: str) -> tuple[Identity, LogLock]:
    """Lock the log directory at `path`, making it a log if it is none yet.

    Raises: `LogLocked`, and all that `look` raises.
    """
    _refuse_archive(files, path)
    look(files, path)
    try:
        make_levels(files, path)
        lock = _take_lock(files, path)
    except OSError as error:
        raise RecoveryFailed.from_os_error("open for writing", error, file=path) from error
    try:
        identity = look(files, path)  # again, under the lock: another process may have made the log meanwhile
        if identity is None:
            sync_levels(files, path)
            identity = Identity(uuid.uuid4(), uuid.uuid4())
            write_format(files, path, identity)
        else:
            # Another opening may have failed between giving a name and making it durable. What is built or removed on
            # the word of a name (FORMAT, a segment, a MANIFEST) must not outlive that name.
            files.sync_directory(path)
        lock.describe()
    except OSError as error:
        lock.release()
        raise RecoveryFailed.from_os_error("open for writing", error, file=path) from error
    except BaseException:
        lock.release()
        raise
    return identity, lock


def _refuse_archive(files: FileSystem, path: str) -> None:
    try:
        is_archive = files.stat(posixpath.join(path, names.ARCHIVE)) is not None
    except NotADirectoryError:
        return  # `look` says what it is
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=path) from error
    if is_archive:
        raise InvalidInput(
            f"path: {path!r} is an archive, and stays as it is. Restore it into another directory to go on with it; it "
            "can be read with read_only=True."
        )


def make_levels(files: FileSystem, path: str) -> None:
    """Make a directory and what is missing above it. They are there after a power cut once `sync_levels` is done."""
    missing: list[str] = []
    level = path
    while files.stat(level) is None:
        missing.append(level)
        level = posixpath.dirname(level)
    for level in reversed(missing):
        files.make_directory(level)


def sync_levels(files: FileSystem, path: str) -> None:
    """Make the names of all levels durable: an earlier opening may have made some and failed before it synced them."""
    level = path
    while level != posixpath.dirname(level):
        level = posixpath.dirname(level)
        try:
            files.sync_directory(level)
        except OSError as error:
            # A level that we may not read was not made by us; and some file systems cannot sync a directory of theirs.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL):
                raise


def _take_lock(files: FileSystem, path: str) -> LogLock:
    full = posixpath.join(path, names.LOCK)
    try:
        file = files.open(full, create=True)
    except FileExistsError:
        file = files.open(full)
    try:
        if not file.lock():
            raise _locked(path, file.read(0, 4096))
        lock = LogLock(files, full, file)
        try:
            lock.check()
        except Fenced as error:  # the file was replaced between open and flock
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), full) from error
    except BaseException:
        file.close()
        raise
    return lock


def _locked(path: str, content: bytes) -> LogLocked:
    try:
        known = json.loads(content)
    except (ValueError, RecursionError):
        known = {}
    if not isinstance(known, dict):
        known = {}
    pid, host, since = known.get("pid"), known.get("host"), known.get("since")
    who = f"process {pid} on {host} since {since}" if pid else "another process"
    return LogLocked(
        f"the memory in {path!r} is open for writing in {who}. Close it there, or open with read_only=True.",
        pid=pid,
        host=host,
        since=since,
    )


def write_format(files: FileSystem, path: str, identity: Identity) -> None:
    """Make a directory this log: from the return on, it is one. Raises: `OSError`."""
    temporary = posixpath.join(path, names.FORMAT_TEMPORARY)
    if files.stat(temporary) is not None:
        files.unlink(temporary)
    file = files.open(temporary, create=True)
    try:
        line = f"stepwell log v{FORMAT_VERSION} {identity.log_uuid} {identity.branch_uuid}\n"
        write_all(file, 0, line.encode())
        file.datasync()
    finally:
        file.close()
    files.rename(temporary, posixpath.join(path, names.FORMAT))
    files.sync_directory(path)
