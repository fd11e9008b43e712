"""What the supervisor watches over the tasks of episodes with."""

from __future__ import annotations

from collections import Counter

from stepstore.restarting import RestartPolicy
from stepwell.errors import Rejected
from stepwell.runtime.lifecycle_events import Lifecycle


class Oversight:
    """When a task that failed runs again, who is told, and what was counted since the memory was opened.

    `restarts`: of tasks of episodes. `refused`: calls that were refused, by the name of the error.
    """

    __slots__ = ("lifecycle", "policy", "refused", "restarts")

    def __init__(self, policy: RestartPolicy, lifecycle: Lifecycle):
        self.policy, self.lifecycle = policy, lifecycle
        self.restarts = 0
        self.refused: Counter[str] = Counter()

    def note_refused(self, error: Exception) -> None:
        """Count a call that ends with this error, if that says that nothing was accepted."""
        if isinstance(error, Rejected):
            self.refused[type(error).__name__] += 1
