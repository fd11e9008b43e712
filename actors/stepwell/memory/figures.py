"""What a memory tells about itself."""

from __future__ import annotations

import msgspec


class MemoryRecovery(msgspec.Struct, frozen=True, kw_only=True):
    """What opening found and did.

    `segments`, `records`, `open_episodes`: what is there. `bytes_cut`: bytes of writes torn by a crash, none of them
    ever acknowledged as durable, cut off after a copy of them went to the files of the quarantine named in
    `quarantined`. `notes`: one sentence for each thing out of the ordinary.
    """

    segments: int
    records: int
    bytes_cut: int
    quarantined: list[str]
    open_episodes: int
    seconds: float
    notes: list[str]


class MemoryStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since opening: commit groups, the fdatasyncs made for them, records and bytes written, the largest group
    in records, and episodes that are awake now."""

    groups: int
    syncs: int
    records: int
    bytes_written: int
    largest_group: int
    live_episodes: int
