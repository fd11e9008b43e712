"""The episodes worth least are found by an index, and are those of a plain list."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from stepwell.learning.retention import retention_relevance
from stepwell.runtime.episode_catalog import EPISODE
from stepwell.runtime.worth_order import HOUR_NS, INDEX, Candidate, LeastRelevant, longest_unused

Row = tuple[str | None, float | None, int, int]
"""Outcome, reward, time of the last event, archived."""
NOW = 500_001 * HOUR_NS - 1


def catalog(rows: Sequence[Row]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    for statement in replace(EPISODE, indexed_last=False).statements({}):
        connection.execute(statement)
    connection.executemany(
        "INSERT INTO episode (id, stream, episode_id, task, task_type, agent, domain, complexity, tags, started_ns,"
        " last_seq, steps, failed_steps, outcome, reward, last_ns, archived)"
        " VALUES (?, ?, ?, '', '', '', '', '', '[]', 0, 1, 0, 0, ?, ?, ?, ?)",
        [(place, str(place).encode(), str(place), *row) for place, row in enumerate(rows)],
    )
    return connection


def wanted(rows: Sequence[Row], left_out: set[int], most: int, *, by_time: bool) -> list[int]:
    def order(key: int) -> tuple[float, int, int]:
        _outcome, reward, last_ns, _archived = rows[key]
        relevance = 0.0 if by_time else retention_relevance(reward, (NOW - last_ns) / HOUR_NS)
        return relevance, last_ns, key

    may_go = [n for n, row in enumerate(rows) if row[0] is not None and not row[3] and n not in left_out]
    return sorted(may_go, key=order)[:most]


REWARDS = st.none() | st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 2.5]) | st.floats(-1, 3)
TIMES = st.one_of(
    st.integers(0, 10 * HOUR_NS).map(lambda age: NOW - age),
    st.integers(-3, 300).map(lambda hours: NOW - hours * HOUR_NS),
    st.integers(-2, 1).map(lambda hours: hours * HOUR_NS + hours),
    st.just(NOW - HOUR_NS),
)
ROWS = st.lists(
    st.tuples(st.sampled_from(["success", "failure", None]), REWARDS, TIMES, st.sampled_from([0, 0, 0, 1])), max_size=40
)


@given(rows=ROWS, left_out=st.sets(st.integers(0, 10)), most=st.integers(0, 8))
@example(
    rows=[("success", 0.0, NOW - 20, 0)] * 3 + [("success", 0.01, NOW - HOUR_NS + 2, 0)],
    left_out=set(),
    most=1,
)
@example(rows=[("failure", 0.0, -HOUR_NS + 1, 0), ("failure", 0.01, HOUR_NS - 1, 0)], left_out=set(), most=1)
def test_they_are_those_of_a_plain_list(rows: list[Row], left_out: set[int], most: int) -> None:
    connection = catalog(rows)
    search = LeastRelevant(connection, " AND archived = 0", [], left_out, most, NOW)
    assert [found.key for found in search.find()] == wanted(rows, left_out, most, by_time=False)
    oldest = longest_unused(connection, " AND archived = 0", [], left_out, most)
    assert [found.key for found in oldest] == wanted(rows, left_out, most, by_time=True)


def spread(count: int, hours: int, dice: random.Random) -> list[Row]:
    """Ended episodes over so many hours, a third of which failed and have no reward at all to show for it."""
    return [
        ("failure", 0.0, NOW - dice.randrange(hours * HOUR_NS), 0)
        if dice.random() < 0.3
        else ("success", dice.uniform(0.2, 2.0), NOW - dice.randrange(hours * HOUR_NS), 0)
        for _ in range(count)
    ]


def test_of_many_only_some_are_looked_at() -> None:
    """Over half a year, and all within one hour: ties of the worst quality, and none."""
    dice = random.Random(3)
    for hours, rows in ((4_000, spread(20_000, 4_000, dice)), (1, spread(20_000, 1, dice))):
        search = LeastRelevant(catalog(rows), "", [], set(), 100, NOW)
        assert [found.key for found in search.find()] == wanted(rows, set(), 100, by_time=False)
        assert search.rows < 1_000, hours
    rows = [("success", dice.uniform(0, 2), NOW - dice.randrange(HOUR_NS), 0) for _ in range(20_000)]
    search = LeastRelevant(catalog(rows), "", [], set(), 100, NOW)
    assert [found.key for found in search.find()] == wanted(rows, set(), 100, by_time=False)
    assert search.rows < 2_000


def test_the_index_is_that_of_the_catalog_and_no_statement_goes_through_the_table() -> None:
    assert INDEX in EPISODE.indexes
    connection, statements = catalog(spread(10, 3, random.Random(1))), list[str]()
    connection.set_trace_callback(statements.append)
    found: list[Candidate] = LeastRelevant(connection, "", [], set(), 5, NOW).find()
    assert len(found) == len(longest_unused(connection, "", [], set(), 5)) == 5
    connection.set_trace_callback(None)
    for statement in set(statements):
        for *_numbers, plan in connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall():
            assert not plan.startswith("SCAN episode"), (statement, plan)
            assert "TEMP B-TREE" not in plan, (statement, plan)
