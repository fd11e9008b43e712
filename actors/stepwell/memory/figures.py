"""What a memory tells about itself."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from stepstore.restarting import ServiceState
from stepwell.model.ids import EpisodeId


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


class LatencyBucket(msgspec.Struct, frozen=True, kw_only=True):
    """`count` commits that took at most `upto_seconds`, and longer than the bucket before; None is without a limit."""

    upto_seconds: float | None
    count: int


class CommitLatency(msgspec.Struct, frozen=True, kw_only=True):
    """How long commits took: for each group, from when its oldest batch was given to the writer until the group was
    durable. So it says of every other batch in the group that it took at most as long.

    `p50_seconds`, `p99_seconds`: upper bounds, as fine as the buckets are. All 0 for a memory that keeps nothing.
    """

    count: int
    p50_seconds: float
    p99_seconds: float
    longest_seconds: float
    buckets: list[LatencyBucket]


class MemoryStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a memory counts, and what it holds at this moment. `msgspec.to_builtins(stats)` gives plain values.

    Since opening: `groups` (commit groups), `syncs` (fdatasyncs made for them), `records` and `bytes_written`,
    `largest_group` and `mean_group` (records), `commit_latency`, `slow_syncs` (over a second), `write_errors`,
    `restarts` (of tasks of episodes), `rejected` (calls to log steps that were refused, by the name of the error).
    `redacted`: texts that were replaced before they were stored (`MemoryConfig.redact`).
    `dropped` is 0, and not because it was counted: nothing in here drops. What is full makes callers wait or refuses
    them, and what was accepted and could not be stored says so in its receipt.

    Now: `live_episodes` take steps; `waking_episodes` are being rebuilt from the log; `parked_episodes` failed too
    often (see `health`); `asleep_episodes` have no ending and no task. `mailbox_messages`, `mailbox_bytes` wait in the
    mailboxes, `in_hand_records` were taken from them and are not durable yet, `queue_bytes` wait for the writer or are
    on their way to the medium. `flush_lag_seconds`: the age of the oldest accepted record that is not durable, by the
    wall clock; 0 if there is none. `untold_records`: accepted records whose write failed, and nobody has asked their
    receipts or has been told by a flush, a checkpoint or a completion.
    """

    groups: int
    syncs: int
    records: int
    bytes_written: int
    largest_group: int
    mean_group: float
    commit_latency: CommitLatency
    slow_syncs: int
    write_errors: int
    restarts: int
    rejected: dict[str, int]
    redacted: int = 0
    dropped: int = 0
    live_episodes: int
    waking_episodes: int
    parked_episodes: int
    asleep_episodes: int
    mailbox_messages: int
    mailbox_bytes: int
    in_hand_records: int
    queue_bytes: int
    flush_lag_seconds: float
    untold_records: int


class ParkedEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode whose task failed too often, or whose records are not sound, and why."""

    episode_id: EpisodeId
    error: str


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A task in the background. `error`: what it failed with last, None if it never did."""

    name: str
    state: ServiceState
    restarts: int
    error: str | None


HealthStatus: TypeAlias = Literal["ok", "degraded", "full", "failed", "closing", "read-only"]
LogState: TypeAlias = Literal["writing", "full", "failed", "closed", "read-only"]


class MemoryHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a memory works, and what is wrong. `msgspec.to_builtins(health)` gives plain values.

    `status`, the worst that holds: "failed" (the log is lost; nothing is taken until it is opened again), "closing"
    (closing or closed), "read-only", "full" (no room for the log; only endings are taken), "degraded" (logging goes on,
    but something needs attention), "ok". `reasons`: why, in sentences; none if "ok". `parked`: the first of the
    `parked_count` episodes that are parked. `log`: "writing", "full", "failed", "closed" or "read-only".
    """

    status: HealthStatus
    reasons: list[str]
    log: LogState
    parked: list[ParkedEpisode]
    parked_count: int
    services: list[ServiceHealth]
