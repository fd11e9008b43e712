"""The catalog of episodes: its tables, and the statements that change them.

One row per episode. Its key is the time at which it started, in microseconds and with ten bits of its stream id to
tell apart what starts at once: so the order of every index, and of the full text, is that of a list by start time, and
a page is read off any of them without sorting. Relationships stand in a table of their own, see `edges`.
"""

from __future__ import annotations

import json

from stepstore.catalog import CatalogSchema, FullText, Table
from stepwell.model.tags import tag_key, with_tags, without_tags
from stepwell.runtime import worth_order
from stepwell.runtime.edges import EDGE

FILE = "catalog.sqlite"
KEY_BITS = 10
"""Bits of a key below the microseconds."""
_LARGEST_US = 2**52
_VERSION = 1

EPISODE = Table(
    name="episode",
    columns={
        "id": "INTEGER PRIMARY KEY",
        "stream": "BLOB NOT NULL UNIQUE",
        "episode_id": "TEXT NOT NULL",
        "task": "TEXT NOT NULL",
        "task_type": "TEXT NOT NULL",
        "agent": "TEXT NOT NULL",
        "domain": "TEXT NOT NULL",
        "language": "TEXT",
        "framework": "TEXT",
        "complexity": "TEXT NOT NULL",
        "tags": "TEXT NOT NULL",  # a JSON array, case kept
        "started_ns": "INTEGER NOT NULL",
        "last_ns": "INTEGER NOT NULL",
        "last_seq": "INTEGER NOT NULL",
        "steps": "INTEGER NOT NULL",
        "failed_steps": "INTEGER NOT NULL",
        "ended_ns": "INTEGER",
        "outcome": "TEXT",
        "reward": "REAL",
        "archived": "INTEGER NOT NULL",
    },
    indexes=(
        "(agent)",
        "(task_type)",
        "(domain)",
        "(language) WHERE language IS NOT NULL",
        "(outcome)",
        "(ended_ns) WHERE ended_ns IS NOT NULL",
        "(reward) WHERE reward IS NOT NULL",
        "(archived) WHERE archived = 1",
        "(ended_ns - started_ns)",
        worth_order.INDEX,
    ),
    indexed_last=True,
)
EPISODE_TAG = Table(
    name="episode_tag",
    columns={"tag": "TEXT NOT NULL", "episode": "INTEGER NOT NULL"},
    key=("tag", "episode"),
    indexes=("(episode)",),
    belongs_to=("episode", "episode"),
)
EPISODE_TEXT = FullText(name="episode_text", table="episode", columns=("task",))


def retagged(tags: str, changes: str) -> str:
    """Tags after changes, each of which takes some away and puts others behind; all of it JSON."""
    found = json.loads(tags)
    for removed, added in json.loads(changes):
        found = with_tags(without_tags(found, removed), added)
    return json_text(found)


SCHEMA = CatalogSchema(
    version=_VERSION,
    tables=(EPISODE, EPISODE_TAG, EDGE),
    full_texts=(EPISODE_TEXT,),
    functions={"retagged": (2, retagged), "tag_key": (1, tag_key)},
)


def json_text(value: object) -> str:
    """JSON as the catalog keeps it."""
    return _encode_json(value)


_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""As `json.dumps` with these, which makes such an encoder for each call."""


def key_of(started_ns: int, stream: bytes) -> int:
    """The key of an episode, unless another has it."""
    started_us = max(-_LARGEST_US, min(started_ns // 1000, _LARGEST_US - 1))
    return started_us << KEY_BITS | int.from_bytes(stream[:2], "big") & (1 << KEY_BITS) - 1


# In all of these `new` holds what some records say of some episodes, at most one row for each. Episodes that are not
# there, because they were deleted or their first record cannot be read, are left out.
_COLUMNS = ", ".join(EPISODE.columns)
_BEHIND_THE_KEY = ", ".join(list(EPISODE.columns)[1:])
# A key that is taken (two starts in one microsecond, and ten equal bits) moves up to the next that is free; what of one
# statement wants the same then is added when it is repeated.
ADD = f"""
    INSERT INTO episode ({_COLUMNS})
    WITH new ({_COLUMNS}) AS ({{values}})
    SELECT (
        WITH RECURSIVE free (key) AS (
            SELECT new.id UNION ALL SELECT key + 1 FROM free WHERE EXISTS (SELECT 1 FROM episode WHERE id = key)
        )
        SELECT max(key) FROM free
    ), {_BEHIND_THE_KEY}
    FROM new WHERE NOT EXISTS (SELECT 1 FROM episode WHERE stream = new.stream)
    ON CONFLICT DO NOTHING"""
ADD_TAG = """
    INSERT OR IGNORE INTO episode_tag
    WITH new (stream, tag) AS ({values})
    SELECT new.tag, episode.id FROM new JOIN episode ON episode.stream = new.stream"""
CHANGE = """
    WITH new (stream, last_ns, last_seq, steps, failed_steps, ended_ns, outcome, reward) AS ({values})
    UPDATE episode SET
        last_ns = max(episode.last_ns, new.last_ns), last_seq = new.last_seq,
        steps = episode.steps + new.steps, failed_steps = episode.failed_steps + new.failed_steps,
        ended_ns = coalesce(new.ended_ns, episode.ended_ns), outcome = coalesce(new.outcome, episode.outcome),
        reward = coalesce(new.reward, episode.reward)
    FROM new WHERE episode.stream = new.stream AND episode.last_seq < new.last_seq"""
DESCRIBE = """
    WITH new (stream, task) AS ({values})
    UPDATE episode SET task = new.task FROM new WHERE episode.stream = new.stream"""
ARCHIVE = """
    WITH new (stream, archived) AS ({values})
    UPDATE episode SET archived = new.archived FROM new WHERE episode.stream = new.stream"""
RETAG = """
    WITH new (stream, changes) AS ({values})
    UPDATE episode SET tags = retagged(episode.tags, new.changes) FROM new WHERE episode.stream = new.stream"""
FORGET_TAGS = """
    WITH new (stream) AS ({values})
    DELETE FROM episode_tag WHERE episode IN (SELECT id FROM episode WHERE stream IN new)"""
NOTE_TAGS = """
    INSERT OR IGNORE INTO episode_tag
    WITH new (stream) AS ({values})
    SELECT tag_key(tag.value), episode.id FROM new JOIN episode ON episode.stream = new.stream, json_each(tags) tag"""
DELETE = "WITH gone (stream) AS ({values}) DELETE FROM episode WHERE stream IN gone"
