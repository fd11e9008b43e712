"""Deleting an episode: whatever state it is in and whatever meets it, it is gone for good and nothing hangs."""

from __future__ import annotations

import errno
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

import stepwell.runtime.episode_task as episode_task
from stepstore.journal import Batch, Gap
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    START,
    BatchConfig,
    Closed,
    EpisodeUnavailable,
    InvalidInput,
    InvalidState,
    LogFull,
    Memory,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    Receipt,
    Scope,
    StepwellError,
    Success,
    open_memory,
)
from stepwell.memory.opening import OpenMemory
from stepwell.model.ids import stream_id
from tests.stepstore.log_lab import content, flip, segments
from tests.support import LOG, SEGMENT_BYTES, HookedFileSystem, cancelled_at_step, force_into_log, open_on, step

MANUAL = MemoryConfig(batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)
E = stream_id("episode", "e")
Call = Callable[[], Awaitable[object]]


def tasks_of(memory: Memory) -> list[str]:
    """What runs for a memory beside its tasks that always do."""
    nursery = memory._supervisor._nursery
    assert nursery is not None
    names = [task.name for task in nursery.child_tasks]
    always = {f"stepwell {name}" for name in ("log writer", "projector", "indexer", "learner", "flusher", "passivator")}
    return [name for name in names if name not in always]


async def check_gone(memory: Memory, episode_id: str = "e") -> None:
    """It reads as if it had never been, but for its id; nothing of it runs."""
    handle = memory.handle(episode_id)
    readings: tuple[Call, ...] = (
        lambda: memory.get_episode(episode_id),
        lambda: memory.get_episode(episode_id, partial=True),
        lambda: memory.get_episodes([episode_id]),
        lambda: anext(memory.events(episode_id)),
        lambda: memory.flush_steps(episode_id),
    )
    for call in readings:
        with pytest.raises(NotFound, match=episode_id):
            await call()
    assert episode_id not in [item async for item in memory.episode_ids()]
    assert episode_id not in [item.episode_id for item in await memory.open_episodes()]
    if memory._supervisor._nursery is None or not memory._journal.gate.is_open:
        return
    changes: tuple[Call, ...] = (
        lambda: handle.log_step(step(1)),
        lambda: handle.log_steps([step(1)]),
        lambda: handle.complete(Success()),
        lambda: memory.resume(episode_id),
        lambda: memory.abandon(episode_id),
    )
    for call in changes:
        with pytest.raises(NotFound, match=episode_id):
            await call()
    with pytest.raises(NotFound, match=episode_id):
        handle.log_step_nowait(step(1))
    with pytest.raises(InvalidState, match="deleted"):
        await memory.start_episode("task", episode_id=episode_id)
    with pytest.raises(InvalidState, match="deleted"):
        async with memory.episode("another task", episode_id=episode_id):
            raise AssertionError("entered")
    await memory.delete_episode(episode_id)  # again is nothing
    assert episode_id not in memory._supervisor.cells
    assert memory._supervisor.deletions.under_way == {}
    assert [name for name in tasks_of(memory) if name.endswith(f" {episode_id}")] == []


async def check_gone_for_good(files: MemoryFileSystem, episode_id: str = "e") -> None:
    """The same after reopening, however often, and for a reader."""
    for read_only in (False, True, False):
        async with open_on(files, read_only=read_only) as memory:
            await check_gone(memory, episode_id)


@asynccontextmanager
async def with_others(files: MemoryFileSystem, config: MemoryConfig | None = None) -> AsyncIterator[Memory]:
    """A memory in which another episode goes on, whatever becomes of "e"."""
    async with open_on(files, config) as memory:
        other = await memory.start_episode("another task", episode_id="other")
        yield memory
        await (await other.log_step(step(1))).wait_durable()
        assert [item.action for item in (await other.get()).steps] == ["action 1"]
    async with open_on(files) as memory:
        assert [item.action for item in (await memory.get_episode("other")).steps] == ["action 1"]


# ---- in every state --------------------------------------------------------------------------------------------------


