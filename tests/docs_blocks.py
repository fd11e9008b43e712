"""The code blocks of the documentation, and how each is run.

Every block with a language is code, and is run: `python` as a program of its own, `sh` as a script (`stepwell` and
`python` are those under test), `console` line by line where a line begins with `$ `. All blocks of a page run in one
directory, in their order; a Python block whose first line names a file (`# agent.py`) is kept there under that name.

A Python block that awaits at its top is a fragment: it runs in `async with open_memory("agent-memory") as memory`, with
everything that `stepwell` exports, and shares its names with the other fragments of its page.

A block that cannot be run says why in a comment on the line above it: `<!-- not run: reason -->`. Blocks of other
languages (`json`, `toml`, …) and of none are not code.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.stepwell.cli.cli_support import child_environment

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_ELSEWHERE = {
    "docs/testing.md": "tests/test_testing_doc.py",
    "docs/operations.md": "tests/test_operations_doc.py, tests/test_operations_programs.py",
    "README.md": "tests/test_readme.py",
}
"""Pages whose blocks have tests of their own, which check more than that they run."""
CODE = ("python", "sh", "console", "bash")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)
_REASON = re.compile(r"<!-- not run: (.+?) -->\s*$")
_BOOT = "from stepwell import *\nimport trio, datetime as dt\n"


class Block(NamedTuple):
    """A block of code. `line`: of its first line; `reason`: why it is not run, "" if it is."""

    page: Path
    line: int
    language: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        if match["language"] not in CODE:
            continue
        reason = _REASON.search(text[: match.start()].rstrip("\n").rpartition("\n")[2])
        line = text.count("\n", 0, match.start()) + 2
        code = textwrap.dedent(match["text"])
        found.append(Block(page, line, match["language"], code, "" if reason is None else reason[1]))
    return found


def programs(page: Path) -> Iterator[tuple[str, list[str]]]:
    """What to run of a page, in order: where it stands, and a command."""
    fragments: list[str] = []
    for block in blocks(page):
        if block.reason:
            continue
        if block.language == "console":
            lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
            yield str(block), ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        elif block.language in ("sh", "bash"):
            yield str(block), ["bash", "-euo", "pipefail", "-c", block.text]
        elif _is_fragment(block.text):
            fragments.append(f"# {block}\n{block.text}")
        else:
            name = re.match(r"# ([\w-]+\.py)\n", block.text)
            file = name[1] if name is not None else f"block_{block.line}.py"
            yield str(block), ["write-and-run", file, block.text]
    if fragments:
        body = textwrap.indent("\n".join(fragments), " " * 8)
        opening = "async def main():\n    async with open_memory('agent-memory') as memory:\n"
        program = f"{_BOOT}\n{opening}{body}\ntrio.run(main)\n"
        yield f"the fragments of {page.relative_to(ROOT)}", ["write-and-run", "fragments.py", program]


def _is_fragment(text: str) -> bool:
    try:
        ast.parse(text)
        compile(text, "block", "exec", dont_inherit=True)
    except SyntaxError:
        compile(text, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        return True
    return False


def run(command: list[str], directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one of them in the directory of its page."""
    if command[0] == "write-and-run":
        (directory / command[1]).write_text(command[2], encoding="utf-8")
        command = [sys.executable, "-W", "error", command[1]]
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def environment_of(directory: Path) -> dict[str, str]:
    """An environment in which `stepwell` and `python` are those under test; scripts of a page share `STEPWELL_DIR`."""
    tools = directory / ".tools"
    tools.mkdir()
    for name, arguments in (("stepwell", " -m stepwell"), ("python", ""), ("python3", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        (tools / name).chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ.get("PATH", "")])
    return {**child_environment(), "PATH": path, "STEPWELL_DIR": "agent-memory"}
