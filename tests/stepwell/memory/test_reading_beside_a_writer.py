"""A read-only opening beside a living writer sees what that writes, and never disturbs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell import ExecutionStep, MemoryConfig, NotFound, StepSuccess, Success, open_memory
from stepwell.memory.following import START

SMALL = MemoryConfig(segment_bytes=64 * 1024)


async def test_each_reading_call_sees_what_the_writer_has_written_by_then(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "m", config=SMALL) as writer:
        first = await writer.start_episode("first", episode_id="first")
        async with open_memory(tmp_path / "m", read_only=True) as reader:
            assert [name async for name in reader.episode_ids()] == ["first"]
            await (await first.log_step(ExecutionStep("tool", "look", result=StepSuccess("x" * 300)))).wait_durable()
            assert len((await reader.get_episode("first")).steps) == 1
            with pytest.raises(NotFound):
                await reader.get_episode("second")
            second = await writer.start_episode("second", episode_id="second")
            assert (await reader.get_episode("second")).task_description == "second"
            assert [episode.episode_id for episode in await reader.open_episodes()] == ["first"]
            for count in range(600):  # several segments
                await second.log_step(ExecutionStep("tool", f"step {count}", result=StepSuccess("y" * 400)))
            await second.complete(Success("done"))
            seen = await reader.get_episode("second")
            assert [step.action for step in seen.steps] == [f"step {count}" for count in range(600)]
            assert seen.outcome == Success("done")
            assert writer.stats().groups > 0
            async with reader.follow(START) as events:
                assert [event.kind async for event in events].count("step") == 601  # type: ignore[union-attr]
            await writer.delete_episode("first")
            with pytest.raises(NotFound):
                await reader.get_episode("first")
    async with open_memory(tmp_path / "m", read_only=True) as reader:
        assert [name async for name in reader.episode_ids()] == ["second"]