async def test_deleting_a_live_episode_stores_what_was_accepted_and_then_the_deletion() -> None:
    """With one batch on its way, more accepted behind it, and followers and waiters of all of it."""
    files = MemoryFileSystem()
    async with with_others(files, MANUAL) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipts = [await handle.log_step(step(n)) for n in range(5)]
        cell = memory._supervisor.cells[handle.id]
        cell.make_urgent()
        assert cell._at_journal is not None
        receipts += [handle.log_step_nowait(step(n)) for n in range(5, 12)]
        assert not any(receipt.is_durable for receipt in receipts)
        async with memory.follow(START, kinds=["step", "deleted"]) as events, trio.open_nursery() as nursery:
            for receipt in receipts:
                nursery.start_soon(receipt.wait_durable)
            await memory.delete_episode("e")
            assert all(receipt.is_durable for receipt in receipts)
            await check_gone(memory)
            # A follower that had not read them yet gets none of them, and the deletion last.
            event = await events.receive()
            assert not isinstance(event, Gap)
            assert (event.kind, event.seq, event.data, event.stream) == ("deleted", 14, {}, "")
    await check_gone_for_good(files)


async def test_a_follower_that_keeps_up_sees_every_step_and_then_the_deletion() -> None:
    async with open_on(MemoryFileSystem(), MANUAL) as memory:
        found: list[tuple[str, str, int]] = []

        async def follow() -> None:
            async with memory.follow(START) as events:
                async for event in events:
                    assert not isinstance(event, Gap)
                    found.append((event.stream, event.kind, event.seq))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            handle = await memory.start_episode("task", episode_id="e")
            await handle.log_step(step(1))
            await handle.flush()
            await trio.testing.wait_all_tasks_blocked()
            await memory.delete_episode("e")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert found == [("e", "started", 1), ("e", "step", 2), ("e", "deleted", 3)]


async def test_deleting_an_episode_that_is_asleep() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
    async with with_others(files) as memory:
        assert [item.episode_id for item in await memory.open_episodes()] == ["e"]
        await memory.delete_episode("e")
        await check_gone(memory)
    await check_gone_for_good(files)


