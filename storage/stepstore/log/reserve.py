"""The reserve: space set aside so that runs can still be ended, and the log closed, on a full disk."""

from __future__ import annotations

import posixpath

from stepstore.log.files import FileSystem
from stepstore.log.names import RESERVE
from stepstore.log.segment import NO_ROOM

RESERVE_BYTES = 1024 * 1024


class Reserve:
    """The file `reserve` of a log directory. All calls block."""

    def __init__(self, files: FileSystem, directory: str):
        self._files, self._path = files, posixpath.join(directory, RESERVE)

    def set_aside(self) -> bool:
        """Have the space set aside, or less of it. False where the medium has no room.

        A medium that cannot allocate keeps no reserve; then this is True, since only a write can tell.
        """
        found = self._files.stat(self._path)
        if found is not None and found.size:
            return True
        file = self._files.open(self._path, create=found is None)
        try:
            for size in (RESERVE_BYTES, RESERVE_BYTES // 4, RESERVE_BYTES // 16):
                try:
                    file.allocate(size)
                except OSError as error:
                    if error.errno not in NO_ROOM:
                        return True
                    file.truncate(0)
                else:
                    return True
        finally:
            file.close()
        return False

    def spend(self) -> bool:
        """Give the space back to the medium. False if there was none."""
        if self._files.stat(self._path) is None:
            return False
        self._files.unlink(self._path)
        return True
