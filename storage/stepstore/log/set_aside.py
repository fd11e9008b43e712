"""Records that a salvage found behind a hole in their stream: one JSON line each, a file per stream."""

from __future__ import annotations

import base64
import json
import posixpath
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from stepstore.log.files import File, FileSystem, write_all
from stepstore.log.frame import FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS
from stepstore.log.salvage_findings import FoundBatch

Describe = Callable[[bytes], Any]
"""A payload as a JSON value for people, None if it is nothing that the caller knows."""

_OPEN_FILES = 32
_KINDS = {0: "record", FLAG_SNAPSHOT: "snapshot", FLAG_TOMBSTONE: "tombstone"}


class SetAside:
    """Appends to the files `<stream id, hex>.jsonl` in a folder. Raises `OSError`."""

    def __init__(self, files: FileSystem, folder: str, describe: Describe | None):
        self._files, self._folder, self._describe = files, folder, describe
        self._open: OrderedDict[bytes, tuple[File, int]] = OrderedDict()
        self.records = 0

    @staticmethod
    def name(stream: bytes) -> str:
        """The name of a stream's file."""
        return f"{stream.hex()}.jsonl"

    def add(self, batch: FoundBatch, payloads: list[bytes] | None) -> None:
        """Write down a batch. `payloads`: its records, None where they are stored in a way that is not known here; then
        the batch is one line, with its bytes as they are stored."""
        kind = _KINDS[batch.flags & KIND_FLAGS]
        lines: list[dict[str, Any]] = []
        if payloads is None:
            lines.append(
                {
                    "seq": batch.first_seq,
                    "last_seq": batch.last_seq,
                    "lsn": batch.first_lsn,
                    "kind": kind,
                    "stored": _base64(batch.stored),
                    "flags": batch.flags & 0xFFFF,
                    "lengths": batch.lengths,
                }
            )
        for number, payload in enumerate(payloads or ()):
            lines.append(
                {
                    "seq": batch.first_seq + number,
                    "lsn": batch.first_lsn + number,
                    "kind": kind,
                    "payload": _base64(payload),
                    "record": None if self._describe is None else self._describe(payload),
                }
            )
        self.records += len(batch.lengths)
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        file, at = self._file(batch.stream)
        encoded = data.encode("utf-8", "backslashreplace")
        write_all(file, at, encoded)
        self._open[batch.stream] = file, at + len(encoded)

    def _file(self, stream: bytes) -> tuple[File, int]:
        found = self._open.get(stream)
        if found is None:
            path = posixpath.join(self._folder, self.name(stream))
            file = self._files.open(path, create=self._files.stat(path) is None)
            found = self._open[stream] = file, file.size()
            if len(self._open) > _OPEN_FILES:
                self._close(next(iter(self._open)))
        self._open.move_to_end(stream)
        return found

    def _close(self, stream: bytes) -> None:
        file, _at = self._open.pop(stream)
        try:
            file.datasync()
        finally:
            file.close()

    def close(self) -> None:
        """Have everything on the medium."""
        while self._open:
            self._close(next(iter(self._open)))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
