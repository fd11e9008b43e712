"""What an archive holds, and how far it is while it is made or restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

OnProgress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""


@dataclass(frozen=True, kw_only=True)
class ArchiveReport:
    """What is in an archive, or was restored from one. `end_lsn`: it holds everything up to this record."""

    path: str
    files: int = 0
    bytes: int = 0
    records: int = 0
    end_lsn: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
