"""What users would pick in place of Stepwell's recall, and the best ranking that was tuned by hand for LoCoMo.

A library that is not installed gives no line; `pip install --group bench` has them all.
"""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.locomo import Conversation, Prepare, Rank

_SMALL_STOP_LIST = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
        "this to was will with",
    )
)


def _documents(conversation: Conversation) -> list[str]:
    return [turn.document for turn in conversation.turns]


def _best_first(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def _ranking(score: Callable[[str], Sequence[float]]) -> Rank:
    async def rank(question: str) -> list[int]:
        return _best_first(score(question))

    return rank


def rank_bm25() -> Prepare:
    """rank_bm25, words split at blanks."""
    library: Any = importlib.import_module("rank_bm25")

    async def prepare(conversation: Conversation) -> Rank:
        index = library.BM25Okapi([document.lower().split() for document in _documents(conversation)])
        return _ranking(lambda question: list(index.get_scores(question.lower().split())))

    return prepare


def bm25s(*, stem: bool) -> Prepare:
    """bm25s as it comes, or with a stemmer and its stop words."""
    library: Any = importlib.import_module("bm25s")
    stemmer: Any = importlib.import_module("Stemmer").Stemmer("english") if stem else None
    stop_words = "en" if stem else None

    def tokens(texts: list[str]) -> Any:
        return library.tokenize(texts, stopwords=stop_words, stemmer=stemmer, show_progress=False)

    async def prepare(conversation: Conversation) -> Rank:
        index = library.BM25()
        index.index(tokens(_documents(conversation)), show_progress=False)
        count = len(conversation.turns)

        async def rank(question: str) -> list[int]:
            found, _scores = index.retrieve(tokens([question]), k=count, show_progress=False)
            return [int(place) for place in found[0]]

        return rank

    return prepare


def tuned_by_hand(*, neighbours: bool) -> Prepare:
    """Stemmed BM25, k1 0.9, b 0.3, with the session date in the text; then also 0.4 of the score of each neighbouring
    turn and 0.2 of those two away."""
    stem: Callable[[str], str] = importlib.import_module("Stemmer").Stemmer("english").stemWord
    k1, b = 0.9, 0.3

    def words(text: str) -> list[str]:
        return [stem(word) for word in re.findall(r"[^\W_]+", text.lower()) if word not in _SMALL_STOP_LIST]

    async def prepare(conversation: Conversation) -> Rank:
        documents = [words(f"{turn.document} {turn.date}") for turn in conversation.turns]
        mean = sum(map(len, documents)) / len(documents)
        holding: dict[str, dict[int, int]] = defaultdict(dict)
        for place, document in enumerate(documents):
            for word, count in Counter(document).items():
                holding[word][place] = count

        def score(question: str) -> list[float]:
            own = [0.0] * len(documents)
            for word in set(words(question)):
                held = holding.get(word, {})
                idf = math.log(1 + (len(documents) - len(held) + 0.5) / (len(held) + 0.5))
                for place, count in held.items():
                    norm = k1 * (1 - b + b * len(documents[place]) / mean)
                    own[place] += idf * count * (k1 + 1) / (count + norm)
            if not neighbours:
                return own
            padded = [0.0, 0.0, *own, 0.0, 0.0]
            return [
                padded[place + 2]
                + 0.4 * (padded[place + 1] + padded[place + 3])
                + 0.2 * (padded[place] + padded[place + 4])
                for place in range(len(own))
            ]

        return _ranking(score)

    return prepare


def wordllama() -> Prepare:
    """Cosine of wordllama's vectors alone."""
    embed = wordllama_embedder()

    async def prepare(conversation: Conversation) -> Rank:
        vectors = embed(_documents(conversation))

        def score(question: str) -> list[float]:
            (wanted,) = embed([question])
            return [_cosine(wanted, vector) for vector in vectors]

        return _ranking(score)

    return prepare


def wordllama_embedder() -> Callable[[list[str]], list[list[float]]]:
    """What `MemoryConfig(embedder=…)` takes, made of wordllama; its wheel carries the weights of 256 dimensions."""
    library: Any = importlib.import_module("wordllama")
    # The wheel keeps its tokenizer where the loader looks only if it is told so.
    home = Path(library.__file__).parent
    model = library.WordLlama.load(cache_dir=home, disable_download=True)
    return lambda texts: [[float(number) for number in vector] for vector in model.embed(texts)]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    length = math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0


BASELINES: list[tuple[str, Callable[[], Prepare]]] = [
    ("rank_bm25, split at blanks", rank_bm25),
    ("bm25s, defaults", lambda: bm25s(stem=False)),
    ("bm25s, stemmed, stop words", lambda: bm25s(stem=True)),
    ("wordllama, 256 dimensions", wordllama),
    ("by hand: stemmed, dates", lambda: tuned_by_hand(neighbours=False)),
    ("by hand: stemmed, dates, neighbours", lambda: tuned_by_hand(neighbours=True)),
]
