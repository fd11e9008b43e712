"""A real SIGINT at a chosen line of Stepwell, and the functions whose lines are chosen from."""

from __future__ import annotations

import ast
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import stepstore
import stepwell

ROOTS = (Path(stepwell.__path__[0]), Path(stepstore.__path__[0]))
LOOKED_AT = (
    "stepwell/runtime/",
    "stepwell/memory/",
    "stepstore/journal/",
    "stepstore/log/writer.py",
    "stepstore/log/active_segment.py",
    "stepstore/log/admission.py",
    "stepstore/log/commit_queue.py",
    "stepstore/log/group_commit.py",
    "stepstore/log/watermark.py",
    "stepstore/log/worker_thread.py",
    "stepstore/log/write_errors.py",
    "stepstore/log/submission.py",
    "stepstore/log/caretaker.py",
    "stepstore/log/compactor.py",
    "stepstore/log/segment_rewriter.py",
    "stepstore/log/purger.py",
    "stepstore/log/archiver.py",
    "stepstore/log/scrubber.py",
)
"""What runs in the tasks of callers or of the runtime; the rest is pure, or blocking calls of a worker thread."""
PROTECTION = "enable_ki_protection"


class Line(NamedTuple):
    """A line that runs; `function` is where it stands."""

    path: str
    function: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number} ({self.function})"


class Function(NamedTuple):
    """A function as it stands in the source."""

    path: str
    name: str
    first_line: int
    node: ast.FunctionDef | ast.AsyncFunctionDef
    is_protected: bool


def short_path(filename: str) -> str | None:
    """The path below the source root, for a file of ours that is looked at."""
    for root in ROOTS:
        if filename.startswith(f"{root}/"):
            short = f"{root.name}/{Path(filename).relative_to(root).as_posix()}"
            return short if short.startswith(LOOKED_AT) else None
    return None


def functions() -> Iterator[Function]:
    """Every function of the files that are looked at."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            short = short_path(str(path))
            if short is not None:
                yield from _functions_in(short, ast.parse(path.read_text(encoding="utf-8")), "")


def _functions_in(path: str, node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            protected = any(PROTECTION in ast.unparse(decorator) for decorator in child.decorator_list)
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            yield Function(path, prefix + child.name, first, child, protected)
            yield from _functions_in(path, child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions_in(path, child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _functions_in(path, child, prefix)


@contextmanager
def each_line(call: Callable[[Line, FrameType], bool]) -> Iterator[None]:
    """Call `call` before each line of ours in this thread, until it returns True."""

    def enter(frame: FrameType, what: str, _argument: Any) -> Any:
        path = short_path_of(frame.f_code.co_filename)
        if path is None:
            return None

        def within(frame: FrameType, what: str, _argument: Any) -> Any:
            if what == "line":
                code = frame.f_code
                if call(Line(path, code.co_qualname, frame.f_lineno), frame):
                    sys.settrace(None)
                    frame.f_trace = None
                    return None
            return within

        return within

    short_path_of = _Remembering(short_path)
    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


class _Remembering(dict[str, str | None]):
    def __init__(self, find: Callable[[str], str | None]):
        super().__init__()
        self._find = find

    def __missing__(self, key: str) -> str | None:
        found = self[key] = self._find(key)
        return found

    def __call__(self, key: str) -> str | None:
        return self[key]


class Interruption:
    """Raises SIGINT before the `nth` run of one line, once."""

    def __init__(self, line: Line, nth: int):
        self._line, self._left = line, nth
        self.raised = False

    def __call__(self, line: Line, _frame: FrameType) -> bool:
        if self.raised:
            return True
        if line == self._line:
            self._left -= 1
            if self._left == 0:
                self.raised = True
                signal.raise_signal(signal.SIGINT)
                return True
        return False
