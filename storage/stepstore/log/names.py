"""The names of files in a log directory."""

from __future__ import annotations

import re
from typing import NamedTuple

LOCK, FORMAT, RESERVE, QUARANTINE, KEYS = "LOCK", "FORMAT", "reserve", "quarantine", "keys"
SALVAGED = "salvaged"  # what a salvage found and could not put into this log
FORMAT_TEMPORARY, SPARE, SIDECAR_TEMPORARY = "FORMAT.tmp", "spare.tmp", "sidecar.tmp"
MANIFEST_TEMPORARY, COMPACTION_TEMPORARY = "MANIFEST.tmp", "compact.tmp"
ARCHIVE, ARCHIVE_TEMPORARY, PIN = "ARCHIVE", "ARCHIVE.tmp", ".archive.tmp"
ARCHIVING, RESTORING = "ARCHIVING.tmp", "RESTORING"
_SEGMENT = re.compile(r"(\d{8,})-([0-9a-f]{16})\.(\d+)\.seg")
_SIDECAR = re.compile(r"(\d{8,})-([0-9a-f]{16})\.idx")
_MANIFEST = re.compile(r"MANIFEST-(\d{8,})")


class SegmentName(NamedTuple):
    """What the name of a segment says: `<seq>-<first lsn, hex>.<generation>.seg`."""

    seq: int
    first_lsn: int
    generation: int

    def __str__(self) -> str:
        return f"{self.seq:08d}-{self.first_lsn:016x}.{self.generation}.seg"


def sidecar_name(segment: str) -> str:
    """The name of the sidecar index of a segment: `<seq>-<first lsn, hex>.idx`."""
    return f"{segment.split('.', 1)[0]}.idx"


def parse_segment_name(name: str) -> SegmentName | None:
    """What a segment's name says, None if it is not one."""
    match = _SEGMENT.fullmatch(name)
    return match and SegmentName(int(match[1]), int(match[2], 16), int(match[3]))


def parse_sidecar_name(name: str) -> tuple[int, int] | None:
    """(seq, first LSN) of the segment whose sidecar index has this name, None if it is not one."""
    match = _SIDECAR.fullmatch(name)
    return match and (int(match[1]), int(match[2], 16))


def manifest_name(number: int) -> str:
    """The name of the manifest with this number."""
    return f"MANIFEST-{number:08d}"


def parse_manifest_name(name: str) -> int | None:
    """The number of a manifest, None if this is not the name of one."""
    match = _MANIFEST.fullmatch(name)
    return match and int(match[1])
