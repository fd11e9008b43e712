"""A file layer in memory that knows the difference between written and durable.

Every file has a volatile image (what a reader sees) and a durable one (what a power cut leaves), and so has every
directory. `durable_copy()` is the disk after a power cut at this moment that lost everything not synced;
`crash_copy(choose)` keeps any part of the unsynced writes, cut at sector boundaries, and of the unsynced names.
No call blocks, so nothing that runs on it needs a thread and time-driven tests stay deterministic.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable

from stepstore.log.files import FileStat
from stepstore.log.frame import SECTOR

Choose = Callable[[int], int]
"""Given n, pick a number in range(n): the source of all arbitrariness in a simulated crash."""


class _Inode:
    __slots__ = ("durable", "locked_by", "number", "unsynced", "volatile")

    def __init__(self, number: int, content: bytes = b""):
        self.number = number
        self.volatile = bytearray(content)
        self.durable = bytearray(content)
        self.unsynced: list[tuple[int, bytes] | int] = []  # writes (offset, data) and sizes set, in order
        self.locked_by: MemoryFile | None = None


def _apply(image: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        if change < len(image):
            del image[change:]
        else:
            image.extend(bytes(change - len(image)))
        return
    offset, data = change
    if offset > len(image):
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


class MemoryFile:
    """An open file of a `MemoryFileSystem`."""

    def __init__(self, inode: _Inode, path: str, *, write: bool):
        self._inode, self._path, self._write = inode, path, write
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise _error(errno.EBADF, self._path)

    def read(self, offset: int, size: int) -> bytes:
        self._check_open()
        return bytes(self._inode.volatile[offset : offset + size])

    def _change(self, change: tuple[int, bytes] | int) -> None:
        self._check_open()
        if not self._write:
            raise _error(errno.EBADF, self._path)
        self._inode.unsynced.append(change)
        _apply(self._inode.volatile, change)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        self._change((offset, bytes(data)))
        return len(data)

    def datasync(self) -> None:
        self._check_open()
        for change in self._inode.unsynced:
            _apply(self._inode.durable, change)
        self._inode.unsynced.clear()

    def truncate(self, size: int) -> None:
        self._change(size)

    def allocate(self, size: int) -> None:
        if size > len(self._inode.volatile):
            self._change(size)

    def size(self) -> int:
        self._check_open()
        return len(self._inode.volatile)

    def identity(self) -> tuple[int, int]:
        self._check_open()
        return 0, self._inode.number

    def lock(self) -> bool:
        self._check_open()
        if self._inode.locked_by not in (None, self):
            return False
        self._inode.locked_by = self
        return True

    def close(self) -> None:
        self._closed = True
        if self._inode.locked_by is self:
            self._inode.locked_by = None


class MemoryFileSystem:
    """Files and directories in memory; the root is `/`. See the module for what a crash leaves."""

    needs_thread = False

    def __init__(self) -> None:
        self._inodes = 0
        self._volatile: dict[str, dict[str, _Inode | None]] = {"/": {}}  # a directory's names; None is a directory
        self._durable: dict[str, dict[str, _Inode | None]] = {"/": {}}

    def _directory(self, path: str) -> dict[str, _Inode | None]:
        path = posixpath.normpath(path)
        if path in self._volatile:
            return self._volatile[path]
        above, name = posixpath.split(path)
        is_file = above.startswith("/") and name in self._directory(above)
        raise _error(errno.ENOTDIR if is_file else errno.ENOENT, path)

    def _find(self, path: str) -> tuple[dict[str, _Inode | None], str]:
        parent, name = posixpath.split(posixpath.normpath(path))
        return self._directory(parent), name

    def _new_inode(self, content: bytes = b"") -> _Inode:
        self._inodes += 1
        return _Inode(self._inodes, content)

    def open(self, path: str, *, create: bool = False, write: bool = True) -> MemoryFile:
        names, name = self._find(path)
        if create:
            if name in names:
                raise _error(errno.EEXIST, path)
            names[name] = self._new_inode()
        elif name not in names:
            raise _error(errno.ENOENT, path)
        inode = names[name]
        if inode is None:
            raise _error(errno.EISDIR, path)
        return MemoryFile(inode, path, write=write)

    def stat(self, path: str) -> FileStat | None:
        if posixpath.normpath(path) in self._volatile:
            return FileStat(True, 0, (0, -1))
        try:
            names, name = self._find(path)
        except FileNotFoundError:
            return None
        inode = names.get(name)
        return None if inode is None else FileStat(False, len(inode.volatile), (0, inode.number))

    def list_names(self, path: str) -> list[str]:
        return sorted(self._directory(path))

    def make_directory(self, path: str) -> None:
        names, name = self._find(path)
        if name in names:
            raise _error(errno.EEXIST, path)
        names[name] = None
        self._volatile[posixpath.normpath(path)] = {}
        self._durable[posixpath.normpath(path)] = {}

    def rename(self, source: str, target: str) -> None:
        names, name = self._find(source)
        to_names, to_name = self._find(target)
        if name not in names:
            raise _error(errno.ENOENT, source)
        if to_name in to_names:
            raise _error(errno.EEXIST, target)
        to_names[to_name] = names.pop(name)

    def link(self, source: str, target: str) -> None:
        names, name = self._find(source)
        to_names, to_name = self._find(target)
        if names.get(name) is None:
            raise _error(errno.ENOENT, source)
        if to_name in to_names:
            raise _error(errno.EEXIST, target)
        to_names[to_name] = names[name]

    def unlink(self, path: str) -> None:
        names, name = self._find(path)
        if names.get(name) is None:
            raise _error(errno.ENOENT, path)
        del names[name]

    def sync_directory(self, path: str) -> None:
        self._durable[posixpath.normpath(path)] = dict(self._directory(path))

    # ---- what a power cut leaves -------------------------------------------------------------------------------------

    def durable_copy(self) -> MemoryFileSystem:
        """The disk after a power cut now, if everything that was not synced is lost."""
        return self._copy(lambda names, _current: names, lambda inode: bytes(inode.durable))

    def crash_copy(self, choose: Choose) -> MemoryFileSystem:
        """A disk that a power cut now may leave: `choose` decides which unsynced writes and names made it.

        Unsynced writes of a file may survive in any subset and torn at any sector; a size set may survive or not; a
        name created, removed or renamed since the directory was synced may be there or not.
        """

        def names_left(
            durable: dict[str, _Inode | None], current: dict[str, _Inode | None]
        ) -> dict[str, _Inode | None]:
            left = dict(durable)
            for name in sorted(durable.keys() | current.keys()):
                if durable.get(name, self) is current.get(name, self) or not choose(2):
                    continue
                if name in current:
                    left[name] = current[name]
                else:
                    del left[name]
            return left

        def content_left(inode: _Inode) -> bytes:
            image = bytearray(inode.durable)
            for change in inode.unsynced:
                if isinstance(change, int):
                    if choose(2):
                        _apply(image, change)
                    continue
                offset, data = change
                fate = choose(3)
                if fate == 1:
                    _apply(image, change)
                elif fate == 2:
                    at = offset
                    while at < offset + len(data):
                        end = min((at // SECTOR + 1) * SECTOR, offset + len(data))
                        if choose(2):
                            _apply(image, (at, data[at - offset : end - offset]))
                        at = end
            return bytes(image)

        return self._copy(names_left, content_left)

    def _copy(
        self,
        names_left: Callable[[dict[str, _Inode | None], dict[str, _Inode | None]], dict[str, _Inode | None]],
        content_left: Callable[[_Inode], bytes],
    ) -> MemoryFileSystem:
        copy = MemoryFileSystem()
        copied: dict[int, _Inode] = {}

        def copy_directory(path: str) -> None:
            current = self._volatile.get(path, {})
            target: dict[str, _Inode | None] = {}
            for name, inode in names_left(self._durable.get(path, {}), current).items():
                if inode is None:
                    target[name] = None
                    copy_directory(posixpath.join(path, name))
                    continue
                if inode.number not in copied:
                    copied[inode.number] = copy._new_inode(content_left(inode))
                target[name] = copied[inode.number]
            copy._volatile[path] = target
            copy._durable[path] = dict(target)

        copy_directory("/")
        return copy
