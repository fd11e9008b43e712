"""Logs that earlier code has written are read as they were: every record, every number, every byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from stepstore.journal.contract import append
from stepstore.log.verify import verify_log
from stepwell import ExecutionStep, Success, open_memory
from tests.golden.contents import (
    HERE,
    MEMORY_CONFIG,
    VERSIONS,
    journal,
    log_contents,
    memory_contents,
)

LOGS = [f"{version}/{path.stem}" for version in VERSIONS for path in sorted((HERE / version).glob("*.json"))]
MEMORIES = [name for name in LOGS if name.endswith(("/closed", "/killed"))]


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return found


def as_json(value: object) -> Any:
    return json.loads(json.dumps(value))


@pytest.fixture
def copy(name: str, tmp_path: Path) -> Path:
    """A log that may be changed."""
    shutil.copytree(HERE / name, tmp_path / "log")
    return tmp_path / "log"


def test_every_log_has_its_contents_and_the_other_way_round() -> None:
    for version in VERSIONS:
        directories = {path.name for path in (HERE / version).iterdir() if path.is_dir()}
        assert directories == {name.split("/")[1] for name in LOGS if name.startswith(f"{version}/")}
        assert len(directories) >= 8


@pytest.mark.parametrize("name", LOGS)
def test_everything_is_read_as_it_was(name: str, copy: Path) -> None:
    assert as_json(log_contents(copy)) == expected(name)["log"], "without changing anything"
    assert as_json(log_contents(copy, write=True)) == expected(name)["log"], "opened for writing"
    assert as_json(log_contents(copy)) == expected(name)["log"], "after that"


@pytest.mark.parametrize("name", LOGS)
def test_verify_finds_nothing_wrong(name: str, copy: Path) -> None:
    report = verify_log(str(copy), digests=True)
    assert report.problems == []
    assert bool(report.notes) == name.endswith("/killed")
    log_contents(copy, write=True)
    report = verify_log(str(copy), digests=True)
    assert (report.problems, report.notes) == ([], [])


@pytest.mark.parametrize("name", [name for name in LOGS if name not in MEMORIES])
def test_a_journal_goes_on_where_it_ended(name: str, copy: Path) -> None:
    stream = bytes.fromhex(next(iter(expected(name)["log"]["streams"])))
    last = expected(name)["log"]["streams"][stream.hex()]["records"][-1][0]

    async def main() -> None:
        opened = journal(copy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.run)
            await opened.look_up(stream)
            appended = await append(opened, stream, [b"one more"], expected_seq=last)
            assert appended.first_lsn == expected(name)["log"]["end_lsn"] + 1
            opened.finish()
        opened.release()

    trio.run(main)
    after = log_contents(copy)
    assert after["end_lsn"] == expected(name)["log"]["end_lsn"] + 1
    assert as_json(after["order"])[:-1] == expected(name)["log"]["order"]


@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_says_what_it_said(name: str, copy: Path) -> None:
    assert as_json(memory_contents(copy)) == expected(name)["memory"]

    async def main() -> None:
        async with open_memory(copy, config=MEMORY_CONFIG) as memory:
            handle = await memory.resume("golden/open")
            await handle.log_step(ExecutionStep("later", "goes on"))
            await handle.complete(Success())

    trio.run(main)
    after = as_json(memory_contents(copy))
    was = expected(name)["memory"]
    assert after.pop("golden/open")["status"] == "ended"
    was.pop("golden/open")
    assert after.pop("open") == [name for name in was.pop("open") if name != "golden/open"]
    assert after == was


def test_the_logs_hold_what_the_readme_says() -> None:
    v1 = HERE / "v1"
    assert list((v1 / "segments").glob("*.idx"))
    assert len(list((v1 / "segments").glob("*.seg"))) > 3
    assert list((v1 / "compacted").glob("MANIFEST-*"))
    assert any(not path.name.endswith(".0.seg") for path in (v1 / "compacted").glob("*.seg"))
    assert list((v1 / "encrypted" / "keys").glob("KEYS-*"))
    assert expected("v1/plain")["log"]["deleted"]
    assert all(path.stat().st_size <= 60 * 1024 for path in v1.rglob("*") if path.is_file())
    episodes = [episode for name, episode in expected("v1/closed")["memory"].items() if name != "open"]
    kinds = {event[1] for episode in episodes for event in episode["events"]}
    assert kinds == {"started", "step", "ended"}
