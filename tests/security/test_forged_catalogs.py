"""What is kept beside the log is believed only where it is what the log's own fold has made."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
import trio

from stepstore.catalog.store import CatalogStore
from stepwell import Success, open_memory
from stepwell.memory.rebuilding import rebuild_catalogs

NAMES = ("catalog.sqlite", "learning.sqlite")


async def fill(directory: Path) -> None:
    async with open_memory(directory) as memory:
        handle = await memory.start_episode("a task", episode_id="one")
        await handle.complete(Success())
    await rebuild_catalogs(directory)


def reopened(directory: Path) -> None:
    async def main() -> None:
        async with open_memory(directory) as memory:
            found = await memory.list_episodes(at_least=2)  # its start and its ending
            assert [episode.episode_id for episode in found.items] == ["one"]
            await memory.recommend("a task")

    trio.run(main)


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    trio.run(fill, tmp_path / "memory")
    return tmp_path / "memory"


def test_a_catalog_that_nobody_changed_is_taken_up_as_it_is(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str | None] = []  # an inode would not do: the next file may get that of the last one
    begin_anew = CatalogStore._begin_anew

    def noted(self: CatalogStore) -> None:
        begun.append(self.path)
        begin_anew(self)

    monkeypatch.setattr(CatalogStore, "_begin_anew", noted)
    reopened(directory)
    assert begun == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER more AFTER UPDATE ON catalog BEGIN SELECT 1; END",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TABLE more (value)",
        "CREATE INDEX more ON catalog (value)",
        "ALTER TABLE catalog ADD COLUMN more GENERATED ALWAYS AS (1)",
    ],
)
def test_a_catalog_with_anything_besides_is_made_anew(directory: Path, name: str, statement: str) -> None:
    change(directory / name, statement)
    before = sqlite_schema(directory / name)
    reopened(directory)
    after = sqlite_schema(directory / name)
    assert not any("more" in words for words in after)
    assert len(after) <= len(before)


def sqlite_schema(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [str(row) for row in connection.execute("SELECT name, sql FROM sqlite_schema")]


def test_a_catalog_of_the_right_names_and_another_view_is_made_anew(directory: Path) -> None:
    path = directory / "catalog.sqlite"
    change(
        path,
        "ALTER TABLE catalog RENAME TO truth",
        "CREATE VIEW catalog AS SELECT name, value FROM truth",
    )
    inode = os.stat(path).st_ino
    reopened(directory)
    assert os.stat(path).st_ino != inode or "truth" not in str(sqlite_schema(path))


@pytest.mark.parametrize("name", NAMES)
def test_what_no_catalog_can_be_is_put_away_before_it_is_opened(directory: Path, name: str, tmp_path: Path) -> None:
    target = tmp_path / "pipe"
    os.mkfifo(target)
    (directory / name).unlink()
    (directory / name).symlink_to(target)
    reopened(directory)
    assert (directory / name).is_file()
    assert not (directory / name).is_symlink()
    assert target.is_fifo()