async def test_deleting_an_episode_that_has_ended() -> None:
    files = MemoryFileSystem()
    async with with_others(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        done = await handle.complete(Success("fine"))
        await memory.delete_episode("e")
        await check_gone(memory)
        assert done.receipt.is_durable
    await check_gone_for_good(files)


async def test_deleting_an_episode_that_is_parked(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    files, real = MemoryFileSystem(), episode_task.run_incarnation

    async def failing(cell: object, *arguments: object) -> None:
        if cell.episode_id == "e":  # type: ignore[attr-defined]
            raise RuntimeError("always")
        await real(cell, *arguments)  # type: ignore[arg-type]

    async with with_others(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        lost = await handle.log_step(step(1))
        monkeypatch.setattr(episode_task, "run_incarnation", failing)
        cell = memory._supervisor.cells[handle.id]
        cell.failure = RuntimeError("first")
        cell.wake()
        with pytest.raises(EpisodeUnavailable, match="parked"):
            await handle.complete(Success())
        with pytest.raises(OutcomeUnknown):
            await lost.wait_durable()
        await memory.delete_episode("e")
        await check_gone(memory)
    await check_gone_for_good(files)


async def unsound(files: MemoryFileSystem, how: str) -> None:
    """A memory with episodes "e" and "other", of which the first is not what it should be."""
    async with open_on(files) as memory:
        for name in ("e", "another"):
            handle = await memory.start_episode("task", episode_id=name)
            await handle.log_steps([step(n) for n in range(3)])
            await handle.flush()
        if how.endswith("in another segment"):
            await memory._journal.rotate()
    if how == "damaged":
        (path,) = segments(files)
        flip(files, path, content(files, path).index(b"action 1"))
    elif how == "undecodable":
        await force_into_log(files, Batch(E, 5, [b"\xff no record of ours"], 0))
    elif how.startswith("forked"):
        await force_into_log(files, Batch(E, 3, [b"another record 3"], 0))
    else:
        assert how.startswith("gap")
        await force_into_log(files, Batch(E, 7, [b"two are missing"], 0))


UNSOUND = {
    "damaged": "damaged",
    "undecodable": "undecodable",
    "forked": "forked",
    "forked in another segment": "forked",
    "gap": "damaged",
    "gap in another segment": "damaged",
}


@pytest.mark.parametrize("rotated", [False, True], ids=["", "and then in a segment of its own"])
@pytest.mark.parametrize("how", UNSOUND)
async def test_deleting_an_episode_that_cannot_be_read(how: str, rotated: bool) -> None:
    files = MemoryFileSystem()
    await unsound(files, how)
    async with with_others(files) as memory:
        with pytest.raises(EpisodeUnavailable) as caught:
            await memory.get_episode("e")
        assert caught.value.reason == UNSOUND[how]
        with pytest.raises(EpisodeUnavailable):
            await memory.log_step("e", step(9))
        if rotated:
            await memory._journal.rotate()
        await memory.delete_episode("e")
        await check_gone(memory)
        assert len((await memory.get_episode("another")).steps) == 3
    await check_gone_for_good(files)


async def test_deleting_an_episode_whose_task_had_crashed_with_accepted_steps_in_hand(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """They are stored before it is deleted, and their receipts say so."""
    files, real, crashes = MemoryFileSystem(), episode_task.run_incarnation, 1

    async def crashing(cell: object, *arguments: object) -> None:
        nonlocal crashes
        if crashes and cell.episode_id == "e":  # type: ignore[attr-defined]
            crashes -= 1
            cell.drain()  # type: ignore[attr-defined]
            raise RuntimeError("with everything in hand")
        await real(cell, *arguments)  # type: ignore[arg-type]

    async with with_others(files, MANUAL) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipts = [await handle.log_step(step(n)) for n in range(5)]
        monkeypatch.setattr(episode_task, "run_incarnation", crashing)
        cell = memory._supervisor.cells[handle.id]
        cell.failure = RuntimeError("crash")
        cell.wake()
        await trio.sleep(0.3)  # it was restarted, and has crashed again
        assert (crashes, cell.state.value, len(cell.in_hand)) == (0, "waking", 5)
        with trio.fail_after(60):
            await memory.delete_episode("e")
            for receipt in receipts:
                await receipt.wait_durable()
        await check_gone(memory)
    await check_gone_for_good(files)


async def test_an_unknown_episode_is_not_found_and_a_bad_id_is_refused() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        with pytest.raises(NotFound, match="'nope'"):
            await memory.delete_episode("nope")
        await memory.start_episode("task", episode_id="nope")  # and its id is free
        for bad in ("", "a\0b", 5, "x" * 201):
            with pytest.raises((InvalidInput, StepwellError)):
                await memory.delete_episode(bad)  # type: ignore[arg-type]
    with pytest.raises(Closed):
        await memory.delete_episode("nope")


async def test_a_reader_deletes_nothing(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "m") as memory:
        for name in ("e", "deleted"):
            await memory.start_episode("task", episode_id=name)
        await memory.delete_episode("deleted")
        async with open_memory(tmp_path / "m", read_only=True) as reader:
            for name in ("e", "deleted", "nope"):
                with pytest.raises(Closed, match="read_only"):
                    await reader.delete_episode(name)
            await check_gone(reader, "deleted")
        assert (await memory.get_episode("e")).status == "open"


async def test_deleting_in_a_memory_that_keeps_nothing() -> None:
    async with open_memory(":memory:") as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
        await memory.delete_episode("e")
        await check_gone(memory)


# ---- with others at the same time ------------------------------------------------------------------------------------


async def test_many_who_delete_at_once_delete_once() -> None:
    files = MemoryFileSystem()
    async with with_others(files) as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(memory.delete_episode, "e")
        await check_gone(memory)
        async with memory.follow(START, kinds=["deleted"]) as events:
            assert isinstance(await events.receive(), object)
            with trio.move_on_after(0.01) as waiting:
                await events.receive()
            assert waiting.cancelled_caught


async def test_callers_that_wait_for_room_when_the_episode_is_deleted_are_refused() -> None:
    files, outcomes = MemoryFileSystem(), []
    config = MemoryConfig(mailbox_size=4, segment_bytes=SEGMENT_BYTES)
    async with with_others(files, config) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        accepted = [handle.log_step_nowait(step(n)) for n in range(4)]

        async def log(number: int) -> None:
            try:
                accepted.append(await handle.log_step(step(number)))
                outcomes.append("accepted")
            except (InvalidState, NotFound) as error:
                outcomes.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            for number in range(4, 24):
                nursery.start_soon(log, number)
            nursery.start_soon(memory.delete_episode, "e")
        assert len(outcomes) == 20
        assert "InvalidState" in outcomes
        for receipt in accepted:
            await receipt.wait_durable()
        await check_gone(memory)
    await check_gone_for_good(files)


@pytest.mark.parametrize("lead", range(8))
async def test_completing_while_it_is_deleted_is_done_or_refused_and_never_hangs(lead: int) -> None:
    """Whoever is first by any number of steps."""
    for first in ("complete", "delete"):
        files, seen = MemoryFileSystem(), []
        async with with_others(files) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await handle.log_step(step(1))

            async def complete() -> None:
                try:
                    done = await handle.complete(Success("fine"))  # noqa: B023
                    seen.append("done" if done.receipt.is_durable else "not durable")  # noqa: B023
                except (InvalidState, NotFound) as error:
                    seen.append(type(error).__name__)  # noqa: B023

            async def after(steps: int, call: Call) -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                await call()

            with trio.fail_after(100):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(after, 0 if first == "complete" else lead, complete)
                    nursery.start_soon(after, 0 if first == "delete" else lead, lambda: memory.delete_episode("e"))
            assert seen[0] in ("done", "InvalidState", "NotFound")
            await check_gone(memory)
        await check_gone_for_good(files)


async def test_completing_an_episode_whose_deletion_waits_for_the_medium_is_refused_at_once() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.delete_episode, "e")
            cell = memory._supervisor.cells[handle.id]
            while not cell.deleting:
                await trio.lowlevel.checkpoint()
            assert cell.state.value == "live"
            calls: tuple[Call, ...] = (
                lambda: handle.complete(Success()),
                lambda: handle.log_step(step(2)),
                lambda: handle.log_steps([step(2)]),
                lambda: memory.resume("e"),
                lambda: memory.start_episode("task", episode_id="e"),
            )
            for call in calls:
                with pytest.raises((InvalidState, NotFound), match=r"deleted|no episode"):
                    await call()
        await check_gone(memory)


async def test_a_step_for_an_episode_that_is_being_deleted_is_refused_without_waiting() -> None:
    async with open_on(MemoryFileSystem(), MANUAL) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1))
        cell = memory._supervisor.cells[handle.id]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.delete_episode, "e")
            while not cell.deleting:
                await trio.lowlevel.checkpoint()
            with pytest.raises(InvalidState, match="being deleted"):
                handle.log_step_nowait(step(2))


