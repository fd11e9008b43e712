"""Vectors of the tasks of finished episodes, made by the embedder of the settings and kept in the
catalog of retrieval.

The log does not have them: they are made of it by somebody else's model, when somebody asks, and made again where the
catalog is. A fixed text is embedded at the first use of each opening; does its vector differ from the one beside the
others, another model made those, and all are made anew.

Which episodes are nearest is found by comparing with all of them.
"""

from __future__ import annotations

import importlib
import math
import sqlite3
from array import array
from collections.abc import Sequence
from operator import mul
from typing import Any

import trio

from stepstore.catalog import Change, Projection, Table
from stepwell.errors import InvalidInput, TooLarge, Unavailable
from stepwell.runtime.embedding import Embedder, Embedding

TEXTS_AT_ONCE = 256
PROBE = "Stepwell asks which model this is."
SAME_MODEL = 0.999
"""Cosine of two vectors of the probe that count as the same: arithmetic may differ a little."""

TABLES = (
    Table(
        name="episode_vector",
        columns={"episode": "INTEGER PRIMARY KEY", "vector": "BLOB NOT NULL"},
        belongs_to=("episode", "episode"),
    ),
    Table(
        name="embedder",
        columns={"id": "INTEGER PRIMARY KEY", "probe": "BLOB NOT NULL", "changes": "INTEGER NOT NULL"},
    ),
)
TRIGGERS = (
    "CREATE TRIGGER vector_old AFTER UPDATE OF task ON episode WHEN old.task IS NOT new.task "
    "BEGIN DELETE FROM episode_vector WHERE episode = old.id; END",
    "CREATE TRIGGER vector_put AFTER INSERT ON episode_vector BEGIN UPDATE embedder SET changes = changes + 1; END",
    "CREATE TRIGGER vector_take AFTER DELETE ON episode_vector BEGIN UPDATE embedder SET changes = changes + 1; END",
)
_PUT = """
    INSERT OR REPLACE INTO episode_vector
    WITH new (episode, task, vector) AS ({values})
    SELECT episode.id, new.vector FROM new JOIN episode ON episode.id = new.episode AND episode.task = new.task"""
_MISSING = """
    SELECT id, task FROM episode
    WHERE outcome IS NOT NULL AND outcome <> 'interrupted'
    AND NOT EXISTS (SELECT 1 FROM episode_vector WHERE episode = episode.id)
    ORDER BY id LIMIT ?"""


class EmbedderFailed(Exception):
    """The embedder did not give what it should; says what it did."""


class VectorIndex:
    """The vectors of the projection that episodes are retrieved from."""

    def __init__(self, projection: Projection, embedder: Embedder):
        self._projection, self._embedding = projection, Embedding(embedder)
        self._dimensions: int | None = None
        self._is_known_model = False
        self._drops = projection.projector.drops
        self._keys: list[int] = []
        self._vectors: Any = []
        self._changes = -1
        self._catching_up = trio.Lock()

    async def cosines(self, query: str) -> dict[int, float]:
        """The cosine of the query with the task of every finished episode, by key. Those that have no vector yet get
        one first. A checkpoint; cancelled, what was embedded stays.

        Raises: `EmbedderFailed`; `Unavailable` (the catalog), `Closed`.
        """
        async with self._catching_up:
            await self._catch_up()
        wanted = (await self._embed([query]))[0]
        return dict(zip(self._keys, _cosines(self._vectors, wanted), strict=True))

    async def _catch_up(self) -> None:
        projector = self._projection.projector
        while True:
            drops = projector.drops
            if not self._is_known_model or drops != self._drops:
                await self._check_model()
                self._drops = drops
            while missing := await self._projection.read_now(
                lambda connection: connection.execute(_MISSING, (TEXTS_AT_ONCE,)).fetchall()
            ):
                vectors = await self._embed([task for _key, task in missing])
                rows = [(key, task, vector.tobytes()) for (key, task), vector in zip(missing, vectors, strict=True)]
                await self._write([Change(_PUT, rows)])
            if drops == projector.drops:
                await self._projection.read_now(self._load)
            if drops == projector.drops:  # else the catalog was begun anew, and no vector is in it
                return

    async def _check_model(self) -> None:
        probe = (await self._embed([PROBE]))[0]
        stored = await self._projection.read_now(
            lambda connection: connection.execute("SELECT probe FROM embedder").fetchone()
        )
        if stored is None or not _is_same(_read(stored[0]), probe):
            await self._write(
                [
                    Change("WITH new (a) AS ({values}) DELETE FROM episode_vector WHERE 1 IN new", [(1,)]),
                    Change("INSERT OR REPLACE INTO embedder {values}", [(1, probe.tobytes(), 0)]),
                ]
            )
            self._changes = -1
        self._is_known_model = True

    async def _write(self, changes: list[Change]) -> None:
        store = self._projection.catalog.store
        try:
            await self._projection.catalog.write(lambda: store.apply(changes, store.cursor))
        except sqlite3.Error as error:
            raise self._projection.projector.unreadable(error) from error

    async def _embed(self, texts: list[str]) -> list[array[float]]:
        """Vectors of length 1. Raises: `EmbedderFailed`."""
        try:
            found = await self._embedding.vectors(texts, self._dimensions)
        except (InvalidInput, TooLarge, Unavailable) as error:
            raise EmbedderFailed(str(error)) from error
        self._dimensions = len(found[0])
        return [_unit(vector) for vector in found]

    @trio.lowlevel.enable_ki_protection
    def _load(self, connection: sqlite3.Connection) -> None:
        """Take up the vectors, if any have changed."""
        found = connection.execute("SELECT changes FROM embedder").fetchone()
        if found is None:
            return  # begun anew since
        (changes,) = found
        if changes == self._changes:
            return
        rows = connection.execute("SELECT episode, vector FROM episode_vector ORDER BY episode").fetchall()
        self._keys, self._vectors = [key for key, _vector in rows], _matrix([vector for _key, vector in rows])
        self._changes = changes


def _unit(vector: Sequence[float]) -> array[float]:
    length = math.sqrt(sum(map(mul, vector, vector)))
    return array("f", [value / length for value in vector] if length else vector)


def _read(stored: bytes) -> array[float]:
    vector = array("f")
    vector.frombytes(stored)
    return vector


def _is_same(left: array[float], right: array[float]) -> bool:
    return len(left) == len(right) and sum(map(mul, left, right)) >= SAME_MODEL


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def _matrix(stored: list[bytes]) -> Any:
    """Vectors side by side: a matrix where there is numpy, else a list."""
    numpy = _numpy()
    if numpy is None or not stored:
        return [_read(vector) for vector in stored]
    return numpy.frombuffer(b"".join(stored), dtype=numpy.float32).reshape(len(stored), -1)


def _cosines(vectors: Any, wanted: array[float]) -> list[float]:
    if isinstance(vectors, list):
        return [sum(map(mul, vector, wanted)) for vector in vectors]
    found: list[float] = (vectors @ _numpy().frombuffer(wanted, dtype="float32")).tolist()
    return found
