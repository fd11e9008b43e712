"""`stepwell list` with conditions, page after page, and `stepwell rebuild`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import trio

from stepwell import Failure, MemoryConfig, StepError, Success, open_memory
from stepwell.memory.rebuilding import rebuild_catalogs
from stepwell.model.step import ExecutionStep
from stepwell.runtime.episode_catalog import FILE
from tests.catalog_contents import catalog_contents
from tests.stepwell.cli.cli_support import run, run_json


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Eight episodes of two agents."""
    directory = tmp_path / "m"

    async def fill() -> None:
        async with open_memory(directory) as memory:
            for number in range(8):
                handle = await memory.start_episode(
                    f"mend net {number}" if number % 2 else "sell fish",
                    episode_id=f"e{number}",
                    agent=f"agent-{number % 2}",
                    task_type="debugging" if number < 4 else "other",
                    domain="sea",
                    language="python" if number == 3 else None,
                    tags=["red", f"n{number}"],
                )
                await handle.log_step(ExecutionStep("tool", result=StepError("no")))
                if number < 6:
                    await handle.complete(Success("ok") if number < 3 else Failure("no"))
            await memory.archive("e0")

    trio.run(fill)
    return directory


def ids(directory: Path, *arguments: str) -> list[str]:
    found: list[dict[str, Any]] = run_json("list", "--dir", directory, *arguments)["episodes"]
    return [row["episode_id"] for row in found]


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (["--status", "open"], [7, 6]),
        (["--outcome", "failure"], [5, 4, 3]),
        (["--outcome", "failure", "--outcome", "success"], [5, 4, 3, 2, 1, 0]),
        (["--agent", "agent-1", "--task-type", "debugging"], [3, 1]),
        (["--language", "python", "--domain", "sea"], [3]),
        (["--tag", "RED", "--tag", "n2"], [2]),
        (["--any-tag", "n1", "--any-tag", "n5"], [5, 1]),
        (["--archived"], [0]),
        (["--not-archived", "--limit", "2", "--oldest"], [1, 2]),
        (["--text", "NET mend", "--status", "open"], [7]),
        (["--text", "fis", "--match", "substring", "--outcome", "success"], [2, 0]),
        (["--text", "sell fish", "--match", "exact", "--status", "open"], [6]),
        (["--since", "2020-01-01", "--before", "2020-01-02"], []),
        (["--since", "2020-01-01T10:00", "--ended-since", "2020-01-01", "--outcome", "success"], [2, 1, 0]),
        (["--ended-before", "2020-01-01T10:00:00+02:00"], []),
        (["--min-reward", "-100", "--max-reward", "100", "--outcome", "failure"], [5, 4, 3]),
    ],
)
def test_list_shows_what_the_conditions_let_through(fleet: Path, arguments: list[str], right: list[int]) -> None:
    assert ids(fleet, *arguments) == [f"e{number}" for number in right]


def test_list_goes_page_after_page(fleet: Path) -> None:
    seen: list[str] = []
    more: list[str] = []
    while True:
        page = run_json("list", "--dir", fleet, "--limit", "3", "--tag", "red", *more)
        seen += [row["episode_id"] for row in page["episodes"]]
        assert page["total"] == 8
        if "next_cursor" not in page:
            break
        more = ["--cursor", page["next_cursor"]]
    assert seen == [f"e{number}" for number in reversed(range(8))]
    refused = run("list", "--dir", fleet, *more, "--oldest", "--tag", "red")
    assert refused.exit_code == 1
    assert "another filter or another order" in refused.stderr


def test_list_says_so_when_nothing_is_like_that(fleet: Path) -> None:
    assert run("list", "--dir", fleet, "--agent", "nobody").stdout == "no such episodes\n"


def test_a_time_that_is_none_is_a_mistake_of_usage(fleet: Path) -> None:
    assert run("list", "--dir", fleet, "--since", "yesterday").exit_code == 2


