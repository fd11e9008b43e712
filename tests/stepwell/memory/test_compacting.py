"""Deleted episodes give their space back, while everything else is read and written."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepstore.log.verify import verify_log
from stepwell import ExecutionStep, InvalidState, MemoryConfig, NotFound, StepSuccess, Success, open_memory

SMALL = MemoryConfig(segment_bytes=64 * 1024)


def log_bytes(path: Path) -> int:
    return sum(segment.stat().st_size for segment in path.glob("*.seg"))


async def test_compacting_gives_the_space_of_deleted_episodes_back_and_loses_no_other(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    async with open_memory(path, config=SMALL) as memory:
        for number in range(10):
            handle = await memory.start_episode(f"task {number}", episode_id=f"e{number}")
            for count in range(60):
                await handle.log_step(ExecutionStep("tool", f"{number}/{count}", result=StepSuccess("x" * 400)))
            await handle.complete(Success(f"verdict {number}"))
        kept = [await memory.get_episode(f"e{number}") for number in (3, 7)]
        for number in range(10):
            if number not in (3, 7):
                await memory.delete_episode(f"e{number}")
        report = await memory.compact()
        assert report.streams_removed == 8
        assert [await memory.get_episode(f"e{number}") for number in (3, 7)] == kept
        assert log_bytes(path) < 200_000
    assert verify_log(str(path)).problems == []
    async with open_memory(path, config=SMALL) as memory:
        assert [await memory.get_episode(f"e{number}") for number in (3, 7)] == kept
        assert [name async for name in memory.episode_ids()] == ["e3", "e7"]
        with pytest.raises(NotFound):
            await memory.get_episode("e1")
        with pytest.raises(InvalidState, match="deleted"):
            await memory.start_episode("again", episode_id="e1")


async def test_a_purged_episode_is_in_no_file_and_the_report_says_what_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    async with open_memory(path, config=SMALL) as memory:
        for name in ("kept", "secret"):
            handle = await memory.start_episode(f"the task {name}", episode_id=name)
            for count in range(200):
                await handle.log_step(
                    ExecutionStep("tool", f"{name} {count}", result=StepSuccess(f"{name} output " * 20))
                )
            await handle.complete(Success(f"verdict {name}"))
        kept = await memory.get_episode("kept")
        report = await memory.delete_episode("secret", purge=True)
        assert report is not None
        assert (report.streams_purged, report.found, report.unreadable) == (1, (), ())
        assert report.files_checked > 1
        assert report.out_of_reach
        for file in path.rglob("*"):
            if file.is_file():
                assert b"secret" not in file.read_bytes(), file
        assert await memory.get_episode("kept") == kept
        with pytest.raises(InvalidState, match="deleted"):
            await memory.start_episode("again", episode_id="secret")
        again = await memory.delete_episode("secret", purge=True)
        assert again is not None
        assert again.found == ()
    assert verify_log(str(path)).problems == []
