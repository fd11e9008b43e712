"""Read a file of which the medium gives back only a part."""

from __future__ import annotations

import errno

from stepstore.log.files import File

_PIECE = 4096
MEDIUM_ERRORS = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EILSEQ, errno.ENODATA, errno.EREMOTEIO})
"""Errors that say that bytes are lost, and not merely out of reach."""


class TolerantFile:
    """A `File` for reading that gives zeros where the medium gives an error, and notes where: no checksum holds there,
    so what is lost is found as any other damage. Other errors (too many open files …) are raised."""

    def __init__(self, inner: File):
        self._inner = inner
        self.unreadable: dict[int, int] = {}
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
