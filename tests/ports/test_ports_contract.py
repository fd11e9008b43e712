"""The published contract of the ports, for the real ones and for their twins."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import EpisodicMemory, Memory, MemoryConfig, ShortTermMemory, open_memory
from stepwell.testing import MemoryJournal, open_memory_on
from stepwell.testing.ports import InMemoryEpisodic, InMemoryLongTerm, InMemoryPorts, InMemoryShortTerm
from stepwell.testing.ports_contract import PortsContract, PortsPlace
from tests.support import open_on


class TestPortsOfAMemoryInADirectory(PortsContract):
    def new_place(self, path: pathlib.Path) -> PortsPlace:
        return PortsPlace(lambda: open_memory(path / "memory"))


class TestPortsOfAMemoryThatFallsAsleepAtOnce(PortsContract):
    def new_place(self, path: pathlib.Path) -> PortsPlace:
        files = MemoryFileSystem()
        return PortsPlace(lambda: open_on(files, MemoryConfig(idle_seconds=0, mailbox_size=2, max_live_episodes=1)))


class TestPortsOfAMemoryOnAJournalInMemory(PortsContract):
    def new_place(self, path: pathlib.Path) -> PortsPlace:
        journal = MemoryJournal()
        return PortsPlace(lambda: open_memory_on(journal, MemoryConfig(durability="commit")))


class TestPortsOfAMemoryThatKeepsNothing(PortsContract):
    def new_place(self, path: pathlib.Path) -> PortsPlace:
        return PortsPlace(lambda: open_memory(":memory:"), keeps=False)


class TestTwins(PortsContract):
    def new_place(self, path: pathlib.Path) -> PortsPlace:
        ports = InMemoryPorts()

        @asynccontextmanager
        async def opened() -> AsyncIterator[InMemoryPorts]:
            again = InMemoryPorts()
            again.long_term = InMemoryLongTerm(ports.long_term.kept)
            again.short_term = InMemoryShortTerm(ports.short_term.kept)
            again.episodic = InMemoryEpisodic(ports.episodic.kept)
            yield again

        return PortsPlace(opened)


async def test_both_kinds_can_be_used_through_the_protocols() -> None:
    """What klieo's only unit tests check of its interfaces."""

    def used(short_term: ShortTermMemory, episodic: EpisodicMemory) -> tuple[ShortTermMemory, EpisodicMemory]:
        return short_term, episodic

    async with open_memory(":memory:") as memory:
        assert isinstance(memory, Memory)
        for port in used(memory.short_term, memory.episodic) + used(InMemoryShortTerm(), InMemoryEpisodic()):
            assert isinstance(port, ShortTermMemory | EpisodicMemory)
