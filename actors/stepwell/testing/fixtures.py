"""Fixtures for pytest-trio. Say so in the top conftest.py, nothing is loaded by itself:

    pytest_plugins = ["stepwell.testing.fixtures"]

- `memory`: an opened memory that keeps nothing.
- `memory_dir`: the path of a directory of this test's own, not there yet; `memory_on_disk`: a memory opened in it.
- `memory_journal`: a `MemoryJournal`; `memory_on_journal`: a memory opened on it.
- `memory_config`: the settings all of these use. Override it in a conftest.py or a test file.

A memory is closed when the test has ended: what the test leaves accepted is stored then, and what closing raises fails
the test. Time may be that of pytest-trio's `autojump_clock`, but not with `memory_on_disk`: a clock that jumps takes a
task that waits for a disk for one that sleeps.
"""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar, cast

from stepwell.testing.needs_pytest import require_pytest

require_pytest(__name__)

import pytest  # noqa: E402
import pytest_trio  # noqa: E402

from stepwell import Memory, MemoryConfig, open_memory  # noqa: E402
from stepwell.testing.memory_journal import MemoryJournal  # noqa: E402
from stepwell.testing.opening import open_memory_on  # noqa: E402

Fixture = TypeVar("Fixture", bound=Callable[..., object])


def trio_fixture(function: Fixture) -> Fixture:
    """A fixture that lives in the Trio run of its test, with or without pytest-trio's `trio_mode`."""
    return cast(Fixture, pytest_trio.trio_fixture(function))


@pytest.fixture
def memory_config() -> MemoryConfig:
    """The settings of the memories that these fixtures open."""
    return MemoryConfig()


@trio_fixture
async def memory(memory_config: MemoryConfig) -> AsyncIterator[Memory]:
    """An opened memory that keeps nothing."""
    async with open_memory(":memory:", config=memory_config) as opened:
        yield opened


@pytest.fixture
def memory_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory of this test's own for a memory, which makes it."""
    return tmp_path / "memory"


@trio_fixture
async def memory_on_disk(memory_dir: pathlib.Path, memory_config: MemoryConfig) -> AsyncIterator[Memory]:
    """A memory opened in `memory_dir`."""
    async with open_memory(memory_dir, config=memory_config) as opened:
        yield opened


@pytest.fixture
def memory_journal() -> MemoryJournal:
    """A journal in memory; `open_memory_on` opens memories on it."""
    return MemoryJournal()


@trio_fixture
async def memory_on_journal(memory_journal: MemoryJournal, memory_config: MemoryConfig) -> AsyncIterator[Memory]:
    """A memory opened on `memory_journal`."""
    async with open_memory_on(memory_journal, memory_config) as opened:
        yield opened