async def test_reading_while_it_is_deleted_gives_all_of_it_or_not_found() -> None:
    files = MemoryFileSystem()
    for checkpoints in range(12):
        name = f"e{checkpoints}"
        async with open_on(files) as memory:
            handle = await memory.start_episode("task", episode_id=name)
            await handle.log_steps([step(n) for n in range(600)])
            await handle.flush()
            seen: list[object] = []

            async def get(name: str = name, memory: Memory = memory, seen: list[object] = seen) -> None:
                try:
                    seen.append(len((await memory.get_episode(name)).steps))
                except NotFound:
                    seen.append("not found")

            async def iterate(name: str = name, memory: Memory = memory, seen: list[object] = seen) -> None:
                try:
                    seen.append(len([event async for event in memory.events(name)]) - 1)
                except NotFound:
                    seen.append("not found")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                nursery.start_soon(iterate)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                await memory.delete_episode(name)
            assert len(seen) == 2
            assert set(seen) <= {600, "not found"}, checkpoints


async def test_an_iteration_that_had_begun_in_a_memory_that_keeps_nothing_does_not_end_as_if_that_were_all() -> None:
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_steps([step(n) for n in range(600)])
        events = memory.events("e")
        assert (await anext(events)).kind == "started"
        await memory.delete_episode("e")
        seen: list[int] = []
        with pytest.raises(NotFound):
            async for event in events:
                seen.append(event.seq)
        assert seen == list(range(2, 2 + len(seen)))


