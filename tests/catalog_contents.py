"""What the catalogs of episodes and of retrieval hold, to be compared: without the keys of their rows, which two
foldings may give in another order to what started in one microsecond."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from stepwell.runtime import retrieval_catalog
from stepwell.runtime.edges import EDGE
from stepwell.runtime.episode_catalog import EPISODE, FILE

_COLUMNS = ", ".join(name for name in EPISODE.columns if name != "id")
_QUERIES = {
    "episodes": f"SELECT {_COLUMNS} FROM episode ORDER BY stream",
    "tags": "SELECT stream, tag FROM episode_tag LEFT JOIN episode ON episode.id = episode_tag.episode ORDER BY 1, 2",
    "words": "SELECT stream, term, col, offset FROM episode_text_terms LEFT JOIN episode ON id = doc ORDER BY 1, 2, 4",
    "edges": f"SELECT {', '.join(EDGE.columns)} FROM edge ORDER BY 1, 2, 3",
}

_RETRIEVED = ", ".join(name for name in retrieval_catalog.EPISODE.columns if name not in ("id", "last_seq"))
_OF_RETRIEVAL = {
    "episodes": f"SELECT {_RETRIEVED} FROM episode ORDER BY stream",
    "words": "SELECT stream, term FROM episode_words_terms LEFT JOIN episode ON id = doc ORDER BY 1, 2",
    "corpus": "SELECT documents, terms FROM corpus WHERE documents",
}


def catalog_contents(directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of the catalog in a directory, by what they are. Words and tags of nobody are shown as well."""
    with closing(sqlite3.connect(directory / FILE)) as connection:
        return {what: connection.execute(query).fetchall() for what, query in _QUERIES.items()}


def retrieval_contents(directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The same of the catalog of retrieval."""
    with closing(sqlite3.connect(directory / retrieval_catalog.FILE)) as connection:
        return {what: connection.execute(query).fetchall() for what, query in _OF_RETRIEVAL.items()}
