"""A scope of the memory that is entered in the Trio thread for a caller elsewhere."""

from __future__ import annotations

from typing import Any

from stepwell.memory.handle import StepScope
from stepwell.memory.run_scope import RunScope


class Entering:
    """The caller may be cancelled as entering finishes: then its block is never run, and nobody else leaves the scope.

    Both functions run in the Trio thread.
    """

    def __init__(self, scope: Any):
        self._scope = scope
        self.is_done = False

    async def enter(self) -> Any:
        """Enter the scope. Cancelled, it is not entered."""
        entered = await self._scope.__aenter__()
        self.is_done = True
        return entered

    async def undo(self, error: BaseException) -> None:
        """Leave it as if it had been cancelled, by `error`, while it was being entered."""
        self.is_done = False
        if isinstance(self._scope, RunScope):
            await self._scope._leave_unentered(error)
        elif not isinstance(self._scope, StepScope):  # of a step that was not begun nothing is logged
            await self._scope.__aexit__(type(error), error, error.__traceback__)
