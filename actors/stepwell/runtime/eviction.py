"""Which episodes go, and their going: by a policy, or since there are too many.

Who goes is read from the catalog, which has seen everything that is durable. Only what has ended is looked at, and an
episode that has ended never opens again; so none that is open can be hit, however late the catalog is. Each is deleted
as `delete_episode` does it: a tombstone in the log, and gone at once from every place that is derived from it.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import trio

from stepstore.catalog import Projection
from stepwell.errors import NotFound
from stepwell.model.event import utc
from stepwell.model.ids import EpisodeId
from stepwell.model.retention import EvictedEpisode, Eviction, RetentionPolicy, RetentionReport
from stepwell.model.tags import tag_key
from stepwell.runtime.supervisor import Supervisor
from stepwell.runtime.worth_order import Candidate, LeastRelevant, longest_unused

BATCH = 32
"""So many are deleted at once."""
PERIOD = 5.0
"""Seconds between two looks at whether there are too many."""
PAUSE = 0.1
"""Seconds that the background rests between two batches."""
MOST_AT_ONCE = 1_000
"""So many the background chooses at a time."""
_DAY_NS = 86_400 * 10**9


class Evictor:
    """See the module. `evicted` counts since opening."""

    def __init__(self, supervisor: Supervisor, episodes: Projection):
        self._supervisor, self._episodes = supervisor, episodes
        self.evicted = 0

    async def retain(self, policy: RetentionPolicy, *, dry_run: bool, limit: int, actor: str) -> RetentionReport:
        """Find who is to go by a checked policy, `limit` at the most, and delete them. A checkpoint.

        Cancelled, the deletions under way go on. Raises: `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        now_ns = time.time_ns()
        chosen, has_more, kept = await self._episodes.read(
            lambda connection: choose(connection, policy, limit, now_ns),
            at_least=self._supervisor.journal.durable_lsn,
        )
        gone = chosen
        if not dry_run:
            gone = []
            for first in range(0, len(chosen), BATCH):
                gone += await self._evict(chosen[first : first + BATCH], actor)
        return RetentionReport(dry_run=dry_run, episodes=gone, has_more=has_more, kept=kept)

    async def _evict(self, batch: list[EvictedEpisode], actor: str) -> list[EvictedEpisode]:
        errors = await self._supervisor.deletions.delete_several([item.episode_id for item in batch], actor)
        gone = [item for item, error in zip(batch, errors, strict=True) if error is None]
        self.evicted += len(gone)
        lifecycle = self._supervisor.lifecycle
        if lifecycle.watchers:
            for item in gone:
                lifecycle.tell("evicted", episode_id=item.episode_id, detail=f"by {item.reason}")
        for error in errors:
            if error is not None and not isinstance(error, NotFound):
                raise error
        return gone

    async def keep_at_most(self, max_episodes: int, eviction: Eviction) -> None:
        """The task that enforces `MemoryConfig.max_episodes`, until it is cancelled or the memory closes."""
        policy = RetentionPolicy(max_episodes=max_episodes, eviction=eviction)
        seen, kept = -1, 0
        while not self._supervisor.closing:
            begun = self._supervisor.begun
            # What was too many and open when it was last looked may have ended since.
            if begun != seen or kept > max_episodes:
                seen, kept = begun, await self._keep_at_most_once(policy)
            await trio.sleep(PERIOD)

    async def _keep_at_most_once(self, policy: RetentionPolicy) -> int:
        """Evict what is too many, one batch after the other, with pauses. Gives how many episodes are left."""
        while True:
            chosen, has_more, kept = await self._episodes.read(
                lambda connection: choose(connection, policy, MOST_AT_ONCE, time.time_ns()),
                at_least=self._supervisor.journal.durable_lsn,
            )
            for first in range(0, len(chosen), BATCH):
                if self._supervisor.closing:
                    return kept
                await self._evict(chosen[first : first + BATCH], "retention")
                await trio.sleep(PAUSE)
            if not has_more:
                return kept


def choose(
    connection: sqlite3.Connection, policy: RetentionPolicy, limit: int, now_ns: int
) -> tuple[list[EvictedEpisode], bool, int]:
    """Who is to go, the first to go first; whether there are more than `limit`; how many are left then."""
    there = connection.execute("SELECT count(*) FROM episode").fetchone()[0]
    chosen = _by_rule(connection, policy, limit + 1, now_ns) if policy.has_rule else []
    rows = [(row, "policy") for row in chosen]
    if policy.max_episodes is not None and len(rows) <= limit:
        due = there - len(rows) - policy.max_episodes
        if due > 0:
            most = min(due, limit + 1 - len(rows))
            rows += [
                (row, "capacity") for row in _by_worth(connection, policy, most, now_ns, {row.key for row in chosen})
            ]
    taken = [_evicted(row, reason) for row, reason in rows[:limit]]
    return taken, len(rows) > limit, there - len(taken)


def _evicted(row: Candidate, reason: Any) -> EvictedEpisode:
    return EvictedEpisode(
        episode_id=EpisodeId(row.episode_id),
        reason=reason,
        outcome=row.outcome,
        reward=row.reward,
        last_time=utc(row.last_ns),
    )


def _not_kept(policy: RetentionPolicy) -> tuple[str, list[Any]]:
    """What may go of all that has ended: further conditions, and their values."""
    condition = " AND archived = 0" if policy.keep_archived else ""
    if policy.keep_tags:
        marks = ", ".join("?" * len(policy.keep_tags))
        condition += (
            f" AND NOT EXISTS (SELECT 1 FROM episode_tag t WHERE t.episode = episode.id AND t.tag IN ({marks}))"
        )
    return condition, [tag_key(tag) for tag in policy.keep_tags]


def _by_rule(connection: sqlite3.Connection, policy: RetentionPolicy, most: int, now_ns: int) -> list[Candidate]:
    condition, values = _not_kept(policy)
    statement = f"SELECT id, episode_id, outcome, reward, last_ns FROM episode WHERE outcome IS NOT NULL{condition}"
    if policy.max_age_days is not None:
        statement += " AND last_ns < ?"
        values.append(now_ns - round(min(policy.max_age_days * _DAY_NS, now_ns)))
    if policy.outcomes is not None:
        statement += f" AND outcome IN ({', '.join('?' * len(policy.outcomes))})"
        values += policy.outcomes
    if policy.reward_below is not None:
        statement += " AND reward < ?"
        values.append(policy.reward_below)
    rows = connection.execute(f"{statement} ORDER BY last_ns, id LIMIT ?", [*values, most])
    return [Candidate(*row) for row in rows]


def _by_worth(
    connection: sqlite3.Connection, policy: RetentionPolicy, most: int, now_ns: int, chosen: set[int]
) -> list[Candidate]:
    condition, values = _not_kept(policy)
    if policy.eviction == "lru":
        return longest_unused(connection, condition, values, chosen, most)
    return LeastRelevant(connection, condition, values, chosen, most, now_ns).find()