def spoil(directory: Path) -> None:
    """A catalog that is sound and says something wrong."""
    import sqlite3

    with sqlite3.connect(directory / FILE) as connection:
        connection.execute("UPDATE episode SET agent = 'nobody'")
        connection.execute("DELETE FROM episode_tag")
    connection.close()


def test_tags_are_listed_with_counts(fleet: Path) -> None:
    page = run_json("tags", "--dir", fleet, "--limit", "2")
    assert page["tags"] == [{"tag": "n0", "episodes": 1}, {"tag": "n1", "episodes": 1}]
    rest = run_json("tags", "--dir", fleet, "--cursor", page["next_cursor"])
    assert [row["tag"] for row in rest["tags"]] == ["n2", "n3", "n4", "n5", "n6", "n7", "red"]
    assert "next_cursor" not in rest
    assert run_json("tags", "--dir", fleet, "--frequent")["tags"][0] == {"tag": "red", "episodes": 8}
    lines = run("tags", "--dir", fleet, "--frequent", "--limit", "2").output.splitlines()
    assert lines == ["8  red", "1  n0", "… and more; --limit shows more than 2 tags"]


def test_no_tags_are_said_to_be_none(tmp_path: Path) -> None:
    async def fill() -> None:
        async with open_memory(tmp_path / "m") as memory:
            await memory.start_episode("task")

    trio.run(fill)
    assert run("tags", "--dir", tmp_path / "m").output == "no tags\n"
    assert run("tags", "--dir", tmp_path / "nowhere").exit_code == 1


def test_rebuild_gives_the_same_content(fleet: Path) -> None:
    assert ids(fleet, "--agent", "agent-1") == ["e7", "e5", "e3", "e1"]
    result = run("rebuild", "--dir", fleet)
    assert result.exit_code == 0
    assert "rebuilt from 23 records" in result.stdout
    right = catalog_contents(fleet)
    spoil(fleet)
    assert catalog_contents(fleet) != right
    assert run_json("rebuild", "--dir", fleet) == {"dir": str(fleet), "records": 23, "kept": True}
    assert catalog_contents(fleet) == right
    assert len(right["episodes"]) == 8
    assert right["words"]


def test_rebuild_refuses_a_memory_that_is_open(fleet: Path) -> None:
    async def beside() -> int:
        async with open_memory(fleet):
            return (await trio.to_thread.run_sync(run, "rebuild", "--dir", fleet)).exit_code

    assert trio.run(beside) == 1


def test_rebuild_of_no_memory_makes_none(tmp_path: Path) -> None:
    assert run("rebuild", "--dir", tmp_path / "nope").exit_code == 1
    assert not (tmp_path / "nope").exists()


async def test_the_progress_of_a_rebuild_goes_up_to_the_end(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        for _ in range(20):
            await memory.start_episode("x")
    told: list[tuple[int, int]] = []
    assert await rebuild_catalogs(tmp_path, progress=lambda done, records: told.append((done, records))) == 20
    assert told == sorted(told)
    assert told[-1] == (20, 20)


async def test_nothing_of_an_encrypted_memory_is_kept(tmp_path: Path) -> None:
    from stepstore.log.key_provider import LocalKeyProvider

    config = MemoryConfig(key_provider=LocalKeyProvider(bytes(32)))
    async with open_memory(tmp_path) as memory:
        await memory.start_episode("before it was encrypted", episode_id="early")
        await memory.list_episodes(at_least=1)
    assert (tmp_path / FILE).exists()
    assert await rebuild_catalogs(tmp_path, config=config) == 1
    assert not (tmp_path / FILE).exists()
    async with open_memory(tmp_path, config=config) as memory:
        await memory.start_episode("behind that", episode_id="late")
        assert [it.episode_id for it in (await memory.list_episodes()).items] == ["late", "early"]
        await memory.delete_episode("early")
        assert [it.episode_id for it in (await memory.list_episodes()).items] == ["late"]
        assert (await memory.list_episodes()).items[0].start_time <= dt.datetime.now(dt.UTC)
    assert not (tmp_path / FILE).exists()
