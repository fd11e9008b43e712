"""Whether the task of a cell runs, sleeps or is over, and who needs it.

The task of an episode parks here and is woken from here. `passivation` decides by this who goes to sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import trio

from stepwell.model.ids import EPISODE_STREAM, EpisodeId, stream_id
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.state import EpisodeState
from stepwell.runtime.untold import called
from stepwell.runtime.woken import WOKEN

if TYPE_CHECKING:
    from stepwell.runtime.passivation import Place


class CellLife:
    """The part of a cell that says how its task is. Steps are accepted only while `accepting`.

    `state`: "waking" (being rebuilt from the log), "live", "draining" (it goes to sleep unless it is used; takes steps
    as before), "asleep" (it has left memory; using it makes another cell), "ended"; "parked" (unavailable: `failure`
    says why), "gone" (there is no such episode, or it is to be deleted) and "closed" (the runtime is over).

    `used`: the number of its last use, see `passivation`; `drained_at`: what that was when it was marked draining.
    `place`: where the passivator has it. `wanted_by`: callers that need it awake; for them the task of an episode that
    has ended stays, too.
    """

    __slots__ = (
        "_sleeper",
        "_uses",
        "accepting",
        "deleting",
        "drained_at",
        "ending_request",
        "episode_id",
        "failure",
        "intake_stopped",
        "locked",
        "place",
        "restarts",
        "state",
        "stream",
        "used",
        "wanted_by",
    )

    def __init__(self, episode_id: EpisodeId, uses: Iterator[int]):
        self.episode_id = episode_id
        self.stream = stream_id(EPISODE_STREAM, episode_id)
        self.state = EpisodeState("waking")
        self.accepting = self.intake_stopped = self.deleting = self.locked = False
        self.ending_request: EndingRequest | None = None
        self.failure: BaseException | None = None
        self.restarts = 0
        self._uses = uses
        self.used = self.drained_at = self.wanted_by = 0
        self.place: Place | None = None
        self._sleeper: trio.lowlevel.Task | None = None

    @property
    def called(self) -> str:
        """What an error calls it."""
        return called(self.episode_id)

    # ---- the task's sleep --------------------------------------------------------------------------------------------

    def until_woken(self) -> Callable[[object], trio.lowlevel.Abort]:
        """What the episode's own task gives to `wait_task_rescheduled` at once, to wait for `wake`. Only this one task
        ever waits here, so no parking lot is needed; and a coroutine around the two would be 200 bytes of each idle
        episode."""
        self._sleeper = trio.lowlevel.current_task()
        return self._stop_sleeping

    def _stop_sleeping(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Let the task look whether there is something to do."""
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            trio.lowlevel.reschedule(sleeper, WOKEN)

    # ---- who needs it ------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """The episode is used."""
        self.used = next(self._uses)

    @trio.lowlevel.enable_ki_protection
    async def wait_awake(self) -> str:
        """Wait while the episode is being rebuilt, and give its state. Until the caller has its turn it stays awake.

        Cancelling the caller does not stop the rebuild. A checkpoint.
        """
        self.touch()
        self.want()
        try:
            await self.state.wait_value(lambda value: value != "waking")
        finally:
            self.unwant()
        return self.state.value

    def want(self) -> None:
        """Keep it in memory until `unwant`, and its task as well if it has ended."""
        self.wanted_by += 1

    def unwant(self) -> None:
        """See `want`."""
        self.wanted_by -= 1
        if self.state.value == "ended":
            self.wake()

    @property
    def is_awake(self) -> bool:
        """Whether its task runs and it has not ended."""
        return self.state.value in ("live", "draining", "waking")

    @property
    def is_wanted(self) -> bool:
        """Whether somebody needs it in memory, though everything accepted may be stored."""
        return self.ending_request is not None or self.deleting or self.locked or self.wanted_by > 0
