"""What the README shows is true: its program runs as it stands, and the commands it names exist."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
MOST_LINES = 15


def program() -> str:
    """The first Python block of the README."""
    block = re.search(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert block is not None, "the README shows no Python program"
    return block[1]


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
    (tmp_path / "program.py").write_text(program(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(r"the order was random \| 2 steps \| reward \d+\.\d+\n", done.stdout), done.stdout
    inside = sorted(path.name for path in (tmp_path / "agent-memory").iterdir())
    assert "FORMAT" in inside
    assert any(name.endswith(".seg") for name in inside)


def test_the_program_of_the_readme_is_short() -> None:
    lines = [line for line in program().splitlines() if line.strip()]
    assert lines[0].startswith("import ")
    assert len(lines) <= MOST_LINES, f"{len(lines)} lines, not {MOST_LINES}"


def test_every_command_of_the_readme_exists() -> None:
    named = commands()
    assert {"demo", "import", "export", "list", "show", "verify"} <= set(named)
    if importlib.util.find_spec("stepwell.cli") is None or importlib.util.find_spec("stepwell.__main__") is None:
        pytest.skip("the command line (stepwell.cli) is not there yet")
    done = subprocess.run(
        [sys.executable, "-m", "stepwell", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^  (\w+)  ", done.stdout, re.MULTILINE))
    assert set(named) <= listed, f"{sorted(set(named) - listed)} of the README are not in\n{done.stdout}"
