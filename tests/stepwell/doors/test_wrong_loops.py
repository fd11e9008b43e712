"""A door that is entered or used from the wrong kind of loop says so, and names the right one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

import stepwell.aio
import stepwell.sync
from stepwell import WrongLoop, open_memory


def test_the_trio_door_in_asyncio_and_in_no_loop(tmp_path: Path) -> None:
    async def enter() -> None:
        async with open_memory(tmp_path / "m"):
            pass

    with pytest.raises(WrongLoop, match=r"stepwell\.aio"):
        asyncio.run(enter())
    with pytest.raises(WrongLoop, match=r"stepwell\.sync"):
        enter().send(None)
    assert not (tmp_path / "m").exists()


def test_the_asyncio_door_in_trio(tmp_path: Path) -> None:
    async def enter() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m"):
            pass

    with pytest.raises(WrongLoop, match=r"stepwell\.open_memory"):
        trio.run(enter)
    assert not (tmp_path / "m").exists()


def test_the_plain_door_in_trio(tmp_path: Path) -> None:
    async def enter() -> None:
        with stepwell.sync.open_memory(tmp_path / "m"):
            pass

    with pytest.raises(WrongLoop, match=r"stepwell\.open_memory"):
        trio.run(enter)
    assert not (tmp_path / "m").exists()


def test_an_asyncio_memory_in_the_loop_of_another_thread(tmp_path: Path) -> None:
    found: list[BaseException] = []

    async def use(memory: Any) -> None:
        try:
            await memory.start_episode("task")
        except WrongLoop as error:
            found.append(error)

    async def main() -> None:
        async with stepwell.aio.open_memory(tmp_path / "m") as memory:
            await asyncio.to_thread(lambda: asyncio.run(use(memory)))
            handle = await memory.start_episode("task")  # here it works on
            await handle.flush()

    asyncio.run(main())
    assert "stepwell.sync" in str(found[0])


def test_a_plain_memory_in_its_own_trio_thread_does_not_wait_for_itself(tmp_path: Path) -> None:
    found: list[BaseException] = []
    done = threading.Event()
    with stepwell.sync.open_memory(tmp_path / "m") as memory:

        def in_the_trio_thread() -> None:
            try:
                memory.stats()
            except WrongLoop as error:
                found.append(error)
            done.set()

        memory._door.crossing.token.run_sync_soon(in_the_trio_thread)
        assert done.wait(10)
    assert len(found) == 1
