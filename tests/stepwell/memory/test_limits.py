"""The limits of a memory, each refused before anything is accepted, in bytes of UTF-8."""

from __future__ import annotations

import pytest

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import ExecutionStep, Limits, MemoryConfig, StepError, StepSuccess, Success, TooLarge
from tests.support import SEGMENT_BYTES, open_on

MIB = 1024 * 1024


def test_the_limits_are_those_that_the_documentation_names() -> None:
    default, reference = Limits(), Limits.reference()
    assert (default.record_bytes, default.text_bytes, default.steps_per_episode) == (16 * MIB, MIB, 100_000)
    assert (default.task_bytes, default.tag_bytes) == (10_000, 100)
    assert (reference.record_bytes, reference.text_bytes, reference.steps_per_episode) == (1_000_000, 10_000, 1_000)
    assert (reference.task_bytes, reference.tag_bytes) == (10_000, 100)


@pytest.mark.parametrize("character", ["x", "ü", "漢", "🪜"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
async def test_the_limits_of_the_reference_hold_for_texts_of_any_width(character: str) -> None:
    width = len(character.encode())

    def text(size: int) -> str:
        return character * (size // width) + "x" * (size % width)

    config = MemoryConfig(segment_bytes=SEGMENT_BYTES, limits=Limits.reference())
    async with open_on(MemoryFileSystem(), config) as memory:
        with pytest.raises(TooLarge, match="task: 10,001 bytes"):
            await memory.start_episode(text(10_001))
        with pytest.raises(TooLarge, match="101 bytes"):
            await memory.start_episode("task", tags=[text(101)])
        handle = await memory.start_episode(text(10_000), tags=[text(100)], episode_id="e")
        for result in (StepSuccess(text(10_001)), StepError(text(10_001))):
            with pytest.raises(TooLarge, match="10,001 bytes"):
                await handle.log_step(ExecutionStep("tool", result=result))
        with pytest.raises(TooLarge, match="of 1,000,000 a record may have"):
            await handle.log_step(ExecutionStep("tool", parameters={"content": text(1_000_000)}))
        with pytest.raises(TooLarge, match="10,001 bytes"):
            await memory.update_episode("e", description=text(10_001))
        with pytest.raises(TooLarge, match="101 bytes"):
            await memory.add_tags("e", [text(101)])
        with pytest.raises(TooLarge, match="outcome"):
            await handle.complete(Success(text(10_001)))
        assert memory.stats().records == 1
        await handle.log_step(ExecutionStep("tool", result=StepSuccess(text(10_000))))
        await handle.log_steps([ExecutionStep("tool")] * 999)
        with pytest.raises(TooLarge, match="1,000 steps"):
            await handle.log_step(ExecutionStep("tool"))
        await memory.update_episode("e", description=text(9_999))
        assert (await memory.get_episode("e")).last_seq == 1_002
