"""`stepwell delete` and `stepwell compact`: what cannot be undone is asked for, and told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from stepwell import ExecutionStep, StepSuccess, Success, open_memory
from stepwell.cli.app import cli
from tests.stepwell.cli.cli_support import run, run_json

SECRET = "the needle in the haystack"


@pytest.fixture
def memory_at(tmp_path: Path) -> Path:
    async def main() -> None:
        async with open_memory(tmp_path / "memory") as memory:
            for number in range(3):
                handle = await memory.start_episode(f"task {number}", episode_id=f"e{number}")
                await handle.log_step(ExecutionStep("tool", "look", result=StepSuccess(f"{SECRET} {number}")))
                await handle.complete(Success())

    trio.run(main)
    return tmp_path / "memory"


def ids(directory: Path) -> list[str]:
    async def main() -> list[str]:
        async with open_memory(directory, read_only=True) as memory:
            return [name async for name in memory.episode_ids()]

    return trio.run(main)


def at_a_terminal(answer: str, *arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    runner = CliRunner()
    with runner.isolation(input=answer):
        kind = type(sys.stdin)
    monkeypatch.setattr(kind, "isatty", lambda _self: True, raising=False)
    result = runner.invoke(cli, [str(argument) for argument in arguments], input=answer)
    return result.exit_code, result.output


@pytest.mark.parametrize("arguments", [["delete", "e1"], ["delete", "e1", "--json"], ["compact", "--purge"]])
def test_with_nobody_to_ask_nothing_is_done(memory_at: Path, arguments: list[str]) -> None:
    before = {path: path.read_bytes() for path in memory_at.rglob("*") if path.is_file()}
    result = run(*arguments, "--dir", memory_at)
    assert result.exit_code == 1
    assert "--yes" in result.output
    assert {path: path.read_bytes() for path in memory_at.rglob("*") if path.is_file()} == before


def test_the_question_says_what_it_is_about_and_no_is_no(memory_at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = at_a_terminal("\n", "delete", "e1", "--dir", memory_at, monkeypatch=monkeypatch)
    assert code == 1
    assert "Deletes 1 episode" in output
    assert "e1  ended, 1 step" in output
    assert "task 1" in output
    assert "nothing was changed" in output
    assert ids(memory_at) == ["e0", "e1", "e2"]


def test_yes_is_yes(memory_at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = at_a_terminal("y\n", "delete", "e1", "--dir", memory_at, monkeypatch=monkeypatch)
    assert code == 0, output
    assert ids(memory_at) == ["e0", "e2"]


def test_a_deletion_leaves_bytes_and_a_purge_proves_that_none_are_left(memory_at: Path) -> None:
    def held() -> bool:
        return any(f"{SECRET} 1".encode() in path.read_bytes() for path in memory_at.rglob("*") if path.is_file())

    assert run_json("delete", "e1", "--yes", "--dir", memory_at) == {"deleted": ["e1"], "purge": None}
    assert ids(memory_at) == ["e0", "e2"]
    result = run("compact", "--purge", "--yes", "--dir", memory_at)
    assert result.exit_code == 0
    assert "proven  nothing of 1 deleted episode is left" in result.stdout
    assert "not looked at: archives" in result.stdout
    assert not held()
    report = run_json("delete", "e0", "--purge", "--yes", "--dir", memory_at)
    assert report["purge"]["found"] == []
    assert report["purge"]["streams_purged"] >= 1
    assert run_json("verify", "--dir", memory_at)["ok"] is True
    assert ids(memory_at) == ["e2"]


def test_an_unknown_one_among_several_deletes_none(memory_at: Path) -> None:
    result = run("delete", "e0", "nobody", "--yes", "--dir", memory_at)
    assert result.exit_code == 1
    assert "nobody" in result.stderr
    assert ids(memory_at) == ["e0", "e1", "e2"]


def test_the_beginning_of_an_id_is_not_enough_to_delete(memory_at: Path) -> None:
    assert run("delete", "e", "--yes", "--dir", memory_at).exit_code == 1
    assert ids(memory_at) == ["e0", "e1", "e2"]


def test_a_memory_that_is_in_use_is_left_to_who_uses_it(memory_at: Path) -> None:
    async def main() -> None:
        async with open_memory(memory_at):
            for arguments in (["delete", "e0", "--yes"], ["compact"]):
                result = await trio.to_thread.run_sync(lambda a=arguments: run(*a, "--dir", memory_at))  # type: ignore[misc]
                assert result.exit_code == 1
                assert "open for writing in" in result.stderr

    trio.run(main)
    assert ids(memory_at) == ["e0", "e1", "e2"]


def test_there_is_no_memory_and_none_is_made(tmp_path: Path) -> None:
    for arguments in (["delete", "e0", "--yes"], ["compact"]):
        result = run(*arguments, "--dir", tmp_path / "nothing")
        assert result.exit_code == 1
        assert "there is no memory" in result.stderr
    assert not (tmp_path / "nothing").exists()


def test_compacting_without_a_purge_does_not_ask(memory_at: Path) -> None:
    run("delete", "e0", "e1", "--yes", "--dir", memory_at)
    assert run("compact", "--dir", memory_at).stdout.startswith("compacted")
    assert run_json("compact", "--dir", memory_at)["left_alone"] == []
