"""`stepwell salvage`: exit codes, what people and programs see, and that the new memory is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from stepstore.log.key_provider import LocalKeyProvider
from stepwell import ExecutionStep, MemoryConfig, open_memory
from tests.stepwell.cli.cli_support import episode_events, run, run_json, write_lines


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A memory of three episodes."""
    events = [event for n in range(3) for event in episode_events(f"e{n}", 4)]
    events[-2]["parameters"] = {"query": "needle"}
    run_json("import", write_lines(tmp_path / "events.jsonl", events), "--dir", tmp_path / "memory")
    return tmp_path / "memory"


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def hit(directory: Path, marker: bytes) -> None:
    """Overwrite the only place where a marker stands."""
    segment = next(directory.glob("*.seg"))
    data = segment.read_bytes()
    assert data.count(marker) == 1
    at = data.index(marker)
    segment.write_bytes(data[:at] + b"#" * len(marker) + data[at + len(marker) :])


def test_a_sound_memory_is_complete_and_exits_0(memory: Path, tmp_path: Path) -> None:
    before = files_of(memory)
    result = run("salvage", memory, tmp_path / "new", "--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("complete  18 records in 3 streams are in the new log")
    assert files_of(memory) == before
    exported = [run("export", "-", "--dir", place).stdout for place in (memory, tmp_path / "new")]
    assert exported[0] == exported[1]
    assert run("verify", "--dir", tmp_path / "new").exit_code == 0


def test_what_is_lost_is_named_and_exits_1(memory: Path, tmp_path: Path) -> None:
    hit(memory, b"needle")  # in the last step of e2
    before = files_of(memory)
    result = run("salvage", memory, tmp_path / "new", "--yes")
    assert result.exit_code == 1
    assert result.stdout.startswith("INCOMPLETE  ")
    assert "episode e2: records 1 to " in result.stdout
    assert "missing: " in result.stdout
    assert files_of(memory) == before

    async def look() -> None:
        async with open_memory(tmp_path / "new", read_only=True) as opened:
            for name, steps in (("e0", 4), ("e1", 4)):
                episode = await opened.get_episode(name)
                assert (len(episode.steps), episode.is_complete) == (steps, True)
            assert not (await opened.get_episode("e2")).is_complete

    trio.run(look)
    assert "episode e2" in (tmp_path / "new" / "salvaged" / "REPORT.txt").read_text()


def test_programs_get_the_report_and_the_records_behind_a_hole(memory: Path, tmp_path: Path) -> None:
    async def add() -> None:
        async with open_memory(memory) as opened:
            handle = await opened.start_episode("another", episode_id="späte Episode")
            for n in range(3):
                await (await handle.log_step(ExecutionStep("tool", f"marker-{n}"))).wait_durable()

    trio.run(add)
    segment = sorted(memory.glob("*.seg"))[-1]
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"marker-1", b"#######1"))
    report = run_json("salvage", memory, tmp_path / "new", code=1)
    assert report["lost"] is True
    (stream,) = report["streams"]
    assert (stream["name"], stream["kept"], stream["missing"]) == ("episode späte Episode", 2, [[3, 3]])
    assert stream["behind"] == 1
    lines = (tmp_path / "new" / stream["file"]).read_text().splitlines()
    record = json.loads(lines[0])
    assert (record["seq"], record["record"]["kind"], record["record"]["data"]["action"]) == (4, "step", "marker-2")
    written = json.loads((tmp_path / "new/salvaged/REPORT.json").read_text())
    assert len(written.pop("kept")) == 4
    assert written == report


def test_a_target_that_holds_something_is_left_alone(memory: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes").write_text("mine")
    result = run("salvage", memory, tmp_path / "new", "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not an empty directory" in result.stderr
    assert files_of(tmp_path / "new") == {"notes": b"mine"}
    assert run("salvage", memory, memory / "inside", "--yes").exit_code == 1
    assert run("salvage", tmp_path / "nothing", tmp_path / "other", "--yes").exit_code == 1
    assert not (tmp_path / "other").exists()
    assert run("salvage", memory).exit_code == 2


def test_a_person_is_asked_first(memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.cli.salvaging._is_terminal", lambda: True)
    from click.testing import CliRunner

    from stepwell.cli.app import cli

    for answer, code in (("n\n", 1), ("y\n", 0)):
        result = CliRunner().invoke(cli, ["salvage", str(memory), str(tmp_path / "new")], input=answer)
        assert result.exit_code == code
        assert "stays as it is" in result.stderr
        assert (tmp_path / "new").exists() == (answer == "y\n")


def test_help_shows_an_example() -> None:
    assert "Example:\n    stepwell salvage " in run("salvage", "--help").stdout


def test_encrypted_episodes_need_their_master_key(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(bytes(range(32)))
    key_file.chmod(0o600)
    config = MemoryConfig(key_provider=LocalKeyProvider.from_file(key_file))

    async def fill() -> None:
        async with open_memory(tmp_path / "memory", config=config) as opened:
            for name in ("one", "two"):
                handle = await opened.start_episode("secret", episode_id=name)
                await handle.log_step(ExecutionStep("tool", "secret step"))

    async def look() -> None:
        async with open_memory(tmp_path / "with", config=config, read_only=True) as opened:
            assert [step.action for step in (await opened.get_episode("two")).steps] == ["secret step"]

    trio.run(fill)
    assert run("salvage", tmp_path / "memory", tmp_path / "without", "--yes").exit_code == 1
    assert run("salvage", tmp_path / "memory", tmp_path / "with", "--yes", "--key-file", key_file).exit_code == 0
    trio.run(look)
    assert b"secret step" not in next((tmp_path / "with").glob("*.seg")).read_bytes()
