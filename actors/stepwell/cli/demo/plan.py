"""Which agent audits which module of the standard library, and how: the same for the same seed on the same Python."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from stepwell.cli.demo.programs import PROGRAMS, Program
from stepwell.cli.demo.tools import DOCTESTED, LIBRARY, test_file
from stepwell.cli.output import CommandFailed

_SMALLEST, _LARGEST = 1_500, 30_000
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "pydoc_data"})
_TROUBLED = ("lib2to3/tests/data", "test/tokenizedata", "test/encoded_modules")
"""Where a Python that is installed with its tests keeps files that do not parse or do not decode."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's task: run `program` on `module`, whose file is `path`. `scoped`: in the run scope."""

    number: int
    program: str
    module: str
    path: str

    @property
    def episode_id(self) -> str:
        """The id of the agent's episode."""
        return f"audit-{self.number:03d}-{self.module}"

    @property
    def agent(self) -> str:
        """The agent's name."""
        return f"{self.program}-auditor"

    @property
    def scoped(self) -> bool:
        """Whether the agent works inside `async with memory.episode(...)` instead of with a handle."""
        return self.number % 3 == 0

    @property
    def task(self) -> str:
        """The task in words."""
        return f"Audit the {self.program} of {self.module}: {(PROGRAMS[self.program].__doc__ or '').strip()}"

    @property
    def metadata(self) -> dict[str, Any]:
        """What a process that finds the episode in the log needs to go on with it."""
        return {"program": self.program, "module": self.module, "path": self.path}

    def start_program(self) -> Program:
        """The agent's program, at its beginning."""
        return start_program(self.metadata)


def start_program(metadata: dict[str, Any]) -> Program:
    """The program that an episode's metadata names, at its beginning."""
    return PROGRAMS[metadata["program"]](metadata["module"], metadata["path"])


def plan_fleet(agents: int, seed: int) -> list[Assignment]:
    """One assignment per agent.

    Raises:
        CommandFailed: this Python has no standard library on disk (it is frozen or zipped).
    """
    rng = random.Random(seed)
    plain, troubled = sorted(_library_files()), sorted(_troubled_files())
    if not plain:
        raise CommandFailed(f"no Python source files in {LIBRARY}: the demo audits the standard library and needs them")
    tested = sorted(path for path in _doctested_files() if (LIBRARY / path).is_file())
    chosen = _shuffled(plain, agents, rng)
    with_tests = [path for path in plain if test_file(_module_name(path)) is not None]
    names = list(PROGRAMS)
    plan = []
    for number, path in enumerate(chosen, 1):
        program = names[(number - 1) % len(names)]
        if program == "documentation" and tested and number % 4 == 1:
            path = rng.choice(tested)
        elif program == "tests" and with_tests and number % 5:
            path = rng.choice(with_tests)
        elif troubled and program != "tests" and number % 20 == 9:
            path = rng.choice(troubled)
        plan.append(Assignment(number=number, program=program, module=_module_name(path), path=path))
    return plan


def _shuffled(paths: list[str], count: int, rng: random.Random) -> list[str]:
    """As many as asked for, every one once before any comes twice."""
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += rng.sample(paths, min(len(paths), count - len(chosen)))
    return chosen


def _library_files() -> Iterator[str]:
    for folder, folders, names in os.walk(LIBRARY):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith((".", "config-"))]
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".py") and _SMALLEST <= os.stat(path).st_size <= _LARGEST:
                yield os.path.relpath(path, LIBRARY)


def _troubled_files() -> Iterator[str]:
    for folder in _TROUBLED:
        if (LIBRARY / folder).is_dir():
            for path in (LIBRARY / folder).glob("*.py"):
                if 0 < path.stat().st_size <= _LARGEST:
                    yield os.path.relpath(path, LIBRARY)


def _doctested_files() -> Iterator[str]:
    for module in DOCTESTED:
        path = module.replace(".", "/")
        yield from (f"{path}.py", f"{path}/__init__.py")


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace(os.sep, ".")
