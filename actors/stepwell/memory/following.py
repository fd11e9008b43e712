"""Follow the events of all episodes in log order, as they become durable."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from enum import Enum
from types import TracebackType

import trio

from stepstore.journal import Gap, Journal, Record
from stepwell.errors import Closed, Damaged, EpisodeUnavailable, Forked, InvalidInput
from stepwell.model.codec import decode_record
from stepwell.model.event import Event
from stepwell.model.ids import EPISODE_STREAM
from stepwell.runtime.reading import event_of, first_record

_NAMES_KEPT = 100_000


class Place(Enum):
    """Where to begin following: before the first event, or behind the newest durable one."""

    START = "start"
    NOW = "now"


START, NOW = Place.START, Place.NOW


class Following:
    """The async context manager that `Memory.follow` returns; entering gives the channel of events."""

    def __init__(self, journal: Journal, cursor: object, kinds: object):
        if not isinstance(cursor, str | Place):
            raise InvalidInput(f"cursor: must be START, NOW or the cursor of an event, not {cursor!r}")
        if kinds is not None and (isinstance(kinds, str) or not isinstance(kinds, Collection)):
            raise InvalidInput(f"kinds: must be several kinds of events, not {kinds!r}")
        self._journal, self._cursor = journal, cursor
        self._kinds = None if kinds is None else frozenset(kinds)
        self._slices: AbstractAsyncContextManager[trio.abc.ReceiveChannel[list[Record | Gap]]] | None = None

    async def __aenter__(self) -> EventChannel:
        journal = self._journal
        await journal.catch_up()
        if isinstance(self._cursor, Place):
            after = 0 if self._cursor is START else journal.durable_lsn
        else:
            after = journal.check_cursor(self._cursor)
        self._slices = journal.follow(after)
        return EventChannel(journal, await self._slices.__aenter__(), self._kinds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._slices is not None
        return await self._slices.__aexit__(kind, error, traceback)


class EventChannel(trio.abc.ReceiveChannel[Event | Gap]):
    """Events in log order; ends when the memory is closed."""

    def __init__(
        self, journal: Journal, slices: trio.abc.ReceiveChannel[list[Record | Gap]], kinds: frozenset[str] | None
    ):
        self._journal, self._slices, self._kinds = journal, slices, kinds
        self._names: OrderedDict[bytes, str] = OrderedDict()
        self._ready: deque[Event | Gap] = deque()

    async def receive(self) -> Event | Gap:
        """The next event, or a `Gap`. A checkpoint unless one is ready.

        If cancelled, nothing is skipped. Raises: `trio.EndOfChannel` once the memory is closed, `RecoveryFailed`.
        """
        while not self._ready:
            try:
                found = await self._slices.receive()
            except Closed as error:
                raise trio.EndOfChannel from error
            with trio.CancelScope(shield=True):  # what was taken from the channel must not be lost
                await self._take(found)
        return self._ready.popleft()

    async def _take(self, found: list[Record | Gap]) -> None:
        names, ready, kinds, cursor = self._names, self._ready, self._kinds, self._journal.cursor
        for item in found:
            if isinstance(item, Gap):
                ready.append(item)
                continue
            name = names.get(item.stream)
            if name is None:
                name = await self._name_of(item)
                if name is None:
                    continue
                names[item.stream] = name
                if len(names) > _NAMES_KEPT:
                    names.popitem(last=False)
            try:
                event = event_of(item, name, cursor)
            except EpisodeUnavailable:
                continue  # row 14: a record that cannot be read hurts its own episode only
            if kinds is None or event.kind in kinds:
                ready.append(event)

    async def _name_of(self, record: Record) -> str | None:
        """The id of the episode a record belongs to; "" once it is deleted, None if it belongs to no episode."""
        try:
            if record.seq == 1:
                meta = decode_record(record.payload, "the first record of a stream").meta or {}
                stream, name = meta.get("stream"), meta.get("id")
            else:
                found = await first_record(self._journal, record.stream)
                if found is None:
                    return "" if self._journal.is_deleted(record.stream) else None
                stream, name, _first = found
        except (EpisodeUnavailable, Damaged, Forked):
            return None
        return name if stream == EPISODE_STREAM and isinstance(name, str) else None

    async def aclose(self) -> None:
        """Stop following."""
        await self._slices.aclose()
