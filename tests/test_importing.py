"""What `import stepwell` loads, and what it leaves until a memory is opened."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stepwell

SOURCE = Path(stepwell.__file__)

HEAVY = {
    "anyio",
    "asyncio",
    "click",
    "cryptography",
    "importlib.metadata",
    "opentelemetry",
    "pyarrow",
    "pytest",
    "rich",
    "sqlite3",
    "stepstore.catalog",
    "stepstore.journal",
    "stepwell.aio",
    "stepwell.cli",
    "stepwell.learning",
    "stepwell.memory.memory",
    "stepwell.runtime.runtime",
    "stepwell.sync",
    "stepwell.testing",
    "trio_util",
    "wordllama",
    "zstandard",
}


def loaded_by(program: str) -> set[str]:
    """The modules that are there after a program in a process of its own."""
    told = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    return set(told.stdout.split())


def test_importing_stepwell_loads_nothing_that_only_an_open_memory_needs() -> None:
    loaded = loaded_by("import stepwell; from stepwell import ExecutionStep, MemoryConfig, StepSuccess, open_memory")
    assert "trio" in loaded
    assert "stepwell.model.step" in loaded
    assert loaded & HEAVY == set()


def test_opening_loads_them() -> None:
    """So that the names above are names of modules that there are."""
    opening = """
import trio, stepwell
async def main():
    async with stepwell.open_memory(":memory:"):
        pass
trio.run(main)"""
    expected = {name for name in HEAVY if name.startswith(("stepstore.", "stepwell."))} | {"sqlite3"}
    expected -= {"stepwell.aio", "stepwell.cli", "stepwell.sync", "stepwell.testing"}
    assert expected <= loaded_by(opening)


def names_for_type_checkers() -> dict[str, str]:
    """The names under `if TYPE_CHECKING`, and their modules, as they are written."""
    for statement in ast.parse(SOURCE.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.If) and isinstance(statement.test, ast.Name):
            return {line.names[0].name: str(line.module) for line in statement.body if isinstance(line, ast.ImportFrom)}
    raise AssertionError("stepwell/__init__.py has no `if TYPE_CHECKING`")


def test_what_a_type_checker_sees_is_what_a_program_gets() -> None:
    named_later: dict[str, str] = vars(stepwell)["_NAMED_LATER"]
    assert names_for_type_checkers() == named_later
    for name in named_later:
        assert getattr(stepwell, name) is getattr(sys.modules[named_later[name]], name)
        assert name in dir(stepwell)
    assert "Nobody" not in dir(stepwell)
    with pytest.raises(AttributeError, match="module 'stepwell' has no attribute 'Nobody'"):
        stepwell.Nobody  # type: ignore[attr-defined]  # noqa: B018


def test_a_star_import_gives_every_public_name() -> None:
    program = "from stepwell import *\nassert Memory is not None and open_memory and Receipt"
    assert "stepwell.memory.memory" in loaded_by(program)


def test_a_star_import_binds_no_package_inside() -> None:
    program = """
from stepwell import *
modules = {name for name, value in globals().items() if type(value) is type(__builtins__)} - {"__builtins__"}
assert modules == {"errors", "events", "graph"}, modules
"""
    loaded_by(program)


def test_many_threads_may_open_their_first_memory_at_once() -> None:
    """Then all of them load the same modules; nobody may see one that is half loaded."""
    program = """
import threading
from stepwell import sync
start, failed = threading.Barrier(8), []
def opening():
    start.wait()
    try:
        with sync.open_memory(":memory:") as memory:
            memory.start_episode("a task")
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=opening) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed"""
    assert "stepwell.runtime.runtime" in loaded_by(program)
