"""Reading files of the neutral form: numbered lines, plain or gzipped, in bounded memory."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from stepwell.cli.neutral_form.events import BadLine
from stepwell.cli.neutral_form.lines import parse_line
from stepwell.cli.neutral_form.reading import read

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is reported and skipped without being held in memory."""

_CHUNK_BYTES = 1024 * 1024
_CHUNK_LINES = 2_000
_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line of a file, its newline removed; `problem` instead of the bytes where it could not be read."""

    number: int
    data: bytes
    problem: str | None = None


class Unreadable(Exception):
    """A file that cannot be read to its end; the message says why, without the file's name."""


class LineFile:
    """A file of lines, opened for reading once from start to end. Gzip is recognised by its content, not its name."""

    def __init__(self, path: Path):
        self.path = path
        self.size = os.stat(path).st_size
        self._raw: IO[bytes] = open(path, "rb")  # noqa: SIM115 (closed by __exit__)
        magic = self._raw.read(2)
        self._raw.seek(0)
        packed = magic == _GZIP_MAGIC
        self._lines: IO[bytes] = gzip.GzipFile(fileobj=self._raw) if packed else self._raw  # type: ignore[assignment]
        self._number = 0
        self._failure: Unreadable | None = None

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._raw.close()

    @property
    def position(self) -> int:
        """How many of the file's `size` bytes have been read; for a progress bar."""
        return min(self._raw.tell(), self.size)

    def next_lines(self) -> list[Line]:
        """About a megabyte of lines that are not blank; an empty list at the end of the file.

        Raises:
            Unreadable: the file cannot be read further (an I/O error, a gzip stream that is damaged or cut off).
        """
        if self._failure is not None:
            raise self._failure
        lines: list[Line] = []
        room = _CHUNK_BYTES
        while room > 0 and len(lines) < _CHUNK_LINES:
            try:
                data = self._lines.readline(MAX_LINE_BYTES + 1)
                if not data:
                    break
                self._number += 1
                if len(data) > MAX_LINE_BYTES:
                    self._skip_rest_of_line(data)
                    lines.append(Line(self._number, b"", f"longer than {MAX_LINE_BYTES >> 20} MiB"))
                    break
            except (OSError, EOFError, zlib.error) as error:
                self._failure = Unreadable(f"cannot be read beyond line {self._number}: {error}")
                if lines:
                    break
                raise self._failure from error
            room -= len(data)
            if self._number == 1:
                data = data.removeprefix(_UTF8_BOM)
            data = data.strip()
            if data:
                lines.append(Line(self._number, data))
        return lines

    def _skip_rest_of_line(self, data: bytes) -> None:
        while data and not data.endswith(b"\n"):
            data = self._lines.readline(_CHUNK_BYTES)


def has_event(path: Path) -> bool:
    """Whether the file holds at least one valid event line.

    Raises:
        Unreadable: it cannot be opened, or fails before the first such line.
    """
    try:
        with LineFile(path) as file:
            return any(_is_event(line) for line in _all_lines(file))
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def _all_lines(file: LineFile) -> Iterator[Line]:
    while lines := file.next_lines():
        yield from lines


def _is_event(line: Line) -> bool:
    if line.problem is not None:
        return False
    try:
        read(parse_line(line.data))
    except BadLine:
        return False
    return True
