"""Copy files a few MiB at a time."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator

from stepstore.log.files import File, FileSystem, write_all

_BLOCK = 4 * 1024 * 1024


def size_of(files: FileSystem, path: str) -> int:
    """The size of a file that must be there. Raises: `OSError`."""
    found = files.stat(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
    return found.size


def blocks(files: FileSystem, path: str, size: int) -> Generator[tuple[int, bytes], None, None]:
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


def copy_file(
    files: FileSystem, source: str, target: str, size: int, update: Callable[[bytes], None]
) -> Generator[None, None, None]:
    """Make a durable file of the first `size` bytes of another, and `update` a digest with them. Raises: `OSError`."""
    file: File = files.open(target, create=True)
    try:
        for start, block in blocks(files, source, size):
            write_all(file, start, block)
            update(block)
            yield
        file.datasync()
    finally:
        file.close()
