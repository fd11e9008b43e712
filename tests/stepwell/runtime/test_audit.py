"""The audit file: every event that is no step, once and in order, whatever becomes of the file or the memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from stepstore.log.memory_files import MemoryFileSystem
from stepstore.restarting import RestartPolicy
from stepwell import InvalidInput, Memory, MemoryConfig, Success
from stepwell.model.ids import stream_id
from tests.support import SEGMENT_BYTES, open_on, step

AT_ONCE = RestartPolicy(first_delay=0, last_delay=0)


def audited(path: Path) -> MemoryConfig:
    return MemoryConfig(segment_bytes=SEGMENT_BYTES, audit=path)


async def wait_state(memory: Memory, state: str) -> None:
    """Wait until the audit is in this state."""
    async with memory.lifecycle() as events:
        while memory.health().services[-1].state != state:
            await events.receive()


async def written(path: Path, count: int) -> None:
    """Wait until the file is there and has so many lines."""
    file = trio.Path(path)
    with trio.fail_after(280):
        while not await file.exists() or (await file.read_bytes()).count(b"\n") < count:
            pass


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def live(memory: Memory, name: str) -> None:
    handle = await memory.start_episode("a secret task", episode_id=name, agent="coder", tags=["a"], actor="ann")
    await handle.log_step(step(1))
    await memory.add_tags(name, ["größe"], actor="bob")
    await memory.update_episode(name, description="other secret", metadata={"k": "secret"})
    await memory.archive(name)
    await handle.complete(Success("secret"), actor="cy")
    await memory.restore(name)


KINDS = ["started", "tagged", "updated", "archived", "ended", "restored"]


async def test_every_event_but_steps_is_told_in_order_with_who_asked_and_no_text_of_the_task(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with open_on(MemoryFileSystem(), audited(path)) as memory:
        await live(memory, "e")
        await memory.start_episode("task", episode_id="f")
        await memory.relate("f", "e", "follows", reason="secret", actor="ann")
        await memory.checkpoint("f", "secret")
        await memory.unrelate("f", "e", "follows")
        await written(path, 10)  # of what is deleted before it is told, only the deletion is
        await memory.delete_episode("e", actor="dora")
    found = lines(path)
    assert [item["kind"] for item in found] == [
        *KINDS,
        *("started", "related", "checkpointed", "unrelated", "deleted"),
    ]
    assert [item["actor"] for item in found] == ["ann", "bob", "", "", "cy", "", "", "ann", "", "", "dora"]
    assert [item["lsn"] for item in found] == sorted(item["lsn"] for item in found)
    assert {item["episode_id"] for item in found[:6]} == {"e"} == {found[-1]["episode_id"]}
    assert {item["stream"] for item in found[:6]} == {stream_id("episode", "e").hex()}
    assert found[0]["detail"] == {"agent": "coder", "task_type": "other", "parent": None}
    assert found[1]["detail"] == {"added": ["größe"], "removed": []}
    assert found[2]["detail"] == {"description": True, "metadata": ["k"]}
    assert found[4]["detail"] == {"outcome": "success"}
    assert found[7]["detail"] == {"to_episode": "e", "kind": "follows", "priority": 5}
    assert found[8]["detail"] == {"steps": 0}
    assert "secret" not in path.read_text()


async def test_it_goes_on_where_it_was_also_behind_a_torn_line_and_what_came_without_it(tmp_path: Path) -> None:
    path, files = tmp_path / "audit.jsonl", MemoryFileSystem()
    async with open_on(files, audited(path)) as memory:
        await live(memory, "a")
    whole = path.read_bytes()
    async with open_on(files) as memory:
        await live(memory, "b")
    path.write_bytes(whole + b'{"kind": "tag')
    async with open_on(files, audited(path)) as memory:
        await memory.delete_episode("a")
    found = lines(path)
    assert [(item["episode_id"], item["kind"]) for item in found] == [
        *[("a", kind) for kind in KINDS],
        *[("b", kind) for kind in KINDS],
        ("", "deleted"),
    ]
    assert found[-1]["stream"] == found[0]["stream"]
    path.write_bytes(whole[: whole.index(b"\n") + 40])  # torn in its second line: only one is left
    async with open_on(files, audited(path)):
        pass
    assert [(item["episode_id"], item["kind"]) for item in lines(path)] == [
        ("a", "started"),
        *[("b", kind) for kind in KINDS],
        ("", "deleted"),
    ]  # what is deleted is not told any more


async def test_a_line_longer_than_what_is_read_at_a_time_is_found_as_well(tmp_path: Path) -> None:
    path, files = tmp_path / "audit.jsonl", MemoryFileSystem()
    async with open_on(files, audited(path)) as memory:
        await memory.start_episode("task", episode_id="e")
        await memory.add_tags("e", [f"{number:0100}" for number in range(900)])
    for _ in range(2):
        async with open_on(files, audited(path)):
            pass
    assert [item["kind"] for item in lines(path)] == ["started", "tagged"]
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    async with open_on(files, audited(path)) as memory:
        await memory.archive("e")
    assert [item["kind"] for item in lines(path)] == ["tagged", "archived"]


async def test_a_file_that_cannot_be_written_stops_nothing_and_shows_in_health(tmp_path: Path) -> None:
    path, files = tmp_path / "nowhere" / "audit.jsonl", MemoryFileSystem()
    with trio.fail_after(60):
        async with open_on(files, audited(path), restarts=AT_ONCE) as memory:
            await live(memory, "e")
            await wait_state(memory, "parked")
            await memory.archive("e")
            health = memory.health()
            assert health.status == "degraded"
            assert any("the audit is parked" in reason for reason in health.reasons)
            assert (await memory.get_episode("e")).archived
    path.parent.mkdir()
    async with open_on(files, audited(path)):
        pass
    assert [item["kind"] for item in lines(path)] == [*KINDS, "archived"]


async def test_a_file_that_can_be_written_again_gets_everything(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "audit.jsonl"
    with trio.fail_after(60):
        async with open_on(MemoryFileSystem(), audited(path), restarts=RestartPolicy(first_delay=0.05)) as memory:
            await live(memory, "e")
            await wait_state(memory, "restarting")
            path.parent.mkdir()
            await wait_state(memory, "running")
            await memory.archive("e")
    assert [item["kind"] for item in lines(path)] == [*KINDS, "archived"]


@pytest.mark.parametrize("content", [b"nonsense\n", b"[1]\n", b'{"cursor": 5}\n', b'{"cursor": "of another"}\n'])
async def test_a_file_that_is_something_else_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with trio.fail_after(60):
        async with open_on(MemoryFileSystem(), audited(path), restarts=AT_ONCE) as memory:
            await live(memory, "e")
            await wait_state(memory, "parked")
    assert path.read_bytes() == content


async def test_read_only_writes_none_and_a_bad_path_is_refused(tmp_path: Path) -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await live(memory, "e")
    async with open_on(files, audited(tmp_path / "audit.jsonl"), read_only=True) as memory:
        assert memory.health().services == []
    assert not os.listdir(tmp_path)
    with pytest.raises(InvalidInput, match="audit"):
        MemoryConfig(audit=5)  # type: ignore[arg-type]


async def test_a_file_that_was_rotated_goes_on_behind_the_last_line_that_was_copied_into_the_new_one(
    tmp_path: Path,
) -> None:
    path, old, files = tmp_path / "audit.jsonl", tmp_path / "audit.1.jsonl", MemoryFileSystem()
    async with open_on(files, audited(path)) as memory:
        await memory.start_episode("task", episode_id="a")
        await written(path, 1)
        path.rename(old)  # while it is open
        path.touch()
        await memory.start_episode("task", episode_id="b")
        await memory.start_episode("task", episode_id="c")
        await written(path, 2)
    path.rename(tmp_path / "audit.2.jsonl")
    path.write_text((tmp_path / "audit.2.jsonl").read_text().splitlines()[-1] + "\n")
    async with open_on(files, audited(path)) as memory:
        await memory.start_episode("task", episode_id="d")
        await written(path, 2)
    assert [[item["episode_id"] for item in lines(file)] for file in (old, tmp_path / "audit.2.jsonl", path)] == [
        ["a"],
        ["b", "c"],
        ["c", "d"],
    ]
