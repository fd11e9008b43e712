"""What happens to a memory and its episodes, told to whoever looks: `Lifecycle` tells, a `LifecycleChannel` is told.

Nothing waits for a reader. What a slow one missed is told to it as one event of kind "missed", in its place.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from typing import Literal, TypeAlias

import msgspec
import trio

from stepstore.notices import NoticeKind
from stepwell.errors import Closed, InvalidState
from stepwell.model.event import utc
from stepwell.runtime.right_loop import checkpoint, get_ident, wrong_loop

EVENTS_KEPT = 1_024
"""So many events wait for a reader; what comes on top is counted as missed."""

LifecycleKind: TypeAlias = (
    Literal[
        "started",
        "woken",
        "live",
        "restarted",
        "unavailable",
        "parked",
        "asleep",
        "ended",
        "deleted",
        "evicted",
        "failed",
        "closing",
        "missed",
    ]
    | NoticeKind
)


class LifecycleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `time` is UTC, `time_ns` the same in nanoseconds since 1970; `detail` a sentence, or "".

    Of an episode (`episode_id`): "started" (its start is accepted), "woken" (it is being rebuilt from the log), "live"
    (it is rebuilt and takes steps), "restarted" (its task failed, and runs again after the delay in `detail`),
    "unavailable" (the log could not be read now; asking again tries again), "parked", "asleep" (its task ended; the
    next call wakes it), "ended" and "deleted" (durably), "evicted" (behind that: by a policy
    of retention, or since there were too many). Of a background service (`service`): "service_failed",
    "service_restarted", "service_parked". Of the log: "log_full", "log_has_room", "slow_sync". Of the memory: "failed"
    (the log is lost), "closing". "missed": the reader was too slow for `missed` events that would stand here.
    """

    kind: LifecycleKind
    time: dt.datetime
    time_ns: int
    episode_id: str | None = None
    service: str | None = None
    detail: str = ""
    missed: int = 0


class Lifecycle:
    """Tells `watchers` what happens. Ask `if lifecycle.watchers:` before telling: then it costs nothing while nobody
    looks, not even the sentence."""

    __slots__ = ("closed", "thread", "watchers")

    def __init__(self) -> None:
        self.watchers: list[LifecycleChannel] = []
        self.closed = False
        self.thread = get_ident()

    @trio.lowlevel.enable_ki_protection
    def tell(
        self, kind: LifecycleKind, *, episode_id: str | None = None, service: str | None = None, detail: str = ""
    ) -> None:
        """Tell everybody who looks. Plain, never waits."""
        event = _event(kind, episode_id=episode_id, service=service, detail=detail)
        for watcher in self.watchers:
            watcher.take(event)

    def tell_notice(self, kind: NoticeKind, service: str | None, detail: str) -> None:
        """A listener for `stepstore.notices`."""
        if self.watchers:
            self.tell(kind, service=service, detail=detail)

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Nothing happens any more: every channel ends behind what it holds."""
        self.closed = True
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher.end()


def _event(
    kind: LifecycleKind,
    *,
    episode_id: str | None = None,
    service: str | None = None,
    detail: str = "",
    missed: int = 0,
) -> LifecycleEvent:
    now = time.time_ns()
    return LifecycleEvent(
        kind=kind, time=utc(now), time_ns=now, episode_id=episode_id, service=service, detail=detail, missed=missed
    )


class LifecycleChannel(trio.abc.ReceiveChannel[LifecycleEvent]):
    """What happened since the channel was opened, oldest first. Each event is received once, by one of its readers."""

    def __init__(self, lifecycle: Lifecycle, kept: int = EVENTS_KEPT):
        self._lifecycle, self._kept = lifecycle, kept
        self._events: deque[LifecycleEvent] = deque()
        self._missed = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._ended = self._closed = False

    def take(self, event: LifecycleEvent) -> None:
        """One more event; counted only if the reader is too far behind."""
        if len(self._events) >= self._kept:
            self._missed += 1
            return
        if self._missed:
            self._events.append(self._missed_event())
        self._events.append(event)
        self._arrived.unpark()

    def _missed_event(self) -> LifecycleEvent:
        count, self._missed = self._missed, 0
        return _event("missed", detail=f"{count:,} events came while {self._kept:,} were waiting here", missed=count)

    @trio.lowlevel.enable_ki_protection
    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._arrived.unpark_all()

    async def receive(self) -> LifecycleEvent:
        """The next event. A checkpoint; cancelled, none is lost.

        Raises: `trio.EndOfChannel` once the memory is closed, `trio.ClosedResourceError` after `aclose`.
        """
        await trio.lowlevel.checkpoint()
        while not (self._events or self._missed):
            if self._closed:
                raise trio.ClosedResourceError("this lifecycle() was left; call memory.lifecycle() again")
            if self._ended:
                raise trio.EndOfChannel
            await self._arrived.park()
        return self._events.popleft() if self._events else self._missed_event()

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Stop looking, and drop what is waiting. Readers are woken with `trio.ClosedResourceError`."""
        self._closed = True
        self._events.clear()
        self._missed = 0
        if self in self._lifecycle.watchers:
            self._lifecycle.watchers.remove(self)
        self._arrived.unpark_all()

    async def aclose(self) -> None:
        """As `close`. A checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()


class Watching:
    """The async context manager that `Memory.lifecycle` returns; entering gives the channel."""

    def __init__(self, lifecycle: Lifecycle):
        self._lifecycle = lifecycle
        self._channel: LifecycleChannel | None = None

    async def __aenter__(self) -> LifecycleChannel:
        await checkpoint()
        if get_ident() != self._lifecycle.thread:
            raise wrong_loop()
        if self._channel is not None:
            raise InvalidState("this lifecycle() was entered before; call memory.lifecycle() again")
        if self._lifecycle.closed:
            raise Closed("the memory is closed; open it again to go on")
        self._channel = LifecycleChannel(self._lifecycle)
        self._lifecycle.watchers.append(self._channel)
        return self._channel

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        assert self._channel is not None
        self._channel.close()
        if error is None:
            await trio.lowlevel.checkpoint()
        else:  # what the body raised leaves unchanged
            await trio.lowlevel.cancel_shielded_checkpoint()
