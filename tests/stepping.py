"""A memory in a simulated world, driven call by call: what the state machines of Hypothesis do with one."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from stepstore.log.watched_files import Call
from stepwell import Memory, MemoryConfig, StepwellError
from stepwell.memory.opening import OpenMemory
from stepwell.testing import Simulation

T = TypeVar("T")
PATIENCE = 100.0
"""Real seconds that no call takes."""


class PowerCut(Exception):
    """What the body of `open_memory` is left with."""


class Stepping:
    """A simulation that goes on from one call to the next, in a thread that only runs while its caller waits."""

    def __init__(self, seed: int, config: MemoryConfig):
        self.next_sync_fails = False
        self.simulation = Simulation(seed, before=self._before)
        self.memory: Memory | None = None
        self._config = config
        self._opening: OpenMemory | None = None
        self._calls: queue.SimpleQueue[Callable[[], Awaitable[Any]] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def do(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call. Raises what it raises."""
        self._calls.put(call)
        result, error = self._results.get(timeout=PATIENCE)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def end(self) -> None:
        """Close what is open, and end the run."""
        if self.memory is not None:
            self.do(self.close)
        self._calls.put(None)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.simulation.run(self._serve)
        except BaseException as error:
            self._results.put((None, error))

    async def _serve(self) -> None:
        while (call := self._calls.get()) is not None:  # blocks the loop: so nothing moves between two calls
            try:
                self._results.put((await call(), None))
            except Exception as error:
                self._results.put((None, error))

    def _before(self, call: Call) -> int | None:
        if call.operation == "datasync" and self.next_sync_fails:
            self.next_sync_fails = False
            assert call.file is not None
            call.file.lose_unsynced()
            raise OSError(errno.EIO, "Input/output error")
        return None

    async def open(self) -> None:
        """Open the memory."""
        self._opening = self.simulation.open_memory(self._config)
        self.memory = await self._opening.__aenter__()

    async def close(self) -> None:
        """Close it in order."""
        assert self._opening is not None
        self.memory = None
        await self._opening.__aexit__(None, None, None)

    async def crash(self, *, power_cut: bool) -> None:
        """Lose power, or the process."""
        assert self._opening is not None
        self.simulation.cut_power() if power_cut else self.simulation.kill()
        self.memory = None
        error = PowerCut()
        try:
            await self._opening.__aexit__(PowerCut, error, None)  # it goes on on a disk that nobody sees any more
        except ExceptionGroup as group:  # it had lost its log before
            assert group.split((OSError, StepwellError, PowerCut))[1] is None
