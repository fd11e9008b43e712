"""What a memory tells of itself: figures, health, and what happens to it."""

from __future__ import annotations

import operator
import time

from stepstore.log.latency import BOUNDS, LatencyHistogram
from stepstore.restarting import error_text
from stepwell.errors import Closed, LogFull
from stepwell.memory.core import MemoryCore
from stepwell.memory.figures import (
    CommitLatency,
    HealthStatus,
    LatencyBucket,
    LogState,
    MemoryHealth,
    MemoryStats,
    ParkedEpisode,
    ServiceHealth,
)
from stepwell.runtime.lifecycle_events import Watching

PARKED_SHOWN = 20
"""So many parked episodes are named by `health`."""


class Observing(MemoryCore):
    """The part of a memory that lets itself be watched. Plain functions; none of it is kept up to date for this, so it
    costs nothing until it is asked for."""

    def stats(self) -> MemoryStats:
        """Counts since opening, and what waits where now. Looks at every episode that is awake; also after closing."""
        log, oversight = self._journal.stats, self._supervisor.oversight
        states = {"live": 0, "waking": 0, "parked": 0}
        messages = waiting_bytes = in_hand = awake = 0
        now = oldest = time.time_ns()
        episodes = len(self._supervisor.cells)
        for place, cell in enumerate(self._supervisor.every_cell()):
            state = "live" if cell.state.value == "draining" else cell.state.value  # it takes steps
            if state in states and place < episodes:
                states[state] += 1
                awake += cell.is_stored
            in_mailbox, size = cell.waiting
            messages += in_mailbox
            waiting_bytes += size
            in_hand += cell.drained
            if pending := cell.pending_commits:
                oldest = min(oldest, pending[0].accepted_ns)
        return MemoryStats(
            groups=log.groups,
            syncs=log.syncs,
            records=log.records,
            bytes_written=log.bytes_written,
            largest_group=log.largest_group,
            mean_group=log.records / log.groups if log.groups else 0.0,
            commit_latency=_latency(log.commit_latency),
            slow_syncs=log.slow_syncs,
            write_errors=log.write_errors,
            untold_records=self._supervisor.untold.records,
            restarts=oversight.restarts,
            rejected=dict(oversight.refused),
            redacted=0 if self._redaction is None else self._redaction.count,
            live_episodes=states["live"],
            waking_episodes=states["waking"],
            parked_episodes=states["parked"],
            asleep_episodes=max(0, operator.length_hint(self._journal.open_streams()) - awake),
            mailbox_messages=messages,
            mailbox_bytes=waiting_bytes,
            in_hand_records=in_hand,
            queue_bytes=log.queued_bytes,
            flush_lag_seconds=(now - oldest) / 1e9,
        )

    def health(self) -> MemoryHealth:
        """Whether the memory works, and what is wrong. Looks at every episode that is awake; also after closing."""
        status, reasons, log = self._log_health()
        parked = []
        restarting = 0
        for cell in self._supervisor.cells.values():
            if cell.state.value == "parked":
                parked.append(ParkedEpisode(episode_id=cell.episode_id, error=str(cell.failure)))
            elif cell.state.value == "waking" and cell.failure is not None:
                restarting += 1
        streams_parked = [str(cell.failure) for cell in self._supervisor.streams.all_cells() if cell.stays_parked]
        services = [
            ServiceHealth(
                name=service.name,
                state=service.state,
                restarts=service.restarts,
                error=None if service.error is None else error_text(service.error),
            )
            for service in self._runtime.services
        ]
        troubles = [
            f"the {service.name} is {service.state} ({service.error})"
            for service in services
            if service.state in ("restarting", "parked")
        ]
        if parked:
            troubles.append(f"{_episodes(len(parked))} parked, the first: {parked[0].error}")
        if streams_parked:
            troubles.append(f"threads or scopes parked: {len(streams_parked):,}, the first: {streams_parked[0]}")
        if restarting:
            troubles.append(f"{_episodes(restarting)} being restarted after a failure")
        if damaged := self._journal.stats.scrub_problems:
            troubles.append(f"the scrub has found {damaged} damaged places; run `stepwell verify`")
        return MemoryHealth(
            status="degraded" if status == "ok" and troubles else status,
            reasons=reasons + troubles,
            log=log,
            parked=parked[:PARKED_SHOWN],
            parked_count=len(parked),
            services=services,
        )

    def _log_health(self) -> tuple[HealthStatus, list[str], LogState]:
        failure = self._runtime.failure or self._journal.failed
        if failure is not None:
            return "failed", [f"the memory failed ({error_text(failure)}); close it and open it again"], "failed"
        if self._supervisor.closing:
            return "closing", ["the memory is closing, or closed"], "closed"
        try:
            self._journal.check_open()
        except LogFull as error:
            return "full", [str(error)], "full"
        except Closed as error:  # opened for reading, or by the process that this one was forked from
            return "read-only", [str(error)], "read-only"
        return "ok", [], "writing"

    def lifecycle(self) -> Watching:
        """What happens to the memory and its episodes from now on, as it happens:
        `async with memory.lifecycle() as events: async for event in events: …`, with `LifecycleEvent`s.

        Nothing waits for the reader: 1,024 events are kept for it, and what comes on top is told by one event of kind
        "missed" with their number. Ends when the memory is closed. Nothing of it is stored; `follow` gives what is.
        Entering and receiving are checkpoints. Raises on entering: `Closed`, `InvalidState` (entered before).
        """
        return Watching(self._runtime.lifecycle)


def _episodes(count: int) -> str:
    return "1 episode is" if count == 1 else f"{count:,} episodes are"


def _latency(histogram: LatencyHistogram) -> CommitLatency:
    buckets = zip((*BOUNDS, None), histogram.counts, strict=True)
    return CommitLatency(
        count=histogram.count,
        p50_seconds=histogram.quantile(0.5),
        p99_seconds=histogram.quantile(0.99),
        longest_seconds=histogram.longest,
        buckets=[LatencyBucket(upto_seconds=bound, count=count) for bound, count in buckets],
    )
