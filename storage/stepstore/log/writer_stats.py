"""What the writer and the tasks beside it count."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepstore.log.latency import LatencyHistogram


@dataclass(kw_only=True)
class WriterStats:
    """Counts since opening. `syncs` counts the fdatasyncs of commit groups; `largest_group` is in records; a slow sync
    took longer than a second. `scrubs` counts passes over all old segments, `scrub_problems` what was damaged there.
    `commit_latency`: for each group, from when the oldest batch in it was submitted until it was durable.
    `queued_bytes`: not since opening, but what waits for the writer, or is on its way to the medium, when this was
    asked for."""

    groups: int = 0
    syncs: int = 0
    records: int = 0
    bytes_written: int = 0
    largest_group: int = 0
    segments_begun: int = 0
    segments_sealed: int = 0
    marks: int = 0
    write_errors: int = 0
    slow_syncs: int = 0
    scrubs: int = 0
    scrubbed_bytes: int = 0
    scrub_problems: int = 0
    longest_sync_seconds: float = 0.0
    commit_latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    queued_bytes: int = 0
