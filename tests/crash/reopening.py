"""Opening what a crash left, to see what it serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from stepstore.log.files import OsFileSystem
from stepwell import Event, MemoryConfig
from stepwell.memory.opening import OpenMemory
from tests.crash.children import FORKING
from tests.crash.ledger import read_back

SMALL_SEGMENT = 64 * 1024


class InlineFiles(OsFileSystem):
    """The real file layer without worker threads: nothing else runs while a log is looked at."""

    needs_thread = False


@dataclass(frozen=True)
class Opened:
    """What opening a log gave: what it served, and how many bytes of a torn write it had cut off."""

    served: dict[str, list[Event]]
    bytes_cut: int


def reopen(directory: Path, while_open: Callable[[], object] | None = None, *, read_only: bool = False) -> Opened:
    """Open a memory, read all of it, and close it; `while_open` is called before it is closed.

    Raises what `open_memory` raises.
    """

    async def opening() -> Opened:
        config = MemoryConfig(segment_bytes=SMALL_SEGMENT)
        async with OpenMemory(directory, config, read_only, InlineFiles()) as memory:
            opened = Opened(await read_back(memory), memory.recovery.bytes_cut)
            if while_open is not None:
                while_open()
            return opened

    with FORKING:
        return trio.run(opening)
