"""What is the same in every command: the memory that is meant, its key, the id that is meant, completion."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trio

from stepwell import ExecutionStep, LocalKeyProvider, MemoryConfig, StepError, StepSuccess, Success, open_memory
from stepwell.cli.app import cli
from tests.stepwell.cli.cli_support import child_environment, run, run_json


async def fill(directory: Path, config: MemoryConfig) -> None:
    async with open_memory(directory, config=config) as memory:
        for name in ("audit-one", "audit-two", "other"):
            handle = await memory.start_episode("a task", episode_id=name)
            for result in (StepError("no"), StepError("no"), StepSuccess("yes"), StepSuccess("again")):
                await handle.log_step(ExecutionStep("tool", "try", {"x": 1}, result))
            await handle.complete(Success())


@pytest.fixture(scope="module")
def memory_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("options") / "memory"
    trio.run(fill, directory, MemoryConfig())
    return directory


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")}


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_made_on_one_pattern(name: str) -> None:
    command = cli.commands[name]
    assert "--json" in options_of(command)
    assert command.help
    assert command.help.split("\n")[0].rstrip(".").count(". ") <= 1
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} says nothing of itself"
    directory = next((parameter for parameter in command.params if parameter.name == "directory"), None)
    if directory is not None and name != "demo":
        assert directory.envvar == "STEPWELL_DIR"


def test_the_directory_may_come_from_the_environment(memory_at: Path) -> None:
    assert run("show", "other", env={"STEPWELL_DIR": str(memory_at)}).exit_code == 0
    elsewhere = run("show", "other", "--dir", memory_at / "nowhere", env={"STEPWELL_DIR": str(memory_at)})
    assert elsewhere.exit_code == 1
    assert "--dir or STEPWELL_DIR" in elsewhere.stderr


def test_the_beginning_of_an_id_is_enough_to_look_at_it(memory_at: Path) -> None:
    assert run_json("show", "audit-t", "--dir", memory_at)["episode_id"] == "audit-two"
    several = run("show", "audit", "--dir", memory_at)
    assert several.exit_code == 1
    assert "2 episodes begin with 'audit', the newest: audit-one, audit-two" in several.stderr
    assert "there is no episode 'nobody'" in run("show", "nobody", "--dir", memory_at).stderr


def test_a_whole_id_that_others_begin_with_is_meant_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "memory") as memory:
            for name in ("run-10", "run-1", "run-11"):
                await memory.start_episode("a task", episode_id=name)

    trio.run(main)
    assert run_json("show", "run-1", "--dir", tmp_path / "memory")["episode_id"] == "run-1"


def test_a_timeline_tells_retries(memory_at: Path) -> None:
    lines = run("show", "other", "--dir", memory_at).stdout.splitlines()
    steps = [line for line in lines if "tool" in line and "+0." in line]
    assert ["retry" in line for line in steps] == [False, True, True, False]
    assert "retry 2" in steps[2]
    assert any("2 failed · 2 retries" in line for line in lines)


def test_a_wrong_command_names_the_nearest(memory_at: Path) -> None:
    result = run("shwo")
    assert result.exit_code == 2
    assert "'show'" in result.stderr


def test_encrypted_episodes_are_looked_at_with_their_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o600)
    config = MemoryConfig(key_provider=LocalKeyProvider.from_file(key))
    trio.run(fill, tmp_path / "memory", config)
    there = ["--dir", str(tmp_path / "memory")]
    without = run("show", "other", *there)
    assert without.exit_code == 1
    assert without.stderr.startswith("stepwell: ")
    assert len(run_json("show", "other", *there, "--key-file", key)["steps"]) == 4
    for command in (
        ["tail", "-n", "1"],
        ["replay", "other", "--speed", "0"],
        ["export", "-"],
        ["stats"],
        ["list"],
        ["search", "a task"],
        ["recommend", "a task"],
    ):
        result = run(*command, *there, env={"STEPWELL_KEY_FILE": str(key)})
        assert result.exit_code == 0, result.output
    assert "audit-one" in run("search", "a task", *there, "--key-file", key).stdout
    assert "success" in run("tail", "-n", "1", *there, "--key-file", key).stdout
    assert run("delete", "other", "--yes", *there, "--key-file", key).exit_code == 0
    missing = run("tail", *there, "--key-file", tmp_path / "nothing")
    assert missing.exit_code == 1
    assert str(tmp_path / "nothing") in missing.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("stepwell ta", {"tags", "tail"}),
        ("stepwell list --stat", {"--status"}),
        ("stepwell show aud", {"audit-one", "audit-two"}),
        ("stepwell delete audit-one o", {"other"}),
    ],
)
def test_a_shell_completes_commands_options_and_ids(memory_at: Path, words: str, expected: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from stepwell.cli import main; main()"],
        env={
            **child_environment(),
            "_STEPWELL_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            "STEPWELL_DIR": str(memory_at),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    offered = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert offered == expected, done.stderr


def test_where_there_is_no_memory_nothing_is_completed_and_nothing_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from stepwell.cli import main; main()"],
        env={
            **child_environment(),
            "_STEPWELL_COMPLETE": "bash_complete",
            "COMP_WORDS": "stepwell show a",
            "COMP_CWORD": "2",
            "STEPWELL_DIR": str(tmp_path / "nothing"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_this_program(shell: str) -> None:
    script = run("completion", shell).stdout
    assert f"_STEPWELL_COMPLETE={shell}_complete" in script
    assert run_json("completion", shell)["script"].strip() == script.strip()


def test_bash_takes_the_script(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(run("completion", "bash").stdout)
    done = subprocess.run(
        ["bash", "-c", f"source {tmp_path / 'script'}; complete -p stepwell"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_stepwell_completion" in done.stdout
