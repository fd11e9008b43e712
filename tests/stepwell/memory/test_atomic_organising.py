"""What organises episodes, staged in a transaction: together with steps and with other episodes, or not at all."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    AtomicScope,
    BatchConfig,
    Closed,
    Episode,
    InvalidInput,
    InvalidState,
    Limits,
    Memory,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    RunId,
    Success,
    TooLarge,
    events,
)
from stepwell.model.organising import MAX_TAGS
from tests.stepwell.memory.test_atomic import CancelAtAnyStep, Medium
from tests.support import SEGMENT_BYTES, HookedFileSystem, open_on, step

MANUAL = MemoryConfig(batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)


async def start(memory: Memory, *names: str) -> None:
    for name in names:
        await memory.start_episode("task", episode_id=name, tags=["first"], metadata={"m": 1})


async def kinds(memory: Memory, name: str) -> list[str]:
    return [event.kind async for event in memory.events(name)]


def tags_of(episode: Episode) -> list[str]:
    return episode.context.tags


async def test_everything_that_organises_is_stored_with_the_steps_in_one_frame_and_in_their_order() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await start(memory, "a", "b")
        await memory.complete_episode("b", Success())
        async with memory.atomic() as tx:
            tx.log_step("a", step(1))
            tx.add_tags("a", ["net", "FIRST"], actor="ann")
            tx.checkpoint("a", "pause", note="ü", actor="ann")
            tx.log_step("a", step(2))
            tx.remove_tags("a", ["first"])
            tx.update_episode("a", description="neu", metadata={"n": 2}, remove_metadata=["m"])
            tx.archive("b", actor="ann")
            tx.set_tags("b", ["done"])
            tx.relate("b", "a", "follows", priority=7, reason="why", metadata={"x": [1]}, actor="ann")
        assert tx.receipt is not None
        last_of_a, last_of_b = tx.receipt_of("a"), tx.receipt_of("b")
        assert last_of_a is not None
        assert last_of_b is not None
        assert tx.receipt == last_of_b
        assert last_of_b.lsn == (last_of_a.lsn or 0) + 3
        assert (await kinds(memory, "a"))[1:] == ["step", "tagged", "checkpointed", "step", "tagged", "updated"]
        assert (await kinds(memory, "b"))[2:] == ["archived", "tagged", "related"]
    async with open_on(files) as memory:
        a, b = await memory.get_episode("a"), await memory.get_episode("b")
        assert (tags_of(a), a.task_description, a.metadata) == (["net"], "neu", {"n": 2})
        (place,) = a.checkpoints
        assert (place.steps, place.reason, place.note, place.actor, place.seq) == (1, "pause", "ü", "ann", 4)
        assert [item.parameters["n"] for item in (await memory.handoff(place.checkpoint_id)).steps] == [1]
        assert (tags_of(b), b.archived_at is not None) == (["done"], True)
        (edge,) = await memory.related("b")
        assert (edge.to_episode, edge.kind, edge.priority, edge.metadata) == ("a", "follows", 7, {"x": [1]})
        assert [item.episode_id for item in (await memory.list_episodes()).items if item.archived] == ["b"]


async def test_what_an_episode_is_organised_like_is_known_behind_the_commit_as_if_it_were_made_one_by_one() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a", "b")
        async with memory.atomic() as tx:
            tx.add_tags("a", ["x"])
            tx.relate("a", "b", "related_to")
            tx.archive("a")
        before = await kinds(memory, "a")
        await memory.add_tags("a", ["X"])
        await memory.relate("a", "b", "related_to")
        await memory.archive("a")
        assert await kinds(memory, "a") == before
        assert (await memory.log_step("a", step(1))).seq == len(before) + 1
        assert (await memory.checkpoint("a", "why")).steps == 1


async def test_changes_that_change_nothing_store_nothing_and_have_no_receipt() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a", "b")
        await memory.log_step("b", step(1, key="k"))
        before = [await kinds(memory, name) for name in "ab"]
        async with memory.atomic() as tx:
            tx.add_tags("a", ["FIRST"])
            tx.restore("a")
            tx.update_episode("a", metadata={"m": 1})
            tx.unrelate("a", "nobody", "follows")
        assert (tx.receipt, tx.receipt_of("a")) == (None, None)
        async with memory.atomic() as tx:
            tx.add_tags("a", ["first"])
            tx.log_step("b", step(1, key="k"))
            tx.remove_tags("b", ["none"])
        assert tx.receipt is not None
        assert tx.receipt == tx.receipt_of("b")
        assert tx.receipt_of("a") is None
        assert [await kinds(memory, name) for name in "ab"] == before


async def test_committed_again_under_its_keys_only_what_changes_something_is_stored_again() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a")

        async def commit() -> AtomicScope:
            async with memory.atomic() as tx:
                tx.log_step("a", step(1, key="k"))
                tx.add_tags("a", ["x"])
            return tx

        first, again = await commit(), await commit()
        assert first.receipt is not None
        assert again.receipt is not None
        assert (first.receipt.seq, again.receipt.seq) == (3, 2)  # the step is known, and the tag is there
        await memory.remove_tags("a", ["x"])
        third = await commit()
        assert await kinds(memory, "a") == ["started", "step", "tagged", "tagged", "tagged"]
        assert third.receipt is not None
        assert third.receipt.seq == 5


async def test_changes_may_be_of_episodes_that_have_ended_and_sleep_and_no_task_is_left_behind() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await start(memory, "a", "b")
        await memory.complete_episode("a", Success())
    async with open_on(files) as memory:
        async with memory.atomic() as tx:
            tx.add_tags("a", ["late"])
            tx.add_tags("b", ["late"])
        assert [tags_of(await memory.get_episode(name)) for name in "ab"] == [["first", "late"]] * 2
        await trio.testing.wait_all_tasks_blocked()
        assert list(memory._supervisor.cells) == ["b"]
        assert not memory._supervisor.cells["b"].is_wanted


REFUSED: dict[str, tuple[type[Exception], Callable[[AtomicScope], None]]] = {
    "an unknown episode": (NotFound, lambda tx: tx.archive("nobody")),
    "a deleted episode": (NotFound, lambda tx: tx.add_tags("gone", ["x"])),
    "a checkpoint of one that has ended": (InvalidState, lambda tx: tx.checkpoint("ended", "why")),
    "a step beside a change of one that has ended": (InvalidState, lambda tx: tx.log_step("ended", step(1))),
    "a relationship to nobody": (NotFound, lambda tx: tx.relate("a", "nobody", "follows")),
    "a relationship that is there otherwise": (InvalidState, lambda tx: tx.relate("a", "c", "blocks", priority=9)),
    "a circle with what is there": (InvalidState, lambda tx: tx.relate("c", "a", "blocks")),
    "too many tags": (TooLarge, lambda tx: tx.add_tags("a", [f"t{n}" for n in range(MAX_TAGS)])),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_change_that_is_refused_at_the_commit_refuses_the_whole_transaction(name: str) -> None:
    error, stage = REFUSED[name]
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a", "b", "c", "ended", "gone")
        await memory.complete_episode("ended", Success())
        await memory.delete_episode("gone")
        await memory.relate("a", "c", "blocks")
        before = {name: await kinds(memory, name) for name in ("a", "b", "c", "ended")}
        tx = memory.atomic()
        with pytest.raises(error):
            async with tx:
                tx.add_tags("a", ["x"])
                tx.log_step("b", step(1))
                tx.add_tags("ended", ["x"])
                stage(tx)
        assert tx.receipt is None
        assert {name: await kinds(memory, name) for name in before} == before
        await memory.relate("b", "a", "related_to")  # nothing is held
        assert (await memory.log_step("b", step(2))).seq == 3


async def test_no_circle_is_closed_by_what_one_transaction_stages_together() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a", "b", "c")
        await memory.relate("a", "b", "depends_on")
        with pytest.raises(InvalidState, match=r"a.*b.*c.*a|c.*a.*b.*c"):
            async with memory.atomic() as tx:
                tx.relate("b", "c", "depends_on")
                tx.relate("c", "a", "depends_on")
        assert await memory.related("b", direction="out") == []
        async with memory.atomic() as tx:  # the other way round, once it is no circle any more
            tx.unrelate("a", "b", "depends_on")
            tx.relate("b", "a", "depends_on")
            tx.relate("c", "a", "depends_on")
            tx.relate("a", "c", "related_to")  # no kind that minds
        assert [edge.to_episode for edge in await memory.related("b")] == ["a"]
        assert [edge.kind for edge in await memory.related("a")] == ["related_to"]


async def test_two_that_close_a_circle_at_once_are_not_both_stored() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a", "b")
        refused = []

        async def one(begin: str, end: str, *, alone: bool) -> None:
            try:
                if alone:
                    await memory.relate(begin, end, "blocks")
                else:
                    async with memory.atomic() as tx:
                        tx.log_step(end, step(1))
                        tx.relate(begin, end, "blocks")
            except InvalidState:
                refused.append(begin)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: one("a", "b", alone=False))
            nursery.start_soon(lambda: one("b", "a", alone=True))
        assert len(refused) == 1
        assert len(await memory.related("a", direction="both")) == 1


BAD: dict[str, Callable[[AtomicScope], None]] = {
    "tags that are no list": lambda tx: tx.add_tags("a", "net"),
    "an empty tag": lambda tx: tx.set_tags("a", [" "]),
    "a tag of 101 bytes": lambda tx: tx.add_tags("a", ["ü" * 50 + "x"]),
    "an empty reason": lambda tx: tx.checkpoint("a", ""),
    "a description that is too long": lambda tx: tx.update_episode("a", description="ü" * 5_001),
    "metadata that is no JSON": lambda tx: tx.update_episode("a", metadata={"x": float("nan")}),
    "an episode and itself": lambda tx: tx.relate("a", "a", "follows"),
    "an unknown kind": lambda tx: tx.relate("a", "b", "likes"),  # type: ignore[arg-type]
    "a bad id": lambda tx: tx.archive(""),
    "a bad actor": lambda tx: tx.restore("a", actor=1),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_change_raises_at_once_and_stages_nothing_of_it(name: str) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a", "b")
        async with memory.atomic() as tx:
            tx.add_tags("a", ["x"])
            with pytest.raises((InvalidInput, TooLarge)):
                BAD[name](tx)
        assert await kinds(memory, "a") == ["started", "tagged"]


async def test_changes_are_staged_inside_the_block_and_not_beside_recorded_events() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a")
        tx = memory.atomic()
        with pytest.raises(InvalidState):
            tx.archive("a")
        run = RunId.new()
        async with tx:
            tx.record(run, events.Started(agent="x"))
            with pytest.raises(InvalidInput, match="events were recorded"):
                tx.add_tags(run, ["x"])
            tx.archive("a")
            with pytest.raises(InvalidInput, match="another transaction"):
                tx.record("a", events.LlmCall(tokens=1, latency_ms=1))
        with pytest.raises(InvalidState):
            tx.restore("a")
        assert await kinds(memory, "a") == ["started", "archived"]


@pytest.mark.parametrize("tags", [14, 9])
async def test_a_transaction_that_proves_too_large_at_the_commit_stores_nothing(tags: int) -> None:
    """How large the record of `set_tags` is shows when it is known which tags it takes away: it alone with the first
    number of tags, two of them together with the second."""
    async with open_on(MemoryFileSystem(), MemoryConfig(limits=Limits(record_bytes=4_000))) as memory:
        await start(memory, "a")
        for number in range(30):
            await memory.add_tags("a", [f"{number}" + "x" * 90])
        await memory.add_tags("a", [f"more {number}" + "x" * 90 for number in range(tags)])
        with pytest.raises(TooLarge):
            async with memory.atomic() as tx:
                tx.set_tags("a", ["one"])
                tx.set_tags("a", ["x" * 100, "y" * 100, "z" * 100])
        assert len(tags_of(await memory.get_episode("a"))) == 31 + tags


async def test_changes_of_one_transaction_see_those_staged_before() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a", "b")
        async with memory.atomic() as tx:
            tx.add_tags("a", ["x"])
            tx.add_tags("a", ["X"])
            tx.archive("a")
            tx.archive("a")
            tx.relate("a", "b", "follows")
            tx.unrelate("a", "b", "follows")
            tx.unrelate("a", "b", "follows")
        assert await kinds(memory, "a") == ["started", "tagged", "archived", "related", "unrelated"]
        assert await memory.related("a") == []


async def test_what_a_refused_transaction_would_have_changed_is_as_before() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(limits=Limits(steps_per_episode=1))) as memory:
        await start(memory, "a", "b")
        await memory.log_step("b", step(1))
        with pytest.raises(TooLarge):
            async with memory.atomic() as tx:
                tx.add_tags("a", ["x"])
                tx.relate("a", "b", "follows")
                tx.checkpoint("a", "why")
                tx.log_step("b", step(2))
        assert (await memory.checkpoint("a", "other")).steps == 0
        await memory.relate("a", "b", "follows")
        await memory.add_tags("a", ["x"])
        assert await kinds(memory, "a") == ["started", "checkpointed", "related", "tagged"]


async def test_a_checkpoint_tells_first_what_was_lost_unheard() -> None:
    medium = Medium()
    async with open_on(medium.files, MANUAL) as memory:
        await start(memory, "a")
        receipt = await memory.log_step("a", step(1))
        medium.fail(errno.EIO, "datasync", times=1)
        memory._supervisor.cells["a"].make_urgent()
        await receipt._commit.wait()
        with pytest.raises(OutcomeUnknown):
            async with memory.atomic() as tx:
                tx.checkpoint("a", "why")
        assert await kinds(memory, "a") == ["started"]
        async with memory.atomic() as tx:
            tx.checkpoint("a", "why")
        assert (await memory.get_episode("a")).checkpoints[0].steps == 0


async def test_a_failed_transaction_leaves_the_episode_organised_as_the_log_says() -> None:
    medium = Medium()
    async with open_on(medium.files) as memory:
        await start(memory, "a", "b")
        medium.fail(errno.EIO, "datasync", times=1)
        with pytest.raises(OutcomeUnknown):
            async with memory.atomic() as tx:
                tx.add_tags("a", ["x"])
                tx.relate("a", "b", "blocks")
        found = await kinds(memory, "a")
        assert found in (["started"], ["started", "tagged", "related"])
        async with memory.atomic() as tx:
            tx.add_tags("a", ["x"])
            tx.relate("a", "b", "blocks")
        assert await kinds(memory, "a") == ["started", "tagged", "related"]


async def test_in_a_memory_that_is_closed_nothing_is_staged() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory, "a")
        tx = memory.atomic()
    with pytest.raises(Closed):
        await tx.__aenter__()


async def look(memory: Memory) -> tuple[Any, ...]:
    a, b = await memory.get_episode("a"), await memory.get_episode("b")
    edges = [edge.to_episode for edge in await memory.related("b")]
    return len(a.steps), tags_of(a), len(a.checkpoints), b.archived_at is not None, edges


NOTHING: tuple[Any, ...] = (0, ["first"], 0, False, [])
ALL: tuple[Any, ...] = (1, ["first", "x"], 1, True, ["a"])


def stage(tx: AtomicScope) -> None:
    tx.log_step("a", step(1, key="k"))
    tx.add_tags("a", ["x"])
    tx.checkpoint("a", "why")
    tx.archive("b")
    tx.relate("b", "a", "depends_on")


async def test_whatever_a_crash_leaves_it_is_all_of_it_or_nothing() -> None:
    """At every call of the file layer during the commit: power cuts, and the death of the process alone."""
    disk, rng = MemoryFileSystem(), random.Random(5)
    images: list[tuple[str, MemoryFileSystem]] = []
    committing = False

    def hook(call: str, path: str) -> None:
        if committing:
            images.append((f"{call} {path}, power cut", disk.durable_copy()))
            images.append((f"{call} {path}, death", disk.page_cache_copy()))
            images.extend((f"{call} {path}, power cut {n}", disk.crash_copy(rng.randrange)) for n in range(4))

    async with open_on(HookedFileSystem(disk, hook), MANUAL) as memory:
        await start(memory, "a", "b")
        await memory.complete_episode("b", Success())
        committing = True
        async with memory.atomic() as tx:
            stage(tx)
        committing = False
        assert await look(memory) == ALL
    seen = set()
    for where, image in images:
        async with open_on(image) as memory:
            found = await look(memory)
            assert found in (NOTHING, ALL), where
            seen.add(found == ALL)
    assert seen == {True, False}


async def test_cancelled_at_any_step_of_the_scheduler_it_is_whole_and_nothing_is_held() -> None:
    steps, cancelled, seen = 0, True, set[bool]()
    while cancelled:
        disk = MemoryFileSystem()
        async with open_on(disk) as memory:
            await start(memory, "a", "b")
            await memory.complete_episode("b", Success())
        with trio.fail_after(100):
            async with open_on(disk) as memory:
                tx = memory.atomic()
                with trio.CancelScope() as scope:
                    instrument = CancelAtAnyStep(steps, scope)
                    if steps == 0:
                        scope.cancel()
                    trio.lowlevel.add_instrument(instrument)
                    try:
                        async with tx:
                            stage(tx)
                    finally:
                        trio.lowlevel.remove_instrument(instrument)
                cancelled = scope.cancelled_caught
                is_submitted = tx.receipt is not None
                assert is_submitted or cancelled
                cells = memory._supervisor.cells.values()
                assert not any(cell.locked or cell.wanted_by for cell in cells)
                with trio.fail_after(100):
                    await memory.relate("a", "b", "related_to")
        async with open_on(disk) as memory:
            assert await look(memory) == (ALL if is_submitted else NOTHING), steps
        seen.add(is_submitted)
        steps += 1
    assert steps > 20
    assert seen == {True, False}
