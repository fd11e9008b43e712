"""The ended episodes that are worth least, by relevance or by their last event, without looking at all of them.

How relevant an episode is falls from hour to hour, so no index can hold it. What is fixed is the hour of its last event
and its quality: the index has the episodes by hour, within that by quality, within that by time. No episode of an hour
is less relevant than the lowest quality in it would be at its beginning; so the hours are read from the lowest such
bound on, until the bound is above the worst that were found. Of one quality only the oldest are read.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from stepwell.learning.retention import HIGHEST_REWARD, UNKNOWN_QUALITY, relevance_of

HOUR_NS = 3_600 * 10**9
HOUR = f"last_ns / {HOUR_NS}"
QUALITY = f"min(1.0, max(0.0, coalesce(reward / {HIGHEST_REWARD}, {UNKNOWN_QUALITY})))"
"""As `retention_quality` has it."""
INDEX = f"({HOUR}, {QUALITY}, last_ns) WHERE outcome IS NOT NULL"
"""What the catalog is to have an index on, of the table of episodes."""
_ROUNDING = 1 - 1e-9
"""Makes a bound smaller than rounding has made it larger."""
_EACH_HOUR = f"""
    WITH RECURSIVE hour (number) AS (
        SELECT min({HOUR}) FROM episode WHERE outcome IS NOT NULL
        UNION ALL
        SELECT (SELECT min({HOUR}) FROM episode WHERE outcome IS NOT NULL AND {HOUR} > number)
        FROM hour WHERE number IS NOT NULL
    )"""  # one look at the index for each hour: DISTINCT would go through all of it
_HOURS = f"{_EACH_HOUR} SELECT number FROM hour WHERE number IS NOT NULL"
_BEGINNINGS = f"""{_EACH_HOUR}
    SELECT number, (SELECT min({QUALITY}) FROM episode WHERE outcome IS NOT NULL AND {HOUR} = number)
    FROM hour WHERE number IS NOT NULL"""
_ROWS_OF_AN_HOUR = f"""
    SELECT id, episode_id, outcome, reward, last_ns FROM episode WHERE outcome IS NOT NULL AND {HOUR} = ?{{}}"""
_ROWS = f"""
    SELECT id, episode_id, outcome, reward, last_ns, {QUALITY} FROM episode
    WHERE outcome IS NOT NULL AND {HOUR} = ? AND {QUALITY} > ? {{}}
    ORDER BY {QUALITY}, last_ns, id"""


class Candidate(NamedTuple):
    """A row of the catalog of episodes that may go."""

    key: int
    episode_id: str
    outcome: str
    reward: float | None
    last_ns: int


class LeastRelevant:
    """One search for the `most` least relevant of the rows that `condition` (with its `values`) lets go, those with a
    key in `left_out` aside. `rows`: how many it has looked at."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        condition: str,
        values: Sequence[Any],
        left_out: Collection[int],
        most: int,
        now_ns: int,
    ):
        self._connection, self._condition, self._values = connection, condition, values
        self._left_out, self._most, self._now_ns = left_out, most, now_ns
        self._found: list[tuple[float, int, int, Candidate]] = []  # negated, so that the first is the first to give way
        self.rows = 0

    def find(self) -> list[Candidate]:
        """The least relevant first; of those that are as relevant, the oldest."""
        if self._most < 1:
            return []
        hours = [(self._bound(hour, quality), hour) for hour, quality in self._connection.execute(_BEGINNINGS)]
        for bound, hour in sorted(hours):
            if self._is_above(bound):
                break
            self._read_hour(hour)
        return [candidate for *_order, candidate in sorted(self._found, reverse=True)]

    def _bound(self, hour: int, quality: float) -> float:
        """What nothing of this hour and this quality, or a higher one, is below."""
        # Division in SQL is towards 0: the hour 0 has the hour before 1970, too.
        begin_ns = (hour if hour > 0 else hour - 1) * HOUR_NS
        return self._relevance(quality, begin_ns) * _ROUNDING

    def _relevance(self, quality: float, last_ns: int) -> float:
        return relevance_of(quality, (self._now_ns - last_ns) / HOUR_NS)

    def _is_above(self, bound: float) -> bool:
        """Whether nothing from this bound on can be among those that are looked for."""
        return len(self._found) == self._most and bound > -self._found[0][0]

    def _read_hour(self, hour: int) -> None:
        above: float | None = -1.0
        while above is not None:
            above = self._read_above(hour, above)

    def _read_above(self, hour: int, above: float) -> float | None:
        """Read the rows of an hour with a higher quality than this, as long as they matter. The quality to go on above,
        if no more of that matter and others may; else None."""
        with closing(self._connection.execute(_ROWS.format(self._condition), [hour, above, *self._values])) as rows:
            done: float | None = None
            for *fields, quality in rows:
                if quality == done:
                    return done
                self.rows += 1
                if self._is_above(self._bound(hour, quality)):
                    return None
                candidate = Candidate(*fields)
                if candidate.key not in self._left_out and not self._take(candidate, quality):
                    done = quality  # of the same quality those that follow are younger
        return None

    def _take(self, candidate: Candidate, quality: float) -> bool:
        """Whether it is among the least relevant so far."""
        relevance = self._relevance(quality, candidate.last_ns)
        item = -relevance, -candidate.last_ns, -candidate.key, candidate
        if len(self._found) < self._most:
            heapq.heappush(self._found, item)
            return True
        if item < self._found[0]:
            return False
        heapq.heapreplace(self._found, item)
        return True


def longest_unused(
    connection: sqlite3.Connection, condition: str, values: Sequence[Any], left_out: Collection[int], most: int
) -> list[Candidate]:
    """The `most` rows whose last event is the oldest, of those that `condition` lets go; the oldest first."""
    found: list[Candidate] = []
    with closing(connection.execute(_HOURS)) as hours:
        for (hour,) in hours:
            if len(found) >= most:
                break
            rows = connection.execute(_ROWS_OF_AN_HOUR.format(condition), [hour, *values])
            found += [candidate for candidate in map(Candidate._make, rows) if candidate.key not in left_out]
    return heapq.nsmallest(most, found, key=lambda candidate: (candidate.last_ns, candidate.key))
