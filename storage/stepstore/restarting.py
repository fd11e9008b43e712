"""What becomes of a task that fails: it is restarted, later each time, and parked when that does not help.

`RestartPolicy` is the rule, `Backoff` keeps count for one task, and `Service` is a background task that lives by it:
whatever goes wrong in one, nothing else ends.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from stepstore.notices import Notices

ServiceState: TypeAlias = Literal["waiting", "running", "restarting", "parked", "ended"]

LONGEST_TEXT = 1_000

_logger = logging.getLogger("stepstore.log")


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When a task that failed runs again, in seconds: after `first_delay`, doubling up to `last_delay`, each varied by
    the share `jitter` up or down. After `park_after` failures in a row it is parked. It is no longer "in a row" when
    the task had achieved something, or had lived for more than `steady_seconds`. `uniform` gives the jitter.
    """

    first_delay: float = 0.2
    last_delay: float = 30.0
    jitter: float = 0.2
    park_after: int = 6
    steady_seconds: float = 60.0
    uniform: Callable[[float, float], float] = random.uniform

    def delay(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        doubled = self.first_delay * 2.0 ** min(failures - 1, 64)
        return min(doubled, self.last_delay) * self.uniform(1 - self.jitter, 1 + self.jitter)


def error_text(error: BaseException) -> str:
    """An error in one line, also one that cannot show itself: what failed must not fail whoever tells of it."""
    try:
        text = " ".join(repr(error).split())
    except Exception:
        return f"{type(error).__name__} (it cannot be shown)"
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


class Backoff:
    """The failures in a row of one task.

    `progress` is anything that is another value once the task has achieved something; `now` is in seconds.
    """

    __slots__ = ("_began", "_policy", "_progress", "failures")

    def __init__(self, policy: RestartPolicy):
        self._policy = policy
        self._began, self._progress = 0.0, object()
        self.failures = 0

    def begin(self, now: float, progress: object) -> None:
        """The task is about to run."""
        self._began, self._progress = now, progress

    def failed(self, now: float, progress: object) -> float | None:
        """It has failed. Gives how long to wait before it runs again; None if it is to be parked."""
        if progress != self._progress or now - self._began > self._policy.steady_seconds:
            self.failures = 0
        self.failures += 1
        return None if self.failures >= self._policy.park_after else self._policy.delay(self.failures)


class Service:
    """A task in the background that may fail without ending anything but itself.

    `state` is "waiting" before it runs, "ended" once it has returned or was cancelled; `error` is what it failed with
    last, and stays when it runs again; `restarts` counts.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        policy: RestartPolicy,
        notices: Notices,
        progress: Callable[[], object] = lambda: None,
        on_parked: Callable[[Exception], None] | None = None,
        logger: logging.Logger = _logger,
    ):
        self.name = name
        self.state: ServiceState = "waiting"
        self.error: Exception | None = None
        self.restarts = 0
        self._work, self._policy, self._notices = work, policy, notices
        self._progress, self._on_parked, self._logger = progress, on_parked, logger

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The task. Raises nothing but `Cancelled`; returns when its work is over, or when it is parked."""
        backoff = Backoff(self._policy)
        try:
            while True:
                self.state = "running"
                backoff.begin(trio.current_time(), self._progress())
                try:
                    await self._work()
                    return
                except Exception as error:
                    self.error = error
                    delay = backoff.failed(trio.current_time(), self._progress())
                    if delay is None:
                        self._park(error, backoff.failures)
                        return
                await self._restart_after(delay)
        finally:
            if self.state != "parked":
                self.state = "ended"

    async def _restart_after(self, delay: float) -> None:
        self.state = "restarting"
        assert self.error is not None
        sentence = f"the {self.name} failed ({error_text(self.error)}); it runs again in {delay:.1f} s"
        self._logger.warning("%s", sentence, exc_info=self.error)
        self._notices.tell("service_failed", sentence, self.name)
        await trio.sleep(delay)
        self.restarts += 1
        self._notices.tell("service_restarted", f"the {self.name} runs again", self.name)

    def _park(self, error: Exception, failures: int) -> None:
        self.state = "parked"
        sentence = (
            f"the {self.name} is parked after {failures} failures in a row, the last: {error_text(error)}. Reading and "
            "writing go on; open the memory again to start it anew."
        )
        self._logger.error("%s", sentence, exc_info=error)
        if self._on_parked is not None:
            self._on_parked(error)
        self._notices.tell("service_parked", sentence, self.name)
