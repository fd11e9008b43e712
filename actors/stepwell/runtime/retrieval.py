"""Finding the finished episodes that are relevant to a task, in the catalog of retrieval."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import zip_longest
from typing import Any

from stepwell.learning.ranking import diversify, spelled
from stepwell.learning.relevance import DIVERSITY, Described, Relevance
from stepwell.learning.scored_episode import RankedBy, ScorePart
from stepwell.learning.text import counted, names
from stepwell.model.context import TaskContext
from stepwell.model.episode_filter import EpisodeFilter
from stepwell.model.ids import EpisodeId
from stepwell.runtime.episode_condition import condition_of
from stepwell.runtime.lexical_index import LABEL_WEIGHT, TermCounts, candidates, stored_term, stored_terms

MOST_TERMS = 32
"""Of a long query the terms that say most are looked for."""
RERANKED = 256
"""So many candidates are scored in full."""
_COLUMNS = "id, episode_id, terms, labels, step_terms, domain, language, framework, tags, outcome, reward, ended_ns"


@dataclass
class Ranked:
    """An episode that was found."""

    score: float
    described: Described
    cosine: float | None
    terms: frozenset[str] = field(init=False)
    """What it is compared by with those above it: another outcome of the same task is something else to learn from."""

    def __post_init__(self) -> None:
        it = self.described
        self.terms = frozenset((*it.terms, *it.labels, f"outcome {it.outcome}"))

    @property
    def episode_id(self) -> EpisodeId:
        """Its id."""
        return EpisodeId(self.described.episode_id)


@dataclass
class Retrieved:
    """The answer of the catalog: episodes, best first, and a word on there being none."""

    ranked: list[Ranked] = field(default_factory=list)
    relevance: Relevance | None = None
    why_empty: str = ""
    ranked_by: RankedBy = "lexical"

    def explain(self, ranked: Ranked) -> list[ScorePart]:
        """What a score is made of."""
        assert self.relevance is not None
        return self.relevance.explain(ranked.described, ranked.cosine)


class Retrieval:
    """One query: the `limit` most relevant episodes that pass `filter`, as of `now_ns`. `cosines`: by key of the
    episode, where there are vectors. `counts`: of the queries before it on the same catalog."""

    def __init__(
        self,
        query: str,
        context: TaskContext | None,
        limit: int,
        filter: EpisodeFilter,
        now_ns: int,
        cosines: Mapping[int, float] | None = None,
        diversity: float = DIVERSITY,
        counts: TermCounts | None = None,
    ):
        self._terms, self._context, self._limit = stored_terms(query), context, limit
        self._spelled = {stored_term(term): word for term, word in spelled(query).items()}
        self._filter, self._now_ns, self._cosines, self._diversity = filter, now_ns, cosines, diversity
        self._counts = counts or TermCounts()

    def run(self, connection: sqlite3.Connection) -> Retrieved:
        """Find them. Blocks."""
        corpus = self._counts.corpus(connection, dict.fromkeys(self._terms))
        relevance = Relevance(self._terms, corpus, self._context, label_weight=LABEL_WEIGHT, spelled=self._spelled)
        weights = relevance.term_weights
        most = sorted(weights, key=lambda term: (-weights[term], term))[:MOST_TERMS]
        pieces = candidates(connection, {term: weights[term] for term in most}, corpus, RERANKED)
        rows, matching = self._rows(connection, pieces if self._cosines is None else self._with_nearest(pieces))
        scored = [
            (relevance.score(described, cosine), described, cosine) for described, cosine in map(self._read, rows)
        ]
        scored.sort(key=lambda found: (-found[0], found[1].age_seconds, found[1].episode_id))
        found = [Ranked(score, described, cosine) for score, described, cosine in scored[: 2 * self._limit + 20]]
        picked = diversify(found, self._limit, self._diversity)
        why = "" if picked else self._why_empty(connection, corpus.documents, matching)
        ranked_by: RankedBy = "lexical"
        if self._cosines is not None:
            by_words = any(corpus.document_frequency[term] for term in weights)
            ranked_by = "hybrid" if by_words else "semantic"
        return Retrieved(picked, relevance, why, ranked_by)

    def _with_nearest(self, pieces: Iterator[list[int]]) -> Iterator[list[int]]:
        """The first candidates by words and by vectors in turn, so that as many of the one as of the other are scored;
        then the others."""
        cosines = self._cosines or {}
        nearest = nlargest(RERANKED, cosines, key=lambda key: (cosines[key], key))
        first = next(pieces, [])
        seen = dict.fromkeys(key for pair in zip_longest(first, nearest) for key in pair if key is not None)
        yield list(seen)
        for piece in pieces:
            yield [key for key in piece if key not in seen]

    def _rows(self, connection: sqlite3.Connection, pieces: Iterator[list[int]]) -> tuple[list[tuple[Any, ...]], int]:
        """The rows of the first candidates that pass the filter, and how many candidates were looked at."""
        condition, values = condition_of(self._filter)
        rows: list[tuple[Any, ...]] = []
        looked_at = 0
        for keys in pieces:
            looked_at += len(keys)
            statement = f"SELECT {_COLUMNS} FROM episode e WHERE id IN ({', '.join(map(str, keys))}) AND {condition}"
            rows += connection.execute(statement, values).fetchall()
            if len(rows) >= RERANKED:
                break
        return rows, looked_at

    def _read(self, row: tuple[Any, ...]) -> tuple[Described, float | None]:
        key, episode_id, terms, labels, steps, domain, language, framework, tags, outcome, reward, ended_ns = row
        of_the_task = terms.split()
        of_steps = dict.fromkeys(steps.split() if steps else ())
        for term in of_the_task:  # a key step tells nothing by a word that the task has
            of_steps.pop(term, None)
        described = Described(
            episode_id,
            of_the_task,
            list(dict.fromkeys((*labels.split(), *of_steps))),
            domain,
            language,
            framework,
            json.loads(tags) if tags != "[]" else [],
            outcome,
            reward,
            (self._now_ns - ended_ns) / 1e9,
        )
        return described, None if self._cosines is None else self._cosines.get(key, 0.0)

    def _why_empty(self, connection: sqlite3.Connection, documents: int, matching: int) -> str:
        if not documents:
            open_now = connection.execute("SELECT count(*) FROM episode WHERE outcome IS NULL").fetchone()[0]
            still = f"; {counted(open_now, 'episode')} still open" if open_now else ""
            return f"no episode has been finished yet{still}"
        if not self._terms and not self._cosines:
            return "the query has no words to look for"
        if not matching:
            words = names(list(self._spelled.values()), 10)
            return f"none of {counted(documents, 'finished episode')} has any of the words of the query: {words}"
        return f"{counted(matching, 'finished episode')} with words of the query, but none passes the filter"
