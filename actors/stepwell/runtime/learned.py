"""What the learner's tables say, as values. Each function is a reading of the catalog, in a worker thread."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from stepwell.learning.advising import Nearness
from stepwell.model.event import utc
from stepwell.model.pattern import (
    WHOLE,
    AdviceRecord,
    ContextPattern,
    Counts,
    Evidence,
    Loop,
    PatternContent,
    PatternKind,
    pattern_id,
)
from stepwell.runtime.learned_advice import advice_records

TAGGED_EPISODES = 1_000
"""Of the episodes with a tag, the newest so many are looked at."""
COMMON_PATTERNS = 100
"""So many of the most frequent patterns of a domain are always considered."""
_COUNTS = "p.episodes, p.trials, p.wins, p.occurrences, p.ok, p.failed, p.first_ns, p.last_ns"
_NOT_PASSED = "(p.kind <> 'dead_end' OR 2 * p.failed >= p.episodes)"
"""What most episodes got past is no dead end."""
_PATTERN = f"p.id, p.pattern_id, p.domain, p.content, {_COUNTS}"


class Learned(msgspec.Struct, frozen=True):
    """A pattern as the tables hold it; `key` is that of its row."""

    key: int
    pattern_id: str
    domain: str
    content: PatternContent
    counts: Counts


def _learned(row: Sequence[Any]) -> Learned:
    content: PatternContent = msgspec.json.decode(row[3], type=PatternContent)
    return Learned(row[0], row[1], row[2], content, _counts(row[4:12]))


def _counts(row: Sequence[Any]) -> Counts:
    episodes, trials, wins, occurrences, ok, failed, first_ns, last_ns = row
    return Counts(
        episodes=episodes,
        trials=trials,
        wins=wins,
        occurrences=occurrences,
        ok=ok,
        failed=failed,
        first_ns=first_ns,
        last_ns=last_ns,
    )


def patterns(
    connection: sqlite3.Connection,
    *,
    kinds: Sequence[PatternKind],
    domain: str | None,
    text: str | None,
    min_episodes: int,
    limit: int,
) -> list[Learned]:
    """The patterns with the most evidence for what they tell: the greatest `believed` first, then the most frequent."""
    conditions = [f"p.kind IN ({', '.join('?' * len(kinds))})", "p.episodes >= ?", _NOT_PASSED]
    values: list[Any] = [*kinds, min_episodes]
    if domain is not None:
        conditions.append("p.domain = ?")
        values.append(domain)
    if text is not None:
        conditions.append("is_in(?, p.content)")
        values.append(text.casefold())
    found = connection.execute(
        f"SELECT {_PATTERN} FROM pattern p WHERE {' AND '.join(conditions)} "
        "ORDER BY believed(p.kind, p.wins, p.trials) DESC, p.episodes DESC, p.pattern_id LIMIT ?",
        [*values, limit],
    )
    return [_learned(row) for row in found]


def pattern(connection: sqlite3.Connection, name: str) -> Learned | None:
    """The pattern with an id."""
    row = connection.execute(
        f"SELECT {_PATTERN} FROM pattern p WHERE p.pattern_id = ? AND p.episodes > 0", (name,)
    ).fetchone()
    return None if row is None else _learned(row)


def base_counts(connection: sqlite3.Connection, domain: str) -> Counts | None:
    """The counts over all episodes of a domain."""
    found = pattern(connection, pattern_id(domain, ContextPattern((f"domain:{domain}",))))
    return None if found is None else found.counts


def evidence(connection: sqlite3.Connection, key: int, limit: int) -> list[Evidence]:
    """The newest evidence of a pattern."""
    rows = connection.execute(
        "SELECT e.episode_id, v.seqs, v.occurrences, v.success, v.ended_ns FROM evidence v JOIN episode e "
        "ON e.id = v.episode WHERE v.pattern = ? ORDER BY v.episode DESC LIMIT ?",
        (key, limit),
    )
    return [
        Evidence(
            episode_id=name,
            seqs=tuple(json.loads(seqs)),
            occurrences=occurrences,
            success=None if success is None else success / WHOLE,
            ended_at=utc(at),
        )
        for name, seqs, occurrences, success, at in rows
    ]


class Shown(msgspec.Struct, frozen=True):
    """An episode that may serve as an example of a pattern."""

    episode_id: str
    seqs: tuple[int, ...]
    ok: int
    success: int | None


def examples(connection: sqlite3.Connection, it: Learned, near: Iterable[bytes], limit: int) -> list[Shown]:
    """Episodes that show a pattern, the most telling first: solved ones, those near the task, then the newest. Of a
    loop those near the task come first: who is in it seldom gets out."""
    key = it.key
    order = "coalesce(s.success, -1) DESC, s.ok > 0 DESC, s.near DESC"
    if isinstance(it.content, Loop):
        order = "s.near DESC, coalesce(s.success, -1) DESC"
    streams = list(near)
    marks = ", ".join("?" * len(streams))
    rows = connection.execute(
        f"""
        WITH shown (episode, seqs, ok, success, near) AS (
            SELECT v.episode, v.seqs, v.ok, v.success, 1 FROM evidence v JOIN episode e ON e.id = v.episode
            WHERE v.pattern = ? AND e.stream IN ({marks})
            UNION ALL
            SELECT * FROM (SELECT episode, seqs, ok, success, 0 FROM evidence WHERE pattern = ?
                ORDER BY episode DESC LIMIT 500)
        )
        SELECT e.episode_id, s.seqs, s.ok, s.success FROM shown s JOIN episode e ON e.id = s.episode
        ORDER BY {order}, s.episode DESC LIMIT ?
        """,
        [key, *streams, key, limit],
    )
    return [Shown(name, tuple(json.loads(seqs)), ok, success) for name, seqs, ok, success in rows]


class Candidate(msgspec.Struct, frozen=True):
    """A pattern that may be advised, and how near it is to the task."""

    learned: Learned
    near: Nearness
    advice: AdviceRecord


class Considered(msgspec.Struct, frozen=True):
    """Everything that a recommendation is chosen from, with the base rates that belong to the task."""

    candidates: list[Candidate]
    rates: list[Learned]
    domains: list[str]
    """Those with the most episodes, where the task's own has none."""


