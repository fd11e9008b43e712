"""The catalog that episodes are retrieved from: its tables, and the statements that change them.

It is apart from the catalog of episodes, in a file and with a task of its own, since its full text costs several times
what a row does, and nothing that lists episodes should wait for it. So it holds all that retrieval compares and filters
by. Keys are given in log order: the list of a term is then short to store and to read, and the newest are its end.

The full text holds the episodes that are evidence: not those that are open, nor those that were interrupted.
"""

from __future__ import annotations

import json

from stepstore.catalog import CatalogSchema, FullText, Table
from stepwell.learning.ranking import ANALYSIS_VERSION
from stepwell.model.tags import tag_key
from stepwell.runtime import vectors
from stepwell.runtime.episode_catalog import retagged
from stepwell.runtime.lexical_index import label_terms

FILE = "retrieval.sqlite"
_VERSION = 1

EPISODE = Table(
    name="episode",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "stream": "BLOB NOT NULL UNIQUE",
        "last_seq": "INTEGER NOT NULL",  # of what is taken up here
        "episode_id": "TEXT NOT NULL",
        "task": "TEXT NOT NULL",
        "task_type": "TEXT NOT NULL",
        "agent": "TEXT NOT NULL",
        "domain": "TEXT NOT NULL",
        "language": "TEXT",
        "framework": "TEXT",
        "tags": "TEXT NOT NULL",  # a JSON array, case kept
        "started_ns": "INTEGER NOT NULL",
        "ended_ns": "INTEGER",
        "outcome": "TEXT",
        "reward": "REAL",
        "archived": "INTEGER NOT NULL",
        "terms": "TEXT NOT NULL",
        "labels": "TEXT NOT NULL",
        "step_terms": "TEXT",
    },
)
IS_EVIDENCE = "{row}.outcome IS NOT NULL AND {row}.outcome <> 'interrupted'"
WORDS = FullText(
    name="episode_words",
    table="episode",
    columns=("terms", "labels", "step_terms"),
    tokenizer="ascii",
    where=IS_EVIDENCE,
    where_columns=("outcome",),
    options=("detail=none", "columnsize=0"),  # it tells which episodes have a term, and nothing else is asked
)
CORPUS = Table(
    name="corpus",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "documents": "INTEGER NOT NULL",
        "terms": "INTEGER NOT NULL",
        "changes": "INTEGER NOT NULL",  # so many there have been
    },
)


def _count(column: str) -> str:
    return f"length({column}) - length(replace({column}, ' ', '')) + ({column} <> '')"


_PUT = (
    f"INSERT INTO corpus SELECT 1, 1, {_count('new.terms')}, 1 WHERE {WORDS.holds('new')} ON CONFLICT (id) DO UPDATE "
    "SET documents = documents + 1, terms = terms + excluded.terms, changes = changes + 1"
)
_TAKE = (
    f"UPDATE corpus SET documents = documents - 1, terms = terms - ({_count('old.terms')}), changes = changes + 1 "
    f"WHERE {WORDS.holds('old')}"
)
_TRIGGERS = (
    f"CREATE TRIGGER corpus_put AFTER INSERT ON episode WHEN {WORDS.holds('new')} BEGIN {_PUT}; END",
    f"CREATE TRIGGER corpus_change AFTER UPDATE OF {', '.join(WORDS.watched)} ON episode WHEN {WORDS.changed()} "
    f"BEGIN {_TAKE}; {_PUT}; END",
    f"CREATE TRIGGER corpus_take AFTER DELETE ON episode WHEN {WORDS.holds('old')} BEGIN {_TAKE}; END",
)


def joined(terms: list[str]) -> str:
    """Terms as they are stored."""
    return " ".join(terms)


def _stored_labels(domain: str, language: str | None, framework: str | None, task_type: str, tags: str) -> str:
    return joined(label_terms((domain, language, framework, task_type), json.loads(tags)))


SCHEMA = CatalogSchema(
    version=_VERSION * 1_000 + ANALYSIS_VERSION,
    tables=(EPISODE, CORPUS, *vectors.TABLES),
    full_texts=(WORDS,),
    triggers=(*_TRIGGERS, *vectors.TRIGGERS),
    functions={"retagged": (2, retagged), "tag_key": (1, tag_key), "label_terms": (5, _stored_labels)},
)

# In all of these `new` holds what some records say of some episodes, at most one row for each. Episodes that are not
# there, because they were deleted or their first record cannot be read, are left out.
ADD = f"INSERT OR IGNORE INTO episode ({', '.join(list(EPISODE.columns)[1:])}) {{values}}"
_CHANGED = ("ended_ns", "outcome", "reward", "step_terms", "archived", "task", "terms")
_AS_CHANGED = ", ".join(f"{it} = coalesce(new.{it}, episode.{it})" for it in _CHANGED)
CHANGE = f"""
    WITH new (stream, last_seq, {", ".join(_CHANGED)}) AS ({{values}})
    UPDATE episode SET last_seq = new.last_seq, {_AS_CHANGED}
    FROM new WHERE episode.stream = new.stream AND episode.last_seq < new.last_seq"""
RETAG = """
    WITH new (stream, last_seq, changes) AS ({values})
    UPDATE episode SET
        tags = retagged(tags, new.changes),
        labels = label_terms(domain, language, framework, task_type, retagged(tags, new.changes))
    FROM new WHERE episode.stream = new.stream AND episode.last_seq < new.last_seq"""
DELETE = "WITH gone (stream) AS ({values}) DELETE FROM episode WHERE stream IN gone"
