"""The names of files in a log directory."""

from __future__ import annotations

import re
from typing import NamedTuple

LOCK, FORMAT, RESERVE, QUARANTINE, KEYS = "LOCK", "FORMAT", "reserve", "quarantine", "keys"
FORMAT_TEMPORARY, SPARE, SIDECAR_TEMPORARY = "FORMAT.tmp", "spare.tmp", "sidecar.tmp"
_SEGMENT = re.compile(r"(\d{8,})-([0-9a-f]{16})\.(\d+)\.seg")


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
