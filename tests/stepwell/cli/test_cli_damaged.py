"""A memory with one damaged episode: each command says so, and gives what is sound."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import trio

from stepwell import ExecutionStep, StepSuccess, Success, open_memory
from stepwell.cli import main
from tests.stepwell.cli.cli_support import read_lines, run, run_json

MARKED = "the-step-that-is-hit"


async def fill(directory: Path) -> None:
    async with open_memory(directory) as memory:
        for name in ("before", "hit", "after"):
            handle = await memory.start_episode(f"Task of {name}", episode_id=name)
            for number in range(4):
                done = MARKED if (name, number) == ("hit", 2) else f"step {number}"
                await handle.log_step(ExecutionStep("tool", done, {}, StepSuccess("ok")))
                await handle.flush()
            await handle.complete(Success("done"))


@pytest.fixture(scope="module")
def memory_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bit is flipped in the third of four steps of the episode "hit"."""
    directory = tmp_path_factory.mktemp("damaged") / "memory"
    trio.run(fill, directory)
    (segment,) = directory.glob("*.seg")
    data = bytearray(segment.read_bytes())
    assert data.count(MARKED.encode()) == 1
    data[data.index(MARKED.encode())] ^= 1
    segment.write_bytes(data)
    return directory


def test_show_gives_what_is_sound_and_says_that_there_is_no_more(memory_at: Path) -> None:
    result = run("show", "hit", "--dir", memory_at)
    assert result.exit_code == 1
    assert "Task of hit" in result.stdout
    assert "step 1" in result.stdout
    assert "step 3" not in result.stdout
    assert "still open" not in result.stdout
    assert result.stderr == (
        "stepwell: episode 'hit' is damaged: of it there is 2 steps up to the first that cannot be read; "
        "`stepwell verify` says where\n"
    )
    told = run_json("show", "hit", "--dir", memory_at, code=1)
    assert [step["action"] for step in told["sound"]["steps"]] == ["step 0", "step 1"]
    assert told["error"]["type"] == "CommandFailed"
    assert run("show", "after", "--dir", memory_at).exit_code == 0


def test_export_stops_at_it_or_gives_what_is_sound_when_told_to(memory_at: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    refused = run("export", out, "--dir", memory_at)
    assert refused.exit_code == 1
    assert "'hit' is damaged" in refused.stderr
    assert "--partial" in refused.stderr
    assert not out.exists()
    partial = run("export", out, "--partial", "--dir", memory_at)
    assert partial.exit_code == 1
    assert "3 episodes went to" in partial.stderr
    assert "hit" in partial.stderr
    exported = read_lines(out)
    assert [event["action"] for event in exported if event["event"] == "step" and event["episode"] == "hit"] == [
        "step 0",
        "step 1",
    ]
    assert [event["episode"] for event in exported if event["event"] == "complete"] == ["before", "after"]
    assert run_json("export", tmp_path / "again.jsonl", "--partial", "--dir", memory_at, code=1)["damaged"] == ["hit"]
    assert run("export", out, "--partial", "--archive", "--dir", memory_at).exit_code == 2


def test_compacting_fails_where_a_file_is_left_alone(
    memory_at: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(shutil.copytree(memory_at, tmp_path / "copy"))
    assert run("delete", "after", "--yes", "--dir", directory).exit_code == 0
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(SystemExit) as left:
        main(["compact", "--dir", str(directory)])
    assert left.value.code == 1
    said = capsys.readouterr()
    assert all(line.startswith(("stepwell: ", "compacted", "  ")) for line in (said.out + said.err).splitlines())
    assert "damaged" in said.out + said.err


def test_what_may_not_be_read_is_one_line_and_no_wrong_usage(memory_at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not hold for root, so that `access` is answered for a stranger."""
    monkeypatch.setattr("os.access", lambda *_: False)
    assert json.loads(run("list", "--dir", memory_at, "--json").stdout)["total"] == 3
