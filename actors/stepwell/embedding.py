"""Embedders for `MemoryConfig.embedder`, which takes any callable from a list of texts to a list of vectors.

from stepwell.embedding import wordllama_embedder

config = MemoryConfig(embedder=wordllama_embedder())
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwell.errors import InvalidInput


def wordllama_embedder() -> Callable[[list[str]], list[list[float]]]:
    """Static word vectors of 256 numbers, without a network: the package `wordllama` carries its weights (extra
    `stepwell[wordllama]`). Loads them, which takes about a tenth of a second.

    Raises: `InvalidInput` if it is not installed.
    """
    try:
        wordllama: Any = importlib.import_module("wordllama")
    except ImportError as error:
        raise InvalidInput("embedder: wordllama is not installed; install stepwell[wordllama]") from error
    # Its weights lie beside it, but it looks for its tokenizer in another folder than the one it brings it in, and
    # would fetch it; its own folder as the cache shows it the way.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

    def embed(texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = model.embed(texts, norm=True).tolist()
        return vectors

    return embed
