"""An embedder in the settings: what it adds, when it is asked, and that an answer never claims more than it knows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from stepstore.catalog import Change
from stepwell import InvalidInput, Memory, MemoryConfig, Success, open_memory
from stepwell.runtime import vectors
from stepwell.runtime.vectors import PROBE

MEANINGS = {"dogs": (1, 0), "puppies": (1, 0.1), "flights": (0, 1), "planes": (0.1, 1)}


class Meanings:
    """Vectors of what the known words mean, and a note of what was asked."""

    def __init__(self, last: float = 0.01):
        self.asked: list[str] = []
        self._last = last

    def __call__(self, texts: list[str]) -> Sequence[Sequence[float]]:
        self.asked += texts
        found = []
        for text in texts:
            known = [MEANINGS[word] for word in text.split() if word in MEANINGS] or [(0.0, 0.0)]
            found.append([sum(pair[0] for pair in known), sum(pair[1] for pair in known), self._last])
        return found

    def tasks(self) -> list[str]:
        asked, self.asked = [text for text in self.asked if text != PROBE], []
        return asked


async def put(memory: Memory, **tasks: str) -> None:
    for name, task in tasks.items():
        await (await memory.start_episode(task, episode_id=name)).complete(Success())


async def found_by(memory: Memory, query: str) -> tuple[list[str], str]:
    found = await memory.retrieve_relevant_context(query, limit=2)
    assert found.note == ""
    return [hit.episode_id for hit in found], found.ranked_by


async def test_other_words_of_the_same_meaning_are_found_and_the_answer_says_how_it_was_ranked() -> None:
    async with open_memory(":memory:", config=MemoryConfig(embedder=Meanings())) as memory:
        await put(memory, dogs="count the dogs", flights="count the flights", both="list flights and dogs")
        assert await found_by(memory, "puppies") == (["dogs", "both"], "semantic")
        assert await found_by(memory, "count planes") == (["flights", "both"], "hybrid")
        hit = (await memory.retrieve_relevant_context("count planes"))[0]
        assert "it shares the words count, and the meaning by 100%" in hit.why
        assert sum(part.points for part in hit.parts) == pytest.approx(hit.score)


async def test_an_async_embedder_is_awaited_in_the_loop() -> None:
    meanings = Meanings()

    async def embed(texts: list[str]) -> Sequence[Sequence[float]]:
        await trio.lowlevel.checkpoint()
        return meanings(texts)

    async with open_memory(":memory:", config=MemoryConfig(embedder=embed)) as memory:
        await put(memory, dogs="count the dogs", flights="count the flights")
        assert await found_by(memory, "planes") == (["flights", "dogs"], "semantic")


async def test_each_task_is_embedded_once_and_again_when_it_changes(tmp_path: Path) -> None:
    meanings = Meanings()
    config = MemoryConfig(embedder=meanings)
    async with open_memory(tmp_path, config=config) as memory:
        await put(memory, a="dogs", b="flights")
        await memory.retrieve_relevant_context("puppies")
        assert sorted(meanings.tasks()) == ["dogs", "flights", "puppies"]
        await memory.retrieve_relevant_context("puppies")
        assert meanings.tasks() == ["puppies"]
        await memory.update_episode("b", description="planes")
        await memory.delete_episode("a")
        assert await found_by(memory, "flights") == (["b"], "semantic")
        assert meanings.tasks() == ["planes", "flights"]
    async with open_memory(tmp_path, config=config) as memory:
        assert await found_by(memory, "flights") == (["b"], "semantic")
        assert meanings.tasks() == ["flights"]
    other = Meanings(last=-0.01)
    async with open_memory(tmp_path, config=MemoryConfig(embedder=other)) as memory:
        await memory.retrieve_relevant_context("flights")
        assert other.tasks() == ["planes", "flights"]  # the vectors of another model are no use


async def test_a_deleted_episode_leaves_no_vector(tmp_path: Path) -> None:
    async with open_memory(tmp_path, config=MemoryConfig(embedder=Meanings())) as memory:
        await put(memory, a="dogs", b="flights")
        await memory.retrieve_relevant_context("puppies")
        await memory.delete_episode("a")
        projection = memory._runtime.projections.retrieval
        left = await projection.read_now(
            lambda connection: connection.execute("SELECT count(*) FROM episode_vector").fetchone()
        )
        assert left == (1,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (OSError("no network"), "the embedder failed with OSError: no network"),
        ([[1.0, 2.0]] * 7, "gave 7 vectors for 1 texts"),
        ([[]], "gave no numbers"),
        ([["x"]], "gave 'x' for a number"),
        (None, "gave 0 vectors for 1 texts"),
        ([[float("nan"), 1.0]], "which is no number to compare"),
    ],
)
async def test_an_embedder_that_fails_leaves_the_words_and_the_answer_says_so(given: Any, said: str) -> None:
    def embed(_texts: list[str]) -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    async with open_memory(":memory:", config=MemoryConfig(embedder=embed)) as memory:
        await put(memory, dogs="count the dogs", flights="count the flights")
        found = await memory.retrieve_relevant_context("dogs")
        assert [hit.episode_id for hit in found] == ["dogs"]
        assert found.ranked_by == "lexical"
        assert found.note.startswith("ranked by words alone: ")
        assert said in found.note


async def test_a_cancelled_embedding_holds_up_nobody_after_it() -> None:
    meanings, hangs = Meanings(), True

    async def embed(texts: list[str]) -> Sequence[Sequence[float]]:
        if hangs:
            await trio.sleep_forever()
        return meanings(texts)

    async with open_memory(":memory:", config=MemoryConfig(embedder=embed)) as memory:
        await put(memory, dogs="count the dogs")
        with trio.move_on_after(0) as scope:
            await memory.retrieve_relevant_context("puppies")
        assert scope.cancelled_caught
        hangs = False
        assert await found_by(memory, "puppies") == (["dogs"], "semantic")


async def test_it_is_the_same_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers() -> list[tuple[str, float]]:
        async with open_memory(":memory:", config=MemoryConfig(embedder=Meanings())) as memory:
            await put(memory, dogs="count the dogs", flights="count the flights", both="list flights and dogs")
            return [
                (hit.episode_id, hit.score) for hit in await memory.retrieve_relevant_context("puppies puppies planes")
            ]

    pytest.importorskip("numpy")
    quick = await answers()
    monkeypatch.setattr(vectors, "_numpy", lambda: None)
    plain = await answers()
    assert [name for name, _score in plain] == [name for name, _score in quick]
    assert [score for _name, score in plain] == pytest.approx([score for _name, score in quick], abs=0.02)


def test_what_cannot_be_called_is_no_embedder() -> None:
    with pytest.raises(InvalidInput, match="embedder: must be a function or None"):
        MemoryConfig(embedder="wordllama")  # type: ignore[arg-type]


async def test_wordllama_works_offline() -> None:
    pytest.importorskip("wordllama")
    from stepwell.embedding import wordllama_embedder

    async with open_memory(":memory:", config=MemoryConfig(embedder=wordllama_embedder())) as memory:
        await put(memory, dogs="how many dogs are there", flights="how many flights go to Boston")
        assert await found_by(memory, "airplane departures") == (["flights", "dogs"], "semantic")


async def test_a_vector_of_a_description_that_is_changed_meanwhile_is_not_kept() -> None:
    meanings = Meanings()
    memory: Memory

    async def embed(texts: list[str]) -> Sequence[Sequence[float]]:
        if texts == ["dogs"]:
            await memory.update_episode("a", description="planes")
        return meanings(texts)

    async with open_memory(":memory:", config=MemoryConfig(embedder=embed)) as memory:
        await put(memory, a="dogs")
        hit = (await memory.retrieve_relevant_context("flights"))[0]
        assert "the meaning by 99%" in hit.why or "the meaning by 100%" in hit.why
        assert "planes" in meanings.tasks()


async def test_in_a_catalog_that_was_damaged_and_begun_anew_meanings_are_found_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanings = Meanings()
    async with open_memory(tmp_path, config=MemoryConfig(embedder=meanings)) as memory:
        await put(memory, dogs="count the dogs", flights="count the flights")
        assert await found_by(memory, "puppies") == (["dogs", "flights"], "semantic")
        store = memory._runtime.projections.retrieval.catalog.store
        apply = store.apply

        def damaged(changes: Sequence[Change], cursor: str) -> None:
            monkeypatch.setattr(store, "apply", apply)
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        monkeypatch.setattr(store, "apply", damaged)
        meanings.tasks()
        await put(memory, planes="list the planes")
        assert await found_by(memory, "puppies") == (["dogs", "planes"], "semantic")
        assert {*meanings.tasks()} == {"count the dogs", "count the flights", "list the planes", "puppies"}
