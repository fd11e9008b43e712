"""Deleted episodes give their space back, while everything else is read and written."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from stepstore.log.verify import verify_log
from stepwell import (
    Closed,
    ExecutionStep,
    InvalidState,
    Memory,
    MemoryConfig,
    NotFound,
    StepSuccess,
    Success,
    open_memory,
)
from stepwell.testing import Simulation

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


def test_closing_waits_until_a_compaction_on_request_has_given_up_and_nothing_is_touched_behind_it() -> None:
    for seed in range(16):
        simulation = Simulation(seed, seconds_of_io=lambda: 0.01)
        touched: list[str] = []
        simulation.before = lambda call, touched=touched: touched.append(str(call))  # type: ignore[misc]
        outcome: list[object] = []

        async def compact(memory: Memory, purge: bool, outcome: list[object] = outcome) -> None:
            try:
                outcome.append(await memory.compact(purge=purge))
            except Closed as error:
                outcome.append(error)

        async def main(simulation: Simulation = simulation, touched: list[str] = touched, seed: int = seed) -> None:
            async with trio.open_nursery() as nursery:
                async with simulation.open_memory(SMALL) as memory:
                    for number in range(2):
                        handle = await memory.start_episode("task", episode_id=f"e{number}")
                        for count in range(8):
                            await handle.log_step(ExecutionStep("tool", f"{count}", result=StepSuccess("x" * 9000)))
                    await memory.delete_episode("e0")
                    nursery.start_soon(compact, memory, seed % 2 == 0)
                    await trio.sleep(seed * 0.015)
                touched.clear()  # the memory is closed; who compacts may still be told so
            assert touched == []

        simulation.run(main)
        assert len(outcome) == 1
