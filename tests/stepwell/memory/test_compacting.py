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
