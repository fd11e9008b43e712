"""Relationships between episodes: stored on one of them, found from both, gone with either."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import InvalidInput, InvalidState, Memory, NotFound, Relationship, Success, TooLarge, graph
from stepwell.model.ids import EpisodeId
from stepwell.model.organising import Related, relating
from stepwell.model.relationship import ACYCLIC, KINDS, RelationshipKind
from stepwell.runtime.edges import EdgeFold
from stepwell.runtime.organising import organise
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import open_on

NAMES = ["a", "b", "c", "d"]


@asynccontextmanager
async def four(files: MemoryFileSystem) -> AsyncIterator[Memory]:
    async with open_on(files) as memory:
        for name in NAMES:
            await memory.start_episode("task", episode_id=name)
        yield memory


def ends(edges: list[Relationship]) -> list[str]:
    return [edge.from_episode + edge.to_episode for edge in edges]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_relationship_is_found_from_both_ends_and_after_opening_again(kind: RelationshipKind) -> None:
    files = MemoryFileSystem()
    async with four(files) as memory:
        await memory.complete_episode("a", Success())
        await memory.relate("a", "b", kind, priority=9, reason="wegen ü", metadata={"w": 0.5}, actor="ann")
        before = [event.seq async for event in memory.events("a")]
        await memory.relate("a", "b", kind, priority=9, reason="wegen ü", metadata={"w": 0.5}, actor="bob")
        assert [event.seq async for event in memory.events("a")] == before
        with pytest.raises(InvalidState, match="with another priority"):
            await memory.relate("a", "b", kind)
    async with open_on(files) as memory:
        (edge,) = await memory.related("a")
        assert await memory.related("b", direction="in") == await memory.related("b", direction="both") == [edge]
        assert await memory.related("b") == await memory.related("a", direction="in") == []
        last = [event async for event in memory.events("a")][-1]
        assert edge == Relationship(
            from_episode="a",
            to_episode="b",
            kind=kind,
            priority=9,
            reason="wegen ü",
            metadata={"w": 0.5},
            actor="ann",
            created_at=last.time,
        )
        await memory.unrelate("a", "b", kind, actor="bob")
        await memory.unrelate("a", "b", kind)
        assert await memory.related("a") == await memory.related("b", direction="both") == []
        events = [event async for event in memory.events("a")]
        assert [event.kind for event in events] == ["started", "ended", "related", "unrelated"]
        await memory.relate("a", "b", kind)
        assert ends(await memory.related("a", kind)) == ["ab"]


async def test_relationships_are_followed_as_far_as_asked_the_important_first() -> None:
    async with four(MemoryFileSystem()) as memory:
        await memory.relate("a", "b", "follows", priority=3)
        await memory.relate("a", "c", "follows", priority=8)
        await memory.relate("b", "d", "follows")
        await memory.relate("d", "a", "references")
        await memory.relate("a", "b", "depends_on", priority=3)
        assert ends(await memory.related("a")) == ["ac", "ab", "ab"]
        assert ends(await memory.related("a", "follows")) == ["ac", "ab"]
        assert ends(await memory.related("a", "follows", depth=2)) == ["ac", "ab", "bd"]
        assert ends(await memory.related("a", depth=99)) == ["ac", "ab", "ab", "bd", "da"]
        assert ends(await memory.related("d", direction="in", depth=2)) == ["bd", "ab", "ab"]
        assert ends(await memory.related("c", direction="both", depth=2)) == ["ac", "da", "ab", "ab"]
        whole = await memory.related("a", "follows", depth=9)
        assert graph.topological_order(whole) == ["a", "c", "b", "d"]
        with pytest.raises(InvalidState, match="circle"):
            graph.topological_order(await memory.related("a", depth=9))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_circle_is_refused_with_its_path_where_it_makes_no_sense(kind: RelationshipKind) -> None:
    files = MemoryFileSystem()
    async with four(files) as memory:
        await memory.relate("a", "b", kind)
        await memory.relate("b", "c", kind)
        await memory.relate("c", "a", "related_to" if kind != "related_to" else "follows")  # another kind: no circle
    async with open_on(files) as memory:
        if kind in ACYCLIC:
            before = [event.seq async for event in memory.events("c")]
            with pytest.raises(InvalidState, match=r"'c' → 'a' → 'b' → 'c'"):
                await memory.relate("c", "a", kind)
            assert [event.seq async for event in memory.events("c")] == before
            await memory.unrelate("a", "b", kind)
        await memory.relate("c", "a", kind)


async def test_two_who_relate_at_once_cannot_close_a_circle_together() -> None:
    async with four(MemoryFileSystem()) as memory:
        refused: list[str] = []

        async def relate(begin: str, end: str) -> None:
            try:
                await memory.relate(begin, end, "depends_on")
            except InvalidState as error:
                refused.append(str(error))

        async with trio.open_nursery() as nursery:
            for begin, end in ("ab", "bc", "cd", "da"):
                nursery.start_soon(relate, begin, end)
        assert len(refused) == 1
        graph.topological_order([edge for name in NAMES for edge in await memory.related(name)])


async def test_one_that_is_on_its_way_counts_although_its_caller_was_cancelled() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        for name in ("a", "b"):
            await memory.start_episode("task", episode_id=name)
        journal.hang_next(when=lambda submitted: "related" in submitted.kinds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.relate, "a", "b", "blocks")
            await journal.wait_hanging()
            nursery.cancel_scope.cancel()
        refused: list[str] = []

        async def relate_back() -> None:
            with pytest.raises(InvalidState, match="'b' → 'a' → 'b'"):
                await memory.relate("b", "a", "blocks")
            refused.append("b")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(relate_back)
            await trio.testing.wait_all_tasks_blocked()
            assert refused == []
            journal.release()
        assert ends(await memory.related("a", direction="both")) == ["ab"]


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("end", ["a", "b"])
async def test_deleting_either_end_removes_the_relationship(end: str, asked_before: bool) -> None:
    files = MemoryFileSystem()
    async with four(files) as memory:
        await memory.relate("a", "b", "follows")
        await memory.relate("c", "d", "follows")
        if asked_before:
            await memory.related("a")
        await memory.delete_episode(end)
        other = "b" if end == "a" else "a"
        assert await memory.related(other, direction="both", depth=3) == []
        with pytest.raises(NotFound):
            await memory.related(end)
        with pytest.raises(NotFound):
            await memory.relate(other, end, "blocks")
    async with open_on(files) as memory:
        assert await memory.related(other, direction="both") == []
        assert ends(await memory.related("d", direction="in")) == ["cd"]
        await memory.compact()
    async with open_on(files, read_only=True) as memory:
        assert await memory.related(other, direction="both") == []
        assert ends(await memory.related("d", direction="in")) == ["cd"]


@pytest.mark.parametrize("asked_before", [False, True])
async def test_one_that_was_checked_before_the_other_end_was_deleted_and_stored_behind_leads_nowhere(
    asked_before: bool,
) -> None:
    async with four(MemoryFileSystem()) as memory:
        if asked_before:
            await memory.related("a")
        await memory.delete_episode("b")
        record = Related(from_episode="a", to_episode="b", kind="follows")
        await organise(memory._supervisor, EpisodeId("a"), relating(record))
        assert await memory.related("a") == []


async def test_what_makes_no_relationship_is_refused_before_anything_is_accepted() -> None:
    async with four(MemoryFileSystem()) as memory:
        for priority in (0, 11, 5.0, True, None):
            with pytest.raises(InvalidInput, match="priority"):
                await memory.relate("a", "b", "follows", priority=priority)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="itself"):
            await memory.relate("a", "a", "follows")
        for kind in ("likes", None, 5):
            with pytest.raises(InvalidInput, match="kind: must be one of parent_child, "):
                await memory.relate("a", "b", kind)  # type: ignore[arg-type]
        with pytest.raises(TooLarge, match="reason: 5,001 bytes"):
            await memory.relate("a", "b", "follows", reason="ü" * 2500 + "x")
        bad: dict[str, Any]
        for bad in ({"reason": "\ud800"}, {"metadata": {"x": "\ud800"}}, {"metadata": []}, {"actor": 5}):
            with pytest.raises(InvalidInput):
                await memory.relate("a", "b", "follows", **bad)
        for begin, end in (("nope", "b"), ("a", "nope")):
            with pytest.raises(NotFound, match="nope"):
                await memory.relate(begin, end, "follows")
        bad_call: dict[str, Any]
        for bad_call in ({"direction": "up"}, {"depth": 0}, {"depth": 1.5}, {"kind": "likes"}):
            with pytest.raises(InvalidInput):
                await memory.related("a", **bad_call)
        assert memory.stats().records == len(NAMES)


@pytest.mark.parametrize("read_only", [False, True])
def test_ctrl_c_while_relationships_are_taken_up_forgets_none(monkeypatch: pytest.MonkeyPatch, read_only: bool) -> None:
    """Opened for reading only, it is the caller's own task that folds, and it is torn in the middle."""
    files = MemoryFileSystem()
    relate, interrupted = EdgeFold.relate, False

    def relate_and_interrupt(self: EdgeFold, *arguments: Any) -> None:
        nonlocal interrupted
        relate(self, *arguments)
        if not interrupted:
            interrupted = True
            signal.raise_signal(signal.SIGINT)

    async def main() -> list[str]:
        async with four(files) as memory:
            for end in ("b", "c", "d"):
                await memory.relate("a", end, "related_to")
        monkeypatch.setattr(EdgeFold, "relate", relate_and_interrupt)
        async with open_on(files, read_only=read_only) as memory:
            with suppress(KeyboardInterrupt):
                await memory.related("a")
                await trio.sleep_forever()
            return ends(await memory.related("a"))

    assert sorted(trio.run(main)) == ["ab", "ac", "ad"]
    assert interrupted
