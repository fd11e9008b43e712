"""An episode that is to end, between the caller that asked and the task that does it."""

from __future__ import annotations

from typing import Any

import trio

from stepwell.model.ending import Ending
from stepwell.model.outcome import TaskOutcome
from stepwell.runtime.receipt import Receipt


class EndingRequest:
    """An episode that is to end: with what, and what came of it.

    `ending` is there before it is stored where nothing had to be worked out: it was recorded as an event of a run.
    `is_sent`: everything before it is durable, and it is on its way to the log alone.
    """

    def __init__(self, outcome: TaskOutcome, metadata: dict[str, Any], actor: str = ""):
        self.outcome, self.metadata, self.actor = outcome, metadata, actor
        self.ending: Ending | None = None
        self.receipt: Receipt | None = None
        self.error: BaseException | None = None
        self.is_sent = False
        self.done = trio.Event()

    @property
    def is_stored(self) -> bool:
        """Whether the ending is in the log."""
        return self.ending is not None and self.done.is_set()

    def finish(self, *, error: BaseException | None = None) -> None:
        """Say that it is over; the first word counts."""
        if not self.done.is_set():
            self.error = error
            self.done.set()
