"""A file layer around the one in memory that shows a hook every call before it is made.

The hook may raise, which is the call failing, or give a number of bytes, which makes a read or a write a short one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import NamedTuple

from stepstore.log.files import FileStat
from stepstore.log.memory_files import MemoryFile, MemoryFileSystem

CHANGING = frozenset(
    {
        "create",
        "write",
        "truncate",
        "allocate",
        "make_directory",
        "rename",
        "link",
        "unlink",
        "datasync",
        "sync_directory",
    }
)
"""Calls after which a power cut may leave something else than before."""


class Call(NamedTuple):
    """One call of the file layer. `file` is set for calls on an open file."""

    operation: str
    path: str
    offset: int = 0
    size: int = 0
    data: bytes | bytearray | memoryview = b""
    file: MemoryFile | None = None

    def __str__(self) -> str:
        return f"{self.operation} {posixpath.basename(self.path)}"


Before = Callable[[Call], int | None]


class Stopped(BaseException):
    """The process died at this call: not an `Exception`, so that nobody survives it by accident."""


class WatchedFiles:
    """A `FileSystem` on `disk`. `changes` counts the calls that changed what a power cut would leave."""

    needs_thread = False

    def __init__(self, disk: MemoryFileSystem, before: Before):
        self.disk, self.before = disk, before
        self.changes = 0
        self._open_files: list[WatchedFile] = []

    def note(self, call: Call) -> int | None:
        """Show the hook a call that is about to be made."""
        limit = self.before(call)
        if call.operation in CHANGING:
            self.changes += 1
        return limit

    def open(self, path: str, *, create: bool = False, write: bool = True) -> WatchedFile:
        self.note(Call("create" if create else "open", path))
        file = WatchedFile(self, path, self.disk.open(path, create=create, write=write))
        self._open_files.append(file)
        return file

    def forget(self, file: WatchedFile) -> None:
        """Take note that an open file was closed."""
        self._open_files = [other for other in self._open_files if other is not file]

    def stat(self, path: str) -> FileStat | None:
        self.note(Call("stat", path))
        return self.disk.stat(path)

    def list_names(self, path: str) -> list[str]:
        self.note(Call("list_names", path))
        return self.disk.list_names(path)

    def make_directory(self, path: str) -> None:
        self.note(Call("make_directory", path))
        self.disk.make_directory(path)

    def rename(self, source: str, target: str) -> None:
        self.note(Call("rename", target))
        self.disk.rename(source, target)
        for file in self._open_files:
            if file.path == source:
                file.path = target  # a segment is made as spare.tmp; what is written to it later is shown as its own

    def link(self, source: str, target: str) -> None:
        self.note(Call("link", target))
        self.disk.link(source, target)

    def unlink(self, path: str) -> None:
        self.note(Call("unlink", path))
        self.disk.unlink(path)

    def sync_directory(self, path: str) -> None:
        self.note(Call("sync_directory", path))
        self.disk.sync_directory(path)


class WatchedFile:
    """A `File` of `WatchedFiles`."""

    def __init__(self, files: WatchedFiles, path: str, inner: MemoryFile):
        self._files, self.path, self.inner = files, path, inner

    def _note(
        self, operation: str, offset: int = 0, size: int = 0, data: bytes | bytearray | memoryview = b""
    ) -> int | None:
        return self._files.note(Call(operation, self.path, offset, size, data, self.inner))

    def read(self, offset: int, size: int) -> bytes:
        limit = self._note("read", offset, size)
        return self.inner.read(offset, size if limit is None else limit)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        limit = self._note("write", offset, len(data), data)
        return self.inner.write(offset, data if limit is None else memoryview(data)[:limit])

    def datasync(self) -> None:
        self._note("datasync")
        self.inner.datasync()

    def truncate(self, size: int) -> None:
        self._note("truncate", size=size)
        self.inner.truncate(size)

    def allocate(self, size: int) -> None:
        self._note("allocate", size=size)
        self.inner.allocate(size)

    def will_not_need(self, offset: int, size: int) -> None:
        self.inner.will_not_need(offset, size)  # a hint, whose failure is nobody's concern

    def size(self) -> int:
        self._note("size")
        return self.inner.size()

    def identity(self) -> tuple[int, int]:
        self._note("identity")
        return self.inner.identity()

    def lock(self) -> bool:
        self._note("lock")
        return self.inner.lock()

    def close(self) -> None:
        self._files.forget(self)
        self.inner.close()
