"""A door that is entered or used from the wrong kind of loop says so, and names the right one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import stepwell.aio
import stepwell.sync
from stepwell import (
    BatchConfig,
    Fact,
    MemoryConfig,
    Message,
    RetentionPolicy,
    Role,
    Scope,
    Success,
    WrongLoop,
    events,
    open_memory,
)
from tests.support import step

WS = Scope.workspace("ws")


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


async def test_a_trio_memory_in_asyncio_or_in_another_trio_run(tmp_path: Path) -> None:
    """Everything of it that is async, and the plain calls that accept; nothing is stored, and it works on."""
    config = MemoryConfig(batch=BatchConfig.manual())
    async with open_memory(tmp_path / "m", config=config) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipt = await handle.log_step(step(0))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "log_step": lambda: handle.log_step(step(1)),
            "log_steps": lambda: handle.log_steps([step(1)]),
            "start_episode": lambda: memory.start_episode("other"),
            "complete": lambda: handle.complete(Success()),
            "get": handle.get,
            "get_episodes": lambda: memory.get_episodes(["e"]),
            "flush": memory.flush,
            "flush of one": handle.flush,
            "delete": lambda: memory.delete_episode("e"),
            "compact": memory.compact,
            "follow": lambda: memory.follow().__aenter__(),
            "atomic": lambda: memory.atomic().__aenter__(),
            "append": lambda: memory.short_term.append("t", Message(role=Role.USER, content="hi")),
            "load": lambda: memory.short_term.load("t", 100),
            "clear": lambda: memory.short_term.clear("t"),
            "threads": memory.short_term.threads,
            "remember": lambda: memory.long_term.remember(WS, Fact("the sky is blue")),
            "recall": lambda: memory.long_term.recall(WS, "sky"),
            "forget": lambda: memory.long_term.forget("workspace:ws/1.1"),
            "clear of facts": lambda: memory.long_term.clear(WS),
            "scopes": memory.long_term.scopes,
            "record": lambda: memory.episodic.record("r", events.Started(agent="a")),
            "record_many": lambda: memory.episodic.record_many("r", [events.Started(agent="a")]),
            "replay": lambda: memory.episodic.replay("e"),
            "list_runs": memory.episodic.list_runs,
            "list_episodes": memory.list_episodes,
            "count_episodes": memory.count_episodes,
            "open_episodes": memory.open_episodes,
            "retrieve": lambda: memory.retrieve_relevant_context("task"),
            "recommend": lambda: memory.recommend("task"),
            "patterns": memory.patterns,
            "playbook": lambda: memory.playbook("task"),
            "feedback": lambda: memory.feedback("x"),
            "skills": memory.skills.find,
            "store a skill": lambda: memory.skills.store("a name"),
            "delete a skill": lambda: memory.skills.delete("x"),
            "relate": lambda: memory.relate("e", "f", "follows"),
            "related": lambda: memory.related("e"),
            "add_tags": lambda: memory.add_tags("e", ["x"]),
            "update": lambda: memory.update_episode("e", description="x"),
            "checkpoint": lambda: memory.checkpoint("e", "why"),
            "retain": lambda: memory.retain(RetentionPolicy(max_episodes=1), dry_run=True),
            "backup": lambda: memory.backup(tmp_path / "b"),
            "tags": memory.tags,
            "lifecycle": lambda: memory.lifecycle().__aenter__(),
            "summarise": lambda: memory.short_term.summarise("t", "so far", 1, 1),
            "step scope": lambda: handle.step("tool").__aenter__(),
            "a receipt": receipt.wait_durable,
        }

        async def each() -> list[str]:
            refused = []
            for name, call in calls.items():
                try:
                    await call()
                except WrongLoop:
                    refused.append(name)
            try:
                handle.log_step_nowait(step(1))
            except WrongLoop:
                refused.append("log_step_nowait")
            return refused

        in_asyncio = await trio.to_thread.run_sync(lambda: asyncio.run(each()))
        in_trio = await trio.to_thread.run_sync(lambda: trio.run(each))
        assert in_asyncio == in_trio == [*calls, "log_step_nowait"]
        assert (await handle.log_step(step(2))).seq == 3
        await receipt.wait_durable()  # its task was not woken elsewhere, and lost
        assert (await handle.get()).steps[0].action == step(0).action