async def test_starting_an_id_while_it_is_deleted_is_refused() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="e")
        refused = 0

        async def start() -> None:
            nonlocal refused
            with pytest.raises(InvalidState, match="deleted"):
                await memory.start_episode("task", episode_id="e")
            refused += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.delete_episode, "e")
            await trio.lowlevel.checkpoint()
            while "e" not in memory._supervisor.deletions.under_way:
                await trio.lowlevel.checkpoint()
            for _ in range(5):
                nursery.start_soon(start)
        assert refused == 5


async def test_deleting_an_id_that_does_not_exist_never_stops_its_start() -> None:
    """Neither before the start, nor in the middle of it, is the id thought to be deleted."""
    async with open_on(MemoryFileSystem()) as memory:
        for checkpoints in range(6):
            name = f"e{checkpoints}"

            async def delete(name: str = name) -> None:
                with suppress(NotFound):
                    await memory.delete_episode(name)

            async def start(name: str = name, checkpoints: int = checkpoints) -> None:
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                try:
                    await memory.start_episode("task", episode_id=name)
                except InvalidState:
                    with pytest.raises(NotFound):
                        await memory.get_episode(name)
                    raise AssertionError("refused although it did not exist") from None

            async with trio.open_nursery() as nursery:
                nursery.start_soon(delete)
                nursery.start_soon(start)


async def test_deleting_an_episode_whose_start_is_on_its_way() -> None:
    files = MemoryFileSystem()
    for checkpoints in range(6):
        name = f"e{checkpoints}"
        async with open_on(files) as memory, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: memory.start_episode("task", episode_id=name))  # noqa: B023
            while name not in memory._supervisor.cells:
                await trio.lowlevel.checkpoint()
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            await memory.delete_episode(name)
            await check_gone(memory, name)


async def test_a_run_scope_whose_episode_is_deleted_in_its_body_is_left_quietly() -> None:
    files = MemoryFileSystem()
    async with with_others(files) as memory:
        scope = memory.episode("task", episode_id="e")
        async with scope as episode:
            await episode.log_step(step(1))
            await memory.delete_episode("e")
            episode.succeed("all the same")
        assert scope.completed is None
        await check_gone(memory)
        mine = ValueError("mine")
        with pytest.raises(ValueError) as caught:
            async with memory.episode("task", episode_id="f"):
                await memory.delete_episode("f")
                raise mine
        assert caught.value is mine
        assert not getattr(mine, "__notes__", [])
    await check_gone_for_good(files)


@pytest.mark.parametrize("checkpoints", range(8))
async def test_a_run_scope_that_is_left_while_its_episode_is_deleted_does_not_hang(checkpoints: int) -> None:
    files = MemoryFileSystem()
    with trio.fail_after(100):
        async with with_others(files) as memory, trio.open_nursery() as nursery:
            async with memory.episode("task", episode_id="e") as episode:
                await episode.log_step(step(1))
                nursery.start_soon(memory.delete_episode, "e")
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
    await check_gone_for_good(files)


# ---- cancelled, at any point -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["live", "asleep", "ended"])
async def test_a_deletion_that_is_cancelled_at_any_point_can_be_repeated_and_harms_nothing(state: str) -> None:
    steps = 0
    cancelled = True
    while cancelled:
        files = MemoryFileSystem()
        async with open_on(files) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            receipts: list[Receipt] = [await handle.log_step(step(n)) for n in range(3)]
            if state == "ended":
                await handle.complete(Success())
            if state == "live":
                cancelled = await self_check(memory, receipts, steps)
        if state != "live":
            async with open_on(files) as memory:
                if state == "ended":
                    assert (await memory.get_episode("e")).status == "ended"
                cancelled = await self_check(memory, receipts, steps)
        await check_gone_for_good(files)
        steps += 1
    assert steps >= 3


