"""The tables of what was learned: episodes with the patterns they show, and what became of advice.

    episode ──< evidence >── pattern            counts of a pattern: the sum of its evidence, kept by triggers
    recommendation ──< advice                   which patterns or skills, and whether they were applied
    skill ──< skill_use

Evidence is added once and goes with its episode; what it put into the counts of its pattern goes with it, and a pattern
without evidence goes too. So the tables are a function of the episodes alone, in whatever order they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from stepstore.catalog import CatalogSchema, Table
from stepwell.learning.accumulation import confidence
from stepwell.learning.extraction import EXTRACTOR_VERSION
from stepwell.learning.intervals import success_interval
from stepwell.learning.wording import pattern_text
from stepwell.model.pattern import WARNINGS, PatternContent

FILE = "learning.sqlite"
_TABLES_VERSION = 2

_EPISODE = Table(
    name="episode",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "stream": "BLOB NOT NULL UNIQUE",
        "episode_id": "TEXT NOT NULL",
        "success": "INTEGER",
        "outcome": "TEXT NOT NULL",
        "ended_ns": "INTEGER NOT NULL",
        "end_seq": "INTEGER NOT NULL",  # of the first ending, which is the one that counts
    },
)
_PATTERN = Table(
    name="pattern",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "pattern_id": "TEXT NOT NULL UNIQUE",
        "kind": "TEXT NOT NULL",
        "domain": "TEXT NOT NULL",
        "content": "TEXT NOT NULL",
        "episodes": "INTEGER NOT NULL DEFAULT 0",
        "trials": "INTEGER NOT NULL DEFAULT 0",
        "wins": "INTEGER NOT NULL DEFAULT 0",
        "occurrences": "INTEGER NOT NULL DEFAULT 0",
        "ok": "INTEGER NOT NULL DEFAULT 0",
        "failed": "INTEGER NOT NULL DEFAULT 0",
        "first_ns": "INTEGER",
        "last_ns": "INTEGER",
    },
    indexes=("(domain, kind)", "(domain, episodes) WHERE kind <> 'context_pattern'"),
)


@dataclass(frozen=True, kw_only=True)
class _EvidenceTable(Table):
    """Evidence, with the triggers that add it to its pattern and take it out."""

    def statements(self, keys: dict[str, str]) -> Iterator[str]:
        """The statements that make it."""
        yield from super().statements(keys)
        yield """
            CREATE TRIGGER evidence_comes AFTER INSERT ON evidence BEGIN
                UPDATE pattern SET
                    episodes = episodes + 1, trials = trials + (new.success IS NOT NULL),
                    wins = wins + coalesce(new.success, 0), occurrences = occurrences + new.occurrences,
                    ok = ok + new.ok, failed = failed + new.failed,
                    first_ns = min(coalesce(first_ns, new.ended_ns), new.ended_ns),
                    last_ns = max(coalesce(last_ns, new.ended_ns), new.ended_ns)
                WHERE id = new.pattern;
            END"""
        yield """
            CREATE TRIGGER evidence_goes_from_pattern AFTER DELETE ON evidence BEGIN
                UPDATE pattern SET
                    episodes = episodes - 1, trials = trials - (old.success IS NOT NULL),
                    wins = wins - coalesce(old.success, 0), occurrences = occurrences - old.occurrences,
                    ok = ok - old.ok, failed = failed - old.failed,
                    first_ns = CASE WHEN first_ns < old.ended_ns THEN first_ns
                        ELSE (SELECT min(ended_ns) FROM evidence WHERE pattern = old.pattern) END,
                    last_ns = CASE WHEN last_ns > old.ended_ns THEN last_ns
                        ELSE (SELECT max(ended_ns) FROM evidence WHERE pattern = old.pattern) END
                WHERE id = old.pattern;
                DELETE FROM pattern WHERE id = old.pattern AND episodes = 0;
            END"""


_EVIDENCE = _EvidenceTable(
    name="evidence",
    columns={
        "pattern": "INTEGER NOT NULL",
        "episode": "INTEGER NOT NULL",
        "occurrences": "INTEGER NOT NULL",
        "ok": "INTEGER NOT NULL",
        "failed": "INTEGER NOT NULL",
        "success": "INTEGER",
        "ended_ns": "INTEGER NOT NULL",
        "seqs": "TEXT NOT NULL",  # a JSON array
    },
    key=("pattern", "episode"),
    indexes=("(episode)",),
    belongs_to=("episode", "episode"),
)
_RECOMMENDATION = Table(
    name="recommendation",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "stream": "BLOB NOT NULL UNIQUE",
        "time_ns": "INTEGER NOT NULL",
        "feedback_seq": "INTEGER NOT NULL DEFAULT 0",  # of the newest feedback, 0 for none
        "success": "INTEGER",
        "rating": "REAL",
    },
)
_ADVICE = Table(
    name="advice",
    columns={"advised": "TEXT NOT NULL", "recommendation": "INTEGER NOT NULL", "applied": "INTEGER"},
    key=("advised", "recommendation"),
    indexes=("(recommendation)",),
    belongs_to=("recommendation", "recommendation"),
)
_SKILL = Table(
    name="skill",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "stream": "BLOB NOT NULL UNIQUE",
        "skill_id": "TEXT NOT NULL UNIQUE",
        "name": "TEXT NOT NULL",
        "content": "TEXT NOT NULL",
        "seq": "INTEGER NOT NULL",
        "created_ns": "INTEGER NOT NULL",
        "updated_ns": "INTEGER NOT NULL",
    },
    indexes=("(name)",),
)
_SKILL_USE = Table(
    name="skill_use",
    columns={"skill": "INTEGER NOT NULL", "seq": "INTEGER NOT NULL", "success": "INTEGER"},
    key=("skill", "seq"),
    belongs_to=("skill", "skill"),
)


def _believed(kind: str, wins: int, trials: int) -> float:
    """What is believed of a pattern at least, see `accumulation.confidence`."""
    return confidence(kind in WARNINGS, success_interval(wins, trials))


def _is_in(part: str, content: str) -> bool:
    return part in pattern_text(msgspec.json.decode(content, type=PatternContent)).casefold()


LEARNING = CatalogSchema(
    version=_TABLES_VERSION * 1_000 + EXTRACTOR_VERSION,
    tables=(_EPISODE, _PATTERN, _EVIDENCE, _RECOMMENDATION, _ADVICE, _SKILL, _SKILL_USE),
    functions={"believed": (3, _believed), "is_in": (2, _is_in)},
)

ADD_EPISODE = """
    INSERT OR IGNORE INTO episode (stream, episode_id, success, outcome, ended_ns, end_seq) {values}"""
ADD_PATTERN = "INSERT OR IGNORE INTO pattern (pattern_id, kind, domain, content) {values}"
ADD_EVIDENCE = """
    INSERT OR IGNORE INTO evidence
    WITH new (pattern_id, stream, end_seq, occurrences, ok, failed, success, ended_ns, seqs) AS ({values})
    SELECT pattern.id, episode.id, new.occurrences, new.ok, new.failed, new.success, new.ended_ns, new.seqs
    FROM new CROSS JOIN pattern ON pattern.pattern_id = new.pattern_id
    CROSS JOIN episode ON episode.stream = new.stream AND episode.end_seq = new.end_seq"""
ADD_RECOMMENDATION = "INSERT OR IGNORE INTO recommendation (stream, time_ns) {values}"
ADD_ADVICE = """
    INSERT OR IGNORE INTO advice (advised, recommendation)
    WITH new (stream, advised) AS ({values})
    SELECT new.advised, recommendation.id FROM new JOIN recommendation ON recommendation.stream = new.stream"""
ADD_FEEDBACK = """
    WITH new (stream, seq, success, rating, applied) AS ({values})
    UPDATE recommendation SET feedback_seq = new.seq, success = new.success, rating = new.rating
    FROM new WHERE recommendation.stream = new.stream AND recommendation.feedback_seq < new.seq"""
APPLY_ADVICE = """
    WITH new (stream, seq, success, rating, applied) AS ({values})
    UPDATE advice SET applied = EXISTS (SELECT 1 FROM json_each(new.applied) WHERE value = advice.advised)
    FROM new JOIN recommendation ON recommendation.stream = new.stream AND recommendation.feedback_seq = new.seq
    WHERE advice.recommendation = recommendation.id"""
ADD_SKILL = """
    INSERT INTO skill (stream, skill_id, name, content, seq, created_ns, updated_ns)
    SELECT * FROM ({values}) WHERE true
    ON CONFLICT (stream) DO UPDATE SET
        name = excluded.name, content = excluded.content, seq = excluded.seq, updated_ns = excluded.updated_ns
    WHERE excluded.seq > skill.seq"""
ADD_SKILL_USE = """
    INSERT OR IGNORE INTO skill_use
    WITH new (stream, seq, success) AS ({values})
    SELECT skill.id, new.seq, new.success FROM new JOIN skill ON skill.stream = new.stream"""
FORGET_EPISODE = "WITH gone (stream) AS ({values}) DELETE FROM episode WHERE stream IN gone"
FORGET_RECOMMENDATION = "WITH gone (stream) AS ({values}) DELETE FROM recommendation WHERE stream IN gone"
FORGET_SKILL = "WITH gone (stream) AS ({values}) DELETE FROM skill WHERE stream IN gone"
