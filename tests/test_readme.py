"""What the README shows is true: its program runs as it stands, and the commands it names exist."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import signal
import subprocess
import sys

import pytest
import trio

from stepwell import open_memory

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
MOST_LINES = 15


def programs() -> list[str]:
    """The Python blocks of the README, each of them a program."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert blocks, "the README shows no Python program"
    return blocks


def program() -> str:
    """The first of them."""
    return programs()[0]


def run(text: str, directory: pathlib.Path, *, code: int = 0) -> str:
    """What a program prints that is run in a directory and ends with `code`."""
    (directory / "program.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    return done.stdout


def commands() -> list[str]:
    """The subcommands the README names: in its overview, and wherever `stepwell something` stands in the text."""
    found: list[str] = []
    for line in README.splitlines():
        named = re.match(r"stepwell ((?:\w+[^|\n]*?\| *)*\w+)", line)
        if named is not None:
            found += [part.split()[0] for part in named[1].split("|")]
        found += re.findall(r"`stepwell (\w+)", line)
    return sorted(set(found))


def test_the_program_of_the_readme_runs_as_it_stands(tmp_path: pathlib.Path) -> None:
    printed = run(program(), tmp_path)
    assert re.fullmatch(r"the order was random \| 2 steps \| reward \d+\.\d+\n", printed), printed
    inside = sorted(path.name for path in (tmp_path / "agent-memory").iterdir())
    assert "FORMAT" in inside
    assert any(name.endswith(".seg") for name in inside)


def test_the_program_that_kills_itself_goes_on_when_it_is_run_again(tmp_path: pathlib.Path) -> None:
    run(program(), tmp_path)
    crashing = programs()[1]
    run(crashing, tmp_path, code=-signal.SIGKILL)
    run(crashing, tmp_path)

    async def actions() -> list[str]:
        async with open_memory(tmp_path / "agent-memory") as memory:
            episode = await memory.get_episode("migrate-1")
            assert episode.is_complete
            return [step.action for step in episode.steps]

    assert trio.run(actions) == ["migrate users", "migrate orders", "migrate invoices"]


def test_the_program_that_searches_prints_what_stands_below_it(tmp_path: pathlib.Path) -> None:
    run(program(), tmp_path)
    searching = programs()[2]
    _before, _program, after = README.partition(searching + "```\n")
    shown = re.search(r"^```\n(.*?)^```$", after, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert run(searching, tmp_path) == shown[1]


def test_the_last_program_follows_the_first_and_deletes_its_episode(tmp_path: pathlib.Path) -> None:
    run(program(), tmp_path)
    printed = run(programs()[3], tmp_path)
    event = r"[0-9a-f-]{36} \{.*'the order was random'.*\} [0-9a-f]{32}\.[0-9a-f]{32}\.1\.4\n"
    assert re.fullmatch(event, printed), printed

    async def left() -> list[str]:
        async with open_memory(tmp_path / "agent-memory") as memory:
            return [episode_id async for episode_id in memory.episode_ids()]

    assert trio.run(left) == []


def test_the_programs_of_the_readme_are_short() -> None:
    for text in programs():
        lines = [line for line in text.splitlines() if line.strip()]
        assert lines[0].startswith("import ")
        assert len(lines) <= MOST_LINES, f"{len(lines)} lines, not {MOST_LINES}"


def test_every_command_of_the_readme_exists() -> None:
    named = commands()
    assert {"demo", "import", "export", "list", "show", "verify"} <= set(named)
    if importlib.util.find_spec("stepwell.cli") is None or importlib.util.find_spec("stepwell.__main__") is None:
        pytest.skip("the command line (stepwell.cli) is not there yet")
    done = subprocess.run(
        [sys.executable, "-m", "stepwell", "--help"], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^  (\w+)  ", done.stdout, re.MULTILINE))
    assert set(named) <= listed, f"{sorted(set(named) - listed)} of the README are not in\n{done.stdout}"
