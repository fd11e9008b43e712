"""The session in `docs/operations.md`, run again: a `console` block is a terminal, with `$` in front of what was typed.

    python -m tests.operations_session            compare what the document shows with what comes now
    python -m tests.operations_session --write    put what comes now into the document

The `python` block named in its first line is a file of the session. What differs from run to run is replaced by a word
in angle brackets on both sides.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import stepstore
import stepwell

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "operations.md"
_CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
_FILE = re.compile(r"```python\n# (\S+)\n(.*?)```", re.DOTALL)
_STEPWELL = """#!/bin/sh
exec {python} -m stepwell "$@"
"""
_CHANGING = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?"), "<time>"),
    (re.compile(r"/[^\s']*/agent-memory"), "/srv/agent-memory"),
    (re.compile(r"/[^\s']*/rescued"), "/srv/rescued"),
)


def steady(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def run_session(document: str) -> str:
    """The document with what comes now in its console blocks."""
    with tempfile.TemporaryDirectory(prefix="stepwell-session-") as scratch:
        place = Path(scratch)
        work = place / "srv"
        work.mkdir()
        for name, source in _FILE.findall(document):
            (work / name).write_text(source)
        programs = place / "bin"
        programs.mkdir()
        for name, content in (
            ("stepwell", _STEPWELL.format(python=sys.executable)),
            ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'),
        ):
            (programs / name).write_text(content)
            (programs / name).chmod(0o755)
        roots = [str(Path(package.__path__[0]).parent) for package in (stepwell, stepstore)]
        environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(roots),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "120",
        }
        return _CONSOLE.sub(lambda block: f"```console\n{_terminal(block[1], work, environment)}```", document)


def _terminal(block: str, work: Path, environment: dict[str, str]) -> str:
    shown: list[str] = []
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        done = subprocess.run(
            ["bash", "-c", f"exec 2>&1; {line[2:]}"],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        shown += [line, *(steady(done.stdout).splitlines() if done.stdout else ())]
    return "".join(f"{line}\n" for line in shown)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.operations_session")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    assert shutil.which("bash")
    before = DOCUMENT.read_text()
    after = run_session(before)
    if options.write:
        DOCUMENT.write_text(after)
    elif before != after:
        print("".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "document", "now")))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
