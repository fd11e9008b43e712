"""A file layer in memory that knows the difference between written and durable.

Every file has a volatile image (what a reader sees) and a durable one (what a power cut leaves), and so has every
directory. `unsynced()` lists what a power cut at this moment may lose and `image(kept)` is the disk after one that left
the named parts of it: nothing (`durable_copy()`), or as dice fall (`crash_copy(choose)`). `page_cache_copy()` is the
disk after the death of the process alone: all is seen, and what was not synced can still be lost.
A sync that failed can be told to leave ghosts (`MemoryFile.lose_unsynced`).
No call blocks, so nothing that runs on it needs a thread and time-driven tests stay deterministic.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from stepstore.log.files import FileStat
from stepstore.log.frame import SECTOR

PAGE = 4096

Choose = Callable[[int], int]
"""Given n, pick a number in range(n): the source of all arbitrariness in a simulated crash."""

_Change = tuple[int, bytes] | int
"""A write (offset, data), or a size set."""


class Unsynced(NamedTuple):
    """One thing that a power cut may lose. `number` grows with time and names it; `kind` is "write", "size" or "name".

    `pieces`: how many 512-byte sectors of the medium a write touches, each of which is kept or lost by itself; a size,
    and what has become of a name, are kept or lost as a whole.
    """

    number: int
    kind: str
    path: str
    pieces: int = 1


class _Inode:
    __slots__ = ("clock", "durable", "ghosts", "locked_by", "number", "unsynced", "volatile")

    def __init__(self, number: int, clock: itertools.count[int], content: bytes | bytearray = b""):
        self.number, self.clock = number, clock
        self.volatile = bytearray(content)
        self.durable = bytearray(content)
        self.unsynced: list[tuple[int, _Change]] = []  # in order, numbered by the clock of the disk
        self.ghosts: set[int] = set()  # pages in the cache whose blocks count as never written
        self.locked_by: MemoryFile | None = None


def _pieces(offset: int, size: int) -> int:
    return (offset + size - 1) // SECTOR - offset // SECTOR + 1 if size else 1


def _keep(image: bytearray, change: _Change, mask: int) -> None:
    """Apply the pieces of a change whose bits are set in `mask`."""
    if isinstance(change, int) or mask == (1 << _pieces(change[0], len(change[1]))) - 1:
        if mask:
            _apply(image, change)
        return
    offset, data = change
    at = offset
    while mask and at < offset + len(data):
        end = min((at // SECTOR + 1) * SECTOR, offset + len(data))
        if mask & 1:
            _apply(image, (at, data[at - offset : end - offset]))
        at, mask = end, mask >> 1


def _pages_of(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a write, one for each page that it touches."""
    at = offset
    while at < offset + len(data):
        end = min((at // PAGE + 1) * PAGE, offset + len(data))
        yield at, data[at - offset : end - offset]
        at = end


def _apply(image: bytearray, change: _Change) -> None:
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


@functools.lru_cache
def _normal(path: str) -> str:
    """One spelling for each path. POSIX leaves two leading slashes to the system; on Linux they mean one."""
    normal = posixpath.normpath(path)
    return normal[1:] if normal.startswith("//") else normal


@functools.lru_cache
def _split(path: str) -> tuple[str, str]:
    return posixpath.split(_normal(path))


def _below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory != "/" else f"/{name}"


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

    def _change(self, change: _Change) -> None:
        self._check_open()
        if not self._write:
            raise _error(errno.EBADF, self._path)
        self._inode.unsynced.append((next(self._inode.clock), change))
        _apply(self._inode.volatile, change)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        self._change((offset, bytes(data)))
        return len(data)

    def datasync(self) -> None:
        self._check_open()
        inode = self._inode
        for _number, change in inode.unsynced:
            if inode.ghosts and not isinstance(change, int):
                for part in _pages_of(*change):
                    if part[0] // PAGE not in inode.ghosts:
                        _apply(inode.durable, part)
            else:
                _apply(inode.durable, change)
        inode.unsynced.clear()

    def lose_unsynced(self) -> None:
        """What a failed fdatasync may leave: the unsynced bytes are still read, count as clean, and are not on the
        medium; no later sync puts them there. Where nothing had ever been written, no later write does either, until
        the page was dropped from the cache (ext4, whose extent there stays marked as never written)."""
        inode = self._inode
        for _number, change in inode.unsynced:
            if not isinstance(change, int):
                for at, _data in _pages_of(*change):
                    page = at // PAGE * PAGE
                    if not any(inode.durable[page : page + PAGE]):
                        inode.ghosts.add(at // PAGE)
        inode.unsynced.clear()

    def will_not_need(self, offset: int, size: int) -> None:
        """Have the range dropped from the cache (0, 0: all), as far as it is clean; whole pages only."""
        self._check_open()
        inode = self._inode
        end = offset + size if size else max(len(inode.volatile), len(inode.durable)) + PAGE
        dirty = {
            at // PAGE
            for _number, change in inode.unsynced
            if not isinstance(change, int)
            for at, _data in _pages_of(*change)
        }
        for page in range(-(-offset // PAGE), end // PAGE):
            if page not in dirty:
                at, upto = page * PAGE, min((page + 1) * PAGE, len(inode.volatile))
                inode.volatile[at:upto] = bytes(inode.durable[at:upto]).ljust(max(upto - at, 0), b"\0")
                inode.ghosts.discard(page)

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
        self._clock = itertools.count(1)
        self._volatile: dict[str, dict[str, _Inode | None]] = {"/": {}}  # a directory's names; None is a directory
        self._durable: dict[str, dict[str, _Inode | None]] = {"/": {}}
        self._named: dict[str, int] = {}  # when the file behind a path last became another one

    def _directory(self, path: str) -> dict[str, _Inode | None]:
        if path in self._volatile:
            return self._volatile[path]
        path = _normal(path)
        if path in self._volatile:
            return self._volatile[path]
        above, name = posixpath.split(path)
        is_file = above.startswith("/") and name in self._directory(above)
        raise _error(errno.ENOTDIR if is_file else errno.ENOENT, path)

    def _find(self, path: str) -> tuple[dict[str, _Inode | None], str]:
        parent, name = _split(path)
        return self._directory(parent), name

    def _new_inode(self, content: bytes | bytearray = b"") -> _Inode:
        self._inodes += 1
        return _Inode(self._inodes, self._clock, content)

    def _note_name(self, path: str) -> None:
        self._named[_normal(path)] = next(self._clock)

    def open(self, path: str, *, create: bool = False, write: bool = True) -> MemoryFile:
        names, name = self._find(path)
        if create:
            if name in names:
                raise _error(errno.EEXIST, path)
            names[name] = self._new_inode()
            self._note_name(path)
        elif name not in names:
            raise _error(errno.ENOENT, path)
        inode = names[name]
        if inode is None:
            raise _error(errno.EISDIR, path)
        return MemoryFile(inode, path, write=write)

    def stat(self, path: str) -> FileStat | None:
        directory = self._volatile.get(_normal(path))
        if directory is not None:
            return FileStat(True, 0, (1, id(directory)))
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
        self._volatile[_normal(path)] = {}
        self._durable[_normal(path)] = {}
        self._note_name(path)

    def rename(self, source: str, target: str) -> None:
        names, name = self._find(source)
        to_names, to_name = self._find(target)
        if name not in names:
            raise _error(errno.ENOENT, source)
        if to_name in to_names:
            raise _error(errno.EEXIST, target)
        to_names[to_name] = names.pop(name)
        self._note_name(source)
        self._note_name(target)

    def link(self, source: str, target: str) -> None:
        names, name = self._find(source)
        to_names, to_name = self._find(target)
        if names.get(name) is None:
            raise _error(errno.ENOENT, source)
        if to_name in to_names:
            raise _error(errno.EEXIST, target)
        to_names[to_name] = names[name]
        self._note_name(target)

    def unlink(self, path: str) -> None:
        names, name = self._find(path)
        if names.get(name) is None:
            raise _error(errno.ENOENT, path)
        del names[name]
        self._note_name(path)

    def sync_directory(self, path: str) -> None:
        self._durable[_normal(path)] = dict(self._directory(path))

    # ---- what a power cut, or the death of the process, leaves -------------------------------------------------------

    def unsynced(self) -> list[Unsynced]:
        """What a power cut now may lose, oldest first."""
        found: list[Unsynced] = []
        inodes: dict[int, tuple[str, _Inode]] = {}
        for tree in (self._volatile, self._durable):
            for directory, names in tree.items():
                for name, inode in names.items():
                    if inode is not None:
                        inodes.setdefault(inode.number, (_below(directory, name), inode))
        for directory, current in self._volatile.items():
            durable = self._durable[directory]
            for name in current.keys() | durable.keys():
                if durable.get(name, self) is not current.get(name, self):
                    path = _below(directory, name)
                    found.append(Unsynced(self._named[path], "name", path))
        for path, inode in inodes.values():
            for number, change in inode.unsynced:
                if isinstance(change, int):
                    found.append(Unsynced(number, "size", path))
                else:
                    found.append(Unsynced(number, "write", path, _pieces(change[0], len(change[1]))))
        return sorted(found)

    def image(self, kept: Mapping[int, int]) -> MemoryFileSystem:
        """The disk after a power cut now that left of each thing in `unsynced()`, by its number, the pieces whose bits
        are set in `kept`: any subset of the writes, torn at any sector, of the sizes, and of the names."""
        copy = MemoryFileSystem()
        copied: dict[int, _Inode] = {}

        def content_left(inode: _Inode) -> bytearray:
            image = bytearray(inode.durable)
            for number, change in inode.unsynced:
                _keep(image, change, kept.get(number, 0))
            return image

        def copy_directory(path: str) -> None:
            durable, current = self._durable[path], self._volatile[path]
            target: dict[str, _Inode | None] = {}
            for name in sorted(durable.keys() | current.keys()):
                full = _below(path, name)
                left = durable
                if durable.get(name, self) is not current.get(name, self) and kept.get(self._named[full]):
                    left = current
                if name not in left:
                    continue
                inode = left[name]
                if inode is None:
                    target[name] = None
                    copy_directory(full)
                    continue
                if inode.number not in copied:
                    copied[inode.number] = copy._new_inode(content_left(inode))
                target[name] = copied[inode.number]
            copy._volatile[path] = target
            copy._durable[path] = dict(target)

        copy_directory("/")
        return copy

    def durable_copy(self) -> MemoryFileSystem:
        """The disk after a power cut now, if everything that was not synced is lost."""
        return self.image({})

    def crash_copy(self, choose: Choose) -> MemoryFileSystem:
        """A disk that a power cut now may leave: `choose` decides of each unsynced write whether it is lost, kept or
        torn, and then of each piece; and of each size and each name whether it is lost or kept."""
        kept: dict[int, int] = {}
        for item in self.unsynced():
            fate = choose(3 if item.kind == "write" else 2)
            whole = (1 << item.pieces) - 1
            kept[item.number] = sum(choose(2) << piece for piece in range(item.pieces)) if fate == 2 else whole * fate
        return self.image(kept)

    def page_cache_copy(self) -> MemoryFileSystem:
        """The disk after the death of the process now: everything written is seen and nothing is locked, but what was
        not synced is still not on the medium."""
        copy = MemoryFileSystem()
        copy._clock = itertools.count(next(self._clock))
        copied: dict[_Inode, _Inode] = {}

        def copy_of(inode: _Inode) -> _Inode:
            if inode not in copied:
                twin = copied[inode] = copy._new_inode(inode.volatile)
                twin.durable, twin.ghosts = bytearray(inode.durable), set(inode.ghosts)
                twin.unsynced = list(inode.unsynced)
            return copied[inode]

        for ours, theirs in ((self._volatile, copy._volatile), (self._durable, copy._durable)):
            for path, names in ours.items():
                theirs[path] = {name: inode and copy_of(inode) for name, inode in names.items()}
        copy._named = dict(self._named)
        return copy
