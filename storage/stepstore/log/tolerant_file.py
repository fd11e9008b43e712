"""Read files of which the medium gives back only a part."""

from __future__ import annotations

import errno
import os

from stepstore.log.files import File, FileStat, FileSystem

_PIECE = 4096
MEDIUM_ERRORS = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EILSEQ, errno.ENODATA, errno.EREMOTEIO})
"""Errors that say that bytes are lost, and not merely out of reach."""


class TolerantFile:
    """A `File` for reading that gives zeros where the medium gives an error, and notes where: no checksum holds there,
    so what is lost is found as any other damage. Other errors (too many open files …) are raised."""

    def __init__(self, inner: File, unreadable: dict[int, int] | None = None):
        self._inner = inner
        self.unreadable: dict[int, int] = {} if unreadable is None else unreadable
        """Length of each piece that could not be read, by its offset."""

    def read(self, offset: int, size: int) -> bytes:
        try:
            return self._inner.read(offset, size)
        except OSError as error:
            if error.errno not in MEDIUM_ERRORS:
                raise
        parts: list[bytes] = []
        end = min(offset + size, self._inner.size())
        while offset < end:
            piece = min(_PIECE - offset % _PIECE, end - offset)
            try:
                parts.append(self._inner.read(offset, piece))
            except OSError as error:
                if error.errno not in MEDIUM_ERRORS:
                    raise
                self.unreadable[offset] = max(piece, self.unreadable.get(offset, 0))
                parts.append(bytes(piece))
            offset += piece
        return b"".join(parts)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        raise OSError(errno.EBADF, "opened for reading")

    def datasync(self) -> None:
        raise OSError(errno.EBADF, "opened for reading")

    def truncate(self, size: int) -> None:
        raise OSError(errno.EBADF, "opened for reading")

    def allocate(self, size: int) -> None:
        raise OSError(errno.EBADF, "opened for reading")

    def size(self) -> int:
        return self._inner.size()

    def identity(self) -> tuple[int, int]:
        return self._inner.identity()

    def lock(self) -> bool:
        return False

    def close(self) -> None:
        self._inner.close()


class TolerantFiles:
    """A `FileSystem` for reading, all files of which are tolerant. What could not be read is known for each path,
    however often the file was opened. May be used by several threads."""

    def __init__(self, inner: FileSystem):
        self._inner = inner
        self.needs_thread = inner.needs_thread
        self._unreadable: dict[str, dict[int, int]] = {}

    def unreadable(self) -> list[tuple[str, int, int]]:
        """(path, offset, length) of what could not be read; neighbouring pieces are one."""
        found: list[tuple[str, int, int]] = []
        for path, pieces in sorted(self._unreadable.items()):
            for offset, length in sorted(pieces.items()):
                if found and found[-1][0] == path and found[-1][1] + found[-1][2] >= offset:
                    start = found.pop()[1]
                    found.append((path, start, offset + length - start))
                else:
                    found.append((path, offset, length))
        return found

    def open(self, path: str, *, create: bool = False, write: bool = True) -> TolerantFile:
        if create or write:
            raise _for_reading(path)
        return TolerantFile(self._inner.open(path, write=False), self._unreadable.setdefault(path, {}))

    def stat(self, path: str) -> FileStat | None:
        return self._inner.stat(path)

    def list_names(self, path: str) -> list[str]:
        return self._inner.list_names(path)

    def make_directory(self, path: str) -> None:
        raise _for_reading(path)

    def rename(self, source: str, target: str) -> None:
        raise _for_reading(source)

    def link(self, source: str, target: str) -> None:
        raise _for_reading(source)

    def unlink(self, path: str) -> None:
        raise _for_reading(path)

    def sync_directory(self, path: str) -> None:
        raise _for_reading(path)


def _for_reading(path: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)
