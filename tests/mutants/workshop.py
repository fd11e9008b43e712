"""A copy of the source tree in which mutants are made and tested, one after another; the original is never touched."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.mutants.mutant import Mutant, changed_text

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("actors", "storage", "tests", "docs", "pyproject.toml")
_SOURCES = ("actors", "storage")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - (.*))?$", re.MULTILINE)


class Answer(NamedTuple):
    """What a run of pytest came to. `code`: its exit status, None if the time was up. `failed`: the id of the first
    test that failed, "" if none did. `message`: the beginning of its error."""

    code: int | None
    failed: str
    message: str
    output: str


class Workshop:
    """One copy, and a process in it that runs pytest. Used as a context manager, by one thread."""

    def __init__(self, root: Path = ROOT, copied: Sequence[str] = _COPIED, sources: Sequence[str] = _SOURCES):
        self._folder = tempfile.TemporaryDirectory(prefix="stepwell-mutants-")
        self.tree = Path(self._folder.name)
        for name in copied:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, self.tree / name, ignore=LEFT_OUT)
            elif source.exists():
                shutil.copy(source, self.tree / name)
        for name in sources:
            # By content and not by time: a mutant is made within the second in which the file was last compiled.
            compileall.compile_dir(
                self.tree / name, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
            )
        server = Path(__file__).with_name("server.py")
        path = os.pathsep.join(str(self.tree / name) for name in (*sources, "."))
        self._server = subprocess.Popen(
            [sys.executable, "-P", str(server)],
            cwd=self.tree,
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "300"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._server.communicate()
        self._folder.cleanup()

    def stop(self) -> None:
        """End the process that runs pytest, and the test that is running."""
        self._server.terminate()

    @contextlib.contextmanager
    def with_mutant(self, mutant: Mutant) -> Iterator[None]:
        """The copy is the mutant as long as the block runs. Raises: `StaleError`."""
        before: dict[Path, str] = {}
        try:
            for change in mutant.changes:
                path = self.tree / change.file
                made = changed_text(self.tree, change)
                before.setdefault(path, path.read_text(encoding="utf-8"))
                path.write_text(made, encoding="utf-8")
            yield
        finally:
            for path, text in before.items():
                path.write_text(text, encoding="utf-8")

    def pytest(self, arguments: Sequence[str], *, seconds: float, seconds_a_test: float) -> Answer:
        """Run tests in the copy until one fails, for so many seconds at the most."""
        line = ["-x", "-q", "--tb=no", "-rfE", f"--timeout={seconds_a_test:g}", *arguments]
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({"arguments": line, "seconds": seconds}) + "\n")
        self._server.stdin.flush()
        reply = self._server.stdout.readline()
        if not reply:
            raise RuntimeError("the process that runs the tests has ended")
        answer = json.loads(reply)
        output: str = answer["output"]
        found = _FAILED.search(output)
        failed, message = (found[1], found[2] or "") if found else ("", "")
        return Answer(answer["code"], failed, message, output)