def consider(
    connection: sqlite3.Connection, domain: str, contexts: Sequence[ContextPattern], similar: dict[bytes, float]
) -> Considered:
    """What may be advised for a task of a domain. `contexts`: the kinds of task it is one of, its domain first;
    `similar`: streams of episodes whose task reads like it, and how much."""
    rates = [found for content in contexts if (found := pattern(connection, pattern_id(domain, content))) is not None]
    total = rates[0].counts.episodes if rates else 0
    tagged = _tagged(connection, [it for it in rates if _is_tag(it.content)], total)
    alike = _alike(connection, similar)
    common = connection.execute(
        f"SELECT p.id FROM pattern p WHERE p.domain = ? AND p.kind <> 'context_pattern' AND {_NOT_PASSED} "
        "ORDER BY p.episodes DESC, p.pattern_id LIMIT ?",
        (domain, COMMON_PATTERNS),
    )
    keys = sorted({key for (key,) in common} | tagged.keys() | alike.keys())
    considered = [
        _learned(row)
        for row in _rows(connection, f"SELECT {_PATTERN} FROM pattern p WHERE {_NOT_PASSED} AND p.id IN", keys)
    ]
    considered = [it for it in considered if not isinstance(it.content, ContextPattern)]
    records: dict[str, AdviceRecord] = {}
    for begin in range(0, len(considered), _AT_ONCE):
        records |= advice_records(connection, [it.pattern_id for it in considered[begin : begin + _AT_ONCE]])
    candidates = [
        Candidate(
            it,
            Nearness(min(1.0, alike.get(it.key, 0.0)), min(1.0, tagged.get(it.key, 0.0)), it.domain == domain),
            records.get(it.pattern_id, AdviceRecord()),
        )
        for it in considered
    ]
    return Considered(candidates, rates, [] if rates else _domains(connection))


_AT_ONCE = 500
_DOMAINS_NAMED = 5


def _is_tag(content: PatternContent) -> bool:
    return isinstance(content, ContextPattern) and content.features[-1].startswith("tag:")


def _domains(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT domain FROM pattern WHERE kind = 'context_pattern' AND json_array_length(content, '$.features') = 1 "
        "ORDER BY episodes DESC, domain LIMIT ?",
        (_DOMAINS_NAMED,),
    )
    return [domain for (domain,) in rows]


def _rows(connection: sqlite3.Connection, select: str, keys: Sequence[Any]) -> list[Sequence[Any]]:
    """All rows for keys, so many at once. No generator: one that is dropped half-way reads from a closed catalog."""
    found: list[Sequence[Any]] = []
    for begin in range(0, len(keys), _AT_ONCE):
        some = keys[begin : begin + _AT_ONCE]
        found += connection.execute(f"{select} ({', '.join('?' * len(some))})", list(some)).fetchall()
    return found


def _tagged(connection: sqlite3.Connection, tags: Sequence[Learned], total: int) -> dict[int, float]:
    """Of the episodes that have the tags of the task, the share that shows each pattern; rare tags weigh more."""
    shares: dict[int, float] = {}
    weights = {it.key: math.log((total + 1) / (it.counts.episodes + 0.5)) for it in tags}
    whole = math.fsum(max(weight, 0.0) for weight in weights.values())
    for it in tags:
        weight = max(weights[it.key], 0.0)
        if not weight:
            continue
        looked_at = min(it.counts.episodes, TAGGED_EPISODES)
        rows = connection.execute(
            "SELECT v.pattern, count(*) FROM evidence v WHERE v.episode IN "
            "(SELECT episode FROM evidence WHERE pattern = ? ORDER BY episode DESC LIMIT ?) GROUP BY v.pattern",
            (it.key, TAGGED_EPISODES),
        )
        for key, count in rows:
            shares[key] = shares.get(key, 0.0) + weight / whole * count / looked_at
    return shares


def _alike(connection: sqlite3.Connection, similar: dict[bytes, float]) -> dict[int, float]:
    """Of the similar episodes, weighed by how similar they are, the share that shows each pattern."""
    whole = math.fsum(similar.values())
    if not whole:
        return {}
    shares: dict[int, float] = {}
    rows = _rows(
        connection,
        "SELECT v.pattern, e.stream FROM episode e JOIN evidence v ON v.episode = e.id WHERE e.stream IN",
        list(similar),
    )
    for key, stream in rows:
        shares[key] = shares.get(key, 0.0) + similar[stream] / whole
    return shares
