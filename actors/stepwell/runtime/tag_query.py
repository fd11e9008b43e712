"""A page of the list of tags, from the catalog of episodes."""

from __future__ import annotations

import base64
import json
import sqlite3
from typing import Literal, TypeAlias

from stepwell.errors import InvalidInput
from stepwell.model.tag_count import TagCount, TagPage
from stepwell.model.tags import tag_key

TagOrder: TypeAlias = Literal["tag", "count"]
_CURSOR_BYTES = 4_096
# Tags stand in the catalog as what they have in common in whatever case, in the order of an index.
_BY_TAG = """
    SELECT tag, count(*), max(episode) FROM episode_tag WHERE tag > ?
    GROUP BY tag ORDER BY tag LIMIT ?"""
_BY_COUNT = """
    SELECT tag, count(*) AS episodes, max(episode) FROM episode_tag
    GROUP BY tag HAVING episodes < ? OR (episodes = ? AND tag > ?)
    ORDER BY episodes DESC, tag LIMIT ?"""
_LARGEST = 2**62

Place: TypeAlias = tuple[int, str]
"""Count and key of the last tag of a page."""


def read_tags(connection: sqlite3.Connection, order: TagOrder, limit: int, after: Place | None) -> TagPage:
    """A page of at most `limit` tags behind `after`."""
    count, key = after or (_LARGEST, "")
    if order == "tag":
        rows = connection.execute(_BY_TAG, (key, limit + 1)).fetchall()
    else:
        rows = connection.execute(_BY_COUNT, (count, count, key, limit + 1)).fetchall()
    items = [TagCount(tag=_spelled(connection, tag, newest), episodes=found) for tag, found, newest in rows[:limit]]
    cursor = cursor_text(order, (rows[limit - 1][1], rows[limit - 1][0])) if len(rows) > limit else None
    return TagPage(items=items, next_cursor=cursor)


def _spelled(connection: sqlite3.Connection, key: str, episode: int) -> str:
    (tags,) = connection.execute("SELECT tags FROM episode WHERE id = ?", (episode,)).fetchone()
    return next((tag for tag in json.loads(tags) if tag_key(tag) == key), key)


def cursor_text(order: TagOrder, place: Place) -> str:
    """The cursor behind this place, in a list of this order."""
    return base64.urlsafe_b64encode(json.dumps([order, *place]).encode()).decode()


def parse_tag_cursor(text: object, order: TagOrder) -> Place:
    """The place that a cursor stands behind. Raises: `InvalidInput` if it is none, or that of the other order."""
    if not isinstance(text, str):
        raise InvalidInput(f"cursor: must be the next_cursor of a page, not {type(text).__name__}")
    try:
        found = json.loads(base64.b64decode(text[:_CURSOR_BYTES].encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        found = None
    match found:
        case [str(said), int(count), str(key)] if said in ("tag", "count") and 0 <= count < _LARGEST:
            if said != order:
                raise InvalidInput("cursor: it is of a list in the other order; begin without a cursor")
            return count, key
    raise InvalidInput("cursor: this is no cursor of a list of tags; take the next_cursor of a page")
