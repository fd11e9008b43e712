"""What people would rank texts with instead. Each is in the dependency group `bench`; one that is not there is told."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Scores = Callable[[str], Sequence[float]]
"""The score of each text for a query."""
Peer = Callable[[Sequence[str]], Scores]


def rank_bm25(texts: Sequence[str]) -> Scores:
    """`rank_bm25`, split at blanks as its README does."""
    module = importlib.import_module("rank_bm25")
    index = module.BM25Okapi([text.split() for text in texts])
    return lambda query: list(index.get_scores(query.split()))


def _bm25s(texts: Sequence[str], stemmer: Any) -> Scores:
    module = importlib.import_module("bm25s")
    settings: dict[str, Any] = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    index = module.BM25()
    index.index(module.tokenize(list(texts), **settings), show_progress=False)

    def scores(query: str) -> Sequence[float]:
        words = module.tokenize([query], return_ids=False, **settings)[0]
        known = [word for word in words if word in index.vocab_dict]
        return list(index.get_scores(known)) if known else [0.0] * len(texts)

    return scores


def bm25s(texts: Sequence[str]) -> Scores:
    """`bm25s` with its defaults."""
    return _bm25s(texts, None)


def bm25s_stemmed(texts: Sequence[str]) -> Scores:
    """`bm25s` with the English stemmer of PyStemmer."""
    return _bm25s(texts, importlib.import_module("Stemmer").Stemmer("english"))


def tf_idf(texts: Sequence[str]) -> Scores:
    """Cosine of scikit-learn's `TfidfVectorizer` with its defaults."""
    vectorizer = importlib.import_module("sklearn.feature_extraction.text").TfidfVectorizer()
    matrix = vectorizer.fit_transform(list(texts))
    return lambda query: list((matrix @ vectorizer.transform([query]).T).toarray()[:, 0])


def wordllama(texts: Sequence[str]) -> Scores:
    """Cosine of the vectors of `wordllama` alone."""
    from stepwell.embedding import wordllama_embedder

    embed = wordllama_embedder()
    numpy = importlib.import_module("numpy")

    def unit(vectors: Any) -> Any:
        found = numpy.asarray(vectors)
        return found / numpy.maximum(numpy.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    matrix = unit(embed(list(texts)))
    return lambda query: list(matrix @ unit(embed([query]))[0])


PEERS: dict[str, Peer] = {
    "rank_bm25, split at blanks": rank_bm25,
    "bm25s": bm25s,
    "bm25s, stemmed": bm25s_stemmed,
    "TF-IDF (scikit-learn)": tf_idf,
    "wordllama alone": wordllama,
}


def searching(names: Sequence[str], scores: Scores) -> Callable[[str], Awaitable[list[str]]]:
    """A search for the names with a score above 0, best first; equals in their order."""

    async def search(query: str) -> list[str]:
        found = scores(query)
        order = sorted(range(len(names)), key=lambda at: (-found[at], at))
        return [names[at] for at in order if found[at] > 0]

    return search
