"""Where ports under test live."""

from __future__ import annotations

import pathlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import pytest

from stepwell.memory.long_term_contract import LongTermMemory
from stepwell.memory.ports import EpisodicMemory, ShortTermMemory


class Ports(Protocol):
    """An opened memory, as far as the contract looks at it."""

    @property
    def short_term(self) -> ShortTermMemory: ...

    @property
    def long_term(self) -> LongTermMemory: ...

    @property
    def episodic(self) -> EpisodicMemory: ...


Look = Callable[[Ports], Awaitable[None]]


@dataclass(frozen=True)
class PortsPlace:
    """`opened` opens the ports; what an earlier opening stored is there again. `keeps`: or else it is not."""

    opened: Callable[[], AbstractAsyncContextManager[Ports]]
    keeps: bool = True

    async def holds(self, act: Look, look: Look) -> None:
        """Do something, and look at what came of it; then open again, and look again."""
        async with self.opened() as ports:
            await act(ports)
            await look(ports)
        if self.keeps:
            async with self.opened() as ports:
                await look(ports)


class PlaceOfPorts:
    """What a class of tests derives its place from."""

    def new_place(self, path: pathlib.Path) -> PortsPlace:
        """An empty place; `path` is a directory for it."""
        raise NotImplementedError("say where the ports under test live: override new_place")

    @pytest.fixture
    def place(self, tmp_path: pathlib.Path) -> PortsPlace:
        """An empty place."""
        return self.new_place(tmp_path)