async def self_check(memory: Memory, receipts: list[Receipt], steps: int) -> bool:
    cancelled = await cancelled_at_step(steps, lambda: memory.delete_episode("e"))
    # Whatever it is now, it answers at once, and what was accepted has a result.
    with trio.fail_after(100):
        with suppress(NotFound, InvalidState):
            receipts.append(await memory.log_step("e", step(9)))
        await trio.testing.wait_all_tasks_blocked()
        await memory.delete_episode("e")
        for receipt in receipts:
            await receipt.wait_durable()
        await check_gone(memory)
    return cancelled


async def test_a_deletion_goes_on_when_its_caller_is_cancelled() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(memory.delete_episode, "e")
                while "e" not in memory._supervisor.deletions.under_way:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await check_gone(memory)
    await check_gone_for_good(files)


@pytest.mark.parametrize("checkpoints", range(12))
def test_ctrl_c_during_a_deletion_leaves_all_of_the_episode_or_nothing(tmp_path: Path, checkpoints: int) -> None:
    async def interrupt() -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task", episode_id="e")
            for number in range(5):
                await handle.log_step(step(number))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt)
                await memory.delete_episode("e")
                await trio.sleep_forever()

    async def look() -> None:
        async with open_memory(tmp_path / "m") as memory:
            try:
                found = await memory.get_episode("e")
            except NotFound:
                await check_gone(memory)
            else:
                assert [item.action for item in found.steps] == [f"action {n}" for n in range(5)]
                await memory.delete_episode("e")
                await check_gone(memory)

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert KeyboardInterrupt in [type(error) for error in leaves(caught.value)]
    trio.run(look)


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


# ---- when the medium fails -------------------------------------------------------------------------------------------


class Medium:
    """A disk in memory that can be full, with or without its reserve, or broken, or slow."""

    def __init__(self) -> None:
        self.disk = MemoryFileSystem()
        self.full = self.without_reserve = self.broken = False
        self.files = HookedFileSystem(self.disk, self.hook)

    def hook(self, call: str, path: str) -> None:
        if self.broken and call in ("write", "datasync", "create"):
            raise OSError(errno.EIO, "the disk is gone")
        if self.full and call in ("write", "allocate"):
            if call == "write" and not self.without_reserve and self.disk.stat(f"{LOG}/reserve") is None:
                return
            raise OSError(errno.ENOSPC, "No space left on device")


async def test_deleting_on_a_full_disk_uses_the_reserve(autojump_clock: trio.testing.MockClock) -> None:
    medium = Medium()
    async with open_on(medium.files, MANUAL) as memory:
        for name in ("e", "f"):
            await memory.start_episode("task", episode_id=name)
        medium.full = True
        lost = await memory.log_step("f", step(1))
        with pytest.raises(OutcomeUnknown):
            await lost.wait_durable()
        with pytest.raises(LogFull):
            await memory.start_episode("another")
        await memory.delete_episode("e")
        await check_gone_to_readers(memory, "e")
        medium.full = False
    await check_gone_for_good(medium.disk)


async def check_gone_to_readers(memory: Memory, episode_id: str) -> None:
    with pytest.raises(NotFound):
        await memory.get_episode(episode_id)
    assert episode_id not in memory._supervisor.cells
    assert memory._supervisor.deletions.under_way == {}


async def test_deleting_on_a_disk_too_full_for_anything_is_refused_and_works_once_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    medium = Medium()
    async with open_on(medium.disk) as memory:
        await (await memory.start_episode("task", episode_id="e")).log_step(step(1))
    async with open_on(medium.files) as memory:
        medium.full = medium.without_reserve = True
        for _ in range(2):
            with pytest.raises(LogFull):
                await memory.delete_episode("e")
            assert memory._supervisor.deletions.under_way == {}
            assert len((await memory.get_episode("e")).steps) == 1
        medium.full = False
        await trio.sleep(20)
        assert (await memory.log_step("e", step(2))).seq == 3
        await memory.delete_episode("e")
        await check_gone(memory)
    await check_gone_for_good(medium.disk)


