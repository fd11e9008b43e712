"""The terms by which finished episodes are found, and the lookup of those that have them.

Each has its terms, as `stepwell.learning.ranking` makes them: those of the task, those of its labels (tags, domain,
language, framework, task type), and those of the key steps of its summary (tools, and what they were called for).
SQLite's full text over them (see `retrieval_catalog`) tells which episodes have a term, and how many; the scores are
worked out by us, since the bm25 of SQLite pins its parameters and costs a microsecond for every episode that has any of
the words.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import trio

from stepwell.learning.ranking import CorpusStatistics, analyse

LABEL_WEIGHT = 0.2
"""What a word counts among the labels, when it counts 1 in the task."""
UNINFORMATIVE = ("general", "other")
"""The domain and the task type of an episode that was given none."""
_STEP_NUMBER = re.compile(r"^Step [^:]*: ")
"""How a key step of a summary begins."""
_REMEMBERED_STEPS = 8_192


def stored_term(term: str) -> str:
    """A term as it stands in the index: letters and digits of ASCII, whatever script it is of."""
    return term if term.isascii() else "zz" + term.encode("utf-8", "surrogatepass").hex()


def stored_terms(text: str) -> list[str]:
    """The terms of a text, as they stand in the index."""
    return [stored_term(term) for term in analyse(text)]


def label_terms(given: Iterable[str | None], tags: Iterable[str]) -> list[str]:
    """The terms of the labels of an episode: what it was `given` of domain, language, framework and task type, and
    its tags."""
    return stored_terms(" ".join([*(label for label in given if label and label not in UNINFORMATIVE), *tags]))


def step_terms(key_steps: Iterable[str]) -> list[str]:
    """The terms of the key steps of its summary: tools, and what they were called for."""
    return [term for step in key_steps for term in _terms_of_step(_STEP_NUMBER.sub("", step))]


@lru_cache(maxsize=_REMEMBERED_STEPS)  # agents do the same again and again
def _terms_of_step(said: str) -> list[str]:
    return stored_terms(said)


class TermCounts:
    """In how many episodes terms occur, remembered as long as no episode comes, changes or goes: to count a frequent
    term takes a millisecond or two. For the thread that reads the catalog."""

    def __init__(self) -> None:
        self._as_of = (-1, -1, -1)
        self._counts: dict[str, int] = {}

    @trio.lowlevel.enable_ki_protection
    def corpus(self, connection: sqlite3.Connection, terms: Iterable[str]) -> CorpusStatistics:
        """How many episodes there are, the mean length of their tasks, and in how many each of these terms occurs."""
        found = connection.execute("SELECT documents, terms, changes FROM corpus").fetchone()
        documents, length, _changes = as_of = found or (0, 0, 0)
        if as_of != self._as_of or len(self._counts) > MOST_COUNTS:
            self._counts, self._as_of = {}, as_of
        for term in terms:
            if term not in self._counts:
                self._counts[term] = _documents_with(connection, term)
        return CorpusStatistics(documents, length / documents if documents else 0.0, self._counts)


def _documents_with(connection: sqlite3.Connection, term: str) -> int:
    found = connection.execute("SELECT doc FROM episode_words_counts WHERE term = ?", (term,)).fetchone()
    return 0 if found is None else int(found[0])


MOST_COUNTS = 20_000
READ_ROWS = 20_000
"""Of the lists of the rarest terms together so many rows are read."""
ENOUGH_COMMON = 500
"""So many episodes are looked for that have what is left of the query."""


def candidates(
    connection: sqlite3.Connection, weights: dict[str, float], corpus: CorpusStatistics, at_once: int
) -> Iterator[list[int]]:
    """The keys of episodes that have terms of a query, about `at_once` at a time: those with the most weight first, the
    newest of equals first.

    All of those that have any, as long as the terms occur 20,000 times together. Beyond that the lists of the rarest
    terms only are read whole, and of the frequent ones, which say little, the newest 500 that have all of them, then
    all but the most frequent one, and so on.
    """
    counts = corpus.document_frequency
    rarest = sorted((term for term in weights if counts[term]), key=lambda term: (counts[term], term))
    found: dict[str, float] = {}
    rows = 0
    while rarest and rows + counts[rarest[0]] <= READ_ROWS:
        term = rarest.pop(0)
        rows += counts[term]
        _add(found, _with_all(connection, [term]), weights[term])
    _add_common(connection, rarest, weights, found)
    return _heaviest_first(found, at_once)


def _add_common(
    connection: sqlite3.Connection, frequent: list[str], weights: dict[str, float], found: dict[str, float]
) -> None:
    seen: set[str] = set()
    for many in range(len(frequent), 0, -1):
        together = frequent[:many]
        keys = [key for key in _with_all(connection, together, ENOUGH_COMMON) if key not in seen]
        seen.update(keys)
        _add(found, keys, sum(weights[term] for term in together))
        if len(seen) >= ENOUGH_COMMON:
            return


def _add(found: dict[str, float], keys: list[str], weight: float) -> None:
    """Add a weight for some keys. Most are new, and for these no line of Python is run one by one."""
    again = {key: found[key] + weight for key in found.keys() & set(keys)} if found else {}
    found.update(dict.fromkeys(keys, weight))
    found.update(again)


def _heaviest_first(found: dict[str, float], at_once: int) -> Iterator[list[int]]:
    # There are few different weights: a sum for each set of terms that occurs.
    by_weight = Counter(found.values())
    wanted: set[float] = set()
    many = 0
    for weight in sorted(by_weight, reverse=True):
        wanted.add(weight)
        many += by_weight[weight]
        if many >= at_once:
            yield from _sorted_pieces(found, wanted, at_once)
            wanted, many = set(), 0
    yield from _sorted_pieces(found, wanted, at_once)


def _sorted_pieces(found: dict[str, float], weights: set[float], at_once: int) -> Iterator[list[int]]:
    some = sorted((-weight, -int(key)) for key, weight in found.items() if weight in weights)
    for start in range(0, len(some), at_once):
        yield [-key for _weight, key in some[start : start + at_once]]


def _with_all(connection: sqlite3.Connection, terms: Sequence[str], newest: int = 0) -> list[str]:
    """The keys, as text, of episodes that have all of the terms; of the newest, if so many are asked for."""
    query = " AND ".join(f'"{term}"' for term in terms)
    found = "SELECT rowid FROM episode_words WHERE episode_words MATCH ?"
    if newest:
        found += f" ORDER BY rowid DESC LIMIT {newest:d}"
    # One text of all keys costs a third of a row for each.
    keys = connection.execute(f"SELECT group_concat(rowid) FROM ({found})", (query,)).fetchone()[0]
    return [] if keys is None else str(keys).split(",")
