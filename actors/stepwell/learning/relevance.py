"""How relevant a finished episode is to a task at hand.

    score = relevance · (0.80 + Σ weight · value) / (0.80 + Σ weight),    over the other parts that there are

relevance 0.80  BM25 of the query against the task and the labels of the episode, as a share of what the query's own
                text would get, at most 1; with an embedder 0.6 of that and 0.4 of the cosine of the vectors
context   0.08  how many of the given domain, language, framework and tags it shares; only if some are given
outcome   0.06  solved 1, partly 0.5, abstained 0.25, failed 0
reward    0.03  total / (1 + total)
recency   0.03  halved every 30 days since its ending

What it is about counts far more than all else together: the others decide between episodes that are about equally
close, and what is not close gets little for them.
The reference system (section 1.14) gives words 0.1, and cuts old episodes off before it looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stepwell.learning.ranking import Bm25, CorpusStatistics, TermScore
from stepwell.learning.scored_episode import ScorePart
from stepwell.learning.text import name, names, span
from stepwell.model.context import TaskContext
from stepwell.model.tags import tag_key

WEIGHTS = {"relevance": 0.80, "context": 0.08, "outcome": 0.06, "reward": 0.03, "recency": 0.03}
SEMANTIC_SHARE = 0.4
"""What the vectors count of the relevance, where there are any."""
HALF_LIFE_DAYS = 30.0
DIVERSITY = 0.1
"""How much of its score an episode loses that says just the same as a better one, unless the caller says otherwise.
More costs more of what is relevant than it brings: see the table in docs/retrieval.md."""
_OUTCOMES = {
    "success": (1.0, "it solved its task"),
    "partial_success": (0.5, "it solved part of its task"),
    "abstained": (0.25, "the agent found its task infeasible"),
    "failure": (0.0, "it failed"),
}
_CONTEXT = {"domain": 0.35, "language": 0.25, "framework": 0.15, "tags": 0.25}
_UNINFORMATIVE_DOMAIN = "general"
_MOST_WORDS = 6
_SECONDS_A_DAY = 86_400


class Described(NamedTuple):
    """What is compared of an episode: its terms (see `ranking.analyse`) and facts."""

    episode_id: str
    terms: Sequence[str]
    labels: Sequence[str]
    domain: str
    language: str | None
    framework: str | None
    tags: Sequence[str]
    outcome: str
    reward: float | None
    age_seconds: float


class Relevance:
    """The scores of one query, given as terms. `label_weight`: what a term counts among the labels. `spelled`: terms
    as the query has them, for explanations."""

    def __init__(
        self,
        query: Sequence[str],
        corpus: CorpusStatistics,
        context: TaskContext | None,
        *,
        label_weight: float,
        spelled: Mapping[str, str],
    ):
        self._spelled = spelled
        self._bm25 = Bm25(query, corpus)
        self._label_weight = label_weight
        self._wanted = _wanted(context)
        counts: dict[str, float] = {}
        for term in query:
            counts[term] = counts.get(term, 0.0) + 1.0
        self._best = self._bm25.score(counts, len(query))

    @property
    def term_weights(self) -> dict[str, float]:
        """What each term of the query is worth."""
        return self._bm25.weights

    def values(self, described: Described, cosine: float | None = None) -> dict[str, float]:
        """How well an episode does in each part, from 0 to 1. `cosine`: of the vectors, None where there are none."""
        lexical = min(1.0, self._bm25.score(*self._frequencies(described)) / self._best) if self._best else 0.0
        if cosine is not None:
            lexical += SEMANTIC_SHARE * (min(1.0, max(0.0, cosine)) - lexical)
        reward = max(0.0, described.reward or 0.0)
        values = {
            "relevance": lexical,
            "outcome": _OUTCOMES.get(described.outcome, (0.0, ""))[0],
            "reward": reward / (1 + reward) if reward < 1e300 else 1.0,
            "recency": 0.5 ** (max(0.0, described.age_seconds) / _SECONDS_A_DAY / HALF_LIFE_DAYS),
        }
        if self._wanted:
            shares = self._context_shares(described)
            whole = sum(_CONTEXT[part] for part in shares)
            values["context"] = sum(_CONTEXT[part] * share for part, share in shares.items()) / whole
        return values

    def score(self, described: Described, cosine: float | None = None) -> float:
        """The score of an episode, from 0 to 1."""
        return min(1.0, sum(_points(self.values(described, cosine)).values()))

    def explain(self, described: Described, cosine: float | None = None) -> list[ScorePart]:
        """The parts of the score, with words for each."""
        values = self.values(described, cosine)
        points = _points(values)
        words = {
            "relevance": self._relevance_words(described, cosine),
            "context": self._context_words(described),
            "outcome": _OUTCOMES.get(described.outcome, (0.0, described.outcome))[1],
            "reward": "no reward" if described.reward is None else f"its reward is {described.reward:.2f}",
            "recency": f"it ended {span(described.age_seconds)} ago",
        }
        return [
            ScorePart(
                name=part,
                value=values[part],
                weight=WEIGHTS[part],
                points=points[part],
                words=words[part],
            )
            for part in WEIGHTS
            if part in values
        ]

    def shared_terms(self, described: Described) -> list[TermScore]:
        """The terms that the query and the episode share, with what each adds, largest first."""
        return self._bm25.explain(*self._frequencies(described))

    def _frequencies(self, described: Described) -> tuple[dict[str, float], float]:
        counts: dict[str, float] = {}
        weights = self._bm25.weights
        for terms, weight in ((described.terms, 1.0), (described.labels, self._label_weight)):
            for term in terms:
                if term in weights:
                    counts[term] = counts.get(term, 0.0) + weight
        return counts, len(described.terms)

    def _relevance_words(self, described: Described, cosine: float | None) -> str:
        shared = [self._spelled.get(part.term, part.term) for part in self.shared_terms(described)]
        words = f"it shares the words {names(shared, _MOST_WORDS)}" if shared else "it shares no words"
        return words if cosine is None else f"{words}, and the meaning by {max(0.0, cosine):.0%}"

    def _context_shares(self, described: Described) -> dict[str, float]:
        shares: dict[str, float] = {}
        for part, wanted in self._wanted.items():
            if isinstance(wanted, frozenset):
                has = {tag_key(tag) for tag in described.tags}
                shares[part] = len(has & wanted) / len(has | wanted)
            else:
                shares[part] = float(getattr(described, part) == wanted)
        return shares

    def _context_words(self, described: Described) -> str:
        shared = [part for part, share in self._context_shares(described).items() if share > 0]
        if not shared:
            return "it shares nothing of the context"
        return f"it shares {' and '.join(_context_word(described, part) for part in shared)}"


def _points(values: dict[str, float]) -> dict[str, float]:
    """What each part adds to the score."""
    relevance = values["relevance"]
    each = relevance / sum(WEIGHTS[part] for part in values)
    return {part: WEIGHTS[part] * each * (1.0 if part == "relevance" else value) for part, value in values.items()}


def _wanted(context: TaskContext | None) -> dict[str, str | frozenset[str]]:
    """What there is of a context to compare."""
    wanted: dict[str, str | frozenset[str]] = {}
    if context is None:
        return wanted
    if context.domain != _UNINFORMATIVE_DOMAIN:
        wanted["domain"] = context.domain
    if context.language:
        wanted["language"] = context.language
    if context.framework:
        wanted["framework"] = context.framework
    if context.tags:
        wanted["tags"] = frozenset(map(tag_key, context.tags))
    return wanted


def _context_word(described: Described, part: str) -> str:
    return "tags" if part == "tags" else f"the {part} {name(str(getattr(described, part)))}"
