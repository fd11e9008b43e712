"""Follow the events of all episodes, threads and scopes in log order, as they become durable."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from enum import Enum
from types import TracebackType

import trio

from stepstore.journal import Gap, Journal, Record
from stepwell.errors import Closed, Damaged, EpisodeUnavailable, Forked, InvalidInput, InvalidState, KeyDestroyed
from stepwell.model import validation as check
from stepwell.model.codec import decode_record
from stepwell.model.event import CLEARED, DELETED, Event
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.streams import OTHER_STREAMS, is_named
from stepwell.runtime.reading import event_of, first_record
from stepwell.runtime.right_loop import checkpoint

_NAMES_KEPT = 100_000
_LAST = (DELETED, CLEARED)


class Place(Enum):
    """Where to begin following: before the first event, or behind the newest durable one."""

    START = "start"
    NOW = "now"


START, NOW = Place.START, Place.NOW


class Following:
    """The async context manager that `Memory.follow` returns; entering gives the channel of events."""

    def __init__(self, journal: Journal, check_open: Callable[[], None], cursor: object, kinds: object):
        if not isinstance(cursor, str | Place):
            raise InvalidInput(f"cursor: must be START, NOW or the cursor of an event, not {check.shown(cursor)}")
        if kinds is not None and (
            isinstance(kinds, str)
            or not isinstance(kinds, Collection)
            or not all(isinstance(kind, str) for kind in kinds)
        ):
            raise InvalidInput(f"kinds: must be several kinds of events as text, not {check.shown(kinds)}")
        self._journal, self._check_open, self._cursor = journal, check_open, cursor
        self._kinds = None if kinds is None else frozenset(kinds)
        self._slices: AbstractAsyncContextManager[trio.abc.ReceiveChannel[list[Record | Gap]]] | None = None
        self._channel: EventChannel | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> EventChannel:
        await checkpoint()
        if self._slices is not None:
            raise InvalidState("this follow(...) was entered before; call memory.follow again")
        self._check_open()
        journal = self._journal
        await journal.catch_up()
        if isinstance(self._cursor, Place):
            after = 0 if self._cursor is START else journal.durable_lsn
        else:
            after = journal.check_cursor(self._cursor)
        self._slices = journal.follow(after)
        self._channel = EventChannel(journal, await self._slices.__aenter__(), self._kinds)
        return self._channel

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._slices is not None
        assert self._channel is not None
        self._channel.closed = True
        return await self._slices.__aexit__(kind, error, traceback)


class EventChannel(trio.abc.ReceiveChannel[Event | Gap]):
    """Events in log order; ends when the memory is closed. For one task at a time."""

    def __init__(
        self, journal: Journal, slices: trio.abc.ReceiveChannel[list[Record | Gap]], kinds: frozenset[str] | None
    ):
        self._journal, self._slices, self._kinds = journal, slices, kinds
        self._names: OrderedDict[bytes, str | None] = OrderedDict()
        self._in_hand: deque[Record | Gap] = deque()
        self._cursor_of = journal.cursor
        self._receiving = False
        self.closed = False

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> Event | Gap:
        """The next event, or a `Gap`. A checkpoint unless one is ready.

        Cancelled or failed, nothing is skipped: the next call gives the same event.
        Raises: `trio.EndOfChannel` once the memory is closed (or its log is lost), `trio.ClosedResourceError`,
        `trio.BusyResourceError` (another task is receiving), `RecoveryFailed`; `Unavailable` or `InvalidInput` if the
        next event is encrypted and its key cannot be had.
        """
        if self.closed or self._receiving:
            await trio.lowlevel.checkpoint()
            if self.closed:
                raise trio.ClosedResourceError("this follow(...) was left; call memory.follow again")
            raise trio.BusyResourceError("another task is receiving; let every task follow by itself")
        self._receiving = True
        in_hand = self._in_hand
        try:
            while True:
                if not in_hand:
                    in_hand.extend(await self._slices.receive())
                event = self._event_of_known(in_hand[0]) or await self._event(in_hand[0])
                in_hand.popleft()
                if event is not None and self._wants(event):
                    return event
        except Closed as error:
            raise trio.EndOfChannel from error
        finally:
            self._receiving = False

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, limit: int) -> list[Event | Gap]:
        """The next events: at least one, and of what else is ready at most so many. Otherwise as `receive`; an error
        that is met behind the first is left to the next call."""
        found = [await self.receive()]
        in_hand = self._in_hand
        while in_hand and len(found) < limit:
            event = self._event_of_known(in_hand[0])
            if event is None:
                break  # there is more to it; `receive` finds out
            in_hand.popleft()
            if self._wants(event):
                found.append(event)
        return found

    def _wants(self, event: Event | Gap) -> bool:
        return self._kinds is None or isinstance(event, Gap) or event.kind in self._kinds

    def _event_of_known(self, item: Record | Gap) -> Event | None:
        """The event of an episode whose name is known, None if there is more to it: most are, and this is faster."""
        if isinstance(item, Gap) or not (name := self._names.get(item.stream)):
            return None
        try:
            event = event_of(item, name, self._cursor_of)
        except EpisodeUnavailable:
            return None
        return event if event.kind not in _LAST else None

    async def _event(self, item: Record | Gap) -> Event | Gap | None:
        """What to give for one item; None for a record of no stream of ours, or of one that was deleted meanwhile.

        A record that cannot be read hurts its own episode only (row 14), and stands there as a `Gap`.
        """
        if isinstance(item, Gap):
            return item
        try:
            if item.stream in self._names:
                name = self._names[item.stream]
            else:
                name = await self._name_of(item)
                if name != "":
                    self._remember(item.stream, name)
            if name is None:
                return None
            event = event_of(item, name, self._journal.cursor)
        except (EpisodeUnavailable, Damaged, Forked):
            return Gap(item.lsn, item.lsn)
        except KeyDestroyed:  # of the first record: the episode was deleted behind this one
            return None
        if event.kind in _LAST:
            self._names.pop(item.stream, None)
        elif not name:
            return None
        return event

    def _remember(self, stream: bytes, name: str | None) -> None:
        self._names[stream] = name
        if len(self._names) > _NAMES_KEPT:
            self._names.popitem(last=False)

    async def _name_of(self, record: Record) -> str | None:
        """The id of what a record belongs to: an episode, thread or scope; "" once it is deleted, None if to none.

        Raises: UNREADABLE, `RecoveryFailed`, `Closed`.
        """
        if record.seq == 1:
            meta = decode_record(record.payload, "the first record of a stream").meta or {}
            kind, name = meta.get("stream"), meta.get("id")
            if kind in OTHER_STREAMS and isinstance(name, str):
                return name if is_named(meta, record.stream) else None
        else:
            found = await first_record(self._journal, record.stream)
            if found is None:
                return "" if self._journal.is_deleted(record.stream) else None
            kind, name, first = found
            if kind in OTHER_STREAMS:
                meta = decode_record(first.payload, "the first record of a stream").meta or {}
                return name if is_named(meta, record.stream) else None
        if kind != EPISODE_STREAM or not isinstance(name, str):
            return None
        if stream_id(EPISODE_STREAM, name) != record.stream:
            raise EpisodeUnavailable(
                f"a stream says that it is that of episode {name!r}, and is another", reason="undecodable"
            )
        return name

    async def aclose(self) -> None:
        """Stop following."""
        self.closed = True
        await self._slices.aclose()
