"""The file layer under the log: the few calls it makes of an operating system, as a protocol, and the real one.

Everything below `stepstore.log` reaches the medium through a `FileSystem`, so that crashes, full disks and I/O errors
can be simulated at every call (`memory_files`, and the fault layers of the tests).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import NamedTuple, Protocol


class FileStat(NamedTuple):
    """What `FileSystem.stat` tells of a path. `identity` is the same for two names of one file only."""

    is_directory: bool
    size: int
    identity: tuple[int, int]


class File(Protocol):
    """An open file. Every call raises `OSError` as the operating system would."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write at `offset`, return how many bytes were taken: one `pwrite`, which may be short."""
        ...

    def datasync(self) -> None:
        """Return once the bytes written so far, and the size, are on the medium."""

    def truncate(self, size: int) -> None:
        """Set the size."""

    def allocate(self, size: int) -> None:
        """Set space aside up to `size`, as zeros. Raises `OSError` where there is no room."""

    def size(self) -> int:
        """The current size in bytes."""
        ...

    def identity(self) -> tuple[int, int]:
        """What `FileSystem.stat` reports for a name of this very file."""
        ...

    def lock(self) -> bool:
        """Take the exclusive advisory lock of this file without waiting; False if somebody else holds it."""
        ...

    def close(self) -> None:
        """Give the file back. A lock held through it is released."""


class FileSystem(Protocol):
    """The calls on names. Paths are text; directories are never opened except to sync them."""

    needs_thread: bool
    """Whether a call can block, so that the writer makes it in a worker thread."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        """Open an existing file, or create one that must not exist yet (`create`)."""
        ...

    def stat(self, path: str) -> FileStat | None:
        """What is at `path`, None if nothing is."""
        ...

    def list_names(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        ...

    def make_directory(self, path: str) -> None:
        """Create one directory, readable by its owner only."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, which must not exist yet."""

    def link(self, source: str, target: str) -> None:
        """Give a file one more name, which must not exist yet. Raises `OSError` also where there are no such links."""

    def unlink(self, path: str) -> None:
        """Remove a name."""

    def sync_directory(self, path: str) -> None:
        """Return once the names in the directory are on the medium."""


def write_all(file: File, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`: a short write without an error is continued, an error is raised."""
    view = memoryview(data)
    while view:
        taken = file.write(offset, view)
        if taken <= 0:
            raise OSError(errno.EIO, "a write took no bytes and gave no error")
        offset += taken
        view = view[taken:]


class OsFile:
    """A `File` of the operating system."""

    def __init__(self, path: str, flags: int, mode: int = 0o600):
        # Not blocking, for a pipe's sake: to open one would be to wait for somebody at its other end.
        self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, mode)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise OSError(errno.EINVAL, "is not a regular file", path)

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:  # a read may be short anywhere; it ends with the file only where it gives nothing
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        return os.pwrite(self._descriptor, data, offset)

    def datasync(self) -> None:
        os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def allocate(self, size: int) -> None:
        os.posix_fallocate(self._descriptor, 0, size)

    def will_need(self, offset: int, size: int) -> None:
        """Have the range fetched into the page cache without waiting for it."""
        os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def will_not_need(self, offset: int, size: int) -> None:
        """Have the range dropped from the page cache, as far as it is on the medium."""
        os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_DONTNEED)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def identity(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_dev, found.st_ino

    def lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class OsFileSystem:
    """The `FileSystem` of the operating system."""

    needs_thread = True

    def open(self, path: str, *, create: bool = False, write: bool = True) -> OsFile:
        flags = os.O_RDWR if write else os.O_RDONLY
        return OsFile(path, flags | (os.O_CREAT | os.O_EXCL if create else 0))

    def stat(self, path: str) -> FileStat | None:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return FileStat(stat.S_ISDIR(found.st_mode), found.st_size, (found.st_dev, found.st_ino))

    def list_names(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directory(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def rename(self, source: str, target: str) -> None:
        # link and unlink would refuse an existing target by itself, but not every file system has hard links; the
        # directory is locked by us, so nobody else creates the target in between.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
