"""An episode that is being deleted, between the callers that asked and the task that does it."""

from __future__ import annotations

import trio


class Deletion:
    """What became of a deletion. All who ask while it is under way share it; `actor` is who asked first."""

    def __init__(self, actor: str = "") -> None:
        self.actor = actor
        self.error: BaseException | None = None
        self._done = trio.Event()

    def finish(self, error: BaseException | None = None) -> None:
        """Say that it is over; the first word counts."""
        if not self._done.is_set():
            self.error = error
            self._done.set()

    async def wait(self) -> None:
        """Return once it is over. Cancelling the caller does not stop it."""
        await self._done.wait()
