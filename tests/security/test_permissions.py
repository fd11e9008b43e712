"""What Stepwell makes is for its owner alone, whatever the umask allows."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from stepwell import ExecutionStep, LocalKeyProvider, MemoryConfig, StepSuccess, open_memory
from tests.stepwell.cli.cli_support import run


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


async def fill(directory: Path) -> None:
    key = LocalKeyProvider(secrets.token_bytes(32))
    config = MemoryConfig(key_provider=key, audit=directory / "audit.jsonl", segment_bytes=64 * 1024)
    async with open_memory(directory / "parent" / "memory", config=config) as memory:
        handle = await memory.start_episode("a task", episode_id="e")
        for number in range(200):
            await handle.log_step(ExecutionStep("tool", f"step {number}", result=StepSuccess(secrets.token_hex(400))))
        await memory.add_tags("e", ["x"])
        await memory.backup(directory / "archives" / "one")
        await memory.start_episode("another", episode_id="gone")
        await memory.delete_episode("gone")
    async with open_memory(directory / "clear") as memory:
        handle = await memory.start_episode("a task", episode_id="e")
        for number in range(20):
            await handle.log_step(ExecutionStep("tool", f"step {number}", result=StepSuccess("x" * 100)))
            await handle.flush()


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_can_read_or_write_what_is_made(tmp_path: Path) -> None:
    trio.run(fill, tmp_path)
    segment = next((tmp_path / "clear").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[3_000] ^= 1
    segment.write_bytes(data)
    clear = ["--dir", str(tmp_path / "clear")]
    run("salvage", tmp_path / "clear", tmp_path / "salvaged", "--yes")
    run("restore", tmp_path / "archives" / "one", tmp_path / "restored")
    run("export", "--archive", tmp_path / "finished", *clear)
    for name, form in (("a.jsonl", "jsonl"), ("a.jsonl.gz", "jsonl"), ("b.jsonl", "otlp"), ("c.parquet", "parquet")):
        run("export", tmp_path / name, "--format", form, "--dir", tmp_path / "salvaged")
    kinds = {path.suffix or path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds >= {".seg", "FORMAT", "LOCK", "ARCHIVE", ".txt", ".parquet", ".gz"}
    assert list(tmp_path.rglob("KEYS-*"))
    open_to_others = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in tmp_path.rglob("*")
        if path.stat().st_mode & 0o077
    }
    assert open_to_others == {}


def test_a_file_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "memory", config=MemoryConfig(audit=tmp_path / "audit.jsonl")) as memory:
            await memory.start_episode("a task")

    (tmp_path / "audit.jsonl").touch(mode=0o640)
    trio.run(main)
    assert (tmp_path / "audit.jsonl").stat().st_size > 0
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o640
