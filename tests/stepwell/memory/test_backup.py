"""A backup of a living memory: complete, checked, and a memory of its own once it is restored."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from stepstore.log.archive import restore_archive
from stepwell import START, Closed, Event, InvalidInput, InvalidState, Memory, MemoryConfig, open_memory
from tests.support import step

SMALL = MemoryConfig(segment_bytes=64 * 1024)


async def steps_of(memory: Memory, episode_id: str) -> list[str]:
    return [logged.action for logged in (await memory.get_episode(episode_id)).steps]


async def test_a_backup_holds_what_was_durable_and_logging_goes_on_meanwhile(tmp_path: Path) -> None:
    logged = 0
    async with open_memory(tmp_path / "memory", config=SMALL) as memory:
        handle = await memory.start_episode("a task", episode_id="e")
        for number in range(300):
            await handle.log_step(step(number))
        await handle.flush()
        async with trio.open_nursery() as nursery:
            stop = trio.CancelScope()

            async def go_on() -> None:
                nonlocal logged
                with stop:
                    while True:
                        await handle.log_step(step(300 + logged))
                        logged += 1

            nursery.start_soon(go_on)
            report = await memory.backup(tmp_path / "archive")
            stop.cancel()
        await handle.flush()
        assert len(await steps_of(memory, "e")) in (300 + logged, 301 + logged)
    assert report.records >= 301
    assert not list((tmp_path / "memory").glob("*.archive.tmp"))
    restore_archive(str(tmp_path / "archive"), str(tmp_path / "restored"))
    async with open_memory(tmp_path / "restored", config=SMALL) as restored:
        actions = await steps_of(restored, "e")
        assert actions[:300] == [f"action {number}" for number in range(300)]
        assert actions[300:] == [f"action {number}" for number in range(300, len(actions))]
        await restored.handle("e").log_step(step(-1))
        await restored.handle("e").flush()
        assert (await steps_of(restored, "e"))[-1] == "action -1"


async def test_a_cursor_of_the_original_is_refused_by_the_restored_memory(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "memory") as memory:
        handle = await memory.start_episode("a task", episode_id="e")
        await handle.log_step(step(1))
        await handle.flush()
        await memory.backup(tmp_path / "archive")
        cursor = await first_of(memory)
    restore_archive(str(tmp_path / "archive"), str(tmp_path / "restored"))
    async with open_memory(tmp_path / "restored") as restored:
        with pytest.raises(InvalidState, match="branch"):
            async with restored.follow(cursor.cursor) as events:
                await anext(aiter(events))


async def first_of(memory: Memory) -> Event:
    async with memory.follow(START) as events:
        async for event in events:
            assert isinstance(event, Event)
            return event
    raise AssertionError


@pytest.mark.parametrize("target", [7, b"bytes", "", "nul\0"])
async def test_a_target_that_is_no_path_is_refused(tmp_path: Path, target: object) -> None:
    async with open_memory(tmp_path / "memory") as memory:
        with pytest.raises(InvalidInput, match="target"):
            await memory.backup(target)  # type: ignore[arg-type]


async def test_a_target_that_is_not_empty_or_lies_inside_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    async with open_memory(tmp_path / "memory") as memory:
        for target in (tmp_path / "full", tmp_path / "memory" / "inside"):
            with pytest.raises(InvalidInput, match="target"):
                await memory.backup(target)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


async def test_a_memory_without_a_path_has_no_backup_and_a_closed_one_neither(tmp_path: Path) -> None:
    async with open_memory(":memory:") as memory:
        with pytest.raises(InvalidInput, match="path"):
            await memory.backup(tmp_path / "archive")
    with pytest.raises(Closed):
        await memory.backup(tmp_path / "archive")


async def test_a_cancelled_backup_is_no_archive_and_the_next_one_to_the_same_place_is(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "memory") as memory:
        handle = await memory.start_episode("a task", episode_id="e")
        await handle.log_step(step(1))
        await handle.flush()
        with trio.CancelScope() as scope:
            scope.cancel()
            await memory.backup(tmp_path / "archive")
        assert scope.cancelled_caught
        assert not (tmp_path / "archive" / "ARCHIVE").exists()
        report = await memory.backup(tmp_path / "archive")
        assert (tmp_path / "archive" / "ARCHIVE").exists()
        assert report.records == 2