async def test_deleting_when_the_log_is_lost_is_refused_and_nothing_hangs() -> None:
    medium = Medium()
    with pytest.raises(OSError, match="the disk is gone"):
        async with open_on(medium.files) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await handle.flush()
            receipt = await handle.log_step(step(1))
            medium.broken = True
            with trio.fail_after(100):
                with pytest.raises((OutcomeUnknown, Closed)):
                    await memory.delete_episode("e")
                with pytest.raises(OutcomeUnknown):
                    await receipt.wait_durable()
                with pytest.raises(Closed):
                    await memory.delete_episode("e")
            assert len((await memory.get_episode("e")).steps) == 0


# ---- closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoints", range(14))
async def test_closing_waits_for_a_deletion_under_way(checkpoints: int) -> None:
    files = MemoryFileSystem()
    outcome: list[str] = []

    async def delete(memory: Memory) -> None:
        try:
            await memory.delete_episode("e")
            outcome.append("deleted")
        except Closed:
            outcome.append("closed")

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            async with open_on(files) as memory:
                handle = await memory.start_episode("task", episode_id="e")
                receipt = await handle.log_step(step(1))
                nursery.start_soon(delete, memory)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
            await receipt.wait_durable()
    if outcome == ["deleted"]:
        await check_gone_for_good(files)
    else:
        assert outcome == ["closed"]
        async with open_on(files) as memory:
            assert len((await memory.get_episode("e")).steps) == 1


async def test_closing_with_a_run_scope_open_whose_episode_is_being_deleted_does_not_hang() -> None:
    for checkpoints in range(14):
        files = MemoryFileSystem()
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                async with open_on(files) as memory:
                    scope = memory.episode("task", episode_id="e")
                    await scope.__aenter__()

                    async def delete(memory: Memory = memory) -> None:
                        with suppress(Closed):
                            await memory.delete_episode("e")

                    nursery.start_soon(delete)
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
        with suppress(StepwellError):
            await scope.__aexit__(None, None, None)


async def test_a_deletion_cut_off_by_the_end_of_the_grace_is_reported_as_unknown(tmp_path: Path) -> None:
    from tests.stepwell.memory.test_closing import BlockedDisk

    disk = BlockedDisk(tmp_path / "m")
    told: list[str] = []
    memory: Memory | None = None

    async def delete() -> None:
        assert memory is not None
        with pytest.raises(OutcomeUnknown, match="closed"):
            await memory.delete_episode("e")
        told.append("unknown")

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with OpenMemory(disk.path, MemoryConfig(grace_seconds=0.05), False, disk.files) as memory:
                handle = await memory.start_episode("task", episode_id="e")
                disk.blocked = True
                await handle.log_step(step(1))
                nursery.start_soon(delete)
                await trio.sleep(0.1)
                nursery.start_soon(release_later, disk)
                scope.cancel()
                await trio.sleep_forever()
    assert told == ["unknown"]


async def release_later(disk: object) -> None:
    await trio.sleep(0.3)
    disk.blocked = False  # type: ignore[attr-defined]
    disk.release.set()  # type: ignore[attr-defined]


async def test_what_is_read_while_its_episode_is_deleted_does_not_end_as_if_that_were_all() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for number in range(600):
            await handle.log_step(step(number))
        events = handle.events()
        assert (await anext(events)).kind == "started"
        nothing_read = handle.events()
        await memory.delete_episode("e")
        with pytest.raises(NotFound):
            await anext(nothing_read)
        with pytest.raises(NotFound):
            async for _event in events:
                pass


async def test_what_a_memory_without_a_path_keeps_of_an_episode_can_be_purged() -> None:
    async with open_memory(":memory:") as memory:
        await memory.start_episode("task", episode_id="e")
        report = await memory.delete_episode("e", purge=True)
        assert report is not None
        assert report.is_proven
        assert report.streams_purged == 1
        cleared = await memory.long_term.clear(Scope.workspace("w"), purge=True)
        assert cleared is not None
        assert cleared.out_of_reach == ()
