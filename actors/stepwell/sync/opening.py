"""Opening and closing a memory from plain code."""

from __future__ import annotations

import os
from types import TracebackType

import sniffio

from stepwell.bridge.memory_thread import MemoryThread
from stepwell.errors import InvalidState, WrongLoop
from stepwell.memory.opening import OpenMemory
from stepwell.runtime.config import MemoryConfig
from stepwell.sync.door import Door
from stepwell.sync.surface import Memory


def open_memory(
    path: str | os.PathLike[str], *, config: MemoryConfig | None = None, read_only: bool = False
) -> SyncOpenMemory:
    """Open the memory in directory `path`: `with stepwell.sync.open_memory(path) as memory:`.

    As `stepwell.open_memory`, for plain code. The memory runs on a Trio thread of its own, which has ended when the
    block is left. A Ctrl-C while closing waits for what was accepted begins `grace_seconds`, another one ends it.
    Raises: what `stepwell.open_memory` raises; `WrongLoop` on entering inside Trio, whose loop it would stop.
    """
    return SyncOpenMemory(OpenMemory(path, config, read_only, None))


class SyncOpenMemory:
    """The context manager that `open_memory` returns."""

    def __init__(self, opening: OpenMemory):
        self._opening = opening
        self._entered = False

    def __enter__(self) -> Memory:
        if _inside_trio():
            raise WrongLoop("stepwell.sync would stop the Trio loop it is called from; use stepwell.open_memory")
        if self._entered:
            raise InvalidState("this open_memory(...) was entered before; call open_memory again")
        self._entered = True
        door = Door()
        self._thread = MemoryThread(self._opening, door.deliver)
        memory, door.crossing = self._thread.open()
        return Memory(door, memory)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.close(error)


def _inside_trio() -> bool:
    try:
        return sniffio.current_async_library() == "trio"
    except sniffio.AsyncLibraryNotFoundError:
        return False
