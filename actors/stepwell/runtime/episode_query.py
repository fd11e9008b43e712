"""A page of the list of episodes, as SQL.

The order is that of the keys of the rows. Every index ends with the key, so one condition that an index answers gives
its rows in order, and reading stops when the page is full. Where a condition names several values, each is read like
that, and the pages are merged. A range of endings or rewards gives no order: if few rows lie in it their keys
are sorted, else the rows are read in order and many fit; how long the longest episode took says where to begin.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import sqlite3
from dataclasses import fields
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias

from stepwell.errors import InvalidInput
from stepwell.model.episode_filter import EpisodeFilter
from stepwell.model.event import utc
from stepwell.model.ids import EpisodeId
from stepwell.model.listed_episode import ListedEpisode
from stepwell.model.tags import tag_key
from stepwell.runtime.episode_catalog import KEY_BITS

Order: TypeAlias = Literal["newest", "oldest"]
SPARSE = 16_000
"""A range with fewer rows than this is read by its own index and sorted."""
_COLUMNS = (
    "e.id, e.episode_id, e.task, e.task_type, e.agent, e.domain, e.language, e.framework, e.complexity, e.tags, "
    "e.started_ns, e.last_ns, e.ended_ns, e.outcome, e.steps, e.failed_steps, e.reward, e.archived"
)
_ALL_KEYS = -(2**63), 2**63 - 1
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_PHRASE_WORDS = 12
_CURSOR_BYTES = 16


class Found(NamedTuple):
    """One row: its key, and what it says."""

    key: int
    episode: ListedEpisode


def cursor_text(filter: EpisodeFilter, order: Order, key: int) -> str:
    """The cursor behind the row with this key, in this list and no other."""
    return base64.urlsafe_b64encode(_list_digest(filter, order) + key.to_bytes(8, "big", signed=True)).decode()


def parse_cursor(text: object, filter: EpisodeFilter, order: Order) -> int:
    """The key that a cursor stands behind. Raises: `InvalidInput` if it is none, or that of another list."""
    if not isinstance(text, str):
        raise InvalidInput(f"cursor: must be the next_cursor of a page, not {type(text).__name__}")
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _CURSOR_BYTES:
        raise InvalidInput("cursor: this is no cursor of a list of episodes; take the next_cursor of a page")
    if raw[:8] != _list_digest(filter, order):
        raise InvalidInput("cursor: it is of a list with another filter or another order; begin without a cursor")
    return int.from_bytes(raw[8:], "big", signed=True)


def _list_digest(filter: EpisodeFilter, order: Order) -> bytes:
    said: list[Any] = [order]
    for item in fields(filter):
        value = getattr(filter, item.name)
        if isinstance(value, dt.datetime):
            value = _microseconds(value)
        elif item.name.startswith("tags") and value is not None:
            value = sorted({_key(tag) for tag in value})
        elif item.name == "outcomes" and value is not None:
            value = sorted(set(value))
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
        said.append(value)
    return blake2b(json.dumps(said).encode(), digest_size=8).digest()


def _microseconds(time: dt.datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


class EpisodeQuery(NamedTuple):
    """One page: at most `limit` rows behind the row with key `after`, from the newest start or the oldest."""

    filter: EpisodeFilter
    order: Order
    limit: int
    after: int | None

    def run(self, connection: sqlite3.Connection) -> list[Found]:
        """Read it."""
        return _Reading(*self).run(connection)


def count_episodes(connection: sqlite3.Connection, filter: EpisodeFilter) -> int:
    """How many episodes a filter lets through."""
    return _Reading(filter, "newest", 0, None).count(connection)


class _Reading:
    """One reading of a page, from a filter to rows."""

    def __init__(self, filter: EpisodeFilter, order: Order, limit: int, after: int | None):
        self._filter, self._order, self._limit = filter, order, limit
        self._conditions: list[str] = []
        self._values: list[Any] = []
        self._ranges: dict[str, tuple[str, list[Any]]] = {}
        self._is_led = False
        """Whether some condition is answered by an index in the order of the keys."""
        low, high = self._equal_and_ranges()
        if after is not None:
            low, high = (low, min(high, after - 1)) if order == "newest" else (max(low, after + 1), high)
        self._low, self._high = low, high

    def run(self, connection: sqlite3.Connection) -> list[Found]:
        """Read it."""
        if self._low > self._high:
            return []
        filter = self._filter
        text = filter.text
        if text is not None:
            if filter.text_match == "words":
                return self._read(connection, [("f", " AND episode_text MATCH ?", [_words(text)])])
            if filter.text_match == "exact" and (words := _first_words(text)):
                # What is the same text has the same words in the same order, and those are found by an index.
                self._match_text(connection)
                return self._read(connection, [("f", " AND episode_text MATCH ?", [words])])
            self._match_text(connection)
        if filter.tags_any is not None and not filter.tags_all:
            tags = sorted({_key(tag) for tag in filter.tags_any})
            return self._read(connection, [("t", " AND t.tag = ?", [tag]) for tag in tags])
        if filter.tags_all:
            first, *others = sorted({_key(tag) for tag in filter.tags_all})
            self._has_tags([[tag] for tag in others])
            if filter.tags_any is not None:
                self._has_tags([sorted({_key(tag) for tag in filter.tags_any})])
            return self._read(connection, [("t", " AND t.tag = ?", [first])])
        outcomes = sorted(set(filter.outcomes)) if filter.outcomes is not None else None
        if outcomes is not None and not self._is_led:
            return self._read(connection, [("e", " AND e.outcome = ?", [kind]) for kind in outcomes])
        return self._read(connection, [("e", "", [])])

    def count(self, connection: sqlite3.Connection) -> int:
        """How many rows there are."""
        filter = self._filter
        source = "episode e"
        if filter.text is not None and filter.text_match == "words":
            source = "episode_text f CROSS JOIN episode e ON e.id = f.rowid"
            self._also("episode_text MATCH ?", _words(filter.text))
        else:
            self._match_text(connection)
        if filter.outcomes is not None:
            kinds = sorted(set(filter.outcomes))
            self._also(f"e.outcome IN ({', '.join('?' * len(kinds))})", *kinds)
        self._have_tags()
        for column, (condition, values) in self._ranges.items():
            self._also(condition.format(column=f"e.{column}"), *values)
        where = "".join(f" AND {condition}" for condition in self._conditions)
        statement = f"SELECT count(*) FROM {source} WHERE e.id BETWEEN ? AND ?{where}"
        if not self._conditions and (self._low, self._high) == _ALL_KEYS:
            statement = "SELECT count(*) FROM episode WHERE ? < ?"  # the smallest index is enough
        return int(connection.execute(statement, [self._low, self._high, *self._values]).fetchone()[0])

    # ---- conditions --------------------------------------------------------------------------------------------------

    def _also(self, condition: str, *values: Any) -> None:
        self._conditions.append(condition)
        self._values += values

    def _equal_and_ranges(self) -> tuple[int, int]:
        """Take up what is compared with one value or two; gives the first and the last key there can be."""
        filter = self._filter
        for name in ("agent", "task_type", "domain", "language"):
            if (value := getattr(filter, name)) is not None:
                self._also(f"e.{name} = ?", value)
                self._is_led = True
        if filter.archived is not None:
            self._also("e.archived = 1" if filter.archived else "+e.archived = 0")
            self._is_led |= filter.archived
        if filter.status == "open":
            self._also("e.outcome IS NULL")
            self._is_led = True
        elif filter.status == "ended":
            self._also("+e.outcome IS NOT NULL")
        low, high = _ALL_KEYS
        if filter.started_from is not None:
            low = _key_from(_microseconds(filter.started_from))
        if filter.started_before is not None:
            high = min(high, _key_from(_microseconds(filter.started_before)) - 1)
        if filter.ended_before is not None:  # what has ended by then had started by then
            high = min(high, _key_from(_microseconds(filter.ended_before) + 1) - 1)
        self._range("ended_ns", _ns(filter.ended_from), None, _ns(filter.ended_before))
        self._range("reward", filter.reward_from, filter.reward_to, None)
        return low, high

    def _range(self, column: str, least: Any, most: Any, below: Any) -> None:
        given = [(sign, value) for sign, value in ((">=", least), ("<=", most), ("<", below)) if value is not None]
        if given:
            condition = " AND ".join(f"{{column}} {sign} ?" for sign, _value in given)
            self._ranges[column] = (condition, [value for _sign, value in given])

    def _match_text(self, connection: sqlite3.Connection) -> None:
        """A condition for the text, where it is not looked for word by word."""
        if (text := self._filter.text) is None:
            return
        if self._filter.text_match == "exact":
            self._also("e.task = ?", text)
        else:
            connection.create_function("is_part", 2, _is_part, deterministic=True)
            self._also("is_part(?, e.task)", text.casefold())

    def _have_tags(self) -> None:
        """Conditions for all tags that are asked for."""
        if self._filter.tags_all:
            self._has_tags([[_key(tag)] for tag in self._filter.tags_all])
        if self._filter.tags_any is not None:
            self._has_tags([sorted({_key(tag) for tag in self._filter.tags_any})])

    def _has_tags(self, groups: list[list[str]]) -> None:
        """Conditions for tags: one of each group."""
        for group in groups:
            marks = ", ".join("?" * len(group))
            self._also(f"EXISTS (SELECT 1 FROM episode_tag x WHERE x.episode = e.id AND x.tag IN ({marks}))", *group)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def _read(self, connection: sqlite3.Connection, branches: list[tuple[str, str, list[Any]]]) -> list[Found]:
        """Read the page from each branch: the table that gives the order, and a condition of its own."""
        filter = self._filter
        leader = branches[0][0]
        if leader == "f":
            self._have_tags()
        if filter.outcomes is not None and not (leader == "e" and not self._is_led):
            kinds = sorted(set(filter.outcomes))
            self._also(f"+e.outcome IN ({', '.join('?' * len(kinds))})", *kinds)
        by_range = self._take_ranges(connection, may_lead=leader == "e" and not self._is_led and not branches[0][1])
        source, key = {
            "e": ("episode e", "e.id"),
            "t": ("episode_tag t CROSS JOIN episode e ON e.id = t.episode", "t.episode"),
            "f": ("episode_text f CROSS JOIN episode e ON e.id = f.rowid", "f.rowid"),
        }[leader]
        direction = "DESC" if self._order == "newest" else "ASC"
        if by_range:  # the index gives the keys of the page, and only then rows are looked up
            return self._read_by_range(connection, by_range, direction)
        where = "".join(f" AND {condition}" for condition in self._conditions)
        found: dict[int, tuple[Any, ...]] = {}
        for _leader, condition, values in branches:
            statement = (
                f"SELECT {_COLUMNS} FROM {source} WHERE {key} BETWEEN ? AND ?{condition}{where} "
                f"ORDER BY {key} {direction} LIMIT ?"
            )
            arguments = [self._low, self._high, *values, *self._values, self._limit]
            found.update((row[0], row) for row in connection.execute(statement, arguments))
        keys = sorted(found, reverse=self._order == "newest")[: self._limit]
        return [_listed(found[key]) for key in keys]

    def _read_by_range(self, connection: sqlite3.Connection, index: str, direction: str) -> list[Found]:
        """Read the page by an index of a range: it has few rows, and gives their keys to be sorted."""
        where = "".join(f" AND {condition}" for condition in self._conditions)
        statement = (
            f"SELECT {_COLUMNS} FROM episode e WHERE e.id IN (SELECT e.id FROM episode e INDEXED BY {index} "
            f"WHERE e.id BETWEEN ? AND ?{where} ORDER BY e.id {direction} LIMIT ?) ORDER BY e.id {direction}"
        )
        arguments = [self._low, self._high, *self._values, self._limit]
        return [_listed(row) for row in connection.execute(statement, arguments)]

    def _bound_by_duration(self, connection: sqlite3.Connection) -> None:
        """What ended at some time or later had not started earlier than the longest duration before that."""
        ended_from = _ns(self._filter.ended_from)
        if ended_from is not None:
            (longest,) = connection.execute("SELECT max(ended_ns - started_ns) FROM episode").fetchone()
            if longest is not None:
                # More than 64 bits hold is a float in SQL.
                self._low = max(self._low, _key_from((ended_from - int(longest)) // 1000))

    def _take_ranges(self, connection: sqlite3.Connection, *, may_lead: bool) -> str:
        """Take up the ranges; gives the index to read by, "" for the order of the keys."""
        index = ""
        self._bound_by_duration(connection)
        for column, (condition, values) in self._ranges.items():
            named = condition.format(column=column)
            if may_lead and not index:
                counting = f"SELECT count(*) FROM (SELECT 1 FROM episode WHERE {named} LIMIT {SPARSE})"
                if connection.execute(counting, values).fetchone()[0] < SPARSE:
                    index = {"ended_ns": "episode_5", "reward": "episode_6"}[column]
                    self._also(condition.format(column=f"e.{column}"), *values)
                    continue
            self._also(condition.format(column=f"+e.{column}"), *values)
        return index


def _key(tag: str) -> str:
    return tag_key(tag.strip())


def _key_from(us: int) -> int:
    """The first key of what started at this microsecond or later."""
    bound = 1 << 63 - KEY_BITS
    return max(-bound, min(us, bound - 1)) << KEY_BITS


def _ns(time: dt.datetime | None) -> int | None:
    """The first nanosecond of a time, as far as 64 bits go."""
    return None if time is None else max(-(2**63), min(_microseconds(time) * 1000, 2**63 - 1))


def _words(text: str) -> str:
    """The words of a text as phrases: nothing in them means anything to the full-text search."""
    return " ".join('"' + word.replace('"', '""') + '"' for word in text.replace("\0", " ").split()) or '""'


def _first_words(text: str) -> str:
    """The first words of a text as one phrase; "" where it is not certain that the full text sees words in it."""
    first = " ".join(text.replace("\0", " ").split()[:_PHRASE_WORDS])
    if not any(character.isascii() and character.isalnum() for character in first):
        return ""
    return '"' + first.replace('"', '""') + '"'


def _is_part(folded: str, text: str) -> bool:
    return folded in text.casefold()


def _listed(row: tuple[Any, ...]) -> Found:
    key, name, task, task_type, agent, domain, language, framework, complexity, tags = row[:10]
    started_ns, last_ns, ended_ns, outcome, steps, failed_steps, reward, archived = row[10:]
    return Found(
        key,
        ListedEpisode(
            episode_id=EpisodeId(name),
            status="open" if outcome is None else "ended",
            outcome=outcome,
            task_description=task,
            task_type=task_type,
            agent=agent,
            domain=domain,
            language=language,
            framework=framework,
            complexity=complexity,
            tags=json.loads(tags),
            start_time=utc(started_ns),
            end_time=None if ended_ns is None else utc(ended_ns),
            last_time=utc(last_ns),
            steps=steps,
            failed_steps=failed_steps,
            reward=reward,
            archived=bool(archived),
        ),
    )
