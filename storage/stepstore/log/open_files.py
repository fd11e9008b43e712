"""A few files kept open for reading, by path. May be used from several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from stepstore.log.files import File, FileSystem
from stepstore.log.places import Span

_OPEN_FILES = 32


class OpenFiles:
    """Reads files by path. Every call raises `OSError`."""

    def __init__(self, files: FileSystem, limit: int = _OPEN_FILES):
        self._files, self._limit = files, limit
        self._open: OrderedDict[str, File] = OrderedDict()
        # Held while reading too: a file that another thread evicts meanwhile would be closed under the read.
        self._lock = threading.Lock()

    def _file(self, path: str) -> File:
        file = self._open.get(path)
        if file is None:
            file = self._open[path] = self._files.open(path, write=False)
            if len(self._open) > self._limit:
                self._open.popitem(last=False)[1].close()
        else:
            self._open.move_to_end(path)
        return file

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        with self._lock:
            return self._file(path).read(offset, size)

    @contextmanager
    def held(self, path: str) -> Iterator[File]:
        """The file at `path`, for several reads in a row; until they are done nobody else can read or close any."""
        with self._lock:
            yield self._file(path)

    def will_need(self, path: str, spans: Iterable[Span]) -> None:
        """Tell the operating system that these will be read soon, so that it fetches them together."""
        with self._lock:
            advise = getattr(self._file(path), "will_need", None)
            if advise is not None:
                for offset, size, _places in spans:
                    advise(offset, size)

    def forget(self, path: str) -> None:
        """Close a file, if it is open: it is about to be removed."""
        with self._lock:
            file = self._open.pop(path, None)
            if file is not None:
                file.close()

    def forked(self) -> None:
        """This is a child of the process: whichever thread held a lock does not exist here, and would never let go."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
