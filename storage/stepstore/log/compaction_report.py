"""What a compaction did, and the sums of it while it goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CompactionReport:
    """What one compaction did.

    `files_rewritten`: segments that were replaced; `files_written`: by so many. `bytes_before`, `bytes_after`: sizes of
    those files. `streams_removed`, `records_removed`: what was left out; a superseded snapshot is a record too.
    `left_alone`: files that are damaged, which compaction does not touch.
    """

    files_rewritten: int = 0
    files_written: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    streams_removed: int = 0
    records_removed: int = 0
    left_alone: tuple[str, ...] = ()
    seconds: float = 0.0


class Tally:
    """A `CompactionReport` that is being added up."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.files_rewritten = self.files_written = self.bytes_before = self.bytes_after = self.records_removed = 0
        self.streams: set[bytes] = set()
        self.left_alone: list[str] = []

    def fields(self) -> dict[str, Any]:
        """What a `CompactionReport` is made of."""
        return {
            "files_rewritten": self.files_rewritten,
            "files_written": self.files_written,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "streams_removed": len(self.streams),
            "records_removed": self.records_removed,
            "left_alone": tuple(self.left_alone),
            "seconds": time.perf_counter() - self.began,
        }
